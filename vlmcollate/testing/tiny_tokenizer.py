"""A real tokenizer, trained on a page of text when it is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_VOCABULARY = 1200

_CORPUS = Path(__file__).with_name("tiny_corpus.txt")


def tiny_tokenizer(special_tokens: tuple[str, ...], *, eos: str, pad: str, **named: str) -> Any:
    """Trains a byte-level BPE tokenizer.

    Args:
        special_tokens: The special tokens, which get the first ids.
        eos: The special token that ends a text.
        pad: The special token for padding.
        **named: Special tokens by the attribute under which the processor reads them, such as
            `image_token`.

    Returns:
        A `PreTrainedTokenizerFast`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS.read_text(encoding="utf-8").splitlines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=eos,
        pad_token=pad,
        additional_special_tokens=[t for t in special_tokens if t not in (eos, pad)],
        extra_special_tokens=named,
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
    )
