"""Processing all media of a sample in one call."""

from __future__ import annotations

from vlmcollate.media.processing.inputs import processor_inputs
from vlmcollate.media.processing.per_item import process_per_item
from vlmcollate.media.processing.request import MediaRequest
from vlmcollate.media.processing.result import ProcessedMedia

_WITHOUT_OFFSETS: set[type] = set()
"""Processor classes that do not return what replaces a placeholder."""


def process_together(request: MediaRequest) -> ProcessedMedia:
    """Calls the processor once for all media.

    If it returns no replacements, or an item has a size of its own, it is called once per item.

    Args:
        request: The media of one sample, at least one item.
    """
    processor = request.processor
    if request.has_resized_items:
        return process_per_item(request)
    if type(processor) not in _WITHOUT_OFFSETS:
        output = processor(
            text=["".join(request.texts)],
            **processor_inputs(request.kinds, request.items),
            add_special_tokens=False,
            return_text_replacement_offsets=True,
        )
        if "text_replacement_offsets" in output:
            (replaced,) = output["text_replacement_offsets"]
            return ProcessedMedia(
                replacements=tuple(r["replacement"] for r in replaced), tensors=output
            )
        _WITHOUT_OFFSETS.add(type(processor))
    return process_per_item(request)
