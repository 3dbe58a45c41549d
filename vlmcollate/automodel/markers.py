"""Finds the markers around assistant turns, and labels the tokens between them.

Shapes: B rows, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vlmcollate.errors import ConfigError, LabelError
from vlmcollate.sample import IGNORE_INDEX

_IMSTART_TEMPLATE_PROCESSORS = frozenset(
    {
        "Qwen2VLProcessor",
        "Qwen2_5_VLProcessor",
        "Qwen2_5OmniProcessor",
        "Qwen3VLProcessor",
        "Qwen3VLMoeProcessor",
        "Qwen3OmniMoeProcessor",
    }
)
"""The processor classes whose turns start with `<|im_start|>` and end with `<|im_end|>`."""
_SENTINEL = "XSENTINELMARKERX"


def _find_pattern_indices(
    template: Tensor | Sequence[int],
    pattern: Tensor | Sequence[int],
    search_start_index: int = 0,
    allow_first_token_mismatch: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
) -> tuple[int, int]:
    """Finds the first occurrence of a pattern, as (start, end), or (-1, -1)."""
    ids, wanted = torch.as_tensor(template), torch.as_tensor(pattern)
    size, skip = len(wanted), int(allow_first_token_mismatch)
    if not size or len(ids) - search_start_index < size:
        return -1, -1
    windows = ids[search_start_index:].unfold(0, size, 1)
    matches = (windows[:, skip:] == wanted[skip:]).all(dim=1).nonzero()
    if not len(matches):
        return -1, -1
    start = search_start_index + int(matches[0])
    return start, start + size


def _decode_single_token(tokenizer: Any, token_id: int) -> str:
    """Decodes one token from an id, a list of ids, or a tensor.

    Raises:
        ConfigError: The tokenizer accepts none of them.
    """
    forms = (token_id, [token_id], torch.tensor([token_id]))
    last: Exception | None = None
    for form in forms:
        try:
            text = tokenizer.decode(form)
        except Exception as error:  # noqa: BLE001  # remote code may raise anything for a form
            last = error
        else:
            return text if isinstance(text, str) else "".join(text)
    raise ConfigError(
        f"token {token_id} cannot be decoded: {type(tokenizer).__name__}.decode raised {last!r}, "
        "expected it to accept an id, a list or a tensor; pass the model's own tokenizer"
    ) from last


def _known_id(tokenizer: Any, token: str) -> int | None:
    """Returns the id of a token, or `None` if the vocabulary does not have it."""
    found = tokenizer.convert_tokens_to_ids(token)
    unknown = found is None or found == getattr(tokenizer, "unk_token_id", None)
    return None if unknown else int(found)


def _get_assistant_marker(tokenizer: Any) -> list[int] | None:
    """Returns the ids of `<|im_start|>assistant` and a newline, or `None`."""
    start = _known_id(tokenizer, "<|im_start|>")
    if start is None:
        return None
    return [start, *tokenizer.encode("assistant\n", add_special_tokens=False)]


def _get_stop_token_id(tokenizer: Any) -> int | None:
    """Returns the id of `<|im_end|>`, or `None`."""
    return _known_id(tokenizer, "<|im_end|>")


def _derive_turn_markers(tokenizer: Any) -> tuple[list[int], int]:
    """Derives the header and stop token of answers from the template.

    Args:
        tokenizer: A tokenizer with a chat template.

    Returns:
        The ids of the header, and the id of the stop token.

    Raises:
        ConfigError: The template does not write an answer between a header and a token.
    """
    question = {"role": "user", "content": "u"}
    answer = {"role": "assistant", "content": _SENTINEL}
    before, both = (
        tokenizer.apply_chat_template(
            chat, tokenize=True, add_generation_prompt=False, return_dict=False
        )
        for chat in ([question], [question, answer])
    )
    start, end = _find_pattern_indices(both, tokenizer.encode(_SENTINEL, add_special_tokens=False))
    if start <= len(before) or end >= len(both) or both[: len(before)] != before:
        raise ConfigError(
            "the chat template writes no markers around an answer: found "
            f"{tokenizer.decode(both)!r} for {_SENTINEL!r}, expected a header before it and a "
            "token after it; label with build_labels, or collate from the conversation"
        )
    return both[len(before) : start], both[end]


def _build_labels_from_markers(
    input_ids_batch: Tensor, assistant_marker: Sequence[int], stop_id: int
) -> Tensor:
    """Labels the tokens from each marker to the next stop token.

    Args:
        input_ids_batch: The token ids, (B, T) int64.
        assistant_marker: The ids of the header of an assistant turn.
        stop_id: The id of the stop token.

    Returns:
        The labels, (B, T) int64, not shifted, -100 outside the turns.

    Raises:
        ConfigError: The marker is empty.
        LabelError: A turn has no stop token, so its end is unknown.
    """
    if not len(assistant_marker):
        raise ConfigError(
            "assistant_marker is empty: expected at least one id; pass that of _derive_turn_markers"
        )
    labels = torch.full_like(input_ids_batch, IGNORE_INDEX)
    for row, (ids, target) in enumerate(zip(input_ids_batch, labels, strict=True)):
        start = _find_pattern_indices(ids, assistant_marker)[1]
        while start >= 0:
            stops = (ids[start:] == stop_id).nonzero()
            if not len(stops):
                raise LabelError(
                    f"the turn at token {start} has no end: expected a stop token with the id "
                    f"{stop_id}; keep the row whole, or label it before truncation",
                    index=row,
                )
            end = start + int(stops[0]) + 1
            target[start:end] = ids[start:end]
            start = _find_pattern_indices(ids, assistant_marker, end)[1]
    return labels
