"""Batches of images and videos in each format of pixels, beside the processor's own calls.

    python -m benchmarks.pixels

Needs the test assets, and for the rows about NeMo Automodel the wheel that they hold. The base is
one call of the processor for each sample, whose outputs are discarded.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers as hf
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from benchmarks.timing import Row, compare
from tests.assets import automodel_dir
from tests.processors import build
from vlmcollate import collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.pixels import PIXEL_FORMATS, PixelBytes

Limits = tuple[float, float, float]
"""The wanted ratios of float32, bfloat16 and uint8."""


def qwen2_5_vl(max_pixels: int = 12845056) -> Any:
    """Qwen2.5-VL with another limit of pixels."""
    processor = build("qwen2_5_vl")
    processor.image_processor = hf.Qwen2VLImageProcessor(min_pixels=3136, max_pixels=max_pixels)
    return processor


def qwen3_vl() -> Any:
    """Qwen3-VL with the pixel limits of its checkpoints."""
    processor = build("qwen3_vl")
    processor.image_processor = hf.Qwen2VLImageProcessor(
        patch_size=16, min_pixels=65536, max_pixels=16777216
    )
    return processor


def gemma3() -> Any:
    """Gemma 3 with the image size of its checkpoints."""
    processor = build("gemma3")
    processor.image_processor.size = {"height": 896, "width": 896}
    return processor


def llava_onevision() -> Any:
    """LLaVA-OneVision with the tiles of its checkpoints."""
    processor = build("llava_onevision")
    processor.image_processor = hf.LlavaOnevisionImageProcessor(
        size={"height": 384, "width": 384},
        image_grid_pinpoints=[[384 * i, 384 * j] for i in range(1, 7) for j in range(1, 7)],
    )
    processor.num_image_tokens = 729
    return processor


def internvl() -> Any:
    """InternVL with images of one tile."""
    processor = build("internvl")
    processor.image_processor.size = {"height": 448, "width": 448}
    processor.image_processor.max_patches = 1
    processor.image_seq_length = 256
    return processor


def noise(*shape: int) -> np.ndarray:
    """Pixels that no cache and no codec makes cheap."""
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def eight_images(width: int, height: int) -> list[Image.Image]:
    """Decoded images, none of which is in the processor's cache when it is read."""
    pixels = noise(height, width)
    return [Image.fromarray(np.roll(pixels, number, axis=1)) for number in range(8)]


def chat(kind: str, source: Any, number: int = 0) -> list[dict[str, Any]]:
    """A question about one item, and its answer."""
    question = [{"type": kind, kind: source}, {"type": "text", "text": f"What is {number}?"}]
    answer = [{"type": "text", "text": "A door."}]
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def called(processor: Any, batch: list[Any], options: dict[str, Any] | None = None) -> None:
    """Calls a processor for each sample."""
    for messages in batch:
        processor.apply_chat_template(
            [messages],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=options or {},
        )


def in_each_format(
    name: str, processor: Any, bare: Any, batch: list[Any], limits: Limits, rounds: int
) -> Iterator[Row]:
    """`collate(examples)` in each format, against the bare calls."""
    for pixels, limit in zip(PIXEL_FORMATS, limits, strict=True):
        collate = collator_for(processor, pixels=pixels)
        yield f"{name}, {pixels}", *compare(bare, partial(collate, batch), rounds), limit


def images(rounds: int) -> Iterator[Row]:
    """Eight decoded images, one a sample, for each processor in a process of its own.

    In one process, the memory that is left of the first would make the calls of the last faster.
    """
    one_megapixel = partial(qwen2_5_vl, 1003520)
    for name, build_one, size, limits in (
        ("Qwen2.5-VL, 640x480", qwen2_5_vl, (640, 480), (0.85, 0.75, 0.55)),
        ("Qwen3-VL, 640x480", qwen3_vl, (640, 480), (0.9, 0.75, 0.5)),
        ("Qwen2.5-VL, 1600x1200 to 1 MP", one_megapixel, (1600, 1200), (0.75, 0.7, 0.45)),
        ("Qwen3-VL, 1600x1200", qwen3_vl, (1600, 1200), (0.6, 0.5, 0.28)),
        ("Gemma 3, 1600x1200", gemma3, (1600, 1200), (0.9, 0.85, 0.75)),
        ("LLaVA-OneVision, 1600x1200", llava_onevision, (1600, 1200), (0.62, 0.4, 0.33)),
        ("InternVL, 1600x1200", internvl, (1600, 1200), (0.3, 0.3, 0.3)),
    ):
        yield from in_a_child(partial(of_images, name, build_one, size, limits, rounds))


def of_images(
    name: str, build_one: Callable[[], Any], size: tuple[int, int], limits: Limits, rounds: int
) -> list[Row]:
    """The rows of eight images of a size."""
    processor = build_one()
    batch = [chat("image", image, n) for n, image in enumerate(eight_images(*size))]
    bare = partial(called, processor, batch)
    return list(in_each_format(name, processor, bare, batch, limits, rounds))


def jpegs(rounds: int) -> Iterator[Row]:
    """Eight JPEG files, one a sample, against a load with Pillow and the same calls."""
    processor = qwen3_vl()
    with folder_of_jpegs(8, (1600, 1200)) as paths:
        batch = [chat("image", str(path), number) for number, path in enumerate(paths)]

        def bare() -> None:
            loaded = [Image.open(path).convert("RGB") for path in paths]
            called(processor, [chat("image", image) for image in loaded])

        limits = (0.6, 0.5, 0.35)
        yield from in_each_format(
            "Qwen3-VL, 8 JPEG files of 1600x1200", processor, bare, batch, limits, rounds
        )


@contextmanager
def folder_of_jpegs(count: int, size: tuple[int, int]) -> Iterator[list[Path]]:
    """Smooth images, as photographs are."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.jpg") for number in range(count)]
        small = Image.fromarray(noise(size[1] // 16, size[0] // 16))
        for number, path in enumerate(paths):
            small.rotate(90 * number).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        yield paths


def videos(rounds: int) -> Iterator[Row]:
    """Four videos of 16 decoded frames, one a sample."""
    clips = [np.roll(noise(16, 360, 640), number, axis=1) for number in range(4)]
    for name, processor in (("Qwen2.5-VL", qwen2_5_vl()), ("Qwen3-VL", qwen3_vl())):
        batch = [chat("video", frames, number) for number, frames in enumerate(clips)]
        bare = partial(called, processor, batch, {"do_sample_frames": False})
        limits = (0.85, 0.75, 0.6)
        yield from in_each_format(
            f"{name}, 4 videos of 16 frames, 360p", processor, bare, batch, limits, rounds
        )


def other_collators(rounds: int) -> Iterator[Row]:
    """What NeMo Automodel and TRL take for the same images, each in its own format."""
    processor = qwen2_5_vl()
    for width, height in ((640, 480), (1600, 1200)):
        images = eight_images(width, height)
        bare = partial(
            called, processor, [chat("image", image, n) for n, image in enumerate(images)]
        )
        for name, pixels, call in calls_of_others(processor, images):
            times = compare(bare, call, rounds)
            yield f"Qwen2.5-VL, {width}x{height}: {name}, {pixels}", *times, float("inf")


def calls_of_others(
    processor: Any, images: list[Image.Image]
) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """The names of other collators, the formats of their pixels, and calls that collate images."""
    rows = [{"conversation": chat("image", image, n)} for n, image in enumerate(images)]
    for name, pixels in (("qwen2_5_collate_fn", "float32"), ("default_collate_fn", "bfloat16")):
        collate = getattr(automodel_module(), name)
        yield f"Automodel's {name}", pixels, partial(collate, rows, processor=processor)
    if importlib.util.find_spec("trl") is None:
        return
    trainer = importlib.import_module("trl.trainer.sft_trainer")
    placed = [chat("image", None, number) for number in range(len(images))]
    for messages in placed:
        del messages[0]["content"][0]["image"]
    of_trl = [{"messages": m, "images": [i]} for m, i in zip(placed, images, strict=True)]
    collator = trainer.DataCollatorForVisionLanguageModeling(processor)
    yield "TRL", "float32", partial(collator, of_trl)


def loading(rounds: int) -> Iterator[Row]:
    """Seconds of a DataLoader with 2 workers, against NeMo Automodel's function for bfloat16."""
    theirs = partial(automodel_module().default_collate_fn, processor=qwen2_5_vl())
    processor = qwen2_5_vl()
    with folder_of_jpegs(8, (1024, 768)) as paths:
        messages = [chat("image", str(path), number) for number, path in enumerate(paths)]
        rows = [{"conversation": row} for row in messages] * 8
        for pixels, times in zip(PIXEL_FORMATS, (1.5, 1.8, 2.5), strict=True):
            ours = collator_for(processor, pixels=pixels)
            base = partial(through_a_loader, rows, theirs)
            call = partial(through_a_loader, rows, ours)
            taken = compare(base, call, rounds, time.perf_counter)
            yield f"Qwen2.5-VL, a loader of JPEG files / Automodel, {pixels}", *taken, 1 / times


MEASURES = (images, other_collators, jpegs, videos, loading)


def through_a_loader(rows: list[Any], collate: Any) -> None:
    """Reads all batches of eight."""
    loader: Any = DataLoader(rows, batch_size=8, num_workers=2, collate_fn=collate)  # type: ignore[arg-type]  # a list is map-style
    for _ in loader:
        pass


def automodel_module() -> Any:
    """The collate functions of NeMo Automodel's wheel."""
    sys.path.insert(0, str(automodel_dir()))
    try:
        return importlib.import_module("nemo_automodel.components.datasets.vlm.collate_fns")
    finally:
        sys.path.pop(0)


def sizes() -> Iterator[tuple[str, ...]]:
    """Megabytes of a batch, at its peak, sent by a worker and in a shard, in each format."""
    images = eight_images(1600, 1200)
    batch = [chat("image", image, number) for number, image in enumerate(images)]
    for name, processor in (("Qwen3-VL", qwen3_vl()), ("LLaVA-OneVision", llava_onevision())):
        collators = [collator_for(processor, pixels=pixels) for pixels in PIXEL_FORMATS]
        calls = [(partial(c, batch[:1]), partial(c, batch)) for c in collators]
        found = [in_a_child(partial(peak_and_sent, *pair)) for pair in calls]
        for place, what in enumerate(("peak memory", "sent by a worker")):
            shown = [f"{numbers[place] / 1e6:.0f} MB" for numbers in found]
            yield f"{name}, 8 x 1600x1200: {what}", *shown
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            prepare_dataset(
                [{"messages": row} for row in batch],
                Path(folder, "out"),
                collator=collator_for(processor),
            )
            rate = len(batch) / (time.perf_counter() - start)
            stored = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        yield f"{name}, 8 x 1600x1200: a shard", *(f"{stored / 1e6:.0f} MB",) * 3
        yield f"{name}: samples a second of prepare", *(f"{rate:.1f}",) * 3


def sizes_of_others() -> Iterator[tuple[str, ...]]:
    """The same of the batches of other collators, each in its own format."""
    processor, images = qwen2_5_vl(), eight_images(1600, 1200)
    ours = collator_for(processor)
    batch = [chat("image", image, number) for number, image in enumerate(images)]
    calls: list[tuple[str, str, Callable[[], Any]]]
    calls = [("vlmcollate", "float32", partial(ours, batch)), *calls_of_others(processor, images)]
    for name, pixels, call in calls:
        found = in_a_child(partial(peak_and_sent, call, call))
        for what, number in zip(("peak memory", "sent by a worker"), found, strict=True):
            shown = [f"{number / 1e6:.0f} MB" if p == pixels else "" for p in PIXEL_FORMATS]
            yield f"Qwen2.5-VL, 8 x 1600x1200: {what}, {name}", *shown


def peak_and_sent(first: Callable[[], Any], call: Callable[[], Any]) -> tuple[int, int]:
    """The growth of a process at its peak, and the bytes that a batch takes in shared memory.

    Args:
        first: A call before it.
        call: The call that makes the batch.
    """
    first()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak()
    made = call()
    grown = peak() - before
    values = [v.values if isinstance(v, PixelBytes) else v for v in made.values()]
    return grown, sum(value.nbytes for value in values)


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def in_a_child(call: Callable[[], Any]) -> Any:
    """Runs a call in a process of its own, and returns its result as JSON holds it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with os.fdopen(writing, "w") as file:
            json.dump(call(), file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        found = json.load(file)
    os.waitpid(child, 0)
    return found


def main() -> None:
    """Measures and prints."""
    hf.logging.set_verbosity_error()
    torch.set_num_threads(1)
    rounds = int(os.environ.get("ROUNDS", "9"))
    table = Table("what", "base ms", "ours ms", "ratio", "limit")
    for measure in MEASURES:
        for what, base, ours, limit in measure(rounds):
            ratio = ours / base
            style = "green" if ratio <= limit else "red"
            times = f"{1000 * base:.1f}", f"{1000 * ours:.1f}"
            table.add_row(what, *times, f"[{style}]{ratio:.2f}", f"{limit:.2f}")
    Console(width=120).print(table)
    table = Table("what", *PIXEL_FORMATS)
    for row in (*sizes(), *sizes_of_others()):
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
