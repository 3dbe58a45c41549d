"""Parsing URLs of media as users and servers write them."""

from __future__ import annotations

import re
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import attrs

_KEPT = "%/:=&?~+!$,;'@()*[]|"
"""The characters of a path or a query that are not quoted, besides letters and digits."""
_PORTS = {"http": 80, "https": 443}
_AZURE = ("abfs", "abfss", "az")
"""The schemes whose URLs name a container and its account as `container@account`."""
_CONTAINER = re.compile(r"\$?[a-z0-9-]+")


@attrs.frozen
class Url:
    """An `http` or `https` URL, ready for a request.

    Attributes:
        text: The whole URL, to which the targets of redirects are relative.
        scheme: `"http"` or `"https"`.
        host: The host in lower case and ASCII.
        port: The port, by default that of the scheme.
        target: The path and the query, in ASCII.
    """

    text: str
    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Parses a URL.

        Args:
            text: The URL; its host and path may hold letters beyond ASCII.

        Returns:
            The URL, ready for a request.

        Raises:
            ValueError: If it is not an `http` or `https` URL, or holds a user name, spaces or
                control characters; the message completes "the URL is refused:".

        Example:
            >>> Url.parse("http://Bücher.example/Gemälde.png").target
            '/Gem%C3%A4lde.png'
        """
        if any(ord(c) <= 32 or ord(c) == 127 for c in text):
            raise ValueError("it holds spaces or control characters; quote them, a space as %20")
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
            # a lone surrogate has no bytes to quote
            target = urlunsplit(("", "", _quoted(parts.path or "/"), _quoted(parts.query), ""))
        except ValueError as error:
            raise ValueError(_not_a_url(text, error)) from error
        if parts.scheme not in _PORTS:
            raise ValueError(f"its scheme is {parts.scheme!r}, not http or https")
        if parts.username is not None:
            raise ValueError("it holds a user name")
        if port is None:
            port = _PORTS[parts.scheme]
        return cls(text, parts.scheme, ascii_host(host), port, target)

    def redirected(self, location: str) -> Url:
        """Parses the target of a redirect.

        Args:
            location: The header `Location` as `http.client` gives it, one character per byte.

        Returns:
            The target, ready for a request.

        Raises:
            ValueError: As in `parse`, or if it leads from `https` to `http`.
        """
        raw = location.encode("latin-1")
        try:
            written = raw.decode("utf-8")
        except UnicodeDecodeError:  # bytes of another encoding, which the server knows
            written = quote(raw, safe=bytes(range(128)))
        try:
            target = Url.parse(_joined(self.text, written))
        except ValueError as error:
            raise ValueError(f"it redirects to '{without_secrets(written)}': {error}") from error
        if self.scheme == "https" and target.scheme != "https":
            raise ValueError("it redirects from https to http")
        return target


def ascii_host(host: str) -> str:
    """Converts a host to lower case and ASCII, as IDNA spells it.

    Raises:
        ValueError: If IDNA has no spelling for the host.

    Example:
        >>> ascii_host("Bücher.example")
        'xn--bcher-kva.example'
    """
    if host.isascii():
        return host.lower()
    try:
        return host.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise ValueError(f"its host {host[:100]!r} cannot be spelled in ASCII ({error})") from error


def has_user(scheme: str, authority: str) -> bool:
    """Whether the authority of a URL holds a user name, which a container of Azure is not.

    Args:
        scheme: The scheme, without `://`.
        authority: What stands between `://` and the path.

    Example:
        >>> has_user("abfs", "container@account.dfs.core.windows.net"), has_user("s3", "me@bucket")
        (False, True)
    """
    name, separator, _ = authority.rpartition("@")
    is_container = scheme.lower() in _AZURE and _CONTAINER.fullmatch(name)
    return bool(separator) and not is_container


def without_secrets(url: str) -> str:
    """Cuts the user name and the query of a URL, and the rest to a readable length."""
    scheme, separator, rest = url.partition("?")[0].partition("#")[0].partition("//")
    authority, slash, path = rest.partition("/")
    if has_user(scheme.rstrip(":"), authority):
        authority = authority.rpartition("@")[2]
    text = scheme + separator + authority + slash + path
    return text if len(text) <= 200 else f"{text[:60]}... ({len(text)} characters)"


def _joined(base: str, target: str) -> str:
    try:
        return urljoin(base, target)
    except ValueError as error:
        raise ValueError(_not_a_url(target, error)) from error


def _not_a_url(text: str, error: ValueError) -> str:
    # Python's message may quote a password
    return "it is not a URL" if "@" in text else f"it is not a URL ({error})"


def _quoted(text: str) -> str:
    return quote(text, safe=_KEPT)
