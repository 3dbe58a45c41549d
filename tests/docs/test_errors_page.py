"""The page of error messages quotes messages that the code contains."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUOTED = re.compile(r"^#### `(.+)`$", re.MULTILINE)
HOLE = "\0"


def test_every_quoted_message_is_in_the_code():
    messages = list(_messages())
    quoted = QUOTED.findall((ROOT / "docs/reference/errors-and-remedies.md").read_text())
    assert len(quoted) > 100
    missing = [text for text in quoted if not _is_quoted(text, messages)]
    assert missing == [], "adapt docs/reference/errors-and-remedies.md to the new messages"


def _is_quoted(text, messages):
    """The pieces of a quotation between its dots stand in one message, in order."""
    pieces = (re.escape(piece.strip()) for piece in text.split("..."))
    pattern = re.compile(".*".join(piece for piece in pieces if piece), re.DOTALL)
    return any(pattern.search(message) for message in messages)


def _messages():
    """Every string of the package, with a hole for each value that is filled in."""
    for path in (ROOT / "vlmcollate").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp):
                yield _text(node)


def _text(node):
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(map(_text, values))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left) + _text(right)
    return HOLE
