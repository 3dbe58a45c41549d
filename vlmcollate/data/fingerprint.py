"""Fingerprints of collators: what the tensors of their samples depend on."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.data.content_hash import content_hash, is_plain, without_addresses
from vlmcollate.encode.processor_facts import stop_tokens_of
from vlmcollate.encode.processor_settings import is_part
from vlmcollate.media import LocalMedia
from vlmcollate.packing.token_mixing import token_mixing
from vlmcollate.prompt.direct import chat_template_of
from vlmcollate.tokens.backends import PythonBackend
from vlmcollate.tokens.identity_cache import IdentityCache
from vlmcollate.tokens.vocabulary import Vocabulary

_APART = {"tokenizer", "chat_template"}
"""The parts of a processor that are hashed by themselves."""
_NAMES = {"image_processor_type", "video_processor_type", "feature_extractor_type"}
"""The names of the classes of parts, which only those have that were loaded."""
_OF_BATCHES = {"processor", "padding", "shift_labels", "pixels", "counts"}
"""Options that change only batches, and the processor, which is hashed by its parts."""
_KEEPING = {
    "max_length",
    "on_overlong",
    "on_template_omission",
    "require_labels",
    "special_tokens_in_text",
}
"""Options that select samples, or shorten them."""
_REFUSING = {
    "root",
    "max_pixels",
    "max_bytes",
    "formats",
    "max_video_bytes",
    "video_limits",
    "max_audio_seconds",
    "max_decoded_audio_bytes",
    "fetcher",
    "stores",
}
"""The options of `LocalMedia` that find or refuse media without changing it."""
_CHANGING = {"background", "gray_range", "frames", "array_sampling_rate"}
"""The options of `LocalMedia` that change the media it returns."""
_MODELS = IdentityCache[dict[str, str]]()
"""The hashes of the models of tokenizers, their vocabulary and merges, by their options."""


def fingerprint_of(collator: BaseCollator) -> dict[str, str]:
    """What the tensors of a sample that is kept depend on, each as a short text."""
    processor = collator.processor
    special = {name: str(token) for name, token in processor.tokenizer.special_tokens_map.items()}
    found = {
        field.name: _shown(getattr(collator, field.name))
        for field in attrs.fields(type(collator))
        if field.name not in _OF_BATCHES | _KEEPING
    }
    found["media"] = _media(collator, refusing=False)
    found["model_config"] = _layers(collator)
    family = collator.family
    stops = list(stop_tokens_of(processor.tokenizer, collator.stop_tokens, family))
    if collator.dummy_media == "batch":  # which is added as a batch is made
        found["dummy_media"] = repr("never")
    template = chat_template_of(processor) if family.needs_chat_template else ""
    return {
        "collator": f"{type(collator).__module__}.{type(collator).__qualname__}",
        "code of the collator": content_hash(type(collator)),
        **{f"option {name}": value for name, value in found.items()},
        "tokenizer": content_hash(_tokenizer(Vocabulary.of(processor.tokenizer))),
        "special tokens": json.dumps(special, sort_keys=True),
        "family": _shown(family),
        "stop tokens": json.dumps(stops),
        "media tokens": json.dumps(dict(collator.traits.media_tokens), sort_keys=True),
        "placeholders": json.dumps(dict(collator.traits.placeholders), sort_keys=True),
        "chat template": _hash(template.encode("utf-8", "surrogatepass")),
        "processor": f"{type(processor).__name__} {content_hash(_settings(processor))}",
        **{f"version of {name}": _version(name) for name in ("vlmcollate", "transformers")},
        "version of tokenizers": _version("tokenizers"),
    }


def _tokenizer(vocabulary: Vocabulary) -> list[Any]:
    """Returns what tokens depend on, which padding and truncation do not belong to.

    The vocabulary and the merges, which take tens of milliseconds, are hashed once a process.
    """
    backend = vocabulary.backend
    hashes = _MODELS.get_or_make(vocabulary, dict)
    if isinstance(backend, PythonBackend):
        if not hashes:
            hashes[""] = _hash(backend.to_str().encode())
        return list(hashes.values())
    model = backend.model
    values = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    options = {name: value for name, value in values.items() if is_plain(value)}
    state = repr(options)  # which the bytes of the model hold, too, such as its dropout
    if state not in hashes:
        hashes[state] = _hash(model.__getstate__())
    parts = backend.normalizer, backend.pre_tokenizer, backend.post_processor, backend.decoder
    added = {i: repr(token) for i, token in backend.get_added_tokens_decoder().items()}
    return [hashes[state], options, *parts, added]


def _layers(collator: BaseCollator) -> str:
    """Returns the part of the model's configuration that packs depend on."""
    if collator.model_config is None:
        return "None"
    mixing = token_mixing(collator.model_config)
    return json.dumps(
        [mixing.model, sorted(mixing.kinds), sorted(mixing.separates_by), mixing.window]
    )


def keeping_options(collator: BaseCollator) -> dict[str, Any]:
    """Returns the options that select samples, which may differ when the dataset is read."""
    return {
        **{name: getattr(collator, name) for name in sorted(_KEEPING)},
        "media": _media(collator, refusing=True),
    }


def _media(collator: BaseCollator, *, refusing: bool) -> str:
    """Returns the media strategy's options that find or refuse media, or the other ones."""
    media = collator.media
    if type(media) is not LocalMedia:
        # its state may be a cache, or the place of files
        return "" if refusing else f"{content_hash(type(media))} {without_addresses(repr(media))}"
    parts = {
        field.name: getattr(media, field.name)
        for field in attrs.fields(LocalMedia)
        if field.name in (_REFUSING if refusing else _CHANGING)
    }
    if refusing and media.root is not None:
        parts["root"] = str(media.root.resolve())
    if not refusing:
        return ", ".join(f"{key}={_shown(part)}" for key, part in parts.items())
    shown = (f"{key}={without_addresses(repr(part))}" for key, part in parts.items())
    return f"LocalMedia({', '.join(shown)})"


def _settings(processor: Any) -> list[Any]:
    """Returns the classes and settings of a processor and its parts but the tokenizer."""
    attributes = getattr(processor, "__dict__", {})
    parts = {key: part for key, part in attributes.items() if is_part(part) and key != "tokenizer"}
    own = {key: v for key, v in attributes.items() if key not in {*parts, *_APART}}
    found = {
        key: [type(part), {name: v for name, v in vars(part).items() if name not in _NAMES}]
        for key, part in parts.items()
    }
    return [type(processor), own, found]


def _shown(option: object) -> str:
    """Returns an option as text, or its name and a hash of its content."""
    if is_plain(option):
        return repr(option)
    name = getattr(option, "__name__", type(option).__name__)
    return f"{name} {content_hash(option)}"


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
