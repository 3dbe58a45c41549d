"""Conversations for the tests of the commands."""

from __future__ import annotations


def chat(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
