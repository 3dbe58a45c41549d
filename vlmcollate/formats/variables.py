"""The names and values that variables of a chat template may not have."""

from __future__ import annotations

from collections.abc import Mapping

_MEANS: Mapping[str, str] = {
    "messages": "remove it, since the messages are those of the example",
    "conversation": "remove it, since the messages are those of the example",
    "conversations": "remove it, since the messages are those of the example",
    "tools": "write the tools into the column 'tools' of the examples",
    "chat_template": "set it on the processor",
    "add_generation_prompt": "remove it, or call `prompt` for what a model generates from",
    "continue_final_message": "remove it, or set 'prefix' on the last message",
    "tokenize": "remove it",
    "processor_kwargs": "set the options on the processor",
    "return_assistant_tokens_mask": "remove it, or set labels=GenerationTagLabels()",
    "return_dict": "remove it",
    "return_tensors": "remove it",
    "sanitize_control_tokens": "remove it",
}
"""The arguments of `apply_chat_template` that the library sets, with the remedy for each."""


def problem_with(variables: Mapping[str, object]) -> str:
    """Returns what is wrong with variables of a chat template, or an empty string."""
    for name in variables:
        if isinstance(name, str) and name in _MEANS:
            return (
                f"{name!r} is an argument of apply_chat_template, expected variables of the chat "
                f"template; {_MEANS[name]}"
            )
    documents = variables.get("documents")
    listed = documents if isinstance(documents, list | tuple) else [documents]
    if documents is None or (listed is documents and all(isinstance(d, Mapping) for d in listed)):
        return ""
    return (
        f"'documents' is {documents!r}, expected a list of dicts, such as "
        "[{'title': ..., 'text': ...}]"
    )
