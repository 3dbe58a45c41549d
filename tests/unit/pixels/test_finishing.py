"""Wrapped, compiled, sharded and copied models make floats of bytes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import nn

from vlmcollate import finish_pixels, normalize_pixels
from vlmcollate.errors import ConfigError
from vlmcollate.pixels import PixelBytes, PixelTable

MEAN, DEVIATION = torch.tensor([120.5, 110.0, 100.25]), torch.tensor([60.0, 55.5, 50.0])
TABLE = PixelTable.computed(MEAN, DEVIATION, "first")
PIXELS = PixelBytes(torch.arange(120, dtype=torch.uint8).view(2, 3, 4, 5), TABLE)


class Net(nn.Module):
    """A model without methods for features, whose `forward` alone takes pixels."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.5))

    def forward(self, pixel_values):
        """Returns a number that depends on every pixel."""
        return (pixel_values * self.weight).abs().sum()


def _expected():
    return Net()(PIXELS.finished())


def _with_own_forward(model):
    """Gives an instance a `forward` of its own, as accelerate and kernel libraries do."""
    plain = model.forward
    model.forward = lambda *args, **options: plain(*args, **options)
    return model


def _compiled(model):
    return torch.compile(model, backend="eager")


def _compiled_in_place(model):
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize("is_wrapped_first", [True, False])
@pytest.mark.parametrize("wrap", [_with_own_forward, _compiled, _compiled_in_place])
def test_a_wrapped_model_takes_bytes(wrap, is_wrapped_first):
    model = Net()
    if not is_wrapped_first:
        finish_pixels(model)
    wrapped = wrap(model)
    if is_wrapped_first:
        finish_pixels(wrapped)
    assert torch.equal(wrapped(pixel_values=PIXELS), _expected())
    assert torch.equal(wrapped(PIXELS), _expected())


@pytest.mark.parametrize("is_prepared_first", [True, False])
def test_a_model_that_accelerate_prepares_takes_bytes(is_prepared_first):
    accelerate = pytest.importorskip(
        "accelerate", reason="the extra vlmcollate[examples] installs accelerate"
    )
    # other tests' trainers have set the precision of the process, which has no public reset
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    model = Net()
    if not is_prepared_first:
        finish_pixels(model)
    prepared = accelerator.prepare(model)
    if is_prepared_first:
        finish_pixels(prepared)
    assert torch.equal(prepared(pixel_values=PIXELS), prepared(pixel_values=PIXELS.finished()))
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def one_rank(tmp_path):
    """Starts a process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"),
    reason="fully_shard of this torch records events, which its streams of the CPU do not have",
)
@pytest.mark.parametrize("is_wrapped_first", [True, False])
def test_sharding_casts_finished_pixels_as_it_casts_floats(is_wrapped_first, one_rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model = Net()
    model.weight = nn.Parameter(torch.tensor([1.5]))  # which has an axis to shard
    halves = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    if not is_wrapped_first:
        finish_pixels(model)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)), mp_policy=halves)
    if is_wrapped_first:
        finish_pixels(model)
    found, expected = model(pixel_values=PIXELS), model(pixel_values=PIXELS.finished())
    assert found.dtype == expected.dtype == torch.bfloat16
    assert torch.equal(found, expected)


def test_a_list_of_batches_is_refused():
    with pytest.raises(ConfigError, match=r"found list, expected a mapping .* one by one"):
        normalize_pixels([{"pixel_values": PIXELS}])  # type: ignore[arg-type]


def test_hooks_get_floats():
    model, seen = Net(), []
    finish_pixels(model)
    model.register_forward_pre_hook(lambda module, args: seen.extend(args))
    model(PIXELS)
    assert torch.equal(seen[0], PIXELS.finished())


def test_a_copy_of_a_compiled_model_takes_bytes():
    compiled = _compiled(Net())
    finish_pixels(compiled)
    assert torch.equal(copy.deepcopy(compiled)(PIXELS), _expected())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_pickles_a_model(protocol):
    model = Net()
    finish_pixels(model)
    restored = pickle.loads(pickle.dumps(model, protocol))
    assert type(restored) is type(model)
    assert torch.equal(restored(PIXELS), _expected())


def test_bytes_become_floats_on_their_own_device():
    for table in (TABLE, PixelTable(TABLE.values, "first")):
        pixels = PixelBytes(PIXELS.values.to("meta"), table, torch.ones(2, 3, dtype=torch.int64))
        assert pixels.finished().device.type == "meta"
        assert pixels.finished(dtype=torch.bfloat16).device.type == "meta"
    assert PIXELS.finished("meta").device.type == "meta"


def test_offloaded_parameters_do_not_choose_the_device():
    class Devices(nn.Module):
        """Returns the device of the pixels."""

        def forward(self, pixels):
            return pixels.device.type

    model = Devices()
    model.offloaded = nn.Parameter(torch.ones(1, device="meta"))
    finish_pixels(model)
    assert model(PIXELS) == "cpu"
    assert model(PIXELS.to("meta")) == "meta"
