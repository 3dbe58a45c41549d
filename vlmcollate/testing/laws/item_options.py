"""The law of options that one media item has of its own."""

from __future__ import annotations

import copy

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import MediaError
from vlmcollate.media.processing.resizing import Resizer
from vlmcollate.sample import EncodedSample
from vlmcollate.testing.generators import tinted_image
from vlmcollate.testing.laws.failure_messages import failure
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial
from vlmcollate.testing.laws.subject import Subject
from vlmcollate.tokens.vocabulary import Vocabulary

_REMEDY = (
    "let the family's process take images that are resized already: process_together, "
    "process_per_item and process_patch_grids do"
)


def check_the_options_of_an_image_act(collator: BaseCollator, trial: Trial) -> None:
    """An image with `max_pixels` is that small and changes no other, or is refused."""
    del trial
    subject = Subject.of(collator)
    if not subject.images:
        raise NotApplicable("it does not accept images")
    collator = subject.collator
    resizer = Resizer.of(collator.processor, "image", collator.family.frame_tokens)
    if resizer is None:
        _check_refused(collator, _with_limit(subject.chat(images=1), 1000))
        return
    factor = resizer.part.patch_size * resizer.part.merge_size
    for images in range(1, min(subject.images, 2) + 1):
        plain = subject.chat(images=images)
        plain[0]["content"][0] = {
            "type": "image",
            "image": tinted_image(8 * factor, 8 * factor, 90),
        }
        # fewer tokens than the processor's own minimum
        _check_acts(collator, plain, _with_limit(plain, factor**2))


def _merged_patches(collator: BaseCollator, sample: EncodedSample) -> int:
    """Returns the number of merged patches of the first image."""
    grid = sample.media.get("image_grid_thw")
    if grid is not None and sample.media_counts.get("image"):
        merged: int = collator.processor.image_processor.merge_size**2
        return int(grid[0].prod()) // merged
    vocabulary = Vocabulary.of(collator.processor.tokenizer)
    tokens = [vocabulary.id_of(token) for token in collator.traits.media_tokens["image"]]
    return sum(number in tokens for number in sample.input_ids[sample.media_ids == 0].tolist())


def _check_acts(collator: BaseCollator, plain: Chat, limited: Chat) -> None:
    before, after = collator.encode(plain), collator.encode(limited)
    first, limit = before.media_ids == 0, after.media_ids == 0
    found = _merged_patches(collator, after)
    if found != 1:
        raise failure(
            "an image whose max_pixels leaves one merged patch has another number",
            _REMEDY,
            messages=limited,
            sample=after,
            collator=collator,
            expected=1,
            found=found,
        )
    if not before.input_ids[~first].equal(after.input_ids[~limit]):
        raise failure(
            "the options of one image change the tokens of another, or of the text",
            _REMEDY,
            messages=limited,
            sample=after,
            collator=collator,
        )
    counted = collator.token_count(limited)
    if counted not in (None, len(after)):
        raise failure(
            "token_count does not count the options of an image",
            "return from num_media_tokens the tokens of an image without options",
            messages=limited,
            expected=len(after),
            found=counted,
        )


def _check_refused(collator: BaseCollator, messages: Chat) -> None:
    try:
        sample = collator.encode(messages)
    except MediaError:
        return
    raise failure(
        "max_pixels of an image is ignored, since the processor has no limits of pixels",
        "load media with the stages of BaseCollator, which refuse it",
        messages=messages,
        sample=sample,
        collator=collator,
    )


def _with_limit(messages: Chat, pixels: int) -> Chat:
    """A conversation whose first image sets `max_pixels`."""
    limited = copy.copy(messages)
    content = list(limited[0]["content"])
    at = next(i for i, part in enumerate(content) if part["type"] == "image")
    content[at] = {**content[at], "max_pixels": pixels}
    limited[0] = {**limited[0], "content": content}
    return limited
