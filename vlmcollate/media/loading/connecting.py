"""Connecting to hosts whose addresses were checked first."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Sequence

from vlmcollate.media.loading.deadlines import Deadline
from vlmcollate.media.loading.urls import Url


def resolve(url: Url, deadline: Deadline) -> list[str]:
    """Resolves a host, without waiting for the system's resolver past the deadline.

    Args:
        url: The URL of the host.
        deadline: The deadline of the request.

    Returns:
        The addresses of the host.

    Raises:
        OSError: If the host cannot be resolved in time.
        UnicodeError: If the host is not a name that can be resolved.
    """
    answer = deadline.run(lambda: socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM))
    return list(dict.fromkeys(str(entry[4][0]) for entry in answer))


def connect(url: Url, addresses: Sequence[str], deadline: Deadline) -> http.client.HTTPConnection:
    """Connects to the first address that answers.

    Args:
        url: The URL of the host.
        addresses: The addresses of the host, which were checked.
        deadline: The deadline of the request.

    Returns:
        The connection, encrypted for `https`.

    Raises:
        OSError: If no address answers in time.
        ValueError: If no certificate can name the host.
    """
    connection = http.client.HTTPConnection(url.host, url.port)
    try:
        connection.sock = _dial(addresses, url.port, deadline)
        if url.scheme == "https":
            context = ssl.create_default_context()
            with deadline.closes(connection.sock):
                connection.sock = context.wrap_socket(connection.sock, server_hostname=url.host)
    except (OSError, ValueError):
        connection.close()
        raise
    return connection


def message_of(error: BaseException) -> str:
    """The message of an error, or its type if it has none."""
    return str(error) or type(error).__name__


def _dial(addresses: Sequence[str], port: int, deadline: Deadline) -> socket.socket:
    """A connection to the first address that answers; each gets its share of the time."""
    faults = []
    for tried, address in enumerate(addresses):
        share = deadline.seconds_left() / (len(addresses) - tried)
        try:
            plain = socket.create_connection((address, port), timeout=share)
        except OSError as error:
            faults.append(f"{address}: {message_of(error)}")
            continue
        plain.settimeout(deadline.timeout)  # the deadline closes it earlier
        return plain
    raise OSError("; ".join(faults))
