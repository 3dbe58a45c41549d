"""The form that every example takes inside the library: messages of typed parts.

`read_example` converts an example to this form once; `vlmcollate.formats` has
a module for each format. It never writes to the caller's objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import attrs

MediaKind = Literal["image", "video", "audio"]


@attrs.frozen
class TextPart:
    """A piece of text inside a message.

    Attributes:
        text: The text.
        weight: The weight of its tokens in the loss; `None` has that of the message.
    """

    text: str
    weight: float | None = None


@attrs.frozen(kw_only=True, repr=False)
class MediaOptions:
    """The options that one media item has of its own; `None` leaves a choice to the processor.

    Attributes:
        min_pixels: The minimum number of pixels (width times height) after resizing; of each frame
            for videos.
        max_pixels: The maximum number, likewise.
        total_pixels: The maximum number of pixels of all frames of a video, of which the processor
            counts `temporal_patch_size` as one.
        resized_height: The height after resizing, before it is rounded to whole patches.
        resized_width: The width, likewise.
        fps: The frames to sample per second; for a video that is passed as frames, the rate at
            which they were sampled, unless `sample_fps` states it.
        num_frames: The number of frames to sample.
        min_frames: The minimum number of frames with `fps`.
        max_frames: The maximum number of frames with `fps`.
        start: The time in seconds at which the video or audio item starts.
        end: The time in seconds at which it ends.
        times: The time in seconds of each frame.
        indices: The index of each frame in the video.
        raw_fps: The frame rate of the video that `indices` count.
        sample_fps: The rate at which a video that is passed as frames was sampled.
        use_audio_in_video: Whether the video's own audio is placed between its frames.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    total_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None
    fps: float | None = None
    num_frames: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    start: float | None = None
    end: float | None = None
    times: tuple[float, ...] | None = None
    indices: tuple[int, ...] | None = None
    raw_fps: float | None = None
    sample_fps: float | None = None
    use_audio_in_video: bool | None = None

    def __repr__(self) -> str:
        """Shows the options that are set."""
        given = attrs.asdict(self, recurse=False, filter=lambda _, value: value is not None)
        return f"MediaOptions({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    @property
    def resizes(self) -> bool:
        """Whether an option sets the size of an image or of frames."""
        sizes = self.min_pixels, self.max_pixels, self.total_pixels, self.resized_height
        return any(size is not None for size in sizes)


NO_OPTIONS = MediaOptions()


@attrs.frozen(eq=False)
class MediaPart:
    """An image, a video or an audio item inside a message.

    Attributes:
        kind: The kind of media.
        source: The media in the example: an object, a path, bytes or a URI.
        where: Its path in the example, such as `messages[0].content[1]`.
        options: The options that it has of its own.
        weight: The weight in the loss of what the template writes around it in an answer; `None`
            does not train it.
    """

    kind: MediaKind
    source: Any
    where: str
    options: MediaOptions = NO_OPTIONS
    weight: float | None = None


Part = TextPart | MediaPart


@attrs.frozen(kw_only=True)
class Message:
    """One message.

    Attributes:
        role: The role, as the chat template spells it.
        content: The parts in order; empty if the message only calls tools.
        weight: The weight of its tokens in the loss; 0 trains none of them.
        is_prefix: Whether the model continues the message, which is the last one; its text does
            not train, and no end is written behind it.
        is_string: Whether the content was one string, which a template may write unlike a list, or
            unlike no content if it is empty.
        trains_apart: Whether it is an answer that trains in another sample, which `split_turns`
            makes.
        extra: Further keys for the template, such as `tool_calls`, `reasoning_content` and `name`.
    """

    role: str
    content: tuple[Part, ...]
    weight: float = 1.0
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    is_prefix: bool = False
    is_string: bool = attrs.field(default=False, eq=False)
    trains_apart: bool = attrs.field(default=False, eq=False)

    @property
    def is_assistant(self) -> bool:
        """Whether the model learns to produce this message."""
        return self.role == "assistant"

    def untrained(self) -> Message:
        """Returns the message with the weight 0, also of its parts."""
        content = tuple(
            part if part.weight is None else attrs.evolve(part, weight=None)
            for part in self.content
        )
        return attrs.evolve(self, content=content, weight=0.0)

    def placed(self, place: Callable[[str | None], str | None]) -> Message:
        """Returns the message with other paths of its media.

        Args:
            place: A function that returns the path in the dataset's row of a path in this message.
        """
        if not any(isinstance(part, MediaPart) for part in self.content):
            return self
        content = tuple(
            attrs.evolve(part, where=place(part.where) or "")
            if isinstance(part, MediaPart)
            else part
            for part in self.content
        )
        return attrs.evolve(self, content=content)

    @property
    def text(self) -> str:
        """The text of all parts, without media."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


@attrs.frozen(kw_only=True)
class Conversation:
    """A conversation in the form that the library uses.

    Attributes:
        messages: The messages in order.
        tools: The JSON schemas of the tools for the template, or `None`.
        template_kwargs: Further variables for the template.
        format: The name of the format that was read.
        unread: The fields of the example that nothing reads, by their path.
        is_plain_text: Whether it is one plain text with media, which no chat template writes.
    """

    messages: tuple[Message, ...]
    tools: list[Any] | None = None
    template_kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    format: str = attrs.field(default="messages", eq=False)
    unread: Mapping[str, Any] = attrs.field(factory=dict, eq=False)
    is_plain_text: bool = False

    @property
    def media(self) -> Iterator[tuple[int, MediaPart]]:
        """Every media part with the index of its message, in order."""
        for index, message in enumerate(self.messages):
            for part in message.content:
                if isinstance(part, MediaPart):
                    yield index, part
