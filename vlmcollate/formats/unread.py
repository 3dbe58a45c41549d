"""What is done about fields of an example that nothing reads."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from vlmcollate.errors import ConversationError, UnreadKeyWarning, stack_level
from vlmcollate.formats.media_options import SPELLINGS as OPTIONS
from vlmcollate.formats.weights import SPELLINGS
from vlmcollate.plain_values import describe, unwrap

UnreadPolicy = Literal["auto", "raise", "warn", "allow"]

METADATA = frozenset(
    {
        *("id", "ids", "uid", "uuid", "guid", "key", "idx", "index", "row", "row_id", "sample_id"),
        *("example_id", "item_id", "prompt_id", "conversation_id", "session_id", "question_id"),
        *("image_id", "video_id", "audio_id", "message_id", "turn_id", "original_id", "doc_id"),
        *("source", "sources", "data_source", "origin", "dataset", "dataset_name", "subset"),
        *("split", "config", "task", "task_type", "category", "subcategory", "domain", "topic"),
        *("metadata", "meta", "meta_data", "extra", "extra_info", "info", "annotations"),
        *("lang", "language", "license", "version", "hash", "md5", "sha256", "timestamp"),
        *("created", "created_at", "date", "time", "author", "user_id", "url", "cache_control"),
        *("__index_level_0__", "__key__", "__url__", "__local_path__", "detail", "format"),
        *("num_turns", "num_tokens", "length", "width", "height", "n_tokens", "token_count"),
        *("file_name", "filename", "fname", "tool_call_id"),
    }
)
"""Keys that describe an example and are not to be trained on."""

_TOOLS = {"tools", "functions", "tool_choice", "available_tools", "function_definitions", "apis"}
_SYSTEM = {"system", "system_prompt", "system_message", "sys_prompt", "instructions"}
_MASKS = re.compile(r"\w*_?(mask|masks|weights?)|labels|train_detail|" + "|".join(SPELLINGS))
_MEDIA_WORDS = "image", "img", "picture", "photo", "video", "audio", "sound", "frame", "speech"
_MEDIA = re.compile(
    rf"({'|'.join(_MEDIA_WORDS)})s?"
    r"(_?\d+|_(path|url|uri|file|byte|base64|b64|data|list|array)s?)?",
    re.IGNORECASE,
)
_MESSAGE_KEYS = ({"role", "content"}, {"from", "value"})


def report_unread(unread: Mapping[str, Any], policy: UnreadPolicy) -> None:
    """Refuses, or warns of, the fields that were not read.

    Args:
        unread: The fields by their path.
        policy: `"auto"` refuses what would be trained on, and warns of the rest; `"raise"`,
            `"warn"` and `"allow"` treat all fields alike.

    Raises:
        ConversationError: A field must not be ignored.
    """
    if policy == "allow":
        return
    for path, value in unread.items():
        key = path.rpartition(".")[2]
        reason = _reason(key, value) if policy == "auto" else ""
        if reason or policy == "raise":
            found = f"which {reason}: {describe(unwrap(value))}" if reason else describe(value)
            raise ConversationError(
                f"nothing reads the key {key!r}, {found}; rename or remove it, name the format of "
                'the dataset, or set on_unread="warn"',
                where=path,
            )
        where = "the examples" if "." not in path else "messages"
        warnings.warn(
            f"nothing reads the key {key!r} of {where}; remove it, or set on_unread",
            UnreadKeyWarning,
            stacklevel=stack_level(),
        )


def is_media_key(key: str) -> bool:
    """Returns whether the name of a field is that of media."""
    return _MEDIA.fullmatch(key) is not None


def holds_mask(key: str) -> bool:
    """Returns whether the name of a field is that of a mask."""
    return _MASKS.fullmatch(key) is not None


def _reason(key: str, value: Any) -> str:
    """Why a field may not be ignored, or an empty string."""
    if _is_media(value) or is_media_key(key):
        return "holds media"
    if key in OPTIONS:
        return "is an option of a media item; put it into the part of that item"
    if key == "objects":
        return "holds objects of a grounding task, whose boxes the text has to spell"
    if _is_conversation(value):
        return "holds messages"
    if key in _TOOLS:
        return "holds tools"
    if key in _SYSTEM:
        return "holds a system prompt"
    return "holds a mask" if holds_mask(key) else ""


def _is_media(value: Any) -> bool:
    if isinstance(value, Image.Image | bytes | bytearray):
        return True
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.ndim >= 2 and getattr(value.dtype, "kind", "f") != "O"
    value = unwrap(value)
    if isinstance(value, list | tuple):
        return bool(value) and _is_media(value[0])
    return isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes)


def _is_conversation(value: Any) -> bool:
    value = unwrap(value)
    first = unwrap(value[0]) if isinstance(value, list | tuple) and value else value
    return isinstance(first, Mapping) and any(keys <= first.keys() for keys in _MESSAGE_KEYS)
