"""A few conversations about shapes, in place of your dataset."""

from __future__ import annotations

from typing import Any

from PIL import Image

COLOURS = ("red", "blue", "green", "purple")


def chats(number: int = 16) -> list[dict[str, Any]]:
    """Questions about one-coloured pictures of several sizes."""
    return [
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "image": Image.new("RGB", (56 + 28 * (i % 3), 56), colour),
                        },
                        {"type": "text", "text": "What colour is it?"},
                    ],
                },
                {"role": "assistant", "content": f"It is {colour}." + " Yes." * (i % 5)},
            ]
        }
        for i in range(number)
        for colour in [COLOURS[i % len(COLOURS)]]
    ]
