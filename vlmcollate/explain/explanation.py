"""The explanation of one encoded example.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmcollate.conversation import Conversation
from vlmcollate.encode.trace import Stage, Trace
from vlmcollate.errors import ConfigError
from vlmcollate.explain.alignment import aligned
from vlmcollate.explain.mask_text import visible
from vlmcollate.explain.media_items import MediaItem, media_items
from vlmcollate.explain.tokens import CLASSES, DIFFERENCES, MEANINGS, Block, Run, Token
from vlmcollate.explain.warnings import find_warnings, turn_notes
from vlmcollate.prompt.encoder import EncodedPrompt, PromptEncoder
from vlmcollate.prompt.notes import TurnNote
from vlmcollate.prompt.reasoning import ReasoningForm
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.tokens.vocabulary import Ints

_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOURS = {
    "trained": "background:#1a7f37;color:#fff",
    "message": "opacity:.75",
    "template": "color:#0f8b8d",
    "media": "background:#8250df;color:#fff",
    "padding": "opacity:.4",
}


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Explanation:
    """The result of `encode` for one example, and its reasons; see `BaseCollator.explain`.

    Attributes:
        sample: The encoded sample.
        prompt: The prompt from the chat template.
        roles: The role of each message of the encoded conversation.
        texts: The characters of each token, L of them.
        offsets: (L,) int64, their position in the prompt, or -1.
        blocks: The tokens by message.
        media: The media items in order.
        seconds: The time of each stage.
        warnings: Possible mistakes, one sentence each.
        turn_notes: What is unusual about the turns that train; `warnings` includes it.
        processor: The name of the processor's class.
        collator: The name of the collator's class.
        format: The name of the format in which the example was read.
        other: The labels of another strategy for comparison, (L,) int64, or `None`.
    """

    STACKED_BY: ClassVar[str] = "no stack, but its `sample` to BaseCollator.stack"

    sample: EncodedSample
    prompt: str
    roles: tuple[str, ...]
    texts: tuple[str, ...]
    offsets: Ints
    blocks: tuple[Block, ...]
    media: tuple[MediaItem, ...]
    seconds: Mapping[Stage, float]
    warnings: tuple[str, ...]
    turn_notes: tuple[TurnNote, ...]
    processor: str
    collator: str
    format: str
    other: Tensor | None = None

    @classmethod
    def of(
        cls,
        sample: EncodedSample,
        trace: Trace,
        *,
        processor: Any,
        stop_ids: Sequence[int],
        collator: str,
        encoder: PromptEncoder,
        reasoning_forms: Sequence[ReasoningForm],
        may_end: Callable[[Conversation, int], bool],
    ) -> Explanation:
        """Returns the explanation of a sample whose encoding was traced.

        Args:
            sample: The encoded sample.
            trace: The results of its stages.
            processor: The collator's processor.
            stop_ids: The ids of the tokens that end a turn.
            collator: The name of the collator's class.
            encoder: The encoder of the collator's prompts.
            reasoning_forms: How an answer may hold reasoning.
            may_end: A function that returns whether a chat may end with one of its turns.
        """
        prompt: EncodedPrompt = trace.last("tokenize")
        conversation, rendering = prompt.conversation, prompt.rendering
        ids = sample.input_ids.numpy()
        places = aligned(ids, prompt.ids)
        chars = np.where(places >= 0, prompt.chars[:, places], -1)
        notes = tuple(
            turn_notes(sample, rendering, reasoning_forms, chars, partial(may_end, conversation))
        )
        texts = _texts(sample, chars, rendering.text, processor.tokenizer)
        roles = tuple(message.role for message in conversation.messages)
        return cls(
            sample=sample,
            prompt=rendering.text,
            roles=roles,
            texts=tuple(texts),
            offsets=chars[0],
            blocks=tuple(_blocks(sample, roles, texts, stop_ids)),
            media=tuple(
                media_items(sample, trace.last("read"), conversation, rendering, trace.last("load"))
            ),
            seconds=dict(trace.seconds),
            warnings=tuple(find_warnings(sample, trace, encoder, notes)),
            turn_notes=notes,
            processor=type(processor).__name__,
            collator=collator,
            format=conversation.format,
        )

    @cached_property
    def classes(self) -> npt.NDArray[np.int8]:
        """(L,) int8: each token's class, as an index into `CLASSES`."""
        sample = self.sample
        kinds = np.where(sample.message_ids.numpy() >= 0, 1, 2)
        kinds[sample.media_ids.numpy() >= 0] = 3
        kinds[sample.tokens["attention_mask"].numpy() == 0] = 4
        kinds[sample.labels.numpy() != IGNORE_INDEX] = 0
        return kinds.astype(np.int8)

    @cached_property
    def differences(self) -> npt.NDArray[np.int8]:
        """(L,) int8: each token's difference from `other`, as an index into `DIFFERENCES`."""
        if self.other is None:
            return np.zeros(len(self.sample), np.int8)
        here = (self.sample.labels != IGNORE_INDEX).numpy()
        there = (self.other != IGNORE_INDEX).numpy()
        return np.where(here == there, 0, np.where(here, 1, 2)).astype(np.int8)

    def compared(self, other: EncodedSample) -> Explanation:
        """Returns the same explanation with its differences from other labels.

        Args:
            other: The same example, labelled by another strategy.

        Raises:
            ConfigError: Its tokens differ, so the labels cannot be compared.
        """
        if not torch.equal(other.input_ids, self.sample.input_ids):
            raise ConfigError("the two strategies lead to different tokens; set max_length=None")
        return attrs.evolve(self, other=other.labels)

    def within(self, document: EncodedSample) -> Explanation:
        """Returns the same explanation for a document from `unpack`."""
        other = self.other
        if other is not None:  # no strategy trains the first token of a document
            other = torch.where(torch.arange(len(other)) > 0, other, IGNORE_INDEX)
        return attrs.evolve(self, sample=document, other=other)

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens, L of them."""
        sample = self.sample
        columns = zip(
            sample.input_ids.tolist(),
            self.texts,
            self.offsets.tolist(),
            sample.message_ids.tolist(),
            self.classes.tolist(),
            sample.labels.tolist(),
            strict=True,
        )
        return tuple(
            Token(
                id=token,
                text=text,
                offset=offset if offset >= 0 else None,
                role=self.role_of(message),
                message=message,
                kind=CLASSES[kind],
                label=label,
            )
            for token, text, offset, message, kind, label in columns
        )

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The runs of tokens of one class, message and media item; media is one mark each."""
        sample = self.sample
        message_ids, media_ids = sample.message_ids.numpy(), sample.media_ids.numpy()
        table = np.stack([self.classes, message_ids, media_ids, self.differences])
        changes = (table[:, 1:] != table[:, :-1]).any(axis=0)
        edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(sample)]
        return tuple(
            self._run(a, b, *table[:, a].tolist())
            for a, b in zip(edges, edges[1:], strict=False)
            if a < b
        )

    def _run(
        self, start: int, end: int, kind: int, message: int, media: int, difference: int
    ) -> Run:
        many = f"{end - start} token{'' if end - start == 1 else 's'}"
        text = "".join(self.texts[start:end])
        if CLASSES[kind] == "media":
            text = f"<{self.media[media].kind} {media + 1}: {many}>"
        elif CLASSES[kind] == "padding":
            text = f"<padding: {many}>"
        return Run(
            start=start,
            end=end,
            kind=CLASSES[kind],
            message=message,
            media=media,
            text=text,
            difference=DIFFERENCES[difference],
        )

    def role_of(self, message: int) -> str:
        """Returns the role of a message; "" for -1, the template's own text."""
        return self.roles[message] if message >= 0 else ""

    @property
    def trained_share(self) -> float:
        """The share of trained tokens."""
        return int((self.classes == 0).sum()) / max(len(self.sample), 1)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The tokens by class and role, the trained share, the strategy, and the times."""
        sample = self.sample
        by_class = np.bincount(self.classes, minlength=len(CLASSES)).tolist()
        by_role: dict[str, dict[str, int]] = {}
        for message, kind in zip(sample.message_ids.tolist(), self.classes.tolist(), strict=True):
            found = by_role.setdefault(self.role_of(message) or "template", {"tokens": 0})
            found["tokens"] += 1
            found["trained"] = found.get("trained", 0) + (kind == 0)
        return {
            "tokens": len(sample),
            "trained_share": self.trained_share,
            "by_class": dict(zip(CLASSES, by_class, strict=True)),
            "by_role": by_role,
            "label_strategy": sample.label_strategy,
            "seconds": dict(self.seconds),
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for `json.dumps`, with only the size of media."""
        return {
            "processor": self.processor,
            "collator": self.collator,
            "format": self.format,
            "prompt": self.prompt,
            "roles": list(self.roles),
            "tokens": [attrs.asdict(token) for token in self.tokens],
            "runs": [attrs.asdict(run) for run in self.runs],
            "media": [
                {"kind": m.kind, "message": m.message, "size": m.size, "tokens": m.tokens}
                for m in self.media
            ],
            "summary": self.summary,
            "warnings": list(self.warnings),
        }

    def __repr__(self) -> str:
        shown = "".join(
            f"[[{run.text}]]" if run.kind == "trained" else run.text for run in self.runs
        )
        lines = [self._headline(), *(f"! {w}" for w in self.warnings), shown.rstrip("\n")]
        # characters that control a terminal are escaped
        return _STEERING.sub(lambda found: ascii(found.group())[1:-1], "\n".join(lines))

    def _repr_html_(self) -> str:
        """Returns the mask in colours, for notebooks."""
        spans = "".join(
            f'<span title="{html.escape(_title(run, self), quote=True)}" '
            f'style="{_COLOURS[run.kind]}">{html.escape(visible(run.text))}</span>'
            for run in self.runs
        )
        notes = "".join(f"<li>{html.escape(warning)}</li>" for warning in self.warnings)
        return (
            f"<div><b>{html.escape(self._headline())}</b><ul>{notes}</ul>"
            f'<pre style="white-space:pre-wrap;overflow-wrap:anywhere">{spans}</pre></div>'
        )

    def _headline(self) -> str:
        return (
            f"{len(self.sample)} tokens, {self.trained_share:.1%} trained, by "
            f"{self.sample.label_strategy or 'no strategy'}, with {self.collator}, "
            f"format {self.format!r}"
        )


def _title(run: Run, explanation: Explanation) -> str:
    role = explanation.role_of(run.message)
    place = f", message {run.message} ({role})" if role else ""
    return f"tokens {run.start} to {run.end - 1}: {MEANINGS[run.kind]}{place}"


def _texts(sample: EncodedSample, chars: Ints, prompt: str, tokenizer: Any) -> list[str]:
    """Returns the characters of each token, which together are the prompt.

    If several tokens make up one character, the first has it. Media tokens have none.
    """
    texts, done = [], 0
    columns = zip(
        sample.input_ids.tolist(),
        (sample.media_ids >= 0).tolist(),
        *chars.tolist(),
        strict=True,
    )
    for token, is_media, start, end in columns:
        if is_media:
            text = ""
            done = max(done, end)
        elif start < 0:
            text = tokenizer.decode([token], skip_special_tokens=False)
        else:
            text = prompt[done:end] if end > done else ""
            done = max(done, end)
        texts.append(text)
    return texts


def _blocks(
    sample: EncodedSample, roles: Sequence[str], texts: Sequence[str], stop_ids: Sequence[int]
) -> list[Block]:
    """Returns the tokens by message, each with its header and its stop token."""
    message_ids, ids = sample.message_ids.numpy(), sample.input_ids.tolist()
    heads: list[tuple[int, int]] = []
    said = np.flatnonzero(message_ids >= 0)
    for message in np.unique(message_ids[said]).tolist():
        first = int((message_ids == message).argmax())
        before = said[said < first]
        start = int(before[-1]) + 1 if len(before) else 0
        begin = start
        for at in range(start, first):
            if ids[at] in stop_ids or (at == begin and begin and texts[at].isspace()):
                begin = at + 1
        heads.append((begin, message))
    if not heads or heads[0][0]:
        heads.insert(0, (0, -1))
    ends = [*(start for start, _ in heads[1:]), len(ids)]
    return [
        Block(start=a, end=b, message=m, role=roles[m] if m >= 0 else "template")
        for (a, m), b in zip(heads, ends, strict=True)
        if a < b
    ]
