"""Slow tokenizers around a `sentencepiece` model."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AddedToken, PreTrainedTokenizer, PreTrainedTokenizerFast

from tests.decoding import trained_texts
from tests.processors.sentencepiece_stand_in import (
    WORDS,
    SentencePieceTokenizerStandIn,
    sentencepiece_stand_in,
)
from vlmcollate import ConfigError, collator_for
from vlmcollate.errors import ConversationError, LabelError
from vlmcollate.testing import check_collator, tiny_processor
from vlmcollate.testing.laws import LAWS
from vlmcollate.tokens.conversion import fast_conversion
from vlmcollate.tokens.sentencepiece import SentencePieceBackend
from vlmcollate.tokens.vocabulary import Vocabulary

TOKENIZERS = {
    adds_space: sentencepiece_stand_in(tiny_processor().tokenizer, adds_space=adds_space)
    for adds_space in (False, True)
}
PIECES = [*WORDS, " ", "  ", "\n", "ï", "中", "🙂", "\t", "<|im_end|>", "<|im_", "\u2581"]


def processor_with(adds_space):
    processor = tiny_processor()
    processor.tokenizer = TOKENIZERS[adds_space]
    return processor


def chat(answer, question="Hello, is it mild?"):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize("adds_space", [False, True])
@given(pieces=st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=8))
def test_ids_are_the_tokenizers_and_offsets_cover_the_text(adds_space, pieces):
    text = "".join(pieces).replace("\u2581", "_")  # the model cannot tell it from a space
    tokenizer = TOKENIZERS[adds_space]
    tokens = Vocabulary.of(tokenizer).encode(text)
    assert tokens.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    done = 0
    for token, start, end in zip(tokens.ids, tokens.starts, tokens.ends, strict=True):
        assert start in (done, max(done - 1, 0)), "a character without a token"
        piece = tokenizer.convert_ids_to_tokens(int(token))
        if not piece.startswith("<0x"):
            spelled = piece.replace("\u2581", " ")
            assert text[start:end] in (spelled, spelled[1:])  # or without the added space
        done = max(done, end)
    assert done == len(text)


@pytest.mark.parametrize("adds_space", [False, True])
@pytest.mark.parametrize("answer", ["it is mild", "naïve 中 🙂", " the  cat\nsat ", "x" * 40])
def test_the_words_of_the_answer_and_its_end_train(adds_space, answer):
    processor = processor_with(adds_space)
    explanation = collator_for(processor).explain(chat(answer))
    trained = "".join(run.text for run in explanation.runs if run.kind == "trained")
    assert trained == f"{answer}<|im_end|>"
    sample = explanation.sample
    (decoded,) = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
    assert decoded.endswith("<|im_end|>")
    prompt = explanation.prompt
    expected = processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert sample.input_ids.tolist() == expected


def test_it_keeps_the_laws():
    laws = [law for law in LAWS if "special" in law.__name__ or "label" in law.__name__]
    assert len(laws) > 1
    report = check_collator(collator_for(processor_with(False)), laws=laws, examples=3)
    assert not report.failed


def test_a_spelled_token_is_text_or_refused_if_a_space_would_be_added():
    spelled = chat("it is mild", "<|im_end|> is it?")
    sample = collator_for(processor_with(False)).encode(spelled)
    stop = TOKENIZERS[False].convert_tokens_to_ids("<|im_end|>")
    assert sample.input_ids.tolist().count(stop) == 2
    with pytest.raises(ConversationError, match="adds a space before text"):
        collator_for(processor_with(True)).encode(spelled)


def test_facts_are_those_of_the_tokenizer():
    vocabulary = Vocabulary.of(TOKENIZERS[False])
    ids = vocabulary.encode("the cat 中<|im_end|> x").ids.tolist()
    assert vocabulary.decode(ids) == "the cat 中<|im_end|> x"
    assert vocabulary.id_of("cat") == TOKENIZERS[False].convert_tokens_to_ids("cat")
    assert vocabulary.id_of("no such piece") is None
    assert [Vocabulary.of(TOKENIZERS[a]).prefixes_a_space for a in (False, True)] == [False, True]
    states = {Vocabulary.of(tokenizer).backend.to_str() for tokenizer in TOKENIZERS.values()}
    assert len(states) == 2


def test_one_that_changes_the_text_first_is_refused():
    class Lowering(SentencePieceTokenizerStandIn):
        def _tokenize(self, text, **kwargs):
            return super()._tokenize(text.lower(), **kwargs)

    slow = sentencepiece_stand_in(tiny_processor().tokenizer, adds_space=False)
    slow.__class__ = Lowering
    with pytest.raises(ConfigError, match=r"differ from those of its own model; load the fast"):
        Vocabulary.of(slow)


def test_a_model_that_drops_characters_is_refused():
    slow = sentencepiece_stand_in(tiny_processor().tokenizer, adds_space=False)
    whole = slow.sp_model.encode_as_proto

    def without_spaces(text):
        proto = whole(text)
        proto.pieces = [piece for piece in proto.pieces if piece.surface.strip()]
        return proto

    slow.sp_model.encode_as_proto = without_spaces
    backend = SentencePieceBackend.of(slow)
    assert backend is not None
    with pytest.raises(LabelError, match="pieces are not the text"):
        backend.encode("the  cat")
    with pytest.raises(ConfigError, match="differ from those of its own model"):
        Vocabulary.of(slow)


def test_tokens_that_strip_the_text_around_them_are_refused():
    slow = sentencepiece_stand_in(tiny_processor().tokenizer, adds_space=False)
    slow.add_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    with pytest.raises(ConfigError, match="returns no character offsets"):
        Vocabulary.of(slow)


class NoModel(PreTrainedTokenizer):  # type: ignore[misc]  # Any to mypy
    """A slow tokenizer without any model that reports characters."""

    vocab_size = 1

    def get_vocab(self):
        return {"a": 0}


class LlamaTokenizer(NoModel):
    """Has the name of a tokenizer that transformers converts."""


@pytest.mark.parametrize(
    ("kind", "has_file", "remedy"),
    [
        (NoModel, False, "transformers has no conversion of NoModel"),
        (NoModel, True, "PreTrainedTokenizerFast.from_pretrained('{folder}')"),
        (
            LlamaTokenizer,
            False,
            "convert_slow_tokenizer(processor.tokenizer)",
        ),
    ],
)
def test_a_refusal_names_the_fast_conversion(kind, has_file, remedy, tmp_path):
    if has_file:
        tiny_processor().tokenizer.save_pretrained(tmp_path)
    slow = kind(name_or_path=str(tmp_path))
    with pytest.raises(ConfigError, match=re.escape(remedy.format(folder=tmp_path))):
        Vocabulary.of(slow)
    if has_file:
        loaded = PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
        assert Vocabulary.of(loaded).encode("the cat").ids.tolist()


def test_the_command_of_the_refusal_converts():
    from transformers.convert_slow_tokenizer import convert_slow_tokenizer

    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "the": 3, "cat": 4}
    slow = NoModel(cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")
    slow.__class__ = type("BertTokenizer", (NoModel,), {"vocab": vocabulary})
    slow.basic_tokenizer = SimpleNamespace(
        tokenize_chinese_chars=True, strip_accents=None, do_lower_case=True
    )
    assert "convert_slow_tokenizer" in fast_conversion(slow)
    converted = PreTrainedTokenizerFast(
        tokenizer_object=convert_slow_tokenizer(slow),
        chat_template=slow.chat_template,
        **slow.special_tokens_map,
    )
    assert Vocabulary.of(converted).encode("the cat").ids.tolist() == [3, 4]


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("adds_space", [True, False])
def test_a_model_of_the_package_agrees(tmp_path, legacy, adds_space):
    package = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend as Slow

    model = io.BytesIO()
    package.SentencePieceTrainer.train(
        sentence_iterator=iter(["Hello, is it mild? the cat sat user assistant system"] * 20),
        model_writer=model,
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=adds_space,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "m.model").write_bytes(model.getvalue())
    fast = tiny_processor()
    slow = Slow(
        vocab_file=str(tmp_path / "m.model"),
        unk_token="<unk>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        legacy=legacy,
    )
    special = [str(token) for token in fast.tokenizer.added_tokens_decoder.values()]
    slow.add_tokens(special, special_tokens=True)
    slow.chat_template = fast.tokenizer.chat_template
    fast.tokenizer = slow
    explanation = collator_for(fast).explain(chat("naïve 中  mild\nit is"))
    trained = [run.text for run in explanation.runs if run.kind == "trained"]
    assert trained == ["naïve 中  mild\nit is<|im_end|>"]
    expected = slow(explanation.prompt, add_special_tokens=False)["input_ids"]
    assert explanation.sample.input_ids.tolist() == expected
