"""The options of one media item are read, or refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest

from vlmcollate.conversation import NO_OPTIONS, MediaOptions
from vlmcollate.errors import ConversationError
from vlmcollate.formats import read_example


def row(part, **columns):
    content = [part, {"type": "text", "text": "What?"}]
    answer = {"role": "assistant", "content": "This."}
    return {"messages": [{"role": "user", "content": content}, answer], **columns}


def options_of(part, **columns):
    ((_, media),) = read_example(row(part, **columns)).media
    return media.options


VIDEO = {"type": "video", "video": "a.mp4"}
IMAGE = {"type": "image", "image": "a.png"}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({**IMAGE, "max_pixels": 1000, "min_pixels": 10.0}, {"max_pixels": 1000, "min_pixels": 10}),
        ({**IMAGE, "resized_height": 28, "resized_width": np.int64(56)},
         {"resized_height": 28, "resized_width": 56}),
        ({**IMAGE, "max_pixels": None}, {}),
        ({**VIDEO, "fps": 1, "min_frames": 4, "max_frames": 8, "total_pixels": 9},
         {"fps": 1.0, "min_frames": 4, "max_frames": 8, "total_pixels": 9}),
        ({**VIDEO, "nframes": 6}, {"num_frames": 6}),
        ({**VIDEO, "num_frames": 6}, {"num_frames": 6}),
        ({**VIDEO, "video_start": 0, "video_end": 2.5}, {"start": 0.0, "end": 2.5}),
        ({**VIDEO, "timestamps": np.array([0.0, 1.5])}, {"times": (0.0, 1.5)}),
        ({**VIDEO, "timestamps": "[0, 1.5]"}, {"times": (0.0, 1.5)}),
        ({**VIDEO, "frames_indices": [0, 30], "raw_fps": 30},
         {"indices": (0, 30), "raw_fps": 30.0}),
        ({**VIDEO, "sample_fps": 2, "raw_fps": 30}, {"sample_fps": 2.0, "raw_fps": 30.0}),
        ({**VIDEO, "use_audio_in_video": True}, {"use_audio_in_video": True}),
        ({"type": "audio", "audio": "a.wav", "audio_start": 1, "audio_end": 2},
         {"start": 1.0, "end": 2.0}),
        ({"type": "image_url", "image_url": {"url": "a.png", "max_pixels": 5}}, {"max_pixels": 5}),
        ({"type": "image", "image": {"path": "a.png", "max_pixels": 5}}, {"max_pixels": 5}),
    ],
)  # fmt: skip
def test_options_of_a_part_are_read(part, expected):
    assert options_of(part) == MediaOptions(**expected)


@pytest.mark.parametrize("with_tag", [False, True])
def test_options_of_an_item_in_a_column_are_read(with_tag):
    text = "<video>What?" if with_tag else "What?"
    item = {"video": "a.mp4", "fps": 2.0, "max_pixels": 100}
    example = {
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "A."}],
        "videos": [item],
    }
    ((_, media),) = read_example(example).media
    assert (media.source, media.options) == ("a.mp4", MediaOptions(fps=2.0, max_pixels=100))
    assert item == {"video": "a.mp4", "fps": 2.0, "max_pixels": 100}


def test_an_item_in_a_column_may_lack_options_and_its_part_may_add_some():
    assert options_of({"type": "video"}, videos=[{"video": "a.mp4"}]) == NO_OPTIONS
    given = options_of({"type": "video", "nframes": 4}, videos=[{"path": "a.mp4", "max_pixels": 9}])
    assert given == MediaOptions(num_frames=4, max_pixels=9)
    with pytest.raises(ConversationError, match="set num_frames to 4 and 5"):
        options_of({"type": "video", "nframes": 4}, videos=[{"path": "a.mp4", "nframes": 5}])


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ({**IMAGE, "fps": 1.0}, r"content\[0\].fps: is an option of video parts"),
        ({**VIDEO, "audio_start": 1.0}, "is an option of audio parts"),
        ({**IMAGE, "max_pixels": 0}, "expected a whole number from 1, found int 0"),
        ({**IMAGE, "max_pixels": 1.5}, "whole number"),
        ({**IMAGE, "max_pixels": True}, "whole number"),
        ({**IMAGE, "max_pixels": "many"}, "whole number"),
        ({**IMAGE, "max_pixels": float("inf")}, "whole number"),
        ({**VIDEO, "fps": 0}, "expected a rate from 1e-06"),
        ({**VIDEO, "fps": float("nan")}, "expected a number"),
        ({**VIDEO, "fps": 1e9}, "expected a rate"),
        ({**VIDEO, "fps": True}, "expected a number"),
        ({**VIDEO, "video_start": -1}, "expected a number from 0"),
        ({**VIDEO, "use_audio_in_video": 1}, "expected true or false"),
        ({**VIDEO, "timestamps": [1.0, 1.0]}, "rising"),
        ({**VIDEO, "timestamps": []}, "rising"),
        ({**VIDEO, "timestamps": 3.0}, "expected a list"),
        ({**VIDEO, "frames_indices": [0, 1.5]}, r"frames_indices\[1\]: expected a whole number"),
        ({**VIDEO, "fps": 1, "nframes": 4}, "sets both fps and nframes"),
        ({**VIDEO, "nframes": 4, "num_frames": 4}, "given twice"),
        ({**VIDEO, "timestamps": [1.0], "frames_indices": [1]}, "sets both timestamps and"),
        ({**VIDEO, "timestamps": [1.0], "video_start": 1}, "sets both timestamps and video_start"),
        ({**VIDEO, "nframes": 4, "max_frames": 2}, "sets nframes=4 above max_frames=2"),
        ({**VIDEO, "video_start": 3, "video_end": 2}, "sets video_start=3 above video_end=2"),
        ({**IMAGE, "min_pixels": 9, "max_pixels": 8}, "sets min_pixels=9 above max_pixels=8"),
        ({**IMAGE, "resized_height": 9}, "set both"),
        ({**VIDEO, "raw_fps": 30}, "raw_fps without frames_indices"),
        ({"type": "text", "text": "a", "max_pixels": 4}, "put it into the part of that item"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(part, problem):
    with pytest.raises(ConversationError, match=problem):
        options_of(part)


def test_an_option_beside_the_messages_names_the_part():
    with pytest.raises(ConversationError, match="put it into the part of that item"):
        read_example(row(IMAGE, max_pixels=1000))
