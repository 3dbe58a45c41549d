"""Requests go only to allowed, public hosts."""

from __future__ import annotations

import contextlib
import io
import pickle
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from vlmcollate import ConfigError, LocalMedia, UrlFetcher
from vlmcollate.errors import MediaError
from vlmcollate.media.loading.addresses import may_reach

LOOPBACK = ("127.0.0.0/8",)


def png():
    file = io.BytesIO()
    Image.new("RGB", (4, 3), "teal").save(file, "PNG")
    return file.getvalue()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requested: list[str] = []
        self.done = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requested.append(self.path)
        name = self.path.partition("?")[0]
        if name == "/good":
            self.answer(200, png())
        elif name == "/missing":
            self.answer(404, png())
        elif name.startswith("/raw/"):  # a header of any bytes
            self.send_response(302)
            self.flush_headers()
            self.wfile.write(b"Location: " + bytes.fromhex(name[len("/raw/") :]) + b"\r\n\r\n")
        elif name in ("/Bild%20Gem%C3%A4lde%C3%85.png", "/latin%E4.png"):
            self.answer(200, png())
        elif name.startswith("/to/"):
            self.answer(302, b"", Location=name[len("/to/") :])
        elif name == "/loop":
            self.answer(302, b"", Location="/loop")
        elif name == "/large":
            self.answer(200, bytes(5000))
        elif name == "/chunks":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(5000))
        elif name == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(bytes(10))
        elif name == "/packed":
            self.answer(200, b"x", **{"Content-Encoding": "gzip"})
        elif name == "/stall":
            self.server.done.wait(5)
        elif name in ("/drip", "/drip-head"):
            self.drip(b"HTTP/1.1 200 OK\r\n" if name == "/drip" else b"HTTP/1.1 2")

    def drip(self, start):
        self.wfile.write(start + (b"\r\n" if start.endswith(b"\n") else b""))
        while not self.server.done.wait(0.05):
            try:
                self.wfile.write(b"a")
                self.wfile.flush()
            except OSError:
                return

    def answer(self, status, body, **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Keeps the test's output clean."""


@pytest.fixture(scope="module")
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.done.set()
    running.shutdown()
    running.server_close()


def fetcher(**options):
    return UrlFetcher(**{"hosts": ["127.0.0.1"], "networks": LOOPBACK, "timeout": 2, **options})


def url(server, path, host="127.0.0.1"):
    return f"http://{host}:{server.server_address[1]}{path}"


def test_an_allowed_host_is_fetched_from(server):
    assert fetcher().fetch(url(server, "/good"), where="here") == png()
    again = pickle.loads(pickle.dumps(fetcher()))
    image = LocalMedia(fetcher=again).load_image(url(server, "/good"), where="here")
    assert image.size == (4, 3)
    assert fetcher().fetch(url(server, "/to//good"), where="here") == png()


@pytest.mark.parametrize(
    ("path", "options", "problem"),
    [
        ("/missing", {}, "answers 404"),
        ("/loop", {}, "redirects more than 5"),
        ("/large", {"max_bytes": 100}, "max_bytes=100"),
        ("/chunks", {"max_bytes": 100}, "max_bytes=100"),
        ("/short", {}, "missing|cannot be fetched"),
        ("/packed", {}, "compresses it as 'gzip'"),
        ("/stall", {"timeout": 0.3}, "timeout=0"),
        ("/drip", {"timeout": 0.3}, "timeout=0"),
        ("/drip-head", {"timeout": 0.3}, "timeout=0"),
        ("/to/ftp://127.0.0.1/x", {}, "scheme is 'ftp'"),
        ("/to/file:///etc/passwd", {}, "scheme is 'file'"),
    ],
)
def test_bad_responses(server, path, options, problem):
    start = time.monotonic()
    with pytest.raises(MediaError, match=problem) as raised:
        fetcher(**options).fetch(url(server, path), where="images[0]")
    assert raised.value.where == "images[0]"
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"],  # noqa: S104 - refused,
)
def test_this_machine_is_not_reached(server, host):
    asked = len(server.requested)
    hosts = ["*.example.org", host.strip("[]"), "127.0.0.1"]
    with pytest.raises(MediaError, match=r"not in the public internet|resolved"):
        UrlFetcher(hosts=hosts, timeout=1).fetch(url(server, "/good", host), where="here")
    assert len(server.requested) == asked


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.1", "fe80::1", "64:ff9b::7f00:1"])
def test_every_address_of_a_name_is_checked(monkeypatch, address):
    def found(*_, **__):
        public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 80))
        return [public, (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]

    def never(*_, **__):
        raise AssertionError("a connection was made")

    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setattr(socket, "create_connection", never)
    with pytest.raises(MediaError, match="not in the public internet"):
        UrlFetcher(hosts=["example.org"]).fetch("http://example.org/a.png", where="here")


def test_a_redirect_is_checked_like_a_first_request(server):
    asked = len(server.requested)
    with pytest.raises(MediaError, match="not among the allowed"):
        fetcher().fetch(url(server, "/to/http://169.254.169.254/latest/meta-data"), where="here")
    with pytest.raises(MediaError, match="not in the public internet"):
        fetcher(hosts=["127.0.0.1", "127.0.0.2"], networks=["127.0.0.1/32"]).fetch(
            url(server, "/to/http://127.0.0.2/good"), where="here"
        )
    assert len(server.requested) == asked + 2


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("http://other.org/a.png", "not among the allowed"),
        ("http://example.org.evil.net/a.png", "not among the allowed"),
        ("http://user:secret@example.org/a.png", "user name"),
        ("ftp://example.org/a.png", "scheme"),
        ("http://exa mple.org/a.png", "spaces|not among"),
        ("http://[bad/a.png", "not a URL"),
    ],
)
def test_other_urls_are_refused(target, problem):
    with pytest.raises(MediaError, match=problem) as raised:
        UrlFetcher(hosts=["example.org"]).fetch(target, where="here")
    assert "secret" not in str(raised.value)


def test_errors_hold_no_query(server):
    with pytest.raises(MediaError) as raised:
        fetcher().fetch(url(server, "/missing?token=hunter2"), where="here")
    assert "hunter2" not in str(raised.value)


def test_nothing_is_fetched_by_default(server):
    asked = len(server.requested)
    with pytest.raises(MediaError, match="UrlFetcher"):
        LocalMedia().load_image(url(server, "/good"), where="here")
    assert len(server.requested) == asked


@pytest.mark.parametrize(
    "options",
    [
        {"hosts": []},
        {"hosts": ["*"]},
        {"hosts": ["exa*mple.org"]},
        {"hosts": ["example.org:80"]},
        {"hosts": ["http://example.org"]},
        {"hosts": ["ä..b"]},
        {"hosts": [3]},
        {"networks": ["a"]},
        {"timeout": 0},
        {"max_bytes": 0},
        {"max_redirects": -1},
        {"max_redirects": "5"},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError):
        fetcher(**options)


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(10))
    start = time.monotonic()
    with pytest.raises(MediaError, match=r"cannot be resolved \(longer than timeout=0.3"):
        fetcher(hosts=["example.org"], timeout=0.3).fetch("http://example.org/a", where="here")
    assert time.monotonic() - start < 2
    released.set()


def test_a_handshake_that_drips_ends_at_the_deadline():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip():
            connection, _ = listening.accept()
            with connection:
                try:
                    connection.sendall(b"\x16\x03\x03\x40\x00")  # a long record is announced
                    for _ in range(100):
                        time.sleep(0.05)
                        connection.sendall(b"\x02")
                except OSError:
                    pass  # the fetcher closed the connection

        thread = threading.Thread(target=drip)
        thread.start()
        port = listening.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(MediaError, match="cannot be reached"):
            fetcher(timeout=0.4).fetch(f"https://127.0.0.1:{port}/a", where="here")
        assert time.monotonic() - start < 2
        thread.join()


@pytest.mark.parametrize(
    "path", ["/Bild%20Gemälde\u00c5.png", "/Bild%20Gem%C3%A4ldeÅ.png?q=ü&x=%20"]
)
def test_letters_beyond_ascii_are_quoted_once(server, path):
    assert fetcher().fetch(url(server, path), where="here") == png()
    assert server.requested[-1].isascii() and "%25" not in server.requested[-1]


@pytest.mark.parametrize(
    "location",
    [
        "/Bild%20GemäldeÅ.png".encode(),
        b"/latin\xe4.png",
        b"//127.0.0.1:PORT/good?a=\xff",
        b"../good#x",
    ],
)
def test_a_redirect_may_hold_any_bytes(server, location):
    location = location.replace(b"PORT", str(server.server_address[1]).encode())
    target = url(server, "/raw/" + location.hex())
    assert fetcher().fetch(target, where="here") == png()


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        (b"http://[bad", "not a URL"),
        (b"http://user:hunter2@[bad/x", "not a URL"),
        (b"http://user:hunter2@127.0.0.1/x", "user name"),
        (b"http://127.0.0.1:99999/?hunter2", "not a URL"),
        (b"http://127.0.0.1:x/", "not a URL"),
        (b"http://b\xfccher.example/", "not among the allowed"),
        ("http://bücher.example/".encode(), "not among the allowed"),
        ("http://ⓔ。。x/".encode(), "not a URL|ASCII"),
        (b"http://a b/", "spaces"),
        (b"mailto:me", "scheme"),
    ],
)
def test_a_malformed_redirect_is_refused(server, location, problem):
    with pytest.raises(MediaError, match=problem) as raised:
        fetcher().fetch(url(server, "/raw/" + location.hex()), where="images[0]")
    assert raised.value.where == "images[0]"
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "target",
    ["http://example.org/\ud800", "http://\ud800.org/", "http://user:hunter2@[/", "http://ä..b/"],
)
def test_malformed_urls_are_refused(target):
    with pytest.raises(MediaError) as raised:
        UrlFetcher(hosts=["*.org", "example.org"]).fetch(target, where="here")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "target", ["https://u:hunter2@example.org/a?k=hunter2", "ftp://u:hunter2@h"]
)
def test_errors_hold_no_secrets_without_a_fetcher(target):
    with pytest.raises(MediaError) as raised:
        LocalMedia().load_image(target, where="here")
    assert "hunter2" not in str(raised.value)


def test_hosts_are_compared_as_idna_spells_them(monkeypatch):
    asked = []

    def resolve(host, *_, **__):
        asked.append(host)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for host in ("Bücher.example", "xn--bcher-kva.example", "bu\u0308cher.EXAMPLE"):
        with pytest.raises(MediaError, match="cannot be resolved"):
            UrlFetcher(hosts=["*.org", "bücher.example"]).fetch(f"http://{host}/", where="here")
    assert asked == ["xn--bcher-kva.example"] * 3


def resolving_to(monkeypatch, *addresses):
    real = socket.getaddrinfo

    def found(host, port, *rest, **options):
        if host != "example.org":
            return real(host, port, *rest, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def test_every_address_is_tried(server, monkeypatch):
    resolving_to(monkeypatch, "127.0.0.2", "127.0.0.3", "127.0.0.1")
    target = url(server, "/good", "example.org")
    assert fetcher(hosts=["example.org"]).fetch(target, where="here") == png()
    resolving_to(monkeypatch, "127.0.0.2", "127.0.0.3")
    with pytest.raises(MediaError, match=r"reached \(127.0.0.2: .*refused; 127.0.0.3: .*refused"):
        fetcher(hosts=["example.org"]).fetch(target, where="here")


@pytest.mark.skipif(sys.platform != "linux", reason="fills the queue of a listening socket")
def test_an_address_that_never_answers_leaves_time_for_the_next(server, monkeypatch):
    port = server.server_address[1]
    resolving_to(monkeypatch, "127.0.0.4", "127.0.0.1")
    with contextlib.ExitStack() as closing:
        silent = closing.enter_context(socket.socket())
        silent.bind(("127.0.0.4", port))
        silent.listen(0)
        for _ in range(3):
            waiting = closing.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.4", port))
        time.sleep(0.1)
        start = time.monotonic()
        target = url(server, "/good", "example.org")
        found = fetcher(hosts=["example.org"], timeout=1.0).fetch(target, where="here")
        assert found == png()
        assert 0.3 < time.monotonic() - start < 1.0


@pytest.mark.parametrize(
    "address",
    """
    0.0.0.0 10.1.2.3 100.64.0.1 100.100.100.200 127.0.0.1 168.63.129.16 169.254.169.254 172.16.0.1
    172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1
    203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::10.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:0:10.0.0.1
    64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 64:ff9b:1::8.8.8.8 100::1 100:0:0:1::1
    2001::1 2001:0:808:808::1 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1::1
    2002:a00:1::1 2002:a9fe:a9fe::1 3fff::1 4000::1 5f00::1 8000::1 fc00::1 fd00:ec2::254 fe80::1
    fe80::1%eth0 fec0::1 feff::1 ff02::1 ff0e::1
    """.split(),  # noqa: SIM905 - a list of addresses reads better so
)
def test_addresses_that_are_not_public(address):
    assert not may_reach(address, ())


@pytest.mark.parametrize(
    "address",
    """
    1.1.1.1 8.8.8.8 93.184.215.14 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1
    198.17.0.1 198.20.0.1 223.255.255.255 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1
    2001:200::1 2001:4860:4860::8888 2606:4700:4700::1111 2a00:1450:4001::1 3ffe::1
    """.split(),  # noqa: SIM905
)
def test_addresses_that_are_public(address):
    assert may_reach(address, ())


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.1.0.0/16"),
        ("::ffff:10.1.2.3", "10.1.0.0/16"),
        ("64:ff9b::10.1.2.3", "10.1.0.0/16"),
        ("64:ff9b:1::1", "64:ff9b:1::/48"),
        ("fd00::1", "fd00::/8"),
    ],
)
def test_networks_add_to_the_public_internet(address, network):
    assert may_reach(address, (network,))
    assert not may_reach(address, ("10.2.0.0/16", "fd01::/16"))
