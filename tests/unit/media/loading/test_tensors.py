"""A tensor that has no array is bad media, which a run may skip."""

from __future__ import annotations

import pytest
import torch

from vlmcollate import FrameSampling, LocalMedia
from vlmcollate.errors import MediaError

MEDIA = LocalMedia()
AUDIO = torch.linspace(-1, 1, 160)
IMAGE = torch.arange(48, dtype=torch.uint8).reshape(4, 4, 3)
VIDEO = IMAGE.repeat(2, 1, 1, 1)
LOADERS = {
    "audio": (AUDIO, lambda x: MEDIA.load_audio((x, 16000), sampling_rate=16000, where="here")),
    "image": (IMAGE, lambda x: MEDIA.load_image(x, where="here")),
    "video": (VIDEO, lambda x: MEDIA.load_video(x, sampling=FrameSampling(), where="here")),
}


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda x: x.to("meta"), "is on the device 'meta' and has no values"),
        (lambda x: x.to_sparse(), r"has layout torch\.sparse_coo, .* tensor\.to_dense\(\)"),
    ],
    ids=["meta", "sparse"],
)
def test_a_tensor_without_dense_values_is_refused(kind, change, problem):
    tensor, load = LOADERS[kind]
    with pytest.raises(MediaError, match=f"^here: an? {kind} tensor {problem}"):
        load(change(tensor))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_dtype_that_numpy_lacks_is_refused(dtype):
    tensor, load = LOADERS["audio"]
    with pytest.raises(MediaError, match=rf"has dtype {dtype}, .* pass tensor\.float\(\)"):
        load(tensor.to(dtype))
    for kind in ("image", "video"):
        tensor, load = LOADERS[kind]
        with pytest.raises(MediaError, match=f"has dtype {dtype}, expected uint8"):
            load(tensor.to(dtype))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_quantized_tensor_is_refused():
    tensor, load = LOADERS["audio"]
    with pytest.raises(MediaError, match=r"is quantized \(torch\.quint8\)"):
        load(torch.quantize_per_tensor(tensor, 0.1, 10, torch.quint8))


def test_other_tensors_are_read():
    _, load = LOADERS["audio"]
    for tensor in (
        AUDIO.half(),
        AUDIO.double(),
        AUDIO.clone().requires_grad_(),
        -AUDIO._neg_view(),
    ):
        assert torch.allclose(torch.from_numpy(load(tensor)), AUDIO, atol=1e-3)
