"""Nemotron-Parse."""

from __future__ import annotations

import attrs
import torch

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation
from vlmcollate.encode.dummy_media import alone, blank
from vlmcollate.errors import ConfigError, ConversationError
from vlmcollate.family import Family, NotPackable
from vlmcollate.media import Concatenate, MediaRequest, ProcessedMedia
from vlmcollate.prompt.plain import PromptWriter, prompt_and_answer
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import EncodedSample
from vlmcollate.tokens.vocabulary import Vocabulary


def _process(request: MediaRequest) -> ProcessedMedia:
    """Calls the image processor; the page replaces no text."""
    output = request.processor.image_processor(images=list(request.items), return_tensors="pt")
    return ProcessedMedia(
        replacements=("",) * len(request.items), tensors={"pixel_values": output["pixel_values"]}
    )


@attrs.frozen(kw_only=True, eq=False)
class NemotronParseCollator(BaseCollator):
    """Collates for Nemotron-Parse, an encoder of page images with a decoder of text.

    The user message holds the page. The task prompt is part of the model's format and not trained.

    Media keys: `pixel_values` (images, 3, height, width). Token keys: `decoder_input_ids` (B, T),
    the ids after the start token, so that position t predicts `labels[t]`, and
    `decoder_attention_mask` (B, T).

    Args:
        task_prompt: The control tokens that select a task.
        decoder_start_token: The first decoder token; the tokenizer's bos or eos by default.

    Source:
        The remote code of nvidia/NVIDIA-Nemotron-Parse, `NemotronParseProcessor`.
    """

    family = Family(
        joins={"pixel_values": Concatenate(rows="image")},
        packing=NotPackable("its decoder attends to one page per row"),
        needs_chat_template=False,
        placeholders={"image": ""},  # the text does not mention the page
        process=_process,
    )

    task_prompt: str = attrs.field(
        default="</s><s><predict_bbox><predict_classes><output_markdown>"
    )
    decoder_start_token: str | None = attrs.field(default=None)

    def __attrs_post_init__(self) -> None:
        """Refuses shifted labels, and a tokenizer without the required tokens."""
        super().__attrs_post_init__()
        if self.shift_labels:
            raise ConfigError("the decoder's inputs are already shifted; remove shift_labels")
        tokenizer = self.processor.tokenizer
        start = self.decoder_start_token or tokenizer.bos_token or tokenizer.eos_token
        if start is None or Vocabulary.of(tokenizer).id_of(start) is None:
            raise ConfigError(
                f"the tokenizer has no {start or 'bos or eos token'}; set decoder_start_token"
            )
        if tokenizer.pad_token_id is None or tokenizer.eos_token is None:
            raise ConfigError("the tokenizer needs a pad token and an eos token")

    def render(self, conversation: Conversation) -> Rendering:
        """See `BaseCollator`.

        Raises:
            ConversationError: There is more than one page.
        """
        prompt, answer = prompt_and_answer(conversation)
        pages = [(part.where, part.kind, message) for message, part in conversation.media]
        if len(pages) > 1:
            problem = f"found {len(pages)} pages, expected one; make one sample per page"
            raise ConversationError(problem, where=pages[1][0])
        writer = PromptWriter()
        for _, kind, message in pages:
            writer.place("", kind, message)
        writer.write(self.task_prompt)
        writer.give(prompt, 0)
        writer.answer(answer, self.processor.tokenizer.eos_token, 1)
        return writer.finish()

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        """Adds the decoder's inputs."""
        tokenizer = self.processor.tokenizer
        start = self.decoder_start_token or tokenizer.bos_token or tokenizer.eos_token
        first = torch.tensor([Vocabulary.of(tokenizer).id_of(start)])
        inputs = torch.cat([first, sample.input_ids[:-1]])
        more = {"decoder_input_ids": inputs, "decoder_attention_mask": torch.ones_like(inputs)}
        return attrs.evolve(sample, tokens={**sample.tokens, **more})

    def dummy_sample(self) -> EncodedSample:
        """See `BaseCollator`; with a white page, since the decoder needs one page per row."""
        processed = self.process_media(alone("image", ""), [blank("image", None)])
        return attrs.evolve(
            super().dummy_sample(),
            media=processed.tensors,
            media_counts={"image": 1},
            pixel_tables=processed.pixel_tables,
        )
