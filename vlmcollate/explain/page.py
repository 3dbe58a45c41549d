"""A self-contained HTML page of explanations.

The page contains its data as JSON, from which a script creates text nodes, so no text of a user
becomes markup. The page's own policy forbids network access.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from vlmcollate.explain.explanation import Explanation
from vlmcollate.explain.media_items import MediaItem
from vlmcollate.explain.tokens import CLASSES, DIFFERENCES, MEANINGS
from vlmcollate.media import Video

_THUMBNAIL = (144, 108)
_FRAMES = 4
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page_entry(explanation: Explanation) -> dict[str, Any]:
    """Returns one sample as data for the page's script.

    Args:
        explanation: The result of `collator.explain`.

    Returns:
        Plain values: blocks of runs, each with the ids, texts and offsets of its tokens; media runs
        and padding with only the number of tokens.
    """
    summary = explanation.summary
    return {
        "blocks": _blocks(explanation),
        "media": [_media(item) for item in explanation.media],
        "counts": [summary["by_class"][kind] for kind in CLASSES],
        "roles": {
            role: [found["tokens"], found["trained"]] for role, found in summary["by_role"].items()
        },
        "tokens": summary["tokens"],
        "warnings": list(explanation.warnings),
        "strategy": summary["label_strategy"],
        "format": explanation.format,
        "ms": {stage: round(1e3 * s, 1) for stage, s in explanation.seconds.items()},
        "made_by": f"{explanation.collator} with {explanation.processor}",
    }


def inspect_page(
    entries: Sequence[Mapping[str, Any]],
    *,
    name: str,
    notes: Sequence[str] = (),
    diff: str = "",
) -> str:
    """Returns the page of many samples.

    Args:
        entries: For each sample, the result of `page_entry` and a `title`; or a `title` and an
            `error`; or, before the samples of a pack, its `title`, `documents` (their lengths) and
            `room`.
        name: The name of the samples in the page's title.
        notes: What to know about several samples, each once.
        diff: The strategy to compare with, or "".

    Returns:
        The HTML.
    """
    data = {
        "entries": entries,
        "notes": notes,
        "classes": CLASSES,
        "meanings": [MEANINGS[kind] for kind in CLASSES],
        "differences": DIFFERENCES,
        "diff": diff,
    }
    body = f'<div id="app"></div>{_json_script(data)}<script>{_asset("page.js")}</script>'
    return document(f"{name} - vlmcollate inspect", body)


def document(title: str, body: str) -> str:
    """Returns a whole HTML document that makes no requests.

    Args:
        title: Its title, as plain text.
        body: Its markup.
    """
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>'
        f"<style>{_asset('page.css')}</style></head><body>{body}"
        f"<script>{_asset('theme.js')}</script></body></html>\n"
    )


def _json_script(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")  # so that nothing in it can end the script
    return f'<script type="application/json" id="data">{text}</script>'


def _asset(name: str) -> str:
    return files("vlmcollate.explain").joinpath(name).read_text("utf-8")


def _blocks(explanation: Explanation) -> list[dict[str, Any]]:
    ids = explanation.sample.input_ids.tolist()
    offsets = explanation.offsets.tolist()
    blocks = []
    for block in explanation.blocks:
        runs = []
        for run in explanation.runs:
            start, end = max(run.start, block.start), min(run.end, block.end)
            if start >= end:
                continue
            found: dict[str, Any] = {"k": CLASSES.index(run.kind), "s": start, "n": end - start}
            if run.difference:
                found["d"] = DIFFERENCES.index(run.difference)
            if run.kind == "media":
                found["m"] = run.media
            elif run.kind != "padding":
                found |= {
                    "i": ids[start:end],
                    "t": list(explanation.texts[start:end]),
                    "o": offsets[start:end],
                }
            runs.append(found)
        blocks.append({"role": block.role, "message": block.message, "runs": runs})
    return blocks


def _media(item: MediaItem) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "size": item.size,
        "tokens": item.tokens,
        "thumb": thumbnail(item.content),
    }


def thumbnail(content: Any) -> str:
    """Returns a small image of a media item as a data URI, or "" for audio.

    Args:
        content: A PIL image, a `Video` or audio.
    """
    if isinstance(content, Video):
        count = len(content.frames)
        places = np.linspace(0, count - 1, min(count, _FRAMES)).round().astype(int)
        frames = [Image.fromarray(content.frames[i]) for i in places]
        small = [_small(frame) for frame in frames]
        width = sum(frame.width for frame in small) + 2 * (len(small) - 1)
        image = Image.new("RGB", (width, small[0].height), "white")
        at = 0
        for frame in small:
            image.paste(frame, (at, 0))
            at += frame.width + 2
    elif isinstance(content, Image.Image):
        image = _small(content)
    else:
        return ""
    data = io.BytesIO()
    image.save(data, "WEBP", quality=60)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"


def _small(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail(_THUMBNAIL)
    return small
