"""Memory for the tensors of a batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.multiprocessing import set_sharing_strategy
from torch.utils.data import DataLoader

from vlmcollate import EncodedSample
from vlmcollate.batch.media import joined_media
from vlmcollate.extend import Concatenate
from vlmcollate.media.memory import empty, in_batch
from vlmcollate.pixels import PIXEL_FORMATS, PixelBytes, PixelTable


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (1024, 1024), (1024, 4096)])
def test_empty_has_shape_and_dtype(shape):
    made = empty(shape, torch.bfloat16)
    assert (made.shape, made.dtype) == (shape, torch.bfloat16)
    assert made.is_contiguous()


def _check_kept(seen):
    """Every batch still has the one value that it was made with."""
    for value, tensor in seen:
        assert tensor.nbytes >= 1 << 22
        assert (tensor == value).all()


def test_later_batches_do_not_write_to_a_batch_that_is_kept():
    join, seen = Concatenate(), []
    for value in range(200):
        pixels = join([torch.full((512, 2048), float(value))], key="pixel_values")
        seen.append((value, pixels))
        del seen[1 : -3 if value % 2 else None]
    _check_kept(seen)


_SIDES = {"float32": 600, "bfloat16": 850, "uint8": 1200}
"""The sides of images whose pixels take more than 4 MiB, from which memory is not torch's."""


def _sample(value, side):
    """A sample of bytes of one value."""
    ids, pixels = torch.tensor([1]), torch.full((1, 3, side, side), value, dtype=torch.uint8)
    table = PixelTable.computed(torch.zeros(3), torch.ones(3), "first")
    return EncodedSample(
        tokens={"input_ids": ids},
        message_ids=ids,
        media_ids=ids,
        media={"pixel_values": pixels},
        pixel_tables={"pixel_values": table},
    )


@pytest.mark.parametrize("name", PIXEL_FORMATS)
def test_a_batch_that_is_kept_never_changes(name):
    """Batches are dropped in between, so that their memory serves the next ones."""
    seen = []
    for value in range(200):
        joined = joined_media([_sample(value, _SIDES[name])], {"pixel_values": Concatenate()}, name)
        pixels = joined["pixel_values"]
        seen.append((value, pixels.values if isinstance(pixels, PixelBytes) else pixels))
        del seen[1 : -3 if value % 2 else None]
    _check_kept(seen)


def _in_worker(run: Callable[[], Any], strategy: str = "file_descriptor") -> Any:
    """What a function returns in a worker."""
    loader: Any = DataLoader(
        [0],  # type: ignore[arg-type]  # a list is map-style
        collate_fn=lambda _: run(),
        num_workers=1,
        worker_init_fn=lambda _: set_sharing_strategy(strategy),
    )
    (found,) = list(loader)
    return found


class _Named(torch.Tensor):
    """A tensor of a class of its own."""


_SIZE = 1 << 20
_JOINED: dict[str, Callable[[], torch.Tensor]] = {
    "gradient": lambda: torch.ones(_SIZE, requires_grad=True),
    "parameter": lambda: torch.nn.Parameter(torch.ones(_SIZE)),
    "subclass": lambda: torch.ones(_SIZE).as_subclass(_Named),
    "expanded": lambda: torch.ones(1, 1).expand(2048, 2048),
    "channels last": lambda: torch.ones(2, 3, 512, 512).to(memory_format=torch.channels_last),
    "conjugate": lambda: torch.ones(_SIZE, dtype=torch.complex64).conj(),
    "negative": lambda: torch._neg_view(torch.ones(_SIZE)),
    "sparse": lambda: torch.ones(1024, 1024).to_sparse(),
    "meta": lambda: torch.ones(_SIZE, device="meta"),
    "jagged": lambda: torch.nested.nested_tensor(
        [torch.ones(_SIZE), torch.ones(3)], layout=torch.jagged
    ),
    "shared": lambda: torch.ones(_SIZE).share_memory_(),
}
"""What a join of one's own may return, of which a copy would be something else."""


@pytest.mark.parametrize("name", _JOINED)
def test_a_worker_sends_what_a_join_returns_unless_a_copy_is_the_same(name):
    def is_kept() -> bool:
        joined = _JOINED[name]()
        return in_batch(joined) is joined

    assert _in_worker(is_kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.complex64])
def test_a_worker_copies_plain_tensors_to_the_file_that_it_sends(dtype):
    values = (torch.arange(1 << 22) % 2).to(dtype)

    def copy() -> tuple[torch.Tensor, bool]:
        found = in_batch(values)
        return found, found.is_shared()

    sent, is_shared = _in_worker(copy)
    assert is_shared
    assert torch.equal(sent, values)


def test_a_worker_that_sends_names_of_files_reserves_no_memory_in_vain(monkeypatch):
    made: list[int] = []

    def count() -> int:
        new_shared = torch.UntypedStorage._new_shared

        def counted(size: int) -> Any:
            made.append(size)
            return new_shared(size)

        monkeypatch.setattr(torch.UntypedStorage, "_new_shared", counted)
        values = torch.ones(_SIZE)
        assert in_batch(values) is values
        return len(made)

    assert _in_worker(count, "file_system") == 0
