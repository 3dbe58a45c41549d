"""Only allowed, public hosts are asked, and nothing else reaches the network."""

from __future__ import annotations

import io
import pickle
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from vlmcollate import ConfigError, LocalMedia, MediaError, UrlFetcher

LOOPBACK = ("127.0.0.0/8",)


def png():
    file = io.BytesIO()
    Image.new("RGB", (4, 3), "teal").save(file, "PNG")
    return file.getvalue()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.done = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.asked.append(self.path)
        name = self.path.partition("?")[0]
        if name == "/good":
            self.answer(200, png())
        elif name == "/missing":
            self.answer(404, png())
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


def test_an_allowed_host_is_asked(server):
    assert fetcher().fetch(url(server, "/good"), where="here") == png()
    again = pickle.loads(pickle.dumps(fetcher()))
    image = LocalMedia(fetcher=again).load_image(url(server, "/good"), where="here")
    assert image.size == (4, 3)
    assert fetcher().fetch(url(server, "/to//good"), where="here") == png()


@pytest.mark.parametrize(
    ("path", "options", "says"),
    [
        ("/missing", {}, "answers 404"),
        ("/loop", {}, "redirects more than 5"),
        ("/large", {"max_bytes": 100}, "max_bytes=100"),
        ("/chunks", {"max_bytes": 100}, "max_bytes=100"),
        ("/short", {}, "missing|cannot be fetched"),
        ("/packed", {}, "packs it as 'gzip'"),
        ("/stall", {"timeout": 0.3}, "timeout=0"),
        ("/drip", {"timeout": 0.3}, "timeout=0"),
        ("/drip-head", {"timeout": 0.3}, "timeout=0"),
        ("/to/ftp://127.0.0.1/x", {}, "scheme is 'ftp'"),
        ("/to/file:///etc/passwd", {}, "scheme is 'file'"),
    ],
)
def test_bad_answers(server, path, options, says):
    start = time.monotonic()
    with pytest.raises(MediaError, match=says) as raised:
        fetcher(**options).fetch(url(server, path), where="images[0]")
    assert raised.value.where == "images[0]"
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"],  # noqa: S104 - refused,
)
def test_this_machine_is_not_reached(server, host):
    asked = len(server.asked)
    hosts = ["*.example.org", host.strip("[]"), "127.0.0.1"]
    with pytest.raises(MediaError, match=r"not in the public internet|resolved"):
        UrlFetcher(hosts=hosts, timeout=1).fetch(url(server, "/good", host), where="here")
    assert len(server.asked) == asked


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.1", "fe80::1", "64:ff9b::7f00:1"])
def test_a_name_is_judged_by_all_that_it_resolves_to(monkeypatch, address):
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
    asked = len(server.asked)
    with pytest.raises(MediaError, match="not among the allowed"):
        fetcher().fetch(url(server, "/to/http://169.254.169.254/latest/meta-data"), where="here")
    with pytest.raises(MediaError, match="not in the public internet"):
        fetcher(hosts=["127.0.0.1", "127.0.0.2"], networks=["127.0.0.1/32"]).fetch(
            url(server, "/to/http://127.0.0.2/good"), where="here"
        )
    assert len(server.asked) == asked + 2


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("http://other.org/a.png", "not among the allowed"),
        ("http://example.org.evil.net/a.png", "not among the allowed"),
        ("http://user:secret@example.org/a.png", "user name"),
        ("ftp://example.org/a.png", "scheme"),
        ("http://exa mple.org/a.png", "spaces|not among"),
        ("http://[bad/a.png", "no URL"),
    ],
)
def test_other_urls_are_refused(target, says):
    with pytest.raises(MediaError, match=says) as raised:
        UrlFetcher(hosts=["example.org"]).fetch(target, where="here")
    assert "secret" not in str(raised.value)


def test_queries_stay_out_of_messages(server):
    with pytest.raises(MediaError) as raised:
        fetcher().fetch(url(server, "/missing?token=hunter2"), where="here")
    assert "hunter2" not in str(raised.value)


def test_nothing_is_fetched_by_default(server):
    asked = len(server.asked)
    with pytest.raises(MediaError, match="UrlFetcher"):
        LocalMedia().load_image(url(server, "/good"), where="here")
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    "options",
    [{"hosts": []}, {"hosts": ["*"]}, {"networks": ["a"]}, {"timeout": 0}, {"max_bytes": 0}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError):
        fetcher(**options)


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch):
    let_go = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: let_go.wait(10))
    start = time.monotonic()
    with pytest.raises(MediaError, match=r"cannot be resolved \(longer than timeout=0.3"):
        fetcher(hosts=["example.org"], timeout=0.3).fetch("http://example.org/a", where="here")
    assert time.monotonic() - start < 2
    let_go.set()


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
                    pass  # the fetcher has hung up

        thread = threading.Thread(target=drip)
        thread.start()
        port = listening.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(MediaError, match="cannot be reached"):
            fetcher(timeout=0.4).fetch(f"https://127.0.0.1:{port}/a", where="here")
        assert time.monotonic() - start < 2
        thread.join()
