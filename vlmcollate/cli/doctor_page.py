"""What a chat template does, as an HTML page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from vlmcollate.cli.diagnosis import Diagnosis, Finding
from vlmcollate.cli.diagnosis_values import Fact
from vlmcollate.explain.mask_text import visible
from vlmcollate.explain.page import document
from vlmcollate.explain.tokens import CLASSES, MEANINGS, TokenClass

_LEVELS = {"fine": "as expected", "choice": "worth a choice", "loss": "lost or refused"}
_CODE = re.compile(r"[a-z_]+=(?:\[[^\]]*\]|\{[^}]*\}|\"[^\"]*\"|True)|'(?:[^'\\]|\\.)+'")
_SHOWN: tuple[TokenClass, ...] = ("trained", "message", "template", "media")


def doctor_page(diagnosis: Diagnosis, *, name: str) -> str:
    """Builds one HTML page that needs no network.

    Args:
        diagnosis: What the chat template does.
        name: The name of the processor in the page's title.
    """
    tiles = "".join(
        f"<div><b>{html.escape(value)}</b><span>{label}</span></div>"
        for value, label in _tiles(diagnosis)
    )
    facts = "".join(map(_fact, diagnosis.facts))
    chats = "".join(map(_chat, diagnosis.findings))
    body = (
        f"<header><h1>vlmcollate doctor<small>{html.escape(name)}</small></h1>"
        '<button id="theme" type="button"></button></header>'
        '<div class="layout" style="grid-template-columns:minmax(0,1fr)"><main>'
        f'<section class="card"><div class="tiles">{tiles}</div>'
        f'<dl class="facts">{facts}</dl></section>'
        f'<section class="card">{_legend()}</section>{chats}</main></div>'
    )
    return document(f"{name} - vlmcollate doctor", body)


def _tiles(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    """Yields the values on top of the page with their labels."""
    chats = {finding.chat for finding in diagnosis.findings}
    refused = {finding.chat for finding in diagnosis.findings if not finding.is_exact}
    yield f"{len(chats - refused)} of {len(chats)}", "kinds of chat with exact labels"
    yield str(sum(fact.level != "fine" for fact in diagnosis.facts)), "things to know"
    yield diagnosis.processor, f"with {html.escape(diagnosis.collator)}"


def _fact(fact: Fact) -> str:
    level = _LEVELS[fact.level]
    remedy = f'<p class="remedy">{_with_code(fact.remedy)}</p>' if fact.remedy else ""
    return (
        f'<div class="fact {fact.level}"><dt><i role="img" aria-label="{level}" title="{level}">'
        f"</i>{html.escape(fact.topic)}</dt><dd>{_with_code(fact.text)}{remedy}</dd></div>"
    )


def _with_code(text: str) -> str:
    """Returns a text as markup, with options and quoted tokens as code."""
    pieces, done = [], 0
    for match in _CODE.finditer(text):
        pieces += [html.escape(text[done : match.start()])]
        pieces += [f"<code>{html.escape(match.group())}</code>"]
        done = match.end()
    return "".join([*pieces, html.escape(text[done:])])


def _legend() -> str:
    entries = "".join(
        f'<li><i class="dot k{CLASSES.index(kind)}"></i>{html.escape(MEANINGS[kind])}</li>'
        for kind in _SHOWN
    )
    return f'<h2>Kinds of chat</h2><ul class="legend">{entries}</ul>'


def _chat(finding: Finding) -> str:
    title = f"<h3>{html.escape(finding.title)}</h3>"
    if not finding.is_exact:
        return (
            f'<article class="card failed"><div class="title">{title}'
            f'<span class="meta">refused</span></div><p>{html.escape(finding.notes[0])}</p>'
            "</article>"
        )
    runs = "".join(
        f'<span class="k{CLASSES.index(kind)}">{html.escape(_text(kind, text))}</span>'
        for kind, text in finding.runs
    )
    notes = "".join(f"<li>{_with_code(note)}</li>" for note in finding.notes)
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    return (
        f'<article class="card"><div class="title">{title}<span class="meta">exact labels</span>'
        f'</div><pre class="text">{runs}</pre>{notes}</article>'
    )


def _text(kind: str, text: str) -> str:
    return text.strip("<>") if kind == "media" else visible(text)
