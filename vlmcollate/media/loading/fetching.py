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

import attrs

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.loading.addresses import may_reach
from vlmcollate.media.loading.urls import Url, ascii_host, without_secrets

_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 1 << 16


def _as_names(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _as_hosts(value: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(map(_as_host, _as_names(value)))


def _as_host(name: str) -> str:
    try:
        below = "*." if name.startswith("*.") else ""
        host = ascii_host(name.removeprefix("*.").removeprefix("[").removesuffix("]"))
        if ":" in host:
            ipaddress.IPv6Address(host)
        if host.strip(".") and not set(host) & set("*/ "):
            return below + host
    except (AttributeError, ValueError):
        pass
    raise ConfigError(
        f"hosts holds {name!r}, expected a host such as 'example.org', or '*.example.org' for all "
        "below; remove scheme, port and path"
    )


def _above_zero(_: object, option: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ConfigError(f"{option.name} must be a number above 0, not {value!r}")


@attrs.frozen(kw_only=True)
class UrlFetcher:
    """Fetches `http` and `https` URLs of allowed hosts.

    The host is checked again after every redirect, and so are all the addresses that its name
    resolves to; the connection goes to the very addresses that were checked, to each in turn until
    one answers. Only status 200 counts.

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

    hosts: tuple[str, ...] = attrs.field(converter=_as_hosts)
    max_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_above_zero)
    timeout: float = attrs.field(default=20.0, validator=_above_zero)
    max_redirects: int = attrs.field(default=5, validator=attrs.validators.ge(0))
    networks: tuple[str, ...] = attrs.field(default=(), converter=_as_names)

    @hosts.validator
    def _check_hosts(self, _: object, value: tuple[str, ...]) -> None:
        if not value:
            raise ConfigError("hosts is empty; name at least one host, such as 'example.org'")

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
        target = request.parsed(url)
        for _ in range(self.max_redirects + 1):
            found = request.get(target)
            if isinstance(found, bytes):
                return found
            target = found
        raise MediaError(
            f"'{without_secrets(url)}' redirects more than {self.max_redirects} times", where=where
        )


@attrs.frozen
class _Request:
    fetcher: UrlFetcher
    deadline: float
    where: str

    def parsed(self, text: str) -> Url:
        try:
            return Url.parse(text)
        except ValueError as error:
            raise self._refused(text, str(error)) from error

    def get(self, url: Url) -> bytes | Url:
        """The body, or where the answer points."""
        self._check_host(url)
        connection = self._connected(url)
        with contextlib.ExitStack() as closing:
            closing.callback(connection.close)
            closing.enter_context(self._clocked(connection.sock))
            try:
                connection.request("GET", url.target, headers={"Accept-Encoding": "identity"})
                response = connection.getresponse()
                closing.enter_context(response)
                location = response.getheader("Location")
                if response.status in _REDIRECTS and location:
                    return url.redirected(location)
                if response.status != 200:
                    raise self._refused(url, f"the server answers {response.status}, not 200")
                return self._body(response, url)
            except MediaError:
                raise
            except ValueError as error:
                raise self._refused(url, str(error)) from error
            except (OSError, http.client.HTTPException) as error:
                late = time.monotonic() >= self.deadline
                why = f"longer than timeout={self.fetcher.timeout} s" if late else _told(error)
                raise self._refused(url, f"it cannot be fetched ({why})") from error

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

    def _check_host(self, url: Url) -> None:
        allowed = any(
            url.host == name or (name.startswith("*.") and url.host.endswith(name[1:]))
            for name in self.fetcher.hosts
        )
        if not allowed:
            raise self._refused(
                url,
                f"the host {url.host!r} is not among the allowed {list(self.fetcher.hosts)}; add "
                "it to UrlFetcher(hosts=[...])",
            )

    def _connected(self, url: Url) -> http.client.HTTPConnection:
        """A connection to an address that was checked."""
        addresses = self._resolved(url)
        for address in addresses:
            if not may_reach(address, self.fetcher.networks):
                raise self._refused(
                    url,
                    f"its host leads to {address}, which is not in the public internet; allow it "
                    "with UrlFetcher(networks=[...])",
                )
        connection = http.client.HTTPConnection(url.host, url.port)
        try:
            connection.sock = self._dialled(addresses, url.port)
            if url.scheme == "https":
                context = ssl.create_default_context()
                with self._clocked(connection.sock):
                    connection.sock = context.wrap_socket(connection.sock, server_hostname=url.host)
        except (OSError, ValueError) as error:  # ValueError: a host that no certificate can name
            connection.close()
            raise self._refused(url, f"it cannot be reached ({_told(error)})") from error
        return connection

    def _dialled(self, addresses: Sequence[str], port: int) -> socket.socket:
        """A connection to the first address that takes one; each gets its share of the time."""
        faults = []
        for tried, address in enumerate(addresses):
            share = self._left() / (len(addresses) - tried)
            try:
                plain = socket.create_connection((address, port), timeout=share)
            except OSError as error:
                faults.append(f"{address}: {_told(error)}")
                continue
            plain.settimeout(self.fetcher.timeout)  # the clock ends it at the deadline
            return plain
        raise OSError("; ".join(faults))

    def _resolved(self, url: Url) -> list[str]:
        """The addresses of a host; the system's resolver is not waited for past the deadline."""
        found: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

        def resolve() -> None:
            try:
                found.put(socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM))
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

    def _body(self, response: http.client.HTTPResponse, url: Url) -> bytes:
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

    def _too_large(self, url: Url, size: int) -> MediaError:
        return self._refused(
            url, f"it has {size} bytes or more, above max_bytes={self.fetcher.max_bytes}"
        )

    def _refused(self, url: Url | str, why: str) -> MediaError:
        text = url if isinstance(url, str) else url.text
        return MediaError(f"'{without_secrets(text)}' is not used: {why}", where=self.where)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side, or we, hung up before
        connection.shutdown(socket.SHUT_RDWR)


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__
