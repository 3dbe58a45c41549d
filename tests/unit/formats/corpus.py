"""A corpus of conversations, and the row of each in every format that can hold it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from vlmcollate.conversation import Conversation, MediaPart, TextPart

SIZE = 300
_WORDS = [
    *("cat", "Zug", "naïve", "日本", "a<b", '{"x": 1}', "[1]", "x\ny", "—", "🙂", "e.g.", "null"),
    *("What", "is", "the", "<b>", "<|im_end|>", "C:\\temp", "'quoted'", "100%", "<images>"),
]
Row = dict[str, Any]
Part = str | tuple[str]
"""A text, or the path of an image in a tuple."""


@attrs.frozen
class Turn:
    """One message: its role, its texts and images, and its weight."""

    role: str
    parts: tuple[Part, ...]
    weight: float = 1.0

    @property
    def text(self) -> str:
        """The text alone."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def tagged(self) -> str:
        """The text with a tag for each image."""
        return "".join(part if isinstance(part, str) else "<image>" for part in self.parts)


@attrs.frozen
class Chat:
    """A conversation of the corpus."""

    turns: tuple[Turn, ...]
    system: str = ""

    @property
    def images(self) -> list[str]:
        """The paths of all images in order."""
        return [part[0] for t in self.turns for part in t.parts if isinstance(part, tuple)]

    @property
    def all_turns(self) -> tuple[Turn, ...]:
        """The turns with the system prompt."""
        return (Turn("system", (self.system,)), *self.turns) if self.system else self.turns

    @property
    def images_are_first(self) -> bool:
        """Whether all images stand before the first text of the first question."""
        first = self.turns[0].parts[: len(self.images)]
        return all(isinstance(part, tuple) for part in first)

    @property
    def all_train(self) -> bool:
        """Whether every answer has the weight 1."""
        return all(turn.weight == 1 for turn in self.turns)


def corpus(seed: int = 0) -> list[Chat]:
    """Makes the corpus."""
    rng = random.Random(seed)
    return [_chat(rng, number) for number in range(SIZE)]


def _text(rng: random.Random) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(rng.randint(1, 6)))


def _chat(rng: random.Random, number: int) -> Chat:
    turns: list[Turn] = []
    paths = iter(f"{number}-{i}.png" for i in range(9))
    has_weights = rng.random() < 0.4
    for i in range(rng.randint(1, 3)):
        parts: list[Part] = []
        if rng.random() < (0.5 if i == 0 else 0.1):
            parts += [(next(paths),) for _ in range(rng.randint(1, 2))]
        parts.append(_text(rng))
        if rng.random() < 0.2:
            parts += [(next(paths),), _text(rng)]
        weight = rng.choice([0.0, 0.0, 0.5, 1.0]) if has_weights else 1.0
        turns += [Turn("user", tuple(parts)), Turn("assistant", (_text(rng),), weight)]
    return Chat(tuple(turns), _text(rng) if rng.random() < 0.3 else "")


def expected(chat: Chat) -> list[tuple[Any, ...]]:
    """The role, the weight and the texts and images of each message."""
    return [
        (turn.role, turn.weight if turn.role == "assistant" else None, *turn.parts)
        for turn in chat.all_turns
    ]


def found(conversation: Conversation) -> list[tuple[Any, ...]]:
    """The same of a conversation, with texts in a row joined."""
    read = []
    for message in conversation.messages:
        parts: list[Part] = []
        for part in message.content:
            if isinstance(part, MediaPart):
                parts.append((part.source,))
            elif isinstance(part, TextPart) and parts and isinstance(parts[-1], str):
                parts[-1] += part.text
            else:
                parts.append(part.text)
        weight = message.weight if message.is_assistant else None
        read.append((message.role, weight, *parts))
    return read


def _flag(turn: Turn, key: str, *, is_bool: bool = False) -> Row:
    """The field of a weight other than 1."""
    if turn.weight == 1:
        return {}
    return {key: bool(turn.weight) if is_bool else turn.weight}


def _as_parts(turn: Turn, text: str, image: Callable[[str], Row]) -> list[Row]:
    return [
        {"type": text, "text": part} if isinstance(part, str) else image(part[0])
        for part in turn.parts
    ]


def hugging_face(chat: Chat) -> Row:
    """Parts that hold their images."""
    return {
        "messages": [
            {
                "role": turn.role,
                "content": _as_parts(turn, "text", lambda path: {"type": "image", "image": path}),
                **_flag(turn, "weight"),
            }
            for turn in chat.all_turns
        ]
    }


def empty_parts(chat: Chat) -> Row:
    """Parts that a column fills."""
    messages = [
        {
            "role": turn.role,
            "content": _as_parts(turn, "text", lambda _: {"type": "image"}),
            **_flag(turn, "loss_weight"),
        }
        for turn in chat.all_turns
    ]
    return {"messages": messages, **_images(chat)}


def _images(chat: Chat, key: str = "images") -> Row:
    return {key: chat.images} if chat.images else {}


def _tagged(chat: Chat, role: str, content: str, names: dict[str, str], flag: str) -> list[Row]:
    return [
        {role: names.get(turn.role, turn.role), content: turn.tagged, **_flag(turn, flag)}
        for turn in chat.all_turns
    ]


def llama_factory(chat: Chat) -> Row:
    """Strings with tags."""
    return {"messages": _tagged(chat, "role", "content", {}, "loss_scale"), **_images(chat)}


def json_text(chat: Chat) -> Row:
    """The same as JSON."""
    row = llama_factory(chat)
    return {**row, "messages": json.dumps(row["messages"], ensure_ascii=False)}


def json_items(chat: Chat) -> Row:
    """Messages that are each JSON."""
    row = llama_factory(chat)
    return {**row, "messages": [json.dumps(message) for message in row["messages"]]}


def trl(chat: Chat) -> Row | None:
    """Strings without tags."""
    if not chat.images_are_first:
        return None
    messages = [
        {"role": turn.role, "content": turn.text, **_flag(turn, "weight")}
        for turn in chat.all_turns
    ]
    return {"messages": messages, **_images(chat)}


def openai_chat(chat: Chat) -> Row:
    """Parts of the chat API."""
    return {
        "messages": [
            {
                "role": turn.role,
                "content": _as_parts(
                    turn, "text", lambda path: {"type": "image_url", "image_url": {"url": path}}
                ),
                **_flag(turn, "weight"),
            }
            for turn in chat.all_turns
        ]
    }


def openai_responses(chat: Chat) -> list[Row]:
    """Items of the responses API."""
    return [
        {
            "type": "message",
            "role": turn.role,
            "content": _as_parts(
                turn,
                "output_text" if turn.role == "assistant" else "input_text",
                lambda path: {"type": "input_image", "image_url": path, "detail": "auto"},
            ),
            **_flag(turn, "weight"),
        }
        for turn in chat.all_turns
    ]


def anthropic(chat: Chat) -> Row:
    """Blocks of the Anthropic API."""
    return {
        "messages": [
            {
                "role": turn.role,
                "content": _as_parts(
                    turn,
                    "text",
                    lambda path: {"type": "image", "source": {"type": "url", "url": path}},
                ),
                **_flag(turn, "weight"),
            }
            for turn in chat.turns
        ],
        **({"system": chat.system} if chat.system else {}),
    }


def llava(chat: Chat) -> Row:
    """`from` and `value`, with a column for one image or several."""
    names = {"user": "human", "assistant": "gpt"}
    images = _images(chat, "image")
    if len(chat.images) == 1:
        images = {"image": chat.images[0]}
    return {"conversations": _tagged(chat, "from", "value", names, "weight"), **images, "id": "7"}


def sharegpt(chat: Chat) -> Row | None:
    """The same, with the system prompt beside it and masks that are bools."""
    if any(turn.weight not in (0, 1) for turn in chat.turns):
        return None
    names = {"user": "user", "assistant": "model"}
    bare = attrs.evolve(chat, system="")
    conversations = [
        {"from": names[turn.role], "value": turn.tagged, **_flag(turn, "train", is_bool=True)}
        for turn in bare.turns
    ]
    return {"conversations": conversations, "system": chat.system, **_images(chat)}


def cauldron(chat: Chat) -> Row | None:
    """Pairs of a user and an assistant."""
    if not chat.all_train:
        return None
    pairs = zip(chat.turns[::2], chat.turns[1::2], strict=True)
    texts = [{"user": q.tagged, "assistant": a.text, "source": "corpus"} for q, a in pairs]
    return {"texts": texts, **_images(chat), "system": chat.system}


def _with_history(question: str, answer: str) -> Callable[[Chat], Row | None]:
    """A question and an answer in columns, after a history."""

    def write(chat: Chat) -> Row | None:
        if not chat.all_train:
            return None
        said = [turn.tagged for turn in chat.turns]
        history = [list(pair) for pair in zip(said[:-2:2], said[1:-2:2], strict=True)]
        row: Row = {question: said[-2], answer: said[-1], **_images(chat), "system": chat.system}
        return {**row, "history": history} if history else row

    return write


def _prompt_and_completion(*, as_text: bool) -> Callable[[Chat], Row | None]:
    """Only the last answer trains."""

    def write(chat: Chat) -> Row | None:
        *prompt, completion = _tagged(chat, "role", "content", {}, "weight")
        weights = [turn.weight for turn in chat.turns if turn.role == "assistant"]
        if any(weights[:-1]) or (as_text and (len(prompt) > 1 or weights != [1])):
            return None
        if as_text:
            return {
                "prompt": prompt[0]["content"],
                "completion": completion["content"],
                **_images(chat),
            }
        return {"prompt": prompt, "completion": [completion], **_images(chat)}

    return write


def from_pandas(chat: Chat) -> Row:
    """A row that pandas wrote to Parquet and read."""
    import io

    import pandas

    file = io.BytesIO()
    pandas.DataFrame([llama_factory(chat)]).to_parquet(file)
    (row,) = pandas.read_parquet(io.BytesIO(file.getvalue())).to_dict("records")
    return dict(row)


def from_arrow(chat: Chat) -> Row:
    """A row of a table, in which Arrow fills what a message lacks with `None`."""
    import pyarrow

    row = empty_parts(chat)
    first, *rest = row["messages"]
    messages = [{**first, "weight": None, "name": None}, *rest]
    (back,) = pyarrow.Table.from_pylist([{**row, "messages": messages}]).to_pylist()
    return dict(back)


FORMATS: dict[str, tuple[str, Callable[[Chat], Any]]] = {
    "Hugging Face": ("messages", hugging_face),
    "empty parts": ("messages", empty_parts),
    "LLaMA-Factory": ("messages", llama_factory),
    "JSON": ("messages", json_text),
    "JSON items": ("messages", json_items),
    "TRL": ("messages", trl),
    "OpenAI chat": ("messages", openai_chat),
    "OpenAI responses": ("messages", openai_responses),
    "Anthropic": ("messages", anthropic),
    "LLaVA": ("llava", llava),
    "ShareGPT": ("llava", sharegpt),
    "The Cauldron": ("cauldron", cauldron),
    "alpaca": ("alpaca", _with_history("instruction", "output")),
    "query and response": ("query_response", _with_history("query", "response")),
    "prompt and response": ("prompt_response", _with_history("prompt", "response")),
    "question and answer": ("question_answer", _with_history("question", "answer")),
    "prefix and suffix": ("prefix_suffix", _with_history("prefix", "suffix")),
    "prompt and completion": ("prompt_completion", _prompt_and_completion(as_text=False)),
    "prompt and completion as text": ("prompt_completion", _prompt_and_completion(as_text=True)),
    "pandas": ("messages", from_pandas),
    "Arrow": ("messages", from_arrow),
}
"""The name of the format that reads a row, and the function that writes it or returns `None`."""


def rows(name: str) -> Iterator[tuple[Chat, Any]]:
    """The conversations that a format can hold, each with its row."""
    for chat in corpus():
        row = FORMATS[name][1](chat)
        if row is not None:
            yield chat, row
