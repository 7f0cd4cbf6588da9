"""Downloads against a server on this machine."""

import functools
import hashlib
import http.server
import threading

import pytest

from latentia.data import MNIST
from latentia.data.opening import fetch
from latentia.errors import DataError

CONTENT = b"sound content"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    root = tmp_path / "served"
    for name, content in {"good": CONTENT, "bad": b"tampered with"}.items():
        (root / name).mkdir(parents=True)
        (root / name / "file.gz").write_bytes(content)
    handler = functools.partial(_Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()
        thread.join()


def test_first_sound_mirror_serves_and_is_kept(server, tmp_path):
    mirrors = [f"{server}/absent/", f"{server}/bad/", f"{server}/good/"]
    path = fetch("set", "file.gz", SHA256, mirrors)
    assert path.read_bytes() == CONTENT
    assert fetch("set", "file.gz", SHA256, ["http://127.0.0.1:1/"]) == path, "the second time comes from the cache"


def test_damaged_cache_is_downloaded_again(server):
    path = fetch("set", "file.gz", SHA256, [f"{server}/good/"])
    path.write_bytes(b"rotten")
    assert fetch("set", "file.gz", SHA256, [f"{server}/good/"]).read_bytes() == CONTENT


def test_failure_gives_each_mirrors_answer_and_the_cure(server, tmp_path):
    with pytest.raises(DataError) as caught:
        fetch("set", "file.gz", SHA256, [f"{server}/absent/", f"{server}/bad/", "http://127.0.0.1:1/"])
    message = str(caught.value)
    assert f"{server}/absent/file.gz: 404" in message
    assert f"{server}/bad/file.gz: SHA256 hash" in message
    assert "http://127.0.0.1:1/file.gz: " in message
    assert "set data.folder or LATENTIA_DATA" in message
    assert not list((tmp_path / "cache").rglob("file.gz")), "nothing unsound is kept"


def test_mnist_asks_for_the_published_files(monkeypatch, idx_folder):
    folder, *_ = idx_folder
    asked = []

    def found(data_set, file, sha256, mirrors):
        asked.append((data_set, file, sha256))
        stem = file.removesuffix(".gz")
        return next(path for path in folder.iterdir() if path.name.replace(".idx", "-idx").startswith(stem))

    monkeypatch.setattr("latentia.data.mnist.fetch", found)
    assert len(MNIST(validation=1).load().test) == 10
    assert asked[0] == (
        "mnist",
        "train-images-idx3-ubyte.gz",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    )
    assert len(asked) == 4
