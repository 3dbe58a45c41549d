"""Fetching media by URL, from hosts that were allowed by name and lie in the public internet."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import attrs

from vlmcollate.errors import ConfigError, MediaError

_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 1 << 16
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _as_names(value: str | Sequence[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    return tuple(name.lower() if isinstance(name, str) else name for name in names)


def _above_zero(_: object, option: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ConfigError(f"{option.name} must be a number above 0, not {value!r}")


@attrs.frozen(kw_only=True)
class UrlFetcher:
    """Fetches `http` and `https` URLs of allowed hosts.

    The host is checked again after every redirect, and so are all the addresses that its name
    resolves to; the connection goes to the very address that was checked. Only status 200 counts.

    Args:
        hosts: The hosts that may be asked, as `"example.org"`, or `"*.example.org"` for all below.
        max_bytes: The largest body.
        timeout: Seconds for everything together, from resolving to the last byte.
        max_redirects: How many redirects are followed.
        networks: Networks that may be reached beside the public internet, such as `"10.1.0.0/16"`
            for a store in the house.

    Raises:
        ConfigError: If an option is not one of these.
    """

    hosts: tuple[str, ...] = attrs.field(converter=_as_names)
    max_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_above_zero)
    timeout: float = attrs.field(default=20.0, validator=_above_zero)
    max_redirects: int = attrs.field(default=5, validator=attrs.validators.ge(0))
    networks: tuple[str, ...] = attrs.field(default=(), converter=_as_names)

    @hosts.validator
    def _check_hosts(self, _: object, value: tuple[str, ...]) -> None:
        wrong = [h for h in value if not isinstance(h, str) or not h.strip("*.") or "/" in h]
        if not value or wrong:
            raise ConfigError(
                f"hosts must name at least one host, such as 'example.org', found {wrong or value}"
            )

    @networks.validator
    def _check_networks(self, _: object, value: tuple[str, ...]) -> None:
        for network in value:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ConfigError(f"networks holds {network!r} ({error})") from error

    def fetch(self, url: str, *, where: str) -> bytes:
        """Fetches one URL.

        Args:
            url: An `http` or `https` URL.
            where: The place in the sample, for errors.

        Returns:
            The body.

        Raises:
            MediaError: If the host is not allowed or not public, the answer is not a plain 200, it
                is too large, or it takes too long. The message shows the URL without its query.
        """
        request = _Request(self, time.monotonic() + self.timeout, where)
        target = url
        for _ in range(self.max_redirects + 1):
            body, target = request.get(target)
            if body is not None:
                return body
        raise MediaError(
            f"'{_shown(url)}' redirects more than {self.max_redirects} times", where=where
        )


@attrs.frozen
class _Request:
    fetcher: UrlFetcher
    deadline: float
    where: str

    def get(self, url: str) -> tuple[bytes | None, str]:
        """The body, or `None` and where the answer points."""
        parts = self._checked(url)
        connection = self._connected(parts, url)
        closing = contextlib.ExitStack()
        closing.callback(connection.close)
        closing.enter_context(self._clocked(connection.sock))
        try:
            path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
            connection.request("GET", path, headers={"Accept-Encoding": "identity"})
            response = connection.getresponse()
            closing.enter_context(response)
            if response.status in _REDIRECTS and response.getheader("Location"):
                target = urljoin(url, response.getheader("Location"))
                if parts.scheme == "https" and urlsplit(target).scheme != "https":
                    raise self._refused(url, "it redirects from https to http")
                return None, target
            if response.status != 200:
                raise self._refused(url, f"the server answers {response.status}, not 200")
            return self._body(response, url), url
        except (OSError, http.client.HTTPException) as error:
            late = time.monotonic() >= self.deadline
            why = f"longer than timeout={self.fetcher.timeout} s" if late else _told(error)
            raise self._refused(url, f"it cannot be fetched ({why})") from error
        finally:
            closing.close()

    @contextlib.contextmanager
    def _clocked(self, connection: socket.socket) -> Iterator[None]:
        """Ends whatever waits at the deadline, also for a server that sends a byte now and then."""
        left = max(self.deadline - time.monotonic(), 0)
        clock = threading.Timer(left, _hang_up, [connection])
        clock.start()
        try:
            yield
        finally:
            clock.cancel()

    def _checked(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            host, _ = (parts.hostname or "").lower(), parts.port
        except ValueError as error:
            raise self._refused(url, f"it is no URL ({error})") from error
        if parts.scheme not in ("http", "https"):
            raise self._refused(url, f"its scheme is {parts.scheme!r}, not http or https")
        if parts.username is not None:
            raise self._refused(url, "it holds a user name")
        if any(ord(c) <= 32 or ord(c) == 127 for c in url):
            raise self._refused(url, "it holds spaces or control characters")
        allowed = any(
            host == name or (name.startswith("*.") and host.endswith(name[1:]))
            for name in self.fetcher.hosts
        )
        if not allowed:
            raise self._refused(
                url,
                f"the host {host!r} is not among the allowed {list(self.fetcher.hosts)}; add it to "
                "UrlFetcher(hosts=[...])",
            )
        return parts

    def _connected(self, parts: SplitResult, url: str) -> http.client.HTTPConnection:
        """A connection to an address that was checked."""
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses = self._resolved(host, port, url)
        for address in addresses:
            if not self._may_reach(address):
                raise self._refused(
                    url,
                    f"its host leads to {address}, which is not in the public internet; allow it "
                    "with UrlFetcher(networks=[...])",
                )
        connection: http.client.HTTPConnection = http.client.HTTPConnection(host, port)
        try:
            plain = socket.create_connection((addresses[0], port), timeout=self._left())
            connection.sock = plain
            if parts.scheme == "https":
                context = ssl.create_default_context()
                with self._clocked(plain):
                    connection.sock = context.wrap_socket(plain, server_hostname=host)
        except OSError as error:
            connection.close()
            raise self._refused(url, f"it cannot be reached ({_told(error)})") from error
        return connection

    def _resolved(self, host: str, port: int, url: str) -> list[str]:
        """The addresses of a host; the system's resolver is not waited for past the deadline."""
        found: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

        def resolve() -> None:
            try:
                found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                found.put(error)

        threading.Thread(target=resolve, daemon=True).start()
        try:
            answer = found.get(timeout=self._left())
        except (queue.Empty, TimeoutError):
            answer = TimeoutError(f"longer than timeout={self.fetcher.timeout} s")
        if isinstance(answer, Exception):
            raise self._refused(url, f"its host cannot be resolved ({_told(answer)})") from answer
        return list(dict.fromkeys(str(entry[4][0]) for entry in answer))

    def _may_reach(self, text: str) -> bool:
        address = _unwrapped(ipaddress.ip_address(text.partition("%")[0]))
        networks = map(ipaddress.ip_network, self.fetcher.networks)
        if any(address in network for network in networks):
            return True
        return address.is_global and not address.is_multicast

    def _body(self, response: http.client.HTTPResponse, url: str) -> bytes:
        encoding = response.getheader("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise self._refused(
                url, f"the server packs it as {encoding!r}, which was not asked for"
            )
        if response.length is not None and response.length > self.fetcher.max_bytes:
            raise self._too_large(url, response.length)
        pieces: list[bytes] = []
        size = 0
        while True:
            piece = response.read1(_CHUNK)
            if not piece:
                break
            size += len(piece)
            if size > self.fetcher.max_bytes:
                raise self._too_large(url, size)
            pieces.append(piece)
        if time.monotonic() >= self.deadline:  # it ended because we hung up
            raise TimeoutError
        if response.length:
            raise self._refused(
                url, f"the server sends {size} bytes, {response.length} are missing"
            )
        return b"".join(pieces)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"longer than timeout={self.fetcher.timeout} s")
        return left

    def _too_large(self, url: str, size: int) -> MediaError:
        return self._refused(
            url, f"it has {size} bytes or more, above max_bytes={self.fetcher.max_bytes}"
        )

    def _refused(self, url: str, why: str) -> MediaError:
        return MediaError(f"'{_shown(url)}' is not used: {why}", where=self.where)


def _unwrapped(address: _Address) -> _Address:
    """The IPv4 address inside an IPv6 one, where there is one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in ipaddress.ip_network("64:ff9b::/96"):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side, or we, hung up before
        connection.shutdown(socket.SHUT_RDWR)


def _shown(url: str) -> str:
    """The URL without what may be secret."""
    try:
        parts = urlsplit(url)
        text = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        text = url.partition("?")[0]
    return text if len(text) <= 200 else f"{text[:60]}... ({len(text)} characters)"


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__
