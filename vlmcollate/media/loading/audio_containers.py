"""The bytes of samples that the header of an uncompressed audio file declares.

libsndfile takes a file that was cut as one that is shorter, so its number of samples does not show
the loss.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal

import attrs

_OF_STREAMS = (
    range(0x7EFFF000, 0x7F001000),
    range(0x7FFF0000, 0x80001000),
    range(0xFFFF0000, 1 << 32),
)
"""The sizes that programs write if they cannot seek back to the header, with some rounding."""
_LARGEST = 1 << 40
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


@attrs.frozen
class SampleBytes:
    """The bytes of the samples of an audio file.

    Attributes:
        declared: The number that the header declares.
        found: The number from the first sample to the end of the file.
    """

    declared: int
    found: int

    def lacks_samples(self, samples: int) -> bool:
        """Whether the file ends before a sample that its header declares.

        Args:
            samples: The number of samples that were decoded, in one channel.
        """
        # a few bytes less than the declared number are not yet a sample
        block = max(self.found // max(samples, 1), 1)
        return self.declared // block > self.found // block


@attrs.frozen
class _Layout:
    """How a format lays out its chunks.

    Attributes:
        start: The place of the first chunk.
        order: The byte order of sizes.
        name_length: The number of bytes of a chunk's name.
        size_length: The number of bytes of its size.
        counts_header: Whether the size includes the name and the size itself.
        align: The multiple of bytes at which chunks begin.
        data: The name of the chunk of samples.
    """

    start: int
    order: Literal["little", "big"]
    name_length: int = 4
    size_length: int = 4
    counts_header: bool = False
    align: int = 2
    data: bytes = b"data"

    def chunks(self, data: bytes) -> Iterator[tuple[bytes, int, int]]:
        """Yields the name, the place of the content and the size of each chunk."""
        at, header = self.start, self.name_length + self.size_length
        while at + header <= len(data):
            name = data[at : at + self.name_length]
            size = self.number(data, at + self.name_length, self.size_length)
            size -= header if self.counts_header else 0
            yield name, at + header, size
            if size < 0:
                return
            at += header + size
            at += -at % self.align

    def number(self, data: bytes, at: int, length: int) -> int:
        """Reads an unsigned number."""
        return int.from_bytes(data[at : at + length], self.order)


_LAYOUTS = {
    b"RIFF": _Layout(12, "little"),
    b"RIFX": _Layout(12, "big"),
    b"RF64": _Layout(12, "little"),
    b"riff": _Layout(40, "little", 16, 8, counts_header=True, align=8, data=_W64_DATA),
    b"caff": _Layout(8, "big", 4, 8, align=1),
}
_BY_KIND = {
    b"AIFF": _Layout(12, "big", data=b"SSND"),
    b"AIFC": _Layout(12, "big", data=b"SSND"),
    b"8SVX": _Layout(12, "big", data=b"BODY"),
    b"16SV": _Layout(12, "big", data=b"BODY"),
}
_AU: dict[bytes, Literal["little", "big"]] = {b".snd": "big", b"dns.": "little"}
_NIST_SIZES = (b"sample_count", b"channel_count", b"sample_n_bytes")
_NIST_FIELD = re.compile(rb"^(\w+) -(?:i|s\d) (\d{1,9})\s", re.MULTILINE)


def sample_bytes(data: bytes) -> SampleBytes | None:
    """Reads how many bytes of samples an audio file declares and holds.

    Args:
        data: The file.

    Returns:
        The numbers, or `None` if the file is no WAV, RF64, W64, AIFF, AU, SVX, CAF or NIST file, or
        declares none, as streams do.
    """
    found = _READERS.get(data[:4], _of_chunks)(data)
    if found is None or found.declared >= _LARGEST:
        return None
    is_open = any(found.declared + extra in sizes for sizes in _OF_STREAMS for extra in (0, 8))
    return None if is_open else found


def _of_chunks(data: bytes) -> SampleBytes | None:
    layout = _BY_KIND.get(data[8:12]) if data[:4] == b"FORM" else _LAYOUTS.get(data[:4])
    if layout is None:
        return None
    long_size: int | None = None
    for name, at, size in layout.chunks(data):
        if name == b"ds64":
            long_size = layout.number(data, at + 8, 8)
        if name == layout.data:
            if long_size is not None and size == 0xFFFFFFFF:
                size = long_size
            skipped = _skipped(name, layout, data, at)
            return SampleBytes(size - skipped, len(data) - at - skipped)
    return None


def _skipped(name: bytes, layout: _Layout, data: bytes, at: int) -> int:
    """The bytes before the first sample in the chunk of samples."""
    if name == b"SSND":  # an offset, and a size of blocks
        return 8 + layout.number(data, at, 4)
    return 4 if layout is _LAYOUTS[b"caff"] else 0  # the number of edits


def _of_au(data: bytes) -> SampleBytes:
    start, declared = (int.from_bytes(data[at : at + 4], _AU[data[:4]]) for at in (4, 8))
    return SampleBytes(declared, len(data) - start)


def _of_nist(data: bytes) -> SampleBytes | None:
    fields = {name: int(number) for name, number in _NIST_FIELD.findall(data[:1024])}
    start = data[8:16].strip()
    if not start.isdigit() or any(name not in fields for name in _NIST_SIZES):
        return None
    declared = 1
    for name in _NIST_SIZES:
        declared *= fields[name]
    return SampleBytes(declared, len(data) - int(start))


_READERS: dict[bytes, Callable[[bytes], SampleBytes | None]] = {
    b".snd": _of_au,
    b"dns.": _of_au,
    b"NIST": _of_nist,
}
