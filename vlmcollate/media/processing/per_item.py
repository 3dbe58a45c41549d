"""Processing each media item by itself, for processors that do not separate items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vlmcollate.media.processing.inputs import processor_inputs
from vlmcollate.media.processing.request import MediaRequest
from vlmcollate.media.processing.resizing import item_arguments
from vlmcollate.media.processing.result import NOT_MEDIA, ProcessedMedia, as_tensor
from vlmcollate.tokens.vocabulary import Vocabulary


def process_per_item(
    request: MediaRequest,
    *,
    texts: Sequence[str] | None = None,
    options: Sequence[Mapping[str, Any]] = (),
) -> ProcessedMedia:
    """Calls the processor once for each item, and joins the tensors that it returns.

    It must not be used if the text of an item depends on its position, such as a number of the
    image.

    Args:
        request: The media of one sample, at least one item.
        texts: The text around each item; its placeholder by default.
        options: Further arguments of the processor for each item, merged one level deep.

    Returns:
        The decoded text of each item as its replacement, and the joined tensors.
    """
    replacements: list[str] = []
    tensors: dict[str, list[Tensor]] = {}
    columns = zip(texts or request.texts, request.kinds, request.items, strict=True)
    for i, (text, kind, item) in enumerate(columns):
        arguments = processor_inputs([kind], [item])
        for more in (item_arguments(item), *options[i : i + 1]):
            for key, value in more.items():
                merges = isinstance(value, Mapping) and key in arguments
                arguments[key] = {**arguments[key], **value} if merges else value
        output = request.processor(text=[text], add_special_tokens=False, **arguments)
        # the replacement is read from the ids, which every processor returns
        ids = list(output["input_ids"][0])
        replacements.append(Vocabulary.known(request.processor.tokenizer).decode(ids))
        for key in (key for key in output if key not in NOT_MEDIA):
            tensors.setdefault(key, []).append(as_tensor(output[key]))
    return ProcessedMedia(
        replacements=tuple(replacements),
        tensors={
            # the collator refuses a key without a rule
            key: request.joins[key](values, key=key) if key in request.joins else values[0]
            for key, values in tensors.items()
        },
    )
