"""Fetching media by URL, from hosts that are allowed by name and lie in the public internet."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
from collections.abc import Sequence

import attrs

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.loading.addresses import may_reach
from vlmcollate.media.loading.connecting import connect, message_of, resolve
from vlmcollate.media.loading.deadlines import Deadline
from vlmcollate.media.loading.options import above_zero, as_names
from vlmcollate.media.loading.urls import Url, ascii_host, without_secrets
from vlmcollate.validators import check_count

_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 1 << 16  # bytes that are read at a time


def _as_hosts(value: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(map(_as_host, as_names(value)))


def _as_host(name: str) -> str:
    try:
        wildcard = "*." if name.startswith("*.") else ""
        host = ascii_host(name.removeprefix("*.").removeprefix("[").removesuffix("]"))
        if ":" in host:
            ipaddress.IPv6Address(host)
        if host.strip(".") and not set(host) & set("*/ "):
            return wildcard + host
    except (AttributeError, ValueError):
        pass
    raise ConfigError(
        f"hosts holds {name!r}, expected a host such as 'example.org', or '*.example.org' for all "
        "of its subdomains; remove scheme, port and path"
    )


@attrs.frozen(kw_only=True)
class UrlFetcher:
    """Fetches `http` and `https` URLs of allowed hosts.

    Every host on the way is checked, also after redirects, and so are all the addresses that its
    name resolves to. The connection goes to the very addresses that were checked, to each in turn
    until one answers. Only status 200 counts as success.

    Args:
        hosts: The allowed hosts, such as `"example.org"`, or `"*.example.org"` for all of its
            subdomains.
        max_bytes: The maximum number of bytes of a body.
        timeout: The maximum number of seconds from resolving the host to the last byte.
        max_redirects: The maximum number of redirects.
        networks: The networks that are allowed besides the public internet, such as
            `"10.1.0.0/16"` for a store of your own.

    Raises:
        ConfigError: If an option has another type or is out of range.
    """

    hosts: tuple[str, ...] = attrs.field(converter=_as_hosts)
    max_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=above_zero)
    timeout: float = attrs.field(default=20.0, validator=above_zero)
    max_redirects: int = attrs.field(default=5)
    networks: tuple[str, ...] = attrs.field(default=(), converter=as_names)

    @hosts.validator
    def _check_hosts(self, _: object, value: tuple[str, ...]) -> None:
        if not value:
            raise ConfigError("hosts is empty; name at least one host, such as 'example.org'")

    @max_redirects.validator
    def _check_redirects(self, _: object, value: object) -> None:
        check_count("max_redirects", value, least=0)

    @networks.validator
    def _check_networks(self, _: object, value: tuple[str, ...]) -> None:
        for network in value:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ConfigError(
                    f"networks holds {network!r} ({error}); write it as '10.1.0.0/16'"
                ) from error

    def allows(self, host: str) -> bool:
        """Whether a host is among the allowed ones."""
        return any(
            host == name or (name.startswith("*.") and host.endswith(name[1:]))
            for name in self.hosts
        )

    def fetch(self, url: str, *, where: str) -> bytes:
        """Fetches one URL.

        Args:
            url: An `http` or `https` URL.
            where: The path inside the sample, for errors.

        Returns:
            The body.

        Raises:
            MediaError: If the host is not allowed or not public, the response has another status
                than 200, is too large or takes too long. The message shows the URL without its
                query.
        """
        request = _Request(self, Deadline.after(self.timeout), where)
        target = request.parse(url)
        for _ in range(self.max_redirects + 1):
            found = request.get(target)
            if isinstance(found, bytes):
                return found
            target = found
        raise MediaError(
            f"'{without_secrets(url)}' redirects more than {self.max_redirects} times; pass the "
            "URL that it leads to, or raise max_redirects",
            where=where,
        )


@attrs.frozen
class _Request:
    """A request for one URL, through all of its redirects."""

    fetcher: UrlFetcher
    deadline: Deadline
    where: str

    def parse(self, text: str) -> Url:
        try:
            return Url.parse(text)
        except ValueError as error:
            raise self._refused(text, str(error)) from error

    def get(self, url: Url) -> bytes | Url:
        """The body, or the URL to which the response redirects."""
        self._check_host(url)
        connection = self._connect(url)
        with contextlib.ExitStack() as closing:
            closing.callback(connection.close)
            closing.enter_context(self.deadline.closes(connection.sock))
            try:
                connection.request("GET", url.target, headers={"Accept-Encoding": "identity"})
                response = connection.getresponse()
                closing.enter_context(response)
                return self._read(response, url)
            except MediaError:
                raise
            except ValueError as error:
                raise self._refused(url, str(error)) from error
            except (OSError, http.client.HTTPException) as error:
                late = self.deadline.has_passed
                why = self.deadline.problem if late else message_of(error)
                raise self._refused(url, f"it cannot be fetched ({why})") from error

    def _check_host(self, url: Url) -> None:
        if not self.fetcher.allows(url.host):
            raise self._refused(
                url,
                f"the host {url.host!r} is not among the allowed {list(self.fetcher.hosts)}; add "
                "it to UrlFetcher(hosts=[...])",
            )

    def _connect(self, url: Url) -> http.client.HTTPConnection:
        """A connection to one of the host's addresses, if all of them may be reached."""
        try:
            addresses = resolve(url, self.deadline)
        except (OSError, UnicodeError) as error:
            why = f"its host cannot be resolved ({message_of(error)})"
            raise self._refused(url, why) from error
        for address in addresses:
            if not may_reach(address, self.fetcher.networks):
                raise self._refused(
                    url,
                    f"its host leads to {address}, which is not in the public internet; allow it "
                    "with UrlFetcher(networks=[...])",
                )
        try:
            return connect(url, addresses, self.deadline)
        except (OSError, ValueError) as error:
            raise self._refused(url, f"it cannot be reached ({message_of(error)})") from error

    def _read(self, response: http.client.HTTPResponse, url: Url) -> bytes | Url:
        location = response.getheader("Location")
        if response.status in _REDIRECTS and location:
            return url.redirected(location)
        if response.status != 200:
            raise self._refused(url, f"the server answers {response.status}, not 200")
        encoding = response.getheader("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise self._refused(
                url, f"the server compresses it as {encoding!r}, expected 'identity'"
            )
        if response.length is not None:
            self._check_size(url, response.length)
        return self._read_body(response, url)

    def _read_body(self, response: http.client.HTTPResponse, url: Url) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := response.read1(_CHUNK):
            size += len(piece)
            self._check_size(url, size)
            pieces.append(piece)
        if self.deadline.has_passed:  # which closed the connection
            raise TimeoutError
        if response.length:
            raise self._refused(
                url, f"the server sends {size} bytes, {response.length} are missing"
            )
        return b"".join(pieces)

    def _check_size(self, url: Url, size: int) -> None:
        if size > self.fetcher.max_bytes:
            raise self._refused(
                url, f"it has {size} bytes or more, above max_bytes={self.fetcher.max_bytes}"
            )

    def _refused(self, url: Url | str, why: str) -> MediaError:
        text = url if isinstance(url, str) else url.text
        return MediaError(f"'{without_secrets(text)}' is not used: {why}", where=self.where)
