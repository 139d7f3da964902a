"""Downloads, against a real HTTP server on this machine that can break in every way that a server breaks."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests

from smoe_ray.data import download, load_splits, prepare
from smoe_ray.data.download import RemoteFile, fetch, fetch_files
from smoe_ray.errors import DataError
from smoe_ray.spec import QuickDrawData

CONTENT = np.random.default_rng(0).bytes(100_000)
PATH = "/sketchrnn/cat.npz"


class Server:
    """Files, how each next request is to go wrong, and what was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {PATH: CONTENT}
        self.etag = '"one"'
        self.faults: list[str] = []
        self.asked: list[tuple[str, str | None]] = []
        self.conditions: list[str | None] = []
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.state
        wanted = self.headers["Range"]
        state.asked.append((self.path, wanted))
        state.conditions.append(self.headers["If-Range"])
        fault = state.faults.pop(0) if state.faults else "none"
        self.close_connection = True
        if fault.isdigit():
            return self._answer(int(fault), b"", {"Content-Length": "0", "Location": f"{state.url}/elsewhere"})
        if self.path not in state.files:
            return self._answer(404, b"absent", {"Content-Length": "6"})
        content = state.files[self.path]
        headers = {"ETag": state.etag} if state.etag else {}
        status, first = 200, 0
        if wanted and self.headers["If-Range"] == state.etag:
            status, first = 206, int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            shown = first + 1 if fault == "wrong range" else first
            headers["Content-Range"] = f"bytes {shown}-{len(content) - 1}/{len(content)}"
        body = content[first:]
        headers["Content-Length"] = str(len(body) + (10 if fault == "promises more" else 0))
        if fault == "no length":
            del headers["Content-Length"]
        if fault == "breaks":
            body = body[: len(body) // 2]
        return self._answer(status, body, headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "_FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(download, "_CHUNK_BYTES", 1000)  # nothing of an interrupted chunk is kept
    state = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state})) as http:
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=partial(http.serve_forever, poll_interval=0.01))
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def get(server: Server, folder: Path) -> bytes:
    (path,) = fetch(["cat"], "sketchrnn", folder, server.url)
    assert path == folder / "cat.npz"
    assert {file.name for file in folder.glob("[!.]*")} == {"cat.npz", "cat.npz.sha256"}
    content = path.read_bytes()
    assert (folder / "cat.npz.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  cat.npz\n"
    return content


def refused(server: Server, folder: Path, *words: str) -> None:
    with pytest.raises(DataError) as error:
        fetch(["cat"], "sketchrnn", folder, server.url)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in ("cat.npz", *words)), message
    assert not (folder / "cat.npz").exists()
    assert not (folder / "cat.npz.sha256").exists()


def test_a_file_arrives_whole_with_its_checksum_and_progress(server: Server, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    fetch(["cat"], "sketchrnn", tmp_path, server.url, progress=lambda *step: told.append(step))
    assert get(server, tmp_path) == CONTENT
    assert told[-1] == ("downloading cat.npz", 100_000, 100_000)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert server.asked == [(PATH, None)]  # and a file that is there is not asked for again


def test_names_are_quoted_and_each_layout_has_its_place(server: Server, tmp_path: Path) -> None:
    server.files = {"/full/numpy_bitmap/The%20Eiffel%20Tower.npy": b"1", "/full/numpy_bitmap/cat.npy": b"22"}
    paths = fetch(["The Eiffel Tower", "cat"], "bitmap", tmp_path, server.url)
    assert [(path.name, path.read_bytes()) for path in paths] == [("The Eiffel Tower.npy", b"1"), ("cat.npy", b"22")]


def test_a_broken_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.faults = ["breaks", "503", "breaks"]
    assert get(server, tmp_path) == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=50000-", "bytes=50000-", "bytes=75000-"]
    assert server.conditions == [None, '"one"', '"one"', '"one"']


def test_it_goes_on_in_a_later_process(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    server.faults = ["breaks"]
    refused(server, tmp_path, "run again")
    assert (tmp_path / "cat.npz.part").stat().st_size == 50_000
    assert get(server, tmp_path) == CONTENT
    assert server.asked[-1] == (PATH, "bytes=50000-")


def test_a_file_that_changed_meanwhile_starts_anew(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    server.faults = ["breaks"]
    refused(server, tmp_path)
    server.files[PATH], server.etag = CONTENT[::-1], '"two"'
    assert get(server, tmp_path) == CONTENT[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_etag_nothing_is_continued(server: Server, tmp_path: Path, etag: str) -> None:
    server.etag = etag
    server.faults = ["breaks"]
    assert get(server, tmp_path) == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, None]


@pytest.mark.parametrize("fault", ["wrong range", "416"])
def test_a_server_that_disagrees_about_the_part_makes_it_start_anew(server: Server, tmp_path: Path, fault: str) -> None:
    server.faults = ["breaks", fault]
    assert get(server, tmp_path) == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=50000-", None]


def test_a_file_shorter_than_promised_is_never_accepted(server: Server, tmp_path: Path) -> None:
    server.faults = ["promises more"] * 20
    refused(server, tmp_path, "6 times")
    assert len(server.asked) == 6


def test_a_short_file_is_noticed_even_where_the_http_library_does_not(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests.Response, "iter_content", lambda answer, size: iter([answer.raw.read(size)]))
    monkeypatch.setattr(download, "_ATTEMPTS", 2)
    refused(server, tmp_path, "2,000 bytes arrived of 100,000")


def test_an_absent_category_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    server.files.clear()
    refused(server, tmp_path, "404", "quickdraw.withgoogle.com")
    assert len(server.asked) == 1
    assert not list(tmp_path.glob("[!.]*"))


@pytest.mark.parametrize(("fault", "word"), [("no length", "how large"), ("302", "302"), ("400", "400")])
def test_strange_answers_are_refused_at_once(server: Server, tmp_path: Path, fault: str, word: str) -> None:
    server.faults = [fault]
    refused(server, tmp_path, word)
    assert len(server.asked) == 1


def test_without_a_connection_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FIRST_WAIT_S", 0.0)
    with pytest.raises(DataError, match=r"^cannot reach 127\.0\.0\.1:9; fetch elsewhere with 'smoe-ray") as error:
        fetch(["cat"], "sketchrnn", tmp_path, "http://127.0.0.1:9")
    assert "\n" not in str(error.value)


def test_only_https_and_only_names_of_categories(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="https only"):
        fetch(["cat"], "sketchrnn", tmp_path, "http://example.org/drawings")
    for name in ("../cat", "a/b", "", ".cat"):
        with pytest.raises(DataError, match="cannot be the name"):
            fetch([name], "sketchrnn", tmp_path, server.url)
    assert not server.asked


def test_a_folder_that_cannot_be_written_gives_one_line(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="permissions"):
        fetch(["cat"], "sketchrnn", tmp_path / "file", server.url)


def published(server: Server, **facts: object) -> RemoteFile:
    """The file at `PATH`, with what its documentation says of it."""
    return RemoteFile("cat.npz", f"{server.url}{PATH}", **facts)


def test_a_file_is_kept_where_it_is_what_its_documentation_says(server: Server, tmp_path: Path) -> None:
    md5, sha256 = (hashlib.new(kind, CONTENT).hexdigest() for kind in ("md5", "sha256"))
    server.faults = ["breaks"]
    [file] = fetch_files([published(server, size_bytes=100_000, md5=md5, sha256=sha256)], tmp_path)
    assert file.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=50000-"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"size_bytes": 99_999}, "has 100,000 bytes, not 99,999 as documented"),
        ({"md5": "0" * 32}, f"its MD5 is [0-9a-f]{{32}}, not {'0' * 32} as documented: not kept"),
        ({"sha256": "0" * 64}, f"its SHA-256 is [0-9a-f]{{64}}, not {'0' * 64} as documented: not kept"),
    ],
)
def test_another_file_than_the_documented_one_is_not_kept(
    server: Server, tmp_path: Path, facts: dict[str, object], words: str
) -> None:
    with pytest.raises(DataError, match=words) as error:
        fetch_files([published(server, **facts)], tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("[!.]*"))


def test_only_a_known_sha256_makes_up_for_http_and_only_a_checksum_for_a_redirection(
    server: Server, tmp_path: Path
) -> None:
    for facts in ({}, {"md5": "0" * 32}):
        with pytest.raises(DataError, match="over https only"):
            fetch_files([RemoteFile("cat.npz", "http://example.org/cat.npz", **facts)], tmp_path)
    server.files["/elsewhere"] = CONTENT
    server.faults = ["302"]
    [file] = fetch_files([published(server, md5=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest())], tmp_path)
    assert file.read_bytes() == CONTENT
    file.unlink()
    server.faults = ["302"]
    with pytest.raises(DataError, match="HTTP 302"):
        fetch_files([published(server)], tmp_path)


@pytest.fixture
def bucket(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with bitmaps of cats, in the place of Google's."""
    np.save(tmp_path / "made.npy", np.random.default_rng(0).integers(0, 256, (8, 784), dtype=np.uint8))
    server.files = {"/full/numpy_bitmap/cat.npy": (tmp_path / "made.npy").read_bytes()}
    monkeypatch.setattr(download, "fetch", partial(fetch, base_url=server.url))
    return server


CATS = QuickDrawData(classes=("cat",), layout="bitmap", download=True, train_per_class=5, test_per_class=3)


def test_absent_categories_are_fetched_when_the_spec_allows_it(bucket: Server, tmp_path: Path, downloads: Path) -> None:
    splits = load_splits(CATS, tmp_path / "cache")
    assert len(splits.train) == 5
    read_only = CATS.model_copy(update={"root": str(tmp_path / "elsewhere")})
    assert load_splits(read_only, tmp_path / "cache").fingerprint == splits.fingerprint
    assert len(bucket.asked) == 1
    assert (downloads / "quickdraw" / "cat.npy").is_file()
    offline = CATS.model_copy(update={"download": False})
    assert load_splits(offline, tmp_path / "cache").fingerprint == splits.fingerprint


def test_a_download_that_is_no_longer_what_it_was_is_refused(bucket: Server, tmp_path: Path, downloads: Path) -> None:
    load_splits(CATS, tmp_path / "cache")
    file = downloads / "quickdraw" / "cat.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"cat\.npy: its content changed since it was downloaded; delete it") as error:
        prepare(CATS, tmp_path / "cache")
    assert "\n" not in str(error.value)
    file.unlink()
    file.with_name("cat.npy.sha256").unlink()
    prepare(CATS, tmp_path / "cache")
