"""Processing each media item by itself, for processors that do not tell them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vlmcollate.conversation import MediaKind
from vlmcollate.media.joins import Join
from vlmcollate.media.processing.inputs import processor_inputs
from vlmcollate.media.processing.result import ProcessedMedia, as_tensor
from vlmcollate.tokens.vocabulary import Vocabulary

_NO_MEDIA = {
    "input_ids",
    "attention_mask",
    "mm_token_type_ids",
    "token_type_ids",
    "video_metadata",
}


def process_one_by_one(
    processor: Any,
    texts: Sequence[str],
    kinds: Sequence[MediaKind],
    items: Sequence[Any],
    joins: Mapping[str, Join],
    options: Sequence[Mapping[str, Any]] = (),
) -> ProcessedMedia:
    """Calls a processor once for each item, and joins what it returns.

    Args:
        processor: A `transformers` processor.
        texts: For each item, the text with its placeholder.
        kinds: The kind of each item.
        items: RGB images, `Video` values and (N,) float32 sounds.
        joins: How the tensors of two items become one.
        options: For each item, further arguments of the processor, merged one level deep.

    Returns:
        The tokenized text of each item as its replacement, and the tensors of all of them.
    """
    replacements: list[str] = []
    tensors: dict[str, list[Tensor]] = {}
    for i, (text, kind, item) in enumerate(zip(texts, kinds, items, strict=True)):
        arguments = processor_inputs([kind], [item])
        for key, value in options[i].items() if options else ():
            merges = isinstance(value, Mapping) and key in arguments
            arguments[key] = {**arguments[key], **value} if merges else value
        output = processor(text=[text], add_special_tokens=False, **arguments)
        # what the placeholder became is read off the ids, which every processor returns
        ids = list(output["input_ids"][0])
        replacements.append(Vocabulary.known(processor.tokenizer).decode(ids))
        for key in output.keys() - _NO_MEDIA:
            tensors.setdefault(key, []).append(as_tensor(output[key]))
    return ProcessedMedia(
        replacements=tuple(replacements),
        tensors={
            # the collator tells of a key that nobody declared
            key: joins[key](values, key=key) if key in joins else values[0]
            for key, values in tensors.items()
        },
    )
