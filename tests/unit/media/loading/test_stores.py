"""Media is read from the buckets that are allowed, within limits, and from nowhere else."""

from __future__ import annotations

import io
import pickle
import sys
import time
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from PIL import Image

from vlmcollate import ConfigError, LocalMedia, ObjectStores, collator_for
from vlmcollate.data.source_files import files_below, open_file
from vlmcollate.errors import MediaError
from vlmcollate.testing import tiny_processor


def png(size=(56, 56)):
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, "PNG")
    return file.getvalue()


class SlowFileSystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    protocol = "slow"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]

    def info(self, path, **options):
        time.sleep(5)
        return super().info(path, **options)


@pytest.fixture(autouse=True, scope="module")
def bucket():
    files = fsspec.filesystem("memory")
    content = png()
    for name in ("images/a.png", "images/sub/b c.png", "private/a.png", "images2/a.png"):
        files.pipe(f"/{name}", content)
    files.pipe("/images/empty.png", b"")
    fsspec.register_implementation("slow", SlowFileSystem, clobber=True)
    yield
    files.store.clear()


def stores(**options):
    return ObjectStores(**{"prefixes": "memory://images", **options})


def test_an_object_is_the_image_of_its_bytes():
    media = pickle.loads(pickle.dumps(LocalMedia(stores=stores())))
    for name in ("memory://images/a.png", "memory://images/sub/b c.png", "MEMORY://images/a.png"):
        image = media.load_image(name, where="images[0]")
        assert np.array_equal(image, media.load_image(png(), where="images[0]"))
    assert media.image_size({"path": "memory://images/a.png"}, where="images[0]") == (56, 56)


def test_a_collator_reads_objects():
    row = [
        {"role": "user", "content": [{"type": "image", "image": "memory://images/a.png"}]},
        {"role": "assistant", "content": "Teal."},
    ]
    processor = tiny_processor()
    batch = collator_for(processor, media=LocalMedia(stores=stores()))([row])
    assert batch["n_images_per_sample"].tolist() == [1]
    with pytest.raises(MediaError, match=r"allow its bucket with LocalMedia\(stores=Obj"):
        collator_for(processor)([row])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://private/a.png", "is not below the allowed"),
        ("memory://images2/a.png", "is not below the allowed"),
        ("memory://images", "is not below the allowed"),
        ("memory:///images/a.png", "is not below the allowed"),
        ("s3://images/a.png", "is not below the allowed"),
        ("memory://images/../private/a.png", "leads to a folder above"),
        ("memory://images/%2e%2E/private/a.png", "leads to a folder above"),
        ("memory://images/sub/..", "leads to a folder above"),
        ("memory://images/%252e%252E/private/a.png", "leads to a folder above"),
        ("memory://images/..%2Fprivate/a.png", "leads to a folder above"),
        ("memory://images/..%5cprivate/a.png", "leads to a folder above"),
        ("memory://images//..//private/a.png", "leads to a folder above"),
        ("MEMORY://private/a.png", "is not below the allowed"),
        ("memory://images%2f..%2fprivate/a.png", "leads to a folder above"),
        ("memory:////images/a.png", "is not below the allowed"),
        ("memory://private//images/a.png", "is not below the allowed"),
        ("memory://images@private/a.png", "it holds a user name"),
        ("memory://images/@private/../a.png", "leads to a folder above"),
        ("memory://images/a.png::memory://private/a.png", "holds a chain of file systems"),
        ("memory://images/a\x00.png", "holds control characters"),
        ("memory://key:secret@images/a.png", "it holds a user name"),
        ("memory://images/missing.png", "there is no such object"),
        ("memory://images/sub", "it is a folder, expected an object"),
        ("memory://images/empty.png", "image"),
    ],
)
def test_what_is_not_allowed_or_no_image_is_refused(url, message):
    with pytest.raises(MediaError, match=message) as caught:
        LocalMedia(stores=stores()).load_image(url, where="images[0]")
    assert caught.value.where == "images[0]"
    assert "secret" not in str(caught.value)


def test_what_is_refused_is_not_allowed():
    allowed = stores()
    assert allowed.allows("Memory://images/a.png")
    for url in (
        "memory://images/../private/a.png",
        "memory://images/%2e%2e/private/a.png",
        "memory://images/a.png::memory://private/a.png",
        "memory://images",
    ):
        assert not allowed.allows(url), url


class AzureStandIn(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Reads URLs as adlfs does: a container before the host of its account, or alone."""

    protocol = ("abfs", "abfss")
    store: dict[str, Any] = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path):
        if "://" not in path:
            return super()._strip_protocol(path)
        authority, slash, rest = path.rpartition("://")[2].partition("/")
        return "/" + authority.partition("@")[0] + slash + rest


ACCOUNT = "abfs://shots@account.dfs.core.windows.net"


@pytest.fixture
def azure():
    for scheme in AzureStandIn.protocol:
        fsspec.register_implementation(scheme, AzureStandIn, clobber=True)
    fsspec.filesystem("abfs").store.clear()
    for name in ("shots/images/a.png", "shots/private/a.png", "other/images/a.png"):
        fsspec.filesystem("abfs").pipe(f"abfs://{name}", png())
    yield
    for scheme in AzureStandIn.protocol:
        _registry.pop(scheme)


@pytest.mark.usefixtures("azure")
def test_a_container_before_its_account_is_no_user_name():
    media = LocalMedia(stores=stores(prefixes=[f"{ACCOUNT}/images"]))
    for url in (f"{ACCOUNT}/images/a.png", f"ABFS{ACCOUNT[4:]}/images/a.png"):
        assert media.load_image(url, where="images[0]").size == (56, 56)


@pytest.mark.usefixtures("azure")
@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"{ACCOUNT}/private/a.png", r"'abfs://shots@account\..*is not below the allowed"),
        ("abfs://other@account.dfs.core.windows.net/images/a.png", "is not below the allowed"),
        ("abfs://shots@attacker.dfs.core.windows.net/images/a.png", "is not below the allowed"),
        ("abfs://shots/images/a.png", "is not below the allowed"),
        ("abfss://shots@account.dfs.core.windows.net/images/a.png", "is not below the allowed"),
        ("abfs://account.dfs.core.windows.net/images/a.png", "is not below the allowed"),
        (f"{ACCOUNT}.example.org/images/a.png", "is not below the allowed"),
        (f"{ACCOUNT}/images/../private/a.png", "leads to a folder above"),
        (f"{ACCOUNT}/images/%2e%2e/private/a.png", "leads to a folder above"),
        (f"{ACCOUNT}//images/a.png", "is not below the allowed"),
        ("abfs://shots:secret@account.dfs.core.windows.net/images/a.png", "holds a user name"),
        ("abfs://x@shots@account.dfs.core.windows.net/images/a.png", "holds a user name"),
        ("abfs://@account.dfs.core.windows.net/images/a.png", "holds a user name"),
        ("s3://shots@account.dfs.core.windows.net/images/a.png", "holds a user name"),
    ],
)
def test_another_container_or_account_is_refused(url, message):
    media = LocalMedia(stores=stores(prefixes=[f"{ACCOUNT}/images"]))
    with pytest.raises(MediaError, match=message) as caught:
        media.load_image(url, where="images[0]")
    assert "secret" not in str(caught.value)


def test_adlfs_reads_the_container_and_the_account_of_an_allowed_url():
    adlfs = pytest.importorskip("adlfs", reason="pip install adlfs")
    allowed = ObjectStores(prefixes=ACCOUNT)
    url = f"{ACCOUNT}/images/a b%20c.png"
    assert allowed.allows(url)
    assert adlfs.AzureBlobFileSystem._strip_protocol(url) == "shots/images/a b%20c.png"
    assert adlfs.AzureBlobFileSystem._get_kwargs_from_urls(url) == {"account_name": "account"}


def test_a_chain_of_file_systems_reaches_no_local_file(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    media = LocalMedia(root=tmp_path / ".", stores=stores())
    for url in (
        f"simplecache::file://{tmp_path}/a.png",
        f"memory://images/x::file://{tmp_path}/a.png",
        f"local://{tmp_path}/a.png",
    ):
        with pytest.raises(MediaError):
            media.load_image(url, where="images[0]")
    assert media.load_image(f"file://{tmp_path}/a.png", where="images[0]").size == (56, 56)


def test_limits_hold_for_objects():
    small = LocalMedia(stores=stores(max_bytes=20))
    with pytest.raises(MediaError, match="bytes or more, above max_bytes=20"):
        small.load_image("memory://images/a.png", where="images[0]")
    with pytest.raises(MediaError, match="more than max_bytes=30"):
        LocalMedia(stores=stores(), max_bytes=30).load_image(
            "memory://images/a.png", where="images[0]"
        )
    slow = LocalMedia(stores=stores(prefixes=["slow://images"], timeout=0.1))
    started = time.monotonic()
    with pytest.raises(MediaError, match=r"cannot be read \(longer than timeout=0.1 s\)"):
        slow.load_image("slow://images/a.png", where="images[0]")
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefixes": []}, "prefixes is empty"),
        ({"prefixes": "bucket"}, "it is no URL"),
        ({"prefixes": "memory://"}, "it names no bucket"),
        ({"prefixes": [3]}, "it is no URL"),
        ({"prefixes": "memory://a/../b"}, "leads to a folder above"),
        ({"prefixes": "simplecache::memory://a"}, "a chain of file systems"),
        ({"prefixes": "memory://key:secret@a"}, "holds a user name"),
        ({"prefixes": "file:///data"}, "local files need no store; set root="),
        ({"prefixes": "https://example.org"}, "allow the host with UrlFetcher"),
        ({"prefixes": "nothing://bucket"}, "URLs of nothing:// cannot be read"),
        ({"max_bytes": 0}, "max_bytes must be a number above 0"),
        ({"timeout": None}, "timeout must be a number above 0"),
        ({"options": 3}, "options must be a Mapping"),
        ({"options": {"memory": 3}}, "options\\['memory'\\] is wrong: found int"),
        ({"options": {"s3": {}}}, "options names the scheme 's3', expected one of \\['memory'\\]"),
        ({"prefixes": None}, "names are wrong: found None"),
        ({"prefixes": b"memory://a"}, "names are wrong: found b'memory://a'"),
        ({"prefixes": "://a"}, "it is no URL"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        stores(**options)
    assert "secret" not in str(caught.value)


class ClientError(Exception):
    """An error of a store's client, without a base that all clients share."""


class FaultyFileSystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    protocol = "faulty"
    cachable = False

    def __init__(self, **options):
        if "key" in options:
            raise ClientError("no such key")
        super().__init__()

    def _fail(self, path, *places, **options):
        raise ClientError("access denied")

    isfile = open = _fail

    def info(self, path, **options):
        return {"type": "file", "size": None} if "unknown" in path else self._fail(path)

    def cat_file(self, path, start, end):
        return b"x" * end


def test_errors_of_a_stores_client_are_named():
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    faulty = stores(prefixes="faulty://a", max_bytes=9)
    with pytest.raises(MediaError, match=r"it cannot be read \(access denied\)"):
        faulty.read("faulty://a/b.png", where="images[0]")
    with pytest.raises(MediaError, match="above max_bytes=9"):
        faulty.read("faulty://a/unknown.png", where="images[0]")
    keyed = stores(prefixes="faulty://a", options={"faulty": {"key": 3}})
    with pytest.raises(ConfigError, match=r"faulty:// cannot be made: ClientError: no such key"):
        keyed.read("faulty://a/b.png", where="images[0]")
    for read in (open_file, files_below):
        with pytest.raises(ConfigError, match=r"cannot read 'faulty://a/b.jsonl': access denied"):
            read("faulty://a/b.jsonl")


def test_a_missing_package_is_named(monkeypatch):
    def missing(scheme):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(ConfigError, match="s3:// cannot be read: Install s3fs to access S3"):
        stores(prefixes="s3://bucket")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ConfigError, match=r"pip install 'vlmcollate\[object-stores\]'"):
        stores()


def test_options_reach_the_file_system_and_are_not_shown():
    found = stores(options={"memory": {"asynchronous": False, "token": "hunter2"}})
    assert "hunter2" not in repr(LocalMedia(stores=found))
    assert LocalMedia(stores=found).load_image("memory://images/a.png", where="").size == (56, 56)
