"""A task encoder of Megatron-Energon; needs `pip install megatron-energon`.

Written for megatron-energon 7.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from megatron.energon import (
    Cooker,
    Sample,
    TaskEncoder,
    basic_sample_keys,
    edataclass,
    stateless,
)

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError, ConversationError
from vlmcollate.packing import plan_packs
from vlmcollate.sample import EncodedSample
from vlmcollate.validators import check_count


@edataclass
class Row(Sample):  # type: ignore[misc]  # energon has no types here
    """A row of a crude dataset, as its files by their extensions."""

    files: dict[str, Any]


@edataclass
class Encoded(Sample):  # type: ignore[misc]
    """An encoded sample or a pack, with the keys by which energon restores it."""

    sample: EncodedSample


@stateless  # type: ignore[untyped-decorator]
def _cook(crude: dict[str, Any]) -> Row:
    files = {key: value for key, value in crude.items() if not key.startswith("__")}
    return Row(**basic_sample_keys(crude), files=files)


def json_row(sample: Any) -> object:
    """Returns the JSON of a row of a crude dataset.

    Args:
        sample: A sample of energon.

    Raises:
        ConversationError: The sample is of another type, or has no JSON.
    """
    files = getattr(sample, "files", None)
    if not isinstance(files, dict) or "json" not in files:
        found = sorted(files) if isinstance(files, dict) else type(sample).__name__
        raise ConversationError(
            f"the sample of energon has no JSON: found {found}, expected the file 'json' of a "
            "crude dataset; pass example=, a function that returns a conversation"
        )
    return files["json"]


class CollatorTaskEncoder(TaskEncoder):  # type: ignore[misc]
    """Encodes, packs and batches the samples of energon with a collator.

    Batches are the dicts of `collator.stack`. Errors of samples go to the `global_error_handler` of
    the worker config, as energon's own do.

    Args:
        collator: The collator.
        example: A function that returns the example of a sample: of a `Row`, if the dataset is
            crude, or of energon's type, such as `VQASample`. By default the row's JSON.
        pack_length: The maximum tokens of a pack, if `packing_buffer_size` is set; by default the
            collator's `max_length`.

    Example:
        `get_train_dataset(..., task_encoder=CollatorTaskEncoder(collator))`
    """

    cookers = [Cooker(_cook)]

    def __init__(
        self,
        collator: BaseCollator,
        *,
        example: Callable[[Any], object] = json_row,
        pack_length: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(collator, BaseCollator):
            raise ConfigError(
                f"collator is wrong: found {type(collator).__name__}, expected a collator of "
                "conversations; pass collator_for(processor)"
            )
        if not callable(example):
            raise ConfigError(
                f"example is wrong: found {example!r:.60}, expected a function that returns the "
                "example of a sample"
            )
        if pack_length is not None:
            check_count("pack_length", pack_length)
        self.collator, self.example = collator, example
        self.pack_length = collator.max_length if pack_length is None else pack_length

    @stateless  # type: ignore[untyped-decorator]
    def encode_sample(self, sample: Any) -> Iterator[Encoded]:
        """Encodes a sample; yields none if it is dropped, and several with `split_turns`."""
        for encoded in self.collator.encode_kept(self.example(sample)):
            yield Encoded.derive_from(sample, sample=encoded)

    def select_samples_to_pack(self, samples: Sequence[Encoded]) -> list[list[Encoded]]:
        """Plans the packs of a buffer."""
        lengths = [len(encoded.sample) for encoded in samples]
        plan = plan_packs(lengths, max_length=self.pack_length or 0, on_overlong="own_pack")
        return [[samples[at] for at in pack] for pack in plan]

    @stateless  # type: ignore[untyped-decorator]
    def pack_selected_samples(self, samples: Sequence[Encoded]) -> Encoded:
        """Joins samples into a pack."""
        pack = self.collator.pack([encoded.sample for encoded in samples])
        packed: Encoded = Encoded.derive_from(samples[0], sample=pack)
        return packed

    @stateless  # type: ignore[untyped-decorator]
    def batch(self, samples: Sequence[Encoded]) -> dict[str, Any]:
        """Stacks samples or packs into a batch."""
        return self.collator.stack([encoded.sample for encoded in samples])

    def build_batch(
        self, dataset: Any, *, packing_buffer_size: int | None = None, **options: Any
    ) -> Any:
        """See `TaskEncoder.build_batch`.

        Raises:
            ConfigError: The collator keeps no documents of a pack apart, or no length is set.
        """
        if packing_buffer_size is not None:
            self._check_packs()
        return super().build_batch(dataset, packing_buffer_size=packing_buffer_size, **options)

    def _check_packs(self) -> None:
        if self.pack_length is None:
            raise ConfigError(
                "pack_length is missing: found no max_length either, expected the length of packs "
                "for packing_buffer_size; set pack_length"
            )
        if self.collator.padding.separates_by is None:
            raise ConfigError(
                f"the padding does not suit packing_buffer_size: found "
                f"{type(self.collator.padding).__name__}, expected a layout that keeps documents "
                "apart; set the padding of the collator, such as BlockCausalMask()"
            )
