"""Reading encoded media, whatever form its source has."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs

from vlmcollate.errors import MediaError
from vlmcollate.media.loading.data_uris import decode_data_uri
from vlmcollate.media.loading.fetching import UrlFetcher
from vlmcollate.media.loading.files import check_bytes, files_of_folder, path_below, read_file
from vlmcollate.media.loading.stores import ObjectStores
from vlmcollate.media.loading.urls import without_secrets

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_ENCODED = "a path, encoded bytes, a data URI, a dict of 'bytes' or 'path'"


@attrs.frozen
class EncodedKind:
    """A kind of media, as errors name it.

    Attributes:
        name: Its name.
        article: The article before its name.
        accepted: The sources that are accepted.
        data_uri: The header of a data URI.
    """

    name: str
    article: str
    accepted: str
    data_uri: str


IMAGE = EncodedKind(
    "image", "an", f"a PIL image, {_ENCODED}, or a uint8 array", "data:image/png;base64"
)
VIDEO = EncodedKind(
    "video", "a", f"{_ENCODED}, a list of images or a uint8 array", "data:video/mp4;base64"
)
AUDIO = EncodedKind(
    "audio",
    "an",
    f"{_ENCODED}, (array, rate), or a dict of 'array' and 'sampling_rate'",
    "data:audio/wav;base64",
)


@attrs.frozen(kw_only=True)
class EncodedReader:
    """Reads the encoded bytes of one kind of media.

    Args:
        kind: The kind of media.
        max_bytes: The maximum number of encoded bytes, checked before reading.
        root: The folder below which files may be opened, or `None` for any file.
        fetcher: Fetches `http` and `https` URLs, or `None` to refuse them.
        stores: Reads URLs of object stores, or `None` to refuse them.
        where: The path inside the sample, for errors.
    """

    kind: EncodedKind
    max_bytes: int
    root: Path | None
    fetcher: UrlFetcher | None
    stores: ObjectStores | None = None
    where: str

    def read(self, source: object) -> tuple[bytes, str]:
        """Reads a source.

        Args:
            source: A path or `file://` URI; a URL; encoded bytes; a base64 data URI; or a dict with
                `bytes` or `path`.

        Returns:
            The encoded bytes, and their name in errors.

        Raises:
            MediaError: If the source is missing, refused, too large, or none of these.
        """
        if isinstance(source, str | os.PathLike):
            return self._read_text(os.fsdecode(source))
        if isinstance(source, bytes | bytearray | memoryview):
            size = source.nbytes if isinstance(source, memoryview) else len(source)
            name = f"the encoded {self.kind.name}"
            self._check_bytes(size, name)
            return bytes(source), name
        if isinstance(source, Mapping):
            return self._read_mapping(source)
        raise self._refused(f"is {type(source).__name__}, expected {self.kind.accepted}")

    def folder(self, source: object) -> list[Path] | None:
        """Lists the files of a source that is a folder.

        Args:
            source: A source of any kind.

        Returns:
            The files in the order of the numbers in their names, or `None` if it is no folder.

        Raises:
            MediaError: If the source is a path outside of `root`, or a URL of another machine.
        """
        if isinstance(source, Mapping):
            source = source.get("path") if source.get("bytes") is None else None
        if not isinstance(source, str | os.PathLike):
            return None
        text = os.fsdecode(source)
        url = _URL.match(text)
        if url is not None and url[1].lower() != "file":
            return None
        path = Path(text if url is None else _path_of_uri(text, self.where))
        return files_of_folder(path_below(self.root, path, self.where))

    def _read_mapping(self, source: Mapping[Any, Any]) -> tuple[bytes, str]:
        encoded, path = source.get("bytes"), source.get("path")
        if isinstance(encoded, bytes | bytearray | memoryview):
            return self.read(encoded)
        if encoded is None and isinstance(path, str | os.PathLike):
            return self.read(path)
        raise self._refused(
            f"dict holds {type(encoded).__name__} under 'bytes' and {type(path).__name__} under "
            f"'path' (keys: {list(source)}); expected encoded bytes or a path under one of them"
        )

    def _read_text(self, text: str) -> tuple[bytes, str]:
        if text[:5].lower() == "data:":
            data = decode_data_uri(
                text,
                kind=self.kind.name,
                expected=self.kind.data_uri,
                max_bytes=self.max_bytes,
                where=self.where,
            )
            return data, "the data URI"
        url = _URL.match(text)
        if url is not None and url[1].lower() != "file":
            data = self._read_url(text, url[1].lower())
            name = f"'{without_secrets(text)}'"
            self._check_bytes(len(data), name)
            return data, name
        path = Path(text if url is None else _path_of_uri(text, self.where))
        found = path_below(self.root, path, self.where)
        data = read_file(found, kind=self.kind.name, max_bytes=self.max_bytes, where=self.where)
        return data, f"'{path}'"

    def _read_url(self, url: str, scheme: str) -> bytes:
        """Reads a URL of another machine, if its host or its bucket is allowed."""
        if scheme in ("http", "https"):
            option, allowed = "fetcher=UrlFetcher(hosts=[...])", "its host"
            if self.fetcher is not None:
                return self.fetcher.fetch(url, where=self.where)
        else:
            option, allowed = "stores=ObjectStores(prefixes=[...])", "its bucket"
            if self.stores is not None:
                return self.stores.read(url, where=self.where)
        raise MediaError(
            f"'{without_secrets(url)}' is a URL, and no URL is fetched while collating; download "
            f"it first and pass the path or the bytes, or allow {allowed} with "
            f"LocalMedia({option})",
            where=self.where,
        )

    def _check_bytes(self, found: int, name: str) -> None:
        check_bytes(found, name, self.max_bytes, self.where)

    def _refused(self, problem: str) -> MediaError:
        return MediaError(f"{self.kind.article} {self.kind.name} {problem}", where=self.where)


def _path_of_uri(uri: str, where: str) -> str:
    """The path in a `file://` URI; refuses one of another machine with a MediaError."""
    host = uri[len("file://") :].partition("/")[0]
    if host.lower() not in ("", "localhost"):
        raise MediaError(
            f"'{without_secrets(uri)}' names the host '{host}', expected 'file:///' and an "
            "absolute path on this machine",
            where=where,
        )
    return unquote(urlsplit(uri).path)
