"""The options of one media item act as in the Qwen utilities, and agree with the counted tokens."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.media_bytes import video_bytes
from tests.processors import gemma, idefics, qwen
from tests.processors.cases import CASES
from vlmcollate import FrameSampling, LocalMedia, collator_for
from vlmcollate.encode.media_counts import processors_count_videos
from vlmcollate.errors import MediaError
from vlmcollate.media.processing.resizing import Resizer

pytestmark = pytest.mark.xdist_group("item_options")  # they share processors

counts_videos = pytest.mark.skipif(
    not processors_count_videos(), reason="this transformers counts no tokens of videos"
)

PIXELS = np.random.default_rng(0).integers(0, 255, (133, 217, 3), np.uint8)
FRAMES = [Image.new("RGB", (160, 120), (i * 20, 0, 0)) for i in range(8)]
SAMPLING: list[dict[str, Any]] = [
    {"fps": 1.0},
    {"fps": 5.0},
    {"nframes": 6},
    {"nframes": 7},
    {"fps": 10.0, "max_frames": 9},
    {"fps": 0.1, "min_frames": 7},
    {"video_start": 0.5},
    {"video_start": 0.5, "video_end": 1.4},
    {"video_end": 1.0, "fps": 4.0},
]
RESIZING: list[dict[str, Any]] = [
    {"min_pixels": 150000},
    {"max_pixels": 140000},
    {"min_pixels": 5000, "max_pixels": 10000},
    {"resized_height": 140, "resized_width": 210},
]
TOTALS = [{"total_pixels": 300000}, {"total_pixels": 3000000, "min_pixels": 30000}]
SMALL = RESIZING[2]


@lru_cache(maxsize=1)
def collator(family: str) -> Any:
    return collator_for(getattr(qwen, family)())


def conversation(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    content = [*parts, {"type": "text", "text": "What?"}]
    answer = [{"type": "text", "text": "This."}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


def encode_rgb_video(path: Any, frames: int, rate: int) -> str:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for i in range(frames):
            pixels = np.full((120, 160, 3), i * 2, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())
    return str(path)


def of_the_utilities(processor: Any, chat: list[dict[str, Any]]) -> Any:
    """What a processor returns for the media that the Qwen utilities make of a conversation."""
    from qwen_vl_utils import process_vision_info

    images, videos, more = process_vision_info(
        chat,
        return_video_kwargs=True,
        return_video_metadata=True,
        image_patch_size=processor.image_processor.patch_size,
    )
    if videos:
        frames, metadata = zip(*videos, strict=True)
        more |= {"videos": list(frames), "video_metadata": list(metadata)}
    text = processor.apply_chat_template(chat, tokenize=False)
    return processor(text=[text], images=images, do_resize=False, return_tensors="pt", **more)


def check_as_the_utilities(family: str, part: dict[str, Any]) -> None:
    chat, collate = conversation(part), collator(family)
    ours, theirs = collate([chat]), of_the_utilities(collate.processor, chat)
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist(), part
    for key in ("image_grid_thw", "video_grid_thw", "second_per_grid_ts"):
        if key in theirs:
            assert np.allclose(ours[key], theirs[key]), (part, key)
    counted = part["type"] == "image" or processors_count_videos()
    assert collate.token_count(chat) == (theirs["input_ids"].shape[1] if counted else None)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_options_act_as_in_the_qwen_utilities(family, tmp_path):
    pytest.importorskip("qwen_vl_utils")
    path = str(tmp_path / "image.png")
    Image.fromarray(PIXELS).save(path)
    for options in RESIZING:
        check_as_the_utilities(family, {"type": "image", "image": path, **options})
    for options in ({"sample_fps": 4.0}, {"min_pixels": 200000}, RESIZING[2], RESIZING[3]):
        check_as_the_utilities(family, {"type": "video", "video": FRAMES, **options})
    pytest.importorskip("decord", reason="without it the Qwen utilities decode no video here")
    video = encode_rgb_video(tmp_path / "video.mp4", 41, 24)
    totals: list[dict[str, Any]] = [
        {"total_pixels": 300000},
        {"total_pixels": 3000000, "min_pixels": 30000},
    ]
    for options in (*RESIZING, *totals, *({**sampled, **SMALL} for sampled in SAMPLING)):
        check_as_the_utilities(family, {"type": "video", "video": video, **options})


@pytest.mark.parametrize(
    "name",
    ["Qwen2_5_VLProcessor", "Glm4vProcessor", "PaddleOCRVLProcessor", "VideoLlama3Processor"],
)
def test_an_image_is_resized_as_the_processor_resizes(name):
    collate = collator_for(CASES[name].processor(), **CASES[name].options)
    image, other = Image.fromarray(PIXELS), Image.new("RGB", (90, 60), "teal")
    chat = conversation(
        {"type": "image", "image": other},
        {"type": "image", "image": image, "max_pixels": 10000},
        {"type": "image", "image": other, "min_pixels": 10000, "max_pixels": 90000},
    )
    batch, part = collate([chat]), collate.processor.image_processor
    layers = 2 if name.startswith("Glm") else 1  # its limits count an image as a pair of frames
    size = part.size if isinstance(part.size, dict) else vars(part.size)
    limits = {key: size[key] for key in ("shortest_edge", "longest_edge")}
    expected = [
        part(images=[item], size={**limits, **{k: v * layers for k, v in changed.items()}})
        for item, changed in (
            (other, {}),
            (image, {"shortest_edge": 3136, "longest_edge": 10000}),
            (other, {"shortest_edge": 10000, "longest_edge": 90000}),
        )
    ]
    for key in ("pixel_values", "image_grid_thw"):
        assert np.array_equal(batch[key], np.concatenate([found[key] for found in expected])), key
    assert collate.token_count(chat) in (None, batch["input_ids"].shape[1])


@pytest.mark.parametrize("options", [*SAMPLING, *RESIZING])
def test_a_folder_of_frames_is_as_their_list(options, tmp_path):
    for i, frame in enumerate(FRAMES):
        frame.save(tmp_path / f"{i}.png")
    collate = collator("qwen2_5_vl")
    chats = [
        conversation({"type": "video", "video": source, **options})
        for source in (FRAMES, str(tmp_path), [str(tmp_path / f"{i}.png") for i in range(8)])
    ]
    first, *others = (collate([chat]) for chat in chats)
    for other in others:
        for key in ("input_ids", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts"):
            assert first[key].equal(other[key]), key
    expected = first["input_ids"].shape[1] if processors_count_videos() else None
    assert {collate.token_count(chat) for chat in chats} == {expected}


def test_an_image_that_a_collator_returned_is_resized_again():
    collate = collator("qwen2_5_vl")
    chat = conversation({"type": "image", "image": Image.fromarray(PIXELS), "max_pixels": 1000})
    (resized,) = collate.load(collate.read(chat))
    again = collate([conversation({"type": "image", "image": resized})])
    plain = collate([conversation({"type": "image", "image": np.asarray(resized)})])
    assert again["pixel_values"].equal(plain["pixel_values"])
    assert again["image_grid_thw"].prod() > collate([chat])["image_grid_thw"].prod()


def test_the_tensors_of_an_item_keep_the_processors_order():
    """A sample's bytes are those of its tensors in order, in every process."""
    chat = conversation({"type": "image", "image": Image.fromarray(PIXELS), "max_pixels": 1000})
    assert list(collator("qwen2_5_vl").encode(chat).media) == ["pixel_values", "image_grid_thw"]


def test_limits_of_an_item_that_contradict_are_refused():
    collate = collator("qwen2_5_vl")
    for options, problem in (
        ({"resized_height": 560, "resized_width": 560, "max_pixels": 1000}, "keep one of the two"),
        ({"resized_height": 1, "resized_width": 900}, "refuses a size of 900x1"),
    ):
        chat = conversation({"type": "image", "image": Image.fromarray(PIXELS), **options})
        for call in (collate.encode, collate.token_count):
            with pytest.raises(MediaError, match=problem):
                call(chat)


def test_a_processor_without_limits_of_pixels_names_the_way_on():
    for processor, where in ((gemma.gemma3(), "image"), (idefics.smolvlm(), "image")):
        chat = conversation({"type": "image", "image": Image.fromarray(PIXELS), "max_pixels": 1000})
        with pytest.raises(MediaError, match=f"takes no limits of pixels for {where} media"):
            collator_for(processor).encode(chat)


def test_a_processor_without_limits_of_pixels_samples_as_the_options_say():
    collate = collator_for(idefics.smolvlm())
    data = video_bytes(np.arange(30) / 10)
    chats = [
        conversation({"type": "video", "video": data, **options})
        for options in ({"nframes": 3}, {"video_end": 0.9, "fps": 5.0})
    ]
    assert [len(collate.encode(chat).media["pixel_values"][0]) for chat in chats] == [3, 5]


def test_the_options_come_before_those_of_the_media_strategy():
    media = LocalMedia(frames=FrameSampling(fps=1.0, min_frames=1))
    collate = collator_for(qwen.qwen2_5_vl(), media=media)
    data = video_bytes(np.arange(30) / 10)
    for options, layers in (({}, 2), ({"nframes": 8}, 4)):
        sample = collate.encode(conversation({"type": "video", "video": data, **options}))
        assert sample.media["video_grid_thw"][0, 0] == layers


def test_audio_has_the_range_and_the_use_that_its_options_set():
    collate = collator_for(qwen.qwen2_5_omni())
    data = video_bytes(np.arange(30) / 10, audio=3.0)
    rate = collate.traits.sampling_rate or 0
    for options, seconds in (
        ({}, None),
        ({"use_audio_in_video": True}, 3.0),
        ({"use_audio_in_video": True, "video_start": 1.0, "video_end": 2.0}, 1.0),
    ):
        chat = conversation({"type": "video", "video": data, **options})
        (video,) = collate.load(collate.read(chat))
        found = None if video.audio is None else len(video.audio) / rate
        assert found == (seconds and pytest.approx(seconds, abs=0.2))
        assert collate.encode(chat).media_counts.get("audio", 0) == (seconds is not None)
    for with_audio in (True, False):
        chat = conversation({"type": "video", "video": data, "use_audio_in_video": with_audio})
        if with_audio:
            with pytest.raises(MediaError, match="takes no audio of videos"):
                collator("qwen2_5_vl").encode(chat)
        else:
            collator("qwen2_5_vl").encode(chat)


def test_an_audio_item_is_cut_to_its_range():
    collate = collator_for(qwen.qwen2_5_omni())
    samples = np.sin(np.arange(48000) / 30).astype(np.float32)
    for options, expected in (
        ({}, 48000),
        ({"audio_start": 1.0}, 32000),
        ({"audio_start": 0.5, "audio_end": 1.0}, 8000),
    ):
        part = {"type": "audio", "audio": samples, "sampling_rate": 16000, **options}
        (found,) = collate.load(collate.read(conversation(part)))
        assert len(found) == expected
    part = {"type": "audio", "audio": samples, "sampling_rate": 16000, "audio_start": 9.0}
    with pytest.raises(MediaError, match="no sample from 9 s on"):
        collate.encode(conversation(part))


def test_every_processor_with_limits_is_found():
    for name in ("qwen2_vl", "qwen3_vl", "qwen3_omni"):
        processor = getattr(qwen, name)()
        assert all(Resizer.of(processor, kind, None) for kind in ("image", "video"))


@counts_videos
def test_token_count_agrees_where_only_the_options_fit_a_video():
    # Qwen3-VL itself refuses a video of one frame, but takes it in a size of its own
    collate = collator("qwen3_vl")
    sizes = {"resized_height": 64, "resized_width": 96}
    chat = conversation({"type": "video", "video": FRAMES[:1], **sizes})
    assert collate.token_count(chat) == len(collate.encode(chat))


@counts_videos
def test_token_count_refuses_the_media_that_the_processor_refuses():
    collate = collator("qwen3_vl")
    for part in (
        {"type": "video", "video": FRAMES[:1]},
        {"type": "image", "image": Image.new("RGB", (3, 1000))},
    ):
        for call in (collate.encode, collate.token_count):
            with pytest.raises(MediaError, match=r"content\[0\]: Qwen3VLProcessor refuses the"):
                call(conversation(part))


@counts_videos
def test_a_minimum_that_no_memory_holds_is_refused():
    collate = collator("qwen3_vl")
    for part in ({"type": "image", "image": FRAMES[0]}, {"type": "video", "video": FRAMES}):
        for call in (collate.encode, collate.token_count):
            with pytest.raises(MediaError, match="lower min_pixels"):
                call(conversation({**part, "min_pixels": 10**12}))
