"""One form for every shape of example that people pass.

`Conversation.from_example` reads what datasets hold and normalises it once, into messages of typed
parts. Everything behind it sees only this form, and the caller's objects are never written to.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch
from transformers.utils import chat_template_utils

from vlmcollate.errors import ConversationError
from vlmcollate.plain_values import (
    describe,
    fields_of,
    is_missing,
    plain,
    plain_source,
    plain_text,
    show,
    show_all,
    unwrap,
)

MediaKind = Literal["image", "video", "audio"]

_MESSAGE_KEYS = ("messages", "conversation")
_SOURCE_KEYS: dict[MediaKind, tuple[str, ...]] = {
    "image": ("image", "image_url", "path", "url", "base64", "bytes"),
    "video": ("video", "video_url", "path", "url", "base64", "bytes"),
    "audio": ("audio", "audio_url", "path", "url", "base64", "bytes", "array"),
}
_KIND_OF_TYPE: dict[str, MediaKind] = {
    spelling: kind
    for kind in _SOURCE_KEYS
    for spelling in (kind, f"{kind}_url")  # as the type of a part, and as a key without a type
}
_STACKED_AXES: dict[MediaKind, int] = {"image": 4, "video": 5, "audio": 2}  # of one array of many
_NUMBERS = frozenset({"weight", "fps", "sampling_rate", "channel_axis"})
_LEAST_WEIGHT = float(np.finfo(np.float32).tiny)  # smaller ones lose digits, then become 0
_MOST_WEIGHT = float(np.finfo(np.float32).max)
_FOR_CALLS = frozenset({"tool_calls", "function_call", "tools", "functions"})
_NO_SCHEMA = (
    # what making a JSON schema of a function raises
    chat_template_utils.DocstringParsingException,
    chat_template_utils.TypeHintParsingException,
    AttributeError,
    LookupError,
    NameError,  # of a type hint
    SyntaxError,
    TypeError,
    ValueError,
)
_ROLE = re.compile(r"[A-Za-z][\w \-]*")


@attrs.frozen
class TextPart:
    """A piece of text inside a message."""

    text: str


@attrs.frozen(eq=False)
class MediaPart:
    """A picture, a video or a sound inside a message.

    Attributes:
        kind: What it is.
        source: The media as the caller passed it: an object, a path, bytes, a URI.
        where: Its path in the example, such as `messages[0].content[1]`.
    """

    kind: MediaKind
    source: Any
    where: str


Part = TextPart | MediaPart


@attrs.frozen(kw_only=True)
class Message:
    """One message.

    Attributes:
        role: Who speaks, as the chat template spells it.
        content: The parts in order; empty where the message only calls tools.
        weight: What its tokens count in the loss; 0 trains nothing.
        extra: Further keys for the template: `tool_calls`, `reasoning_content`, `name` and so on.
    """

    role: str
    content: tuple[Part, ...]
    weight: float = 1.0
    extra: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def is_assistant(self) -> bool:
        """Whether the model has to learn to produce this message."""
        return self.role == "assistant"


@attrs.frozen(kw_only=True)
class Conversation:
    """A conversation in the library's one form.

    Attributes:
        messages: The messages in order.
        tools: Tool schemas for the template, or `None`.
        template_kwargs: Further variables for the template.
    """

    messages: tuple[Message, ...]
    tools: list[Any] | None = None
    template_kwargs: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def media(self) -> Iterator[tuple[int, MediaPart]]:
        """Every media part with the index of its message, in order."""
        for index, message in enumerate(self.messages):
            for part in message.content:
                if isinstance(part, MediaPart):
                    yield index, part

    @classmethod
    def from_example(cls, example: object) -> Conversation:
        """Reads one example.

        Args:
            example: `{"messages": [...]}`, `{"conversation": [...]}`, a bare list of messages,
                `{"prompt": ..., "completion": ...}` (of which only the completion trains), each
                with an optional `"images"` / `"videos"` / `"audios"` list that fills the empty
                media parts in order, `"tools"`, and `"chat_template_kwargs"`. A message is
                `{"role": ..., "content": ...}` with content as a string or a list of parts, and
                optionally `"train": bool` or `"weight": float` (0, or a normal number of float32).
                A tool is a JSON schema, or a function with type hints and a docstring, of which
                `transformers.utils.get_json_schema` makes one.
                Keys whose value is `None` count as absent, as Arrow fills them, also inside tools
                and tool calls. Arrays, Series and scalars of NumPy, pandas, Arrow and PyTorch count
                as the lists and values that they hold, and their missing values as `None`.

        Returns:
            The conversation. It refers to the caller's media objects and to nothing else.

        Raises:
            ConversationError: The example is none of these; the message names the path.

        Example:
            >>> Conversation.from_example([{"role": "user", "content": "Hi"}]).messages[0].content
            (TextPart(text='Hi'),)
        """
        row = unwrap(example)
        fields = _present(row) if isinstance(row, Mapping) else {"messages": row}
        fill = _MediaFill(fields)
        messages = _read_all(fields, fill)
        fill.finish()
        variables = plain(fields.get("chat_template_kwargs", {}), "chat_template_kwargs")
        if not isinstance(variables, Mapping):
            raise ConversationError(
                f"expected a dict of template variables, found {describe(variables)}",
                where="chat_template_kwargs",
            )
        tools = _read_tools(fields["tools"]) if "tools" in fields else None
        return cls(messages=messages, tools=tools or None, template_kwargs=variables)


@attrs.define
class _MediaFill:
    """Hands the media of an example's `images` list to its empty image parts, in order."""

    fields: Mapping[str, Any]
    _used: dict[str, int] = attrs.field(factory=dict)

    def take(self, kind: MediaKind, where: str) -> Any:
        key = f"{kind}s"
        if key not in self.fields:
            raise ConversationError(
                f"this {kind} part names no {kind}; put one under {kind!r}, or a list of "
                f"them under {key!r} in the example",
                where=where,
            )
        sources, used = self._sources(kind), self._used.get(key, 0)
        if used >= len(sources):
            raise ConversationError(
                f"no {kind} is left for this part: {key!r} holds {len(sources)}", where=where
            )
        self._used[key] = used + 1
        return sources[used]

    def _sources(self, kind: MediaKind) -> list[Any]:
        key = f"{kind}s"
        value = self.fields[key]
        is_array = isinstance(value, np.ndarray) and value.dtype.kind != "O"
        if not is_array and not isinstance(value, torch.Tensor):
            return _as_list(value, key)
        if value.ndim < _STACKED_AXES[kind]:
            raise ConversationError(
                f"expected a list, found one array of shape {tuple(value.shape)}; put it in a list",
                where=key,
            )
        return list(value)  # how datasets with a format hold media of one size

    def finish(self) -> None:
        for kind in _SOURCE_KEYS:
            key = f"{kind}s"
            held = len(self._sources(kind)) if key in self.fields else 0
            used = self._used.get(key, 0)
            if held != used:
                raise ConversationError(
                    f"{held} given, but the messages hold {used} empty {kind} part(s) to fill; add "
                    f'{{"type": "{kind}"}} parts to the content where they belong',
                    where=key,
                )


def _read_all(fields: Mapping[str, Any], fill: _MediaFill) -> tuple[Message, ...]:
    for key in _MESSAGE_KEYS:
        if key in fields:
            return _read_messages(fields[key], "messages", fill)
    if "prompt" in fields and "completion" in fields:
        prompt = _read_messages(_as_turn(fields["prompt"], "user"), "prompt", fill)
        answer = _read_messages(_as_turn(fields["completion"], "assistant"), "completion", fill)
        return (*(attrs.evolve(message, weight=0.0) for message in prompt), *answer)
    raise ConversationError(
        "not a conversation: expected a list of messages, or a dict with 'messages', "
        f"'conversation' or 'prompt' and 'completion'; found a dict with {show_all(fields)}"
    )


def _read_tools(value: object) -> list[Any]:
    return [_read_tool(tool, f"tools[{i}]") for i, tool in enumerate(_as_list(value, "tools"))]


def _read_tool(value: object, where: str) -> Mapping[str, Any]:
    if inspect.isfunction(value) or inspect.ismethod(value):
        tool = _schema_of(value, where)
    else:
        tool = fields_of(unwrap(value))
    if not isinstance(tool, Mapping):
        raise ConversationError(
            f"expected a JSON schema or a function, found {describe(tool)}", where=where
        )
    read: Mapping[str, Any] = plain(tool, where)
    function = read.get("function", {})
    if not isinstance(function, Mapping):
        raise ConversationError(
            f"expected a dict with 'name', found {describe(function)}", where=f"{where}.function"
        )
    return read


def _schema_of(function: Callable[..., Any], where: str) -> Mapping[str, Any]:
    """The JSON schema of a function, made here so that its words are followed like a dict's."""
    try:
        schema: Mapping[str, Any] = chat_template_utils.get_json_schema(function)
    except _NO_SCHEMA as error:
        raise ConversationError(
            f"no JSON schema can be made of {show(function)}: {error}; give its "
            "arguments type hints and descriptions under 'Args:' in its docstring, or pass the "
            "schema as a dict",
            where=where,
        ) from error
    return schema


def _as_turn(value: object, role: str) -> object:
    value = unwrap(value)
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def _read_messages(value: object, where: str, fill: _MediaFill) -> tuple[Message, ...]:
    items = _as_list(value, where)
    if not items:
        raise ConversationError("expected at least one message, found none", where=where)
    return tuple(_read_message(item, f"{where}[{i}]", fill) for i, item in enumerate(items))


def _read_message(value: object, where: str, fill: _MediaFill) -> Message:
    value = unwrap(value)
    if not isinstance(value, Mapping):
        raise ConversationError(
            'expected a message such as {"role": "user", "content": ...}, found '
            f"{describe(value)}",
            where=where,
        )
    fields = _present(value)
    odd = [key for key in fields if not isinstance(key, str)]
    if odd:
        raise ConversationError(f"has keys that are no strings: {show_all(odd)}", where=where)
    role = unwrap(fields.pop("role", None))
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise ConversationError(
            f"expected a role such as 'user' or 'assistant', found {describe(role)}",
            where=f"{where}.role",
        )
    weight = _read_weight(fields, role, where)
    content = unwrap(fields.pop("content", None))
    if content is None and not fields:
        raise ConversationError("the message has no content", where=f"{where}.content")
    if content is None or (isinstance(content, str) and not content and "tool_calls" in fields):
        content = []  # templates ask whether there is any content beside the calls
    parts = _read_content(content, f"{where}.content", fill)
    extra = {
        key: plain(item, f"{where}.{key}", allow_dates=key not in _FOR_CALLS)
        for key, item in fields.items()
    }
    return Message(role=role, content=parts, weight=weight, extra=extra)


def _read_weight(fields: dict[str, Any], role: str, where: str) -> float:
    train, weight = unwrap(fields.pop("train", None)), unwrap(fields.pop("weight", None))
    if train is not None and not isinstance(train, bool):
        raise ConversationError(f"expected a bool, found {describe(train)}", where=f"{where}.train")
    if weight is None:
        weight = 1.0 if train is None else float(train)
    elif train is not None:
        raise ConversationError("has both 'train' and 'weight'; keep one", where=where)
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or (weight != 0 and not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT):
        raise ConversationError(
            "expected a finite weight of at least 0 that float32 holds (0, or "
            f"{_LEAST_WEIGHT:.3g} to {_MOST_WEIGHT:.3g}), found {show(weight)}",
            where=f"{where}.weight",
        )
    if role != "assistant" and train:
        raise ConversationError(
            f"only assistant messages train, this is a {role!r} message", where=f"{where}.train"
        )
    return float(weight)


def _read_content(value: object, where: str, fill: _MediaFill) -> tuple[Part, ...]:
    if isinstance(value, str):
        return (TextPart(plain_text(value, where)),)
    items = [value] if isinstance(value, Mapping) else _as_list(value, where)
    return tuple(_read_part(item, f"{where}[{i}]", fill) for i, item in enumerate(items))


def _read_part(value: object, where: str, fill: _MediaFill) -> Part:
    value = unwrap(value)
    if isinstance(value, str):
        return TextPart(plain_text(value, where))
    if not isinstance(value, Mapping):
        raise ConversationError(
            f'expected a part such as {{"type": "text", "text": ...}}, found {describe(value)}',
            where=where,
        )
    fields = _present(value)
    kind = _kind_of(fields, where)
    if kind == "text":
        text = unwrap(fields.pop("text", None))
        if not isinstance(text, str):
            raise ConversationError(
                f"expected a string, found {describe(text)}", where=f"{where}.text"
            )
        part: Part = TextPart(plain_text(text, where))
    else:
        part = MediaPart(
            kind, _with_rate(_source_of(fields, kind, where, fill), kind, fields), where
        )
    if fields:
        raise ConversationError(
            f"has keys that nothing would read: {show_all(fields)}; remove them (sizes and limits "
            "belong to the processor)",
            where=where,
        )
    return part


def _kind_of(fields: dict[str, Any], where: str) -> Literal["text"] | MediaKind:
    kind = unwrap(fields.pop("type", None))
    if kind is None:
        named = [key for key in ("text", *_KIND_OF_TYPE) if key in fields]
        kind = named[0] if len(named) == 1 else None
    if kind == "text":
        return "text"
    if isinstance(kind, str) and kind in _KIND_OF_TYPE:
        return _KIND_OF_TYPE[kind]
    raise ConversationError(
        f"expected a part of type 'text', 'image', 'video' or 'audio', found {describe(kind)} "
        f"with keys {show_all(fields)}",
        where=where,
    )


def _source_of(fields: dict[str, Any], kind: MediaKind, where: str, fill: _MediaFill) -> Any:
    given = [key for key in _SOURCE_KEYS[kind] if key in fields]
    if not given:
        return plain_source(fill.take(kind, where), where)
    if set(given) == {"bytes", "path"}:  # one picture, as Hugging Face datasets store it
        return plain_source({key: fields.pop(key) for key in given}, where)
    if len(given) > 1:
        raise ConversationError(f"names more than one {kind}: {given}; keep one", where=where)
    source = plain_source(fields.pop(given[0]), where)
    if given[0].endswith("_url") and isinstance(source, Mapping):  # as the OpenAI API spells it
        source = source.get("url")
    if given[0] == "base64" and isinstance(source, str) and not source.startswith("data:"):
        source = f"data:;base64,{source}"
    return source


def _with_rate(source: Any, kind: MediaKind, fields: dict[str, Any]) -> Any:
    """The source with what the part says of its rate, which belongs to decoded media."""
    for of, named, under in (("video", "fps", "video"), ("audio", "sampling_rate", "array")):
        if kind == of and named in fields:
            stated = [key for key in (named, "channel_axis") if key in fields]
            return {under: source, **{key: unwrap(fields.pop(key)) for key in stated}}
    return source


def _present(value: Mapping[Any, Any]) -> dict[Any, Any]:
    """The entries that a library did not fill in; NaN stays where a number is expected."""
    return {
        unwrap(key): item
        for key, item in value.items()
        if not is_missing(item) or (key in _NUMBERS and unwrap(item) is not None)
    }


def map_strings(
    value: Any,
    change: Callable[[str], str],
    change_key: Callable[[str], str],
    fixed: Sequence[str] = (),
) -> Any:
    """A copy of a JSON-like value with every string changed.

    Args:
        value: The value.
        change: Changes a string.
        change_key: Changes the keys, and what stands under the `fixed` ones.
        fixed: Keys whose values a template may compare with its own words.
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            change_key(key) if isinstance(key, str) else key: map_strings(
                item, change_key if key in fixed else change, change_key, fixed
            )
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [map_strings(item, change, change_key, fixed) for item in value]
    return value


def _as_list(value: object, where: str) -> list[Any]:
    value = unwrap(value)
    if isinstance(value, list | tuple):
        return list(value)
    raise ConversationError(f"expected a list, found {describe(value)}", where=where)
