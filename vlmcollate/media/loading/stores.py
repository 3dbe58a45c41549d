"""Reading media from object stores, of buckets that are allowed by name, through fsspec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.loading.connecting import message_of
from vlmcollate.media.loading.deadlines import Deadline
from vlmcollate.media.loading.options import above_zero
from vlmcollate.media.loading.store_urls import as_prefixes, problem_of
from vlmcollate.media.loading.stored_files import check_protocol, locate
from vlmcollate.media.loading.urls import without_secrets
from vlmcollate.validators import an_instance_of


@attrs.frozen(kw_only=True)
class ObjectStores:
    """Reads media from object stores through `fsspec`, which `vlmcollate[object-stores]` installs.

    Only URLs below the prefixes are read. One that holds `..`, a chain of file systems (`::`) or a
    user name is refused.

    Args:
        prefixes: The allowed buckets, or folders in them, such as `"s3://bucket/images"`,
            `"abfs://container@account.dfs.core.windows.net"` or `"memory://folder"`. The package of
            a store, such as `s3fs` or `adlfs`, is installed separately.
        max_bytes: The maximum number of bytes of an object, checked before reading.
        timeout: The maximum number of seconds for an object.
        options: The options of a file system by its scheme, such as `{"s3": {"anon": True}}`.

    Raises:
        ConfigError: If an option has another type or is out of range, or a package is missing.

    Example:
        >>> ObjectStores(prefixes="memory://images").allows("memory://images/cats/1.png")
        True
    """

    prefixes: tuple[str, ...] = attrs.field(converter=as_prefixes)
    max_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=above_zero)
    timeout: float = attrs.field(default=20.0, validator=above_zero)
    options: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, repr=False)

    @prefixes.validator
    def _check_prefixes(self, _: object, value: tuple[str, ...]) -> None:
        if not value:
            raise ConfigError("prefixes is empty; name at least one, such as 's3://bucket'")
        for scheme in _schemes_of(value):
            check_protocol(scheme)

    @options.validator
    def _check_options(self, _: object, value: Mapping[str, Mapping[str, Any]]) -> None:
        an_instance_of(Mapping)(self, attrs.fields(type(self)).options, value)
        schemes = _schemes_of(self.prefixes)
        for scheme, given in value.items():
            if scheme not in schemes:
                raise ConfigError(
                    f"options names the scheme {scheme!r}, expected one of {schemes}, which "
                    "prefixes has; rename or remove it"
                )
            if not isinstance(given, Mapping):
                raise ConfigError(
                    f"options[{scheme!r}] is wrong: found {type(given).__name__}, expected the "
                    "options of a file system by name"
                )

    def allows(self, url: str) -> bool:
        """Whether a URL is below one of the prefixes, and holds nothing that is refused."""
        scheme, _, rest = url.partition("://")
        name = f"{scheme.lower()}://{rest}"
        is_below = any(name.startswith(f"{prefix}/") for prefix in self.prefixes)
        return is_below and not problem_of(url)

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
            ConfigError: If the file system cannot be made with its options.
        """
        problem = problem_of(url)
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
        except (MediaError, MemoryError):
            raise
        except FileNotFoundError as error:
            raise self._refused(url, "there is no such object", where) from error
        except Exception as error:  # clients of stores have errors of their own, without a base
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
        data: bytes = files.cat_file(path, start=0, end=int(self.max_bytes) + 1)
        self._check_size(url, len(data), where)
        return data

    def _check_size(self, url: str, size: int, where: str) -> None:
        if size > self.max_bytes:
            raise self._refused(
                url, f"it has {size} bytes or more, above max_bytes={self.max_bytes}", where
            )

    def _refused(self, url: str, why: str, where: str) -> MediaError:
        return MediaError(f"'{without_secrets(url)}' is not used: {why}", where=where)


def _schemes_of(prefixes: tuple[str, ...]) -> list[str]:
    """Returns the schemes of prefixes."""
    return sorted({prefix.partition("://")[0] for prefix in prefixes})
