"""Adds a small white image to conversations without media, so that all ranks run the encoder.

Shapes: B samples, T padded tokens, L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vlmcollate.automodel.conventions import automodel_collator
from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.tokens.vocabulary import Vocabulary

Messages = Sequence[Mapping[str, Any]]

_FAKE_IMAGE = Image.new("RGB", (56, 56), (255, 255, 255))


def _conversation_has_media(conversation: Messages) -> bool:
    """Whether a part has the type or the key of an image or a video."""
    return any(
        isinstance(part, Mapping)
        and (part.get("type") in ("image", "video") or "image" in part or "video" in part)
        for message in conversation
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )


def _batch_has_media(conversations: Iterable[Messages]) -> bool:
    """Whether any of the conversations has an image or a video."""
    return any(_conversation_has_media(conversation) for conversation in conversations)


def inject_fake_image_into_conversation(conversation: Messages) -> list[dict[str, Any]]:
    """Inserts the fake image at the start of the first user message.

    Args:
        conversation: The messages, which are not modified.

    Returns:
        Copies of the messages. If there is no user message, one is added in front.
    """
    fake = {"type": "image", "image": _FAKE_IMAGE}
    messages = [_copy_message(message) for message in conversation]
    user = next((message for message in messages if message.get("role") == "user"), None)
    if user is None:
        return [{"role": "user", "content": [fake]}, *messages]
    content = user.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    user["content"] = [fake, *(content if isinstance(content, list) else [])]
    return messages


def _copy_message(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    parts = [dict(part) if isinstance(part, Mapping) else part for part in content]
    return {**message, "content": parts}


def mask_fake_vision_tokens_single(sample_dict: MutableMapping[str, Any], processor: Any) -> None:
    """Sets `attention_mask` to 0 at every vision token of a sample, in place.

    Args:
        sample_dict: The sample, with `input_ids` and `attention_mask`, (L,). Without a mask it is
            not changed.
        processor: The processor.

    Raises:
        ConfigError: The processor does not support images.
    """
    if "attention_mask" in sample_dict:
        sample_dict["attention_mask"][is_vision_token(sample_dict["input_ids"], processor)] = 0


def mask_fake_vision_tokens_batch(
    batch: MutableMapping[str, Any], processor: Any, sample_indices: Sequence[int]
) -> None:
    """Sets `attention_mask` to 0 at vision tokens of samples, in place.

    Args:
        batch: The batch, with `input_ids` and `attention_mask`, (B, T). Without a mask it is not
            changed.
        processor: The processor.
        sample_indices: The indices of the samples with a fake image.

    Raises:
        ConfigError: The processor does not support images.
    """
    if "attention_mask" not in batch or not len(sample_indices):
        return
    for index in sample_indices:
        row = batch["attention_mask"][index]
        row[is_vision_token(batch["input_ids"][index], processor)] = 0


_FAKE_PART = {"type": "image", "image": _FAKE_IMAGE}


def _special_ids(collator: BaseCollator, media: Sequence[Any]) -> set[int]:
    """Returns the special tokens in the prompt of a question with media."""
    question = {"role": "user", "content": [*media, {"type": "text", "text": "Seven?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Eight."}]}
    vocabulary = Vocabulary.of(collator.processor.tokenizer)
    ids = vocabulary.encode(collator.render(collator.read([question, answer])).text).ids
    return set(ids[vocabulary.is_control(ids)].tolist())


def is_vision_token(input_ids: Tensor, processor: Any) -> Tensor:
    """Whether each id is a special token of, or around, an image or video."""
    collator = automodel_collator(processor)
    vocabulary = Vocabulary.of(collator.processor.tokenizer)
    tokens = [t for kind in ("image", "video") for t in collator.traits.media_tokens.get(kind, ())]
    found = {i for token in tokens if (i := vocabulary.id_of(token)) is not None}
    if "image" in collator.dummies.pieces:
        ids = collator.dummies.pieces["image"].input_ids.numpy()
        found |= set(ids[vocabulary.is_control(ids)].tolist())
        found |= _special_ids(collator, [_FAKE_PART]) - _special_ids(collator, [])
    if not found:
        raise ConfigError(
            f"{type(processor).__name__} has no vision tokens to mask: found no image or video "
            "token, expected one; do not inject fake images for it"
        )
    return torch.isin(input_ids, torch.tensor(sorted(found), dtype=input_ids.dtype))
