"""Inspects chat templates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

from vlmcollate import plain_values
from vlmcollate.conversation import Conversation, MediaPart
from vlmcollate.errors import CollateError, ConfigError, ConversationError
from vlmcollate.prompt.direct import TEMPLATE_ERRORS, chat_template_of, render_directly
from vlmcollate.prompt.marks import Silence
from vlmcollate.prompt.misplaced import reversed_message
from vlmcollate.prompt.template_syntax import syntax_error


def is_template_error(error: Exception) -> bool:
    """Returns whether a template raised an error, or it is deliberate.

    A TemplateError and a ValueError are deliberate. Any other error outside a running template,
    such as a TypeError, is a bug in the processor's own code.
    """
    if isinstance(error, jinja2.TemplateError | ValueError):
        return True
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "jinja2":
            return True
        traceback = traceback.tb_next
    return False


class TemplateInput(NamedTuple):
    """What a processor's chat template is given.

    Attributes:
        chat: The messages in the form of the template.
        tools: The tools.
        variables: The template's other variables.
        asks: Whether to add a generation prompt.
    """

    chat: list[dict[str, Any]]
    tools: Any
    variables: Mapping[str, Any]
    asks: bool


def apply_template(processor: Any, conversation: Conversation, given: TemplateInput) -> str:
    """Renders a chat with a processor's template.

    Args:
        processor: The processor.
        conversation: The conversation, for the errors.
        given: What the template is given.

    Raises:
        ConversationError: The template refuses the chat, or returns no text.
    """
    try:
        text = processor.apply_chat_template(
            given.chat, tools=given.tools, add_generation_prompt=given.asks, **given.variables
        )
    except TEMPLATE_ERRORS as error:
        # the row's variables may collide with arguments of the call
        if isinstance(error, jinja2.UndefinedError):  # such as of a token that will be set
            _forget(chat_template_of(processor))
        is_taken = conversation.template_kwargs and "multiple values for" in str(error)
        if not is_taken and not is_template_error(error):
            raise
        raise _refusal(processor, conversation, error) from error
    if not isinstance(text, str):
        raise ConversationError(
            f"the chat template returned {type(text).__name__}, expected text; remove options "
            "of apply_chat_template, such as tokenize, from the variables",
            where="chat_template_kwargs",
        )
    return text


def apply_to_probe(processor: Any, conversation: Conversation, given: TemplateInput) -> str:
    """Renders a chat as `apply_template` does, but refuses one in less time.

    A template that demands a system message gets one before the chat.
    """
    if given.chat[0]["role"] != "system":
        given = given._replace(chat=[*_opening(processor), *given.chat])
    chat, tools, variables, asks = given
    try:
        text = render_directly(processor, chat, tools, variables, asks=asks)
    except TEMPLATE_ERRORS as error:
        raise _refusal(processor, conversation, error) from None
    return apply_template(processor, conversation, given) if text is None else text


def _refusal(processor: Any, conversation: Conversation, error: Exception) -> CollateError:
    if isinstance(error, jinja2.TemplateSyntaxError):
        return syntax_error(error)
    return ConversationError(
        f"the chat template refuses this conversation: {error}"
        + refusal_hint(chat_template_of(processor), conversation)
    )


def refusal_hint(template: str, conversation: Conversation) -> str:
    """Returns what to add to the error of a template, if it knows no tool calls, or nothing."""
    has_calls = any("tool_calls" in message.extra for message in conversation.messages)
    if not has_calls or "tool_calls" in template:
        return ""
    return (
        "; it writes no tool calls, so write them as text of the answer, or set a chat template "
        "that takes 'tool_calls'"
    )


def unseparable(conversation: Conversation, plain: str, template: str) -> ConversationError:
    """Returns why the strings of a conversation are not found in its rendering, and the remedy."""
    if _PRINTED_PARTS.search(plain):
        return _printed(conversation, template)
    backwards = reversed_message(conversation, plain)
    if backwards is not None:
        return ConversationError(
            "the chat template's own text depends on the words of a message: it writes this text "
            "backwards; use a chat template that writes it as it is",
            where=f"messages[{backwards}]",
        )
    return ConversationError(
        "the chat template's own text depends on the words of a message, so the two cannot be "
        "separated; simplify the message or the template"
    )


def _printed(conversation: Conversation, template: str) -> ConversationError:
    """Returns the error of a template that prints a list of parts, if only beside tools."""
    fact = "the chat template writes the list of a message's parts as Python or JSON does"
    asked = next((k for k, m in enumerate(conversation.messages) if m.role == "user"), 0)
    shown = [k for k, m in enumerate(conversation.messages) for p in m.content if _is_media(p)]
    if not shown or (conversation.tools and asked not in shown):
        return ConversationError(f"{fact}; give the content of the messages as strings")
    if not conversation.tools:
        return ConversationError(
            f"{fact}, so it takes no media in this message; remove the media, or use a chat "
            "template that writes it",
            where=f"messages[{shown[0]}]",
        )
    variable = (
        f"set template_kwargs={{{_TOOLS_APART!r}: False}}, which writes the tools into a system "
        "message that the chat must have, "
    )
    return ConversationError(
        f"{fact} beside tools, so it takes no media in this message together with tools; "
        f"{variable if _TOOLS_APART in template else ''}put the media into a later message, or "
        "remove the tools",
        where=f"messages[{asked}]",
    )


def _is_media(part: object) -> bool:
    return isinstance(part, MediaPart)


_TOOLS_APART = "tools_in_user_message"
"""The variable by which templates of Llama write tools into the system message."""
_PRINTED_PARTS = re.compile(r"""\[\{['"]type['"]: ?['"]""")


def plain_variables(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """Copies the variables of a template to plain Python.

    Raises:
        ConfigError: A variable is not a JSON-like value.
    """
    try:
        read = plain_values.plain(variables, "template_kwargs", keep_missing=True)
    except ConversationError as error:
        raise ConfigError(str(error)) from error
    return dict(read)


_WANTS_STRINGS: dict[tuple[str, str], bool] = {}
_SILENCE: dict[str, Silence] = {}
_WANTS_LISTS: dict[tuple[str, str], bool] = {}
_PROBED: dict[tuple[str, str], str | None] = {}
"""What templates make of the chats that several functions try."""
_OPENINGS: dict[str, list[dict[str, Any]]] = {}
_MOST_PROBED = 1024


def _forget(template: str) -> None:
    """Forgets what a template made of the chats that were tried, since it may take them now."""
    _SILENCE.pop(template, None)
    _OPENINGS.pop(template, None)
    known: tuple[dict[Any, Any], ...] = (_WANTS_STRINGS, _WANTS_LISTS, _PROBED)
    for found in known:
        for key in [key for key in found if key[0] == template]:
            del found[key]


def wants_strings(processor: Any, template: str, role: str) -> bool:
    """Returns whether a template supports only strings as a role's content."""
    key = template, role
    if key not in _WANTS_STRINGS:
        if role == "user":
            found = _takes_strings_alone([[]], processor, role)
        else:
            as_text = not wants_lists(processor, template, "user")
            found = _takes_strings_alone(_contexts(role, as_text), processor, role)
            found = wants_strings(processor, template, "user") if found is None else found
        _WANTS_STRINGS[key] = bool(found)
    return _WANTS_STRINGS[key]


def wants_lists(processor: Any, template: str, role: str) -> bool:
    """Returns whether a template drops or misprints a role's strings."""
    key = template, role
    if key not in _WANTS_LISTS:
        as_text = role != "user" and not wants_lists(processor, template, "user")
        before = [[]] if role == "user" else _contexts(role, as_text)
        written = (_probe(processor, messages, role, WORD) for messages in before)
        _WANTS_LISTS[key] = not any(WORD in text for text in written)
    return _WANTS_LISTS[key]


def silence_of(processor: Any, template: str) -> Silence:
    """Returns the first content with which a template writes all of a call and nothing else."""
    if template not in _SILENCE:
        with_string = written_call(processor, {WORD: 1}, [""])
        _SILENCE[template] = ""
        tried: tuple[tuple[Silence, Any, str], ...] = ((None, None, "None"), ((), [], "[]"))
        for silence, content, printed in tried:
            text = written_call(processor, {WORD: 1}, [content])
            is_whole = text and (WORD in text or WORD not in with_string)
            if is_whole and text.count(printed) <= with_string.count(printed):
                _SILENCE[template] = silence
                break
    return _SILENCE[template]


def written_call(processor: Any, arguments: Any, contents: Sequence[Any] = ()) -> str:
    """Returns what a template writes of a call, whatever form it takes of the messages.

    Args:
        processor: A processor with the template.
        arguments: The arguments of the call.
        contents: The contents to try beside the call, `None` for none; by default all that are
            usual.
    """
    call = {
        "type": "function",
        "id": "call00000",
        "function": {"name": "f", "arguments": arguments},
    }
    contents = contents or (None, "", [])
    answers: list[dict[str, Any]] = [
        {} if content is None else {"content": content} for content in contents
    ]
    takes_text = WORD in _probe(processor, [], "user", WORD)
    asked = {"role": "user", "content": "a" if takes_text else [_part("a")]}
    for answer in answers:
        chat = [asked, {"role": "assistant", "tool_calls": [call], **answer}]
        text = _kept(processor, [chat], [{}])
        if text is not None:
            return text
    return ""


def _contexts(role: str, as_text: bool) -> list[list[dict[str, Any]]]:  # noqa: FBT001
    """Returns the messages that one of this role may need before it."""

    def message(role: str, **more: Any) -> dict[str, Any]:
        return {"role": role, "content": "a" if as_text else [_part("a")], **more}

    user = message("user")
    if role in ("system", "developer"):
        return [[]]
    call = {"type": "function", "id": "call00000", "function": {"name": "f", "arguments": {}}}
    calling = message("assistant", tool_calls=[call])
    if role == "tool":  # most templates write results behind calls alone
        return [[user, calling], [user], [user, message("assistant")]]
    return [[user], [user, message("assistant")], [user, calling]]


def _takes_strings_alone(
    contexts: list[list[dict[str, Any]]], processor: Any, role: str
) -> bool | None:
    """Returns whether only strings are kept unchanged; `None` if nothing is."""
    for before in contexts:
        in_parts = _probe(processor, before, role, [_part(WORD)])
        if WORD in in_parts and not re.search(f"['\"]{WORD}['\"]", in_parts):
            return False
        if WORD in _probe(processor, before, role, WORD):
            return True
    return None


WORD = "probe"
_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "f", "parameters": {"properties": {}}},
}


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _probe(processor: Any, before: list[dict[str, Any]], role: str, content: object) -> str:
    message = {"role": role, "content": content, "tool_call_id": "call00000", "name": "f"}
    if role != "tool":
        message = {"role": role, "content": content}
    after = [{"role": "user", "content": "a"}] if role in ("system", "developer") else []
    chats = [*before, message, *after], [*before, message, *(_in_parts(m) for m in after)]
    given: list[dict[str, Any]] = [{}]
    if "tools" in chat_template_of(processor):  # some loop over the tools
        given.append({"tools": [_TOOL]})
    return _kept(processor, chats if after else chats[:1], given) or ""


def _kept(
    processor: Any, chats: Sequence[list[dict[str, Any]]], given: Sequence[dict[str, Any]]
) -> str | None:
    """Returns the text of the first chat that a template takes, which is kept."""
    key = chat_template_of(processor), repr((chats, given))
    if key not in _PROBED:
        if len(_PROBED) >= _MOST_PROBED:
            _PROBED.clear()
        _PROBED[key] = _first_rendered(processor, chats, given)
    return _PROBED[key]


def _first_rendered(
    processor: Any, chats: Sequence[list[dict[str, Any]]], given: Sequence[dict[str, Any]]
) -> str | None:
    """Returns the text of the first chat that a template takes, or `None`."""
    taken = (_attempted(processor, chat, **tools) for tools in given for chat in chats)
    found = next((text for text in taken if text is not None), None)
    if found is not None or chats[0][0]["role"] == "system":
        return found
    opening = _opening(processor)
    return _first_rendered(processor, [[*opening, *c] for c in chats], given) if opening else None


def _opening(processor: Any) -> list[dict[str, Any]]:
    """Returns the system message without which a template takes no chat, or nothing."""
    template = chat_template_of(processor)
    if template not in _OPENINGS:
        asked, system = {"role": "user", "content": "a"}, {"role": "system", "content": "a"}
        forms = ([asked], [_in_parts(asked)], [system, asked], [*map(_in_parts, (system, asked))])
        taken = (chat for chat in forms if _attempted(processor, chat) is not None)
        _OPENINGS[template] = next(taken, [asked])[:-1]
    return _OPENINGS[template]


def _attempted(processor: Any, chat: list[dict[str, Any]], tools: Any = None) -> str | None:
    """Returns what a template makes of a chat, or `None` if it refuses it."""
    try:
        return _applied(processor, chat, tools)
    except TEMPLATE_ERRORS:
        return None


def _applied(processor: Any, chat: list[dict[str, Any]], tools: Any = None) -> str:
    """Returns what a template makes of a chat.

    Raises:
        Exception: One of `TEMPLATE_ERRORS`; the template refuses the chat.
    """
    text = render_directly(processor, chat, tools, {})
    given = {} if tools is None else {"tools": tools}
    return str(processor.apply_chat_template(chat, **given)) if text is None else text


def _in_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    return {**message, "content": [_part("a")]}
