"""Reading media from object stores, of buckets that are allowed by name, through fsspec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import attrs

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.loading.connecting import message_of
from vlmcollate.media.loading.deadlines import Deadline
from vlmcollate.media.loading.options import above_zero, as_names
from vlmcollate.media.loading.urls import without_secrets
from vlmcollate.validators import an_instance_of

_ELSEWHERE = {
    "file": 'local files need no store; set root="..." in LocalMedia',
    "local": 'local files need no store; set root="..." in LocalMedia',
    "http": 'allow the host with UrlFetcher(hosts=["..."])',
    "https": 'allow the host with UrlFetcher(hosts=["..."])',
}


def _as_prefixes(value: Any) -> tuple[str, ...]:
    return tuple(_as_prefix(name) for name in as_names(value))


def _as_prefix(name: Any) -> str:
    scheme, separator, rest = name.partition("://") if isinstance(name, str) else ("", "", "")
    problem = _problem_of(name) if separator else "it is no URL"
    if not rest.strip("/"):
        problem = problem or "it names no bucket"
    if problem:
        raise ConfigError(
            f"prefixes holds {without_secrets(str(name))!r}, expected a bucket or a folder in one, "
            f"such as 's3://bucket/images': {problem}"
        )
    if scheme.lower() in _ELSEWHERE:
        raise ConfigError(
            f"prefixes holds {without_secrets(name)!r}, expected an object store such as "
            f"'s3://bucket': {_ELSEWHERE[scheme.lower()]}"
        )
    return f"{scheme.lower()}://{rest.rstrip('/')}"


@attrs.frozen(kw_only=True)
class ObjectStores:
    """Reads media from object stores through `fsspec`, which `vlmcollate[object-stores]` installs.

    Only URLs below the prefixes are read. One that holds `..`, a chain of file systems (`::`) or a
    user name is refused.

    Args:
        prefixes: The allowed buckets, or folders in them, such as `"s3://bucket/images"`,
            `"gs://bucket"` or `"memory://folder"`. The package of a store, such as `s3fs` or
            `gcsfs`, is installed separately.
        max_bytes: The maximum number of bytes of an object, checked before reading.
        timeout: The maximum number of seconds for an object.
        options: The options of a file system by its scheme, such as `{"s3": {"anon": True}}`.

    Raises:
        ConfigError: If an option has another type or is out of range, or a package is missing.

    Example:
        >>> ObjectStores(prefixes="memory://images").allows("memory://images/cats/1.png")
        True
    """

    prefixes: tuple[str, ...] = attrs.field(converter=_as_prefixes)
    max_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=above_zero)
    timeout: float = attrs.field(default=20.0, validator=above_zero)
    options: Mapping[str, Mapping[str, Any]] = attrs.field(
        factory=dict, validator=an_instance_of(Mapping), repr=False
    )

    @prefixes.validator
    def _check_prefixes(self, _: object, value: tuple[str, ...]) -> None:
        if not value:
            raise ConfigError("prefixes is empty; name at least one, such as 's3://bucket'")
        for prefix in value:
            check_protocol(prefix.partition("://")[0])

    def allows(self, url: str) -> bool:
        """Whether a URL is below one of the prefixes."""
        scheme, _, rest = url.partition("://")
        name = f"{scheme.lower()}://{rest}"
        return any(name.startswith(f"{prefix}/") for prefix in self.prefixes)

    def read(self, url: str, *, where: str) -> bytes:
        """Reads one object.

        Args:
            url: The URL of the object.
            where: The path inside the sample, for errors.

        Returns:
            Its content.

        Raises:
            MediaError: If the URL is not allowed, or the object is missing, too large, or takes too
                long.
        """
        problem = _problem_of(url)
        if not problem and not self.allows(url):
            problem = (
                f"it is not below the allowed {list(self.prefixes)}; add its bucket to "
                "ObjectStores(prefixes=[...])"
            )
        if problem:
            raise self._refused(url, problem, where)
        scheme, _, rest = url.partition("://")
        files, path = locate(f"{scheme.lower()}://{rest}", self.options.get(scheme.lower(), {}))
        try:
            return Deadline.after(self.timeout).run(lambda: self._content(files, path, url, where))
        except MediaError:
            raise
        except (OSError, ValueError) as error:
            why = f"it cannot be read ({message_of(error)})"
            raise self._refused(url, why, where) from error

    def _content(self, files: Any, path: str, url: str, where: str) -> bytes:
        """The content of an object, of which no more than the limit is read."""
        found = files.info(path)
        if found.get("type") == "directory":
            raise self._refused(url, "it is a folder, expected an object", where)
        size = found.get("size")
        self._check_size(url, size or 0, where)
        if size == 0:
            return b""
        data: bytes = files.cat_file(path, start=0, end=self.max_bytes + 1)
        self._check_size(url, len(data), where)
        return data

    def _check_size(self, url: str, size: int, where: str) -> None:
        if size > self.max_bytes:
            raise self._refused(
                url, f"it has {size} bytes or more, above max_bytes={self.max_bytes}", where
            )

    def _refused(self, url: str, why: str, where: str) -> MediaError:
        return MediaError(f"'{without_secrets(url)}' is not used: {why}", where=where)


def _problem_of(url: str) -> str:
    """The reason why a URL is refused whatever is allowed, or ""."""
    rest = url.partition("://")[2]
    if any(ord(c) < 32 or ord(c) == 127 for c in url):
        return "it holds control characters"
    if "::" in url:
        return "it holds a chain of file systems, written with '::'"
    if ".." in unquote(rest).replace("\\", "/").split("/"):
        return "it leads to a folder above, with '..'"
    if "@" in rest.partition("/")[0]:
        return "it holds a user name"
    return ""


def check_protocol(scheme: str) -> None:
    """Refuses a scheme for whose URLs a package is missing.

    Raises:
        ConfigError: The package of the scheme is missing, or the scheme is unknown.
    """
    registry = _fsspec()
    try:
        registry.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"URLs of {scheme}:// cannot be read: {error}; install the package of the store, such "
            "as s3fs or gcsfs"
        ) from error


def locate(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Returns the file system of a URL, which fsspec keeps for each process, and its path there.

    Args:
        url: The URL.
        options: The options of the file system.

    Raises:
        ConfigError: A package is missing.
    """
    check_protocol(url.partition("://")[0].rpartition("::")[2])
    found: tuple[Any, str] = _fsspec().core.url_to_fs(url, **options)
    return found


def _fsspec() -> Any:
    try:
        import fsspec.core
    except ImportError as error:
        raise ConfigError(
            "fsspec, which reads object stores, is not installed; run pip install "
            "'vlmcollate[object-stores]'"
        ) from error
    return fsspec
