"""Laws of prompts with several completions: as rows, and behind a prompt that they share.

Shapes: L a pack's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.batch.media import with_float_pixels
from vlmcollate.collator import BaseCollator
from vlmcollate.objectives import CompletionsCollator
from vlmcollate.sample import EncodedSample
from vlmcollate.testing.laws.alone import check_media_is, check_rows_are
from vlmcollate.testing.laws.choices import first_difference
from vlmcollate.testing.laws.failure_messages import failure
from vlmcollate.testing.laws.for_all import Chat, LawFailure, NotApplicable, Trial, forall
from vlmcollate.testing.laws.generation import plain_rows, untrained
from vlmcollate.testing.laws.packing import dense_mask, packable, short_chats, with_layout
from vlmcollate.testing.laws.subject import Subject

_OTHERS = ("Not at all, never.", "No")


def check_completions_are_encoded_as_alone(collator: BaseCollator, trial: Trial) -> None:
    """Each completion is the row of the chat that it ends, with the media of the prompt."""
    subject = plain_rows(Subject.of(collator))
    several = CompletionsCollator(subject.collator)

    def check(messages: Chat) -> None:
        chats = _chats(messages)
        alone = [subject.collator.encode(chat) for chat in chats]
        found = several.encode(_row(chats))
        differs = first_difference(
            [with_float_pixels(sample) for sample in found.samples],
            [with_float_pixels(sample) for sample in alone],
        )
        if differs is not None:
            raise failure(
                "a completion differs from the chat that holds it alone",
                "encode each conversation from its own messages in `sharing`",
                messages=messages,
                sample=found.samples[-1],
                collator=subject.collator,
                found=differs,
                expected=f"{len(alone)} equal samples",
            )
        check_rows_are(subject, several.stack([found, found]), alone * 2, chats * 2)

    forall(trial, short_chats(subject), check, also=[subject.chat("Yes", images=subject.images)])


def check_a_shared_prompt_keeps_completions_apart(collator: BaseCollator, trial: Trial) -> None:
    """A shared prompt and one of its completions are the sample of the chat that it ends."""
    subject = packable(collator)
    changed: dict[str, Any] = {"split_turns": False, "shift_labels": False}
    packs = with_layout(attrs.evolve(subject.collator, **changed))
    if not getattr(packs.padding, "takes_branches", False):
        raise NotApplicable(f"{type(packs.padding).__name__} makes no mask")
    several = CompletionsCollator(packs, layout="shared_prefix")

    def check(messages: Chat) -> None:
        chats = _chats(messages)
        alone = [packs.encode(chat) for chat in chats]
        batch = several([_row(chats), _row(chats[:1])])
        for row, samples in enumerate((alone, alone[:1])):
            for number, sample in enumerate(samples):
                _check_branch(packs, batch, row, number + 1, sample, chats[number])
        check_media_is(packs, batch, alone[:1] * 2, messages)

    forall(trial, short_chats(subject), check, also=[subject.chat("Yes", images=subject.images)])


def _chats(messages: Chat) -> list[Chat]:
    """Returns a conversation with other last answers, none of which trains an earlier one."""
    prompt, answer = [untrained(message) for message in messages[:-1]], messages[-1]
    others = [{**answer, "content": [{"type": "text", "text": text}]} for text in _OTHERS]
    return [[*prompt, last] for last in (answer, *others)]


def _row(chats: list[Chat]) -> dict[str, Any]:
    return {"prompt": chats[0][:-1], "completions": [chat[-1:] for chat in chats]}


def _check_branch(
    packs: BaseCollator,
    batch: Mapping[str, Any],
    row: int,
    number: int,
    sample: EncodedSample,
    messages: Chat,
) -> None:
    """Checks that a prompt and one of its completions are a sample, and attend to nothing else."""
    branches = batch["branch_ids"][row]
    prompt = int((branches > 0).int().argmax())
    places = torch.cat([torch.arange(prompt), (branches == number).nonzero()[:, 0]])
    expected = {**sample.tokens, "position_ids": packs.position_ids(sample)}
    expected["attention_mask"] = _attended(packs.stack([packs.pack([sample])]), 0)
    found = {key: batch[key][row][places] for key in sample.tokens if key != "attention_mask"}
    found["position_ids"] = _positions(batch["position_ids"], row)[places]
    attended = _attended(batch, row)[:, places]
    found["attention_mask"] = attended[..., places]
    attended[..., places] = False
    for key, value in found.items():
        if value.shape != expected[key].shape or not torch.equal(value, expected[key]):
            raise _differs(key, row, number, expected[key], value, messages)
    if attended.any():
        others = attended.any(dim=(0, 1)).nonzero()[:, 0]
        raise _differs("attention_mask", row, number, "nothing more", others, messages)


def _attended(batch: Mapping[str, Any], row: int) -> Tensor:
    """Returns to which tokens each token of a row attends, (masks, T, T) bool."""
    masks, length = batch["attention_mask"], batch["input_ids"].shape[1]
    each = masks.values() if isinstance(masks, Mapping) else [masks]
    dense = [dense_mask(mask, length, row) for mask in each]
    return torch.stack([mask for mask in dense if mask is not None])


def _positions(positions: Tensor, row: int) -> Tensor:
    """Returns the positions of a row, (T,) or (T, axes)."""
    return positions[row] if positions.ndim == 2 else positions[:, row].T


def _differs(
    key: str, row: int, number: int, expected: Any, found: Any, messages: Chat
) -> LawFailure:
    shown = [v.tolist() if isinstance(v, Tensor) else v for v in (expected, found)]
    return failure(
        f"{key} of completion {number} of the prompt in row {row} differs from the chat alone",
        "leave pack_branches to BaseCollator, compute position_ids from one sample, and let the "
        "layout keep the tokens of different branch_ids apart",
        messages=messages,
        expected=shown[0],
        found=shown[1],
    )
