"""What is done about fields of an example that nothing reads."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Set
from typing import Any, Literal

from vlmcollate.errors import ConversationError, UnreadKeyWarning, stack_level
from vlmcollate.formats.fields import is_filler
from vlmcollate.formats.media_options import SPELLINGS as OPTIONS
from vlmcollate.formats.trainable import (
    find_trainable,
    is_conversation,
    is_mask,
    is_mask_key,
    is_media,
    is_media_key,
)
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

OBJECTS = "objects"
"""The column of the boxes of a grounding task."""
_TOOLS = {"tools", "functions", "tool_choice", "available_tools", "function_definitions", "apis"}
_SYSTEM = {"system", "system_prompt", "system_message", "sys_prompt", "instructions"}


def report_unread(
    unread: Mapping[str, Any], policy: UnreadPolicy, *, settled: Set[str] = frozenset()
) -> None:
    """Refuses, or warns of, the fields that were not read.

    Args:
        unread: The fields by their path.
        policy: `"auto"` refuses what would be trained on, and warns of the rest; `"raise"`,
            `"warn"` and `"allow"` treat all fields alike.
        settled: The fields that `"auto"` only warns of, since a stated format chose others.

    Raises:
        ConversationError: A field must not be ignored.
    """
    if policy == "allow":
        return
    for path, value in unread.items():
        key = path.rpartition(".")[2]
        if is_media_key(key) and is_filler(value):
            continue
        reason = _reason(key, value) if policy == "auto" and path not in settled else ""
        if reason or policy == "raise":
            found = f"which {reason}: {describe(unwrap(value))}" if reason else describe(value)
            raise ConversationError(
                f"nothing reads the key {key!r}, {found}; rename or remove it, name the format of "
                'the dataset, or set on_unread="warn"',
                where=path,
            )
        where = path.partition(".")[0] if "." in path and "[" not in path else "messages"
        where = where if "." in path else "the examples"
        warnings.warn(
            f"nothing reads the key {key!r} of {where}; remove it, or set on_unread",
            UnreadKeyWarning,
            stacklevel=stack_level(),
        )


def _reason(key: str, value: Any) -> str:
    """Why a field may not be ignored, or an empty string."""
    if is_media(value) or is_media_key(key):
        return "holds media"
    if key in OPTIONS:
        return "is an option of a media item; put it into the part of that item"
    if key == OBJECTS:
        return "holds objects of a grounding task, whose boxes the text has to spell"
    if is_conversation(value):
        return "holds messages"
    if key == "chat_template_kwargs":
        return "holds variables of a chat template, which writes no plain text"
    if key in _TOOLS:
        return "holds tools"
    if key in _SYSTEM:
        return "holds a system prompt"
    if is_mask_key(key) or is_mask(key, value):
        return "holds a mask"
    inside = next(find_trainable(value, key), None)
    return f"holds media, messages or a mask at {inside[0]!r}" if inside else ""
