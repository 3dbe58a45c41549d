"""URLs of object stores, and the prefixes that allow them."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from vlmcollate.errors import ConfigError
from vlmcollate.media.loading.options import as_names
from vlmcollate.media.loading.urls import has_user, without_secrets

_MAX_DECODINGS = 4
_ELSEWHERE = {
    "file": 'local files need no store; set root="..." in LocalMedia',
    "local": 'local files need no store; set root="..." in LocalMedia',
    "http": 'allow the host with UrlFetcher(hosts=["..."])',
    "https": 'allow the host with UrlFetcher(hosts=["..."])',
}


def as_prefixes(value: Any) -> tuple[str, ...]:
    """Converts one prefix or several.

    Raises:
        ConfigError: One is no bucket of an object store.
    """
    return tuple(_as_prefix(name) for name in as_names(value))


def _as_prefix(name: Any) -> str:
    scheme, separator, rest = name.partition("://") if isinstance(name, str) else ("", "", "")
    problem = problem_of(name) if separator and scheme else "it is no URL"
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


def problem_of(url: str) -> str:
    """The reason why a URL is refused whatever is allowed, or ""."""
    scheme, _, rest = url.partition("://")
    if any(ord(c) < 32 or ord(c) == 127 for c in url):
        return "it holds control characters"
    if "::" in url:
        return "it holds a chain of file systems, written with '::'"
    if ".." in _decoded(rest).replace("\\", "/").split("/"):
        return "it leads to a folder above, with '..'"
    if has_user(scheme, rest.partition("/")[0]):
        return "it holds a user name"
    return ""


def _decoded(text: str) -> str:
    """Returns a text without percent-encoding, also if it was encoded more than once."""
    for _ in range(_MAX_DECODINGS):
        text = unquote(text)
    return text
