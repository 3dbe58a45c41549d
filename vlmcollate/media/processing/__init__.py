"""Calling a processor for decoded media."""
