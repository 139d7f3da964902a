"""What others write or answer is read within limits in bytes and seconds: files, archives, answers of servers.

The size of what is read is measured by the memory that a process of its own needed at most.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from smoe_ray import bounded_answers
from smoe_ray.bounded_answers import ANSWER, Limits, bounded_session
from smoe_ray.bounded_read import MOST_PER_PACKED_BYTE, RefusedReadError, open_regular, read_bounded, refuse_bomb
from smoe_ray.cluster import job_client, jobs
from smoe_ray.data import download
from smoe_ray.data.array_files import FourFiles, OneNpz
from smoe_ray.data.quickdraw import read_drawings
from smoe_ray.errors import ClusterError, DataError, StudyError
from smoe_ray.k8s import cluster
from smoe_ray.k8s.kubectl import Target
from smoe_ray.spec import load_study, parse_study

MOST_MEMORY = 200 * 2**20
MiB = b"\0" * 2**20


# --- files ------------------------------------------------------------------------------------------------------------


def test_only_whole_regular_files_up_to_the_limit_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    os.mkfifo(tmp_path / "fifo")
    assert read_bounded(tmp_path / "file", 5) == b"12345"
    with pytest.raises(RefusedReadError, match="larger than 4 bytes"):
        read_bounded(tmp_path / "file", 4)
    for place in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(RefusedReadError, match="not a regular file"):
            open_regular(place)
    with pytest.raises(RefusedReadError, match="larger"):  # a regular file that claims to be empty
        read_bounded(Path("/proc/self/maps"), 10)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_study_that_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "study.yaml")
    with pytest.raises(StudyError, match=r"study\.yaml: not a regular file"):
        load_study(tmp_path / "study.yaml")


@pytest.mark.parametrize("merged", [False, True])
def test_aliases_that_unfold_to_more_than_a_study_can_hold_are_refused(merged: bool) -> None:
    """The "billion laughs": a kilobyte that means 9^10 values."""
    lines = ["name: laughs", "question: How many?", "a: &a {x: [1, 2, 3, 4, 5, 6, 7, 8, 9]}"]
    for above, name in zip("abcdefghi", "bcdefghij", strict=True):
        nine = ", ".join([f"*{above}"] * 9)
        lines.append(f"{name}: &{name} {{<<: [{nine}]}}" if merged else f"{name}: &{name} [{nine}]")
    started = time.perf_counter()
    with pytest.raises(StudyError, match="its aliases unfold to more than 1,000,000 values"):
        parse_study("\n".join(lines))
    assert time.perf_counter() - started < 2


def test_plain_aliases_are_read() -> None:
    study = parse_study("name: a\nquestion: Q?\nseeds: &s [1, 2]\naxes: {model.num_experts: *s}\n")
    assert study.axes["model.num_experts"] == (1, 2)


# --- archives ---------------------------------------------------------------------------------------------------------


def _gz_bomb(folder: Path) -> Callable[[], object]:
    """IDX of 4 GiB of images in 40 kB: only the first are there, as nobody will get so far."""
    with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(bytes((0, 0, 8, 3)) + np.array([2**22, 32, 32], ">u4").tobytes())
        for _ in range(40):
            file.write(MiB)
    roles = {"train images": [folder / "train-images-idx3-ubyte.gz"]}
    return FourFiles(roles, is_transposed=False).read


def _zip_bomb(folder: Path, *names: str) -> Path:
    """An .npz of arrays that unpack to 70 MiB of zeros."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (70, 1024, 1024)})
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in names:
            with archive.open(f"{name}.npy", "w") as member:
                member.write(header.getvalue())
                for _ in range(70):
                    member.write(MiB)
    return folder / "bomb.npz"


BOMBS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "IDX": _gz_bomb,
    "npz": lambda folder: OneNpz(_zip_bomb(folder, "x")).read,
    "drawings": lambda folder: partial(read_drawings, _zip_bomb(folder, "train"), "train"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_an_archive_that_unpacks_to_far_more_than_images_do_is_refused_before_it_is_unpacked(
    tmp_path: Path, kind: str
) -> None:
    read = BOMBS[kind](tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"bytes that would unpack to [\d,]{10,}"):
        read()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


def test_what_compresses_as_well_as_images_can_is_no_bomb() -> None:
    refuse_bomb(2**26, 1)
    refuse_bomb(MOST_PER_PACKED_BYTE * 2**20, 2**20)
    with pytest.raises(ValueError, match="would unpack"):
        refuse_bomb(MOST_PER_PACKED_BYTE * 2**20 + 1, 2**20)
    with pytest.raises(ValueError, match="would unpack"):
        refuse_bomb(2**26 + 1, 2**16)


# --- answers of servers -----------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def gigabytes(send: Callable[[bytes], None]) -> None:
    """A whole answer of 8 GiB."""
    send(HEAD + b"Content-Length: 8589934592\r\n\r\n")
    for _ in range(8192):
        send(MiB)


def endless_headers(send: Callable[[bytes], None]) -> None:
    """A byte at a time, and never the end of the headers."""
    send(HEAD)
    while True:
        send(b"X")
        time.sleep(0.02)


def dripping_body(send: Callable[[bytes], None]) -> None:
    """A byte at a time of a megabyte."""
    send(HEAD + b"Content-Length: 1000000\r\n\r\n")
    while True:
        send(b" ")
        time.sleep(0.02)


def compressed(send: Callable[[bytes], None]) -> None:
    """8 MiB in 40 kB."""
    content = gzip.compress(8 * MiB, 1)
    send(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(content) + content)


def silence(_send: Callable[[bytes], None]) -> None:
    """Nothing."""
    time.sleep(5)


def says(content: object) -> Callable[[Callable[[bytes], None]], None]:
    text = json.dumps(content).encode()
    return lambda send: send(HEAD + b"Content-Length: %d\r\n\r\n" % len(text) + text)


HOSTILE = {
    gigabytes: "its answer is larger than 33,554,432 bytes",
    endless_headers: "only [0-9]+ bytes arrived|takes too long|timed out|127.0.0.1",
    dripping_body: "only [0-9]+ bytes arrived|takes too long|timed out|127.0.0.1",
    compressed: "its answer is compressed",
    silence: "takes too long|127.0.0.1",
}


@contextmanager
def server(answer: Callable[[Callable[[bytes], None]], None]) -> Iterator[int]:
    """A port of this machine on which every request gets the same answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(65536)
                        answer(connection.sendall)
                        connection.shutdown(socket.SHUT_WR)
                        connection.settimeout(1)
                        while connection.recv(65536):  # closing with unread data would take the answer back
                            pass
                    except OSError:
                        pass  # the client has had enough

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers may take half a second."""
    limits = ANSWER._replace(seconds=0.5, bytes_per_second=1e9)
    monkeypatch.setattr(job_client, "bounded_session", lambda: bounded_session(limits))
    monkeypatch.setattr(cluster, "bound", lambda manager: bounded_answers.bound(manager, limits))


@pytest.mark.parametrize("answer", HOSTILE, ids=lambda answer: answer.__name__)
@pytest.mark.usefixtures("hasty")
def test_the_jobs_api_is_read_within_limits(answer: Callable[[Callable[[bytes], None]], None]) -> None:
    started = time.perf_counter()
    with server(answer) as port, pytest.raises(ClusterError, match=HOSTILE[answer]) as refused:
        jobs.list_jobs(f"http://127.0.0.1:{port}")
    assert time.perf_counter() - started < 2
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("answer", HOSTILE, ids=lambda answer: answer.__name__)
@pytest.mark.usefixtures("hasty")
def test_the_kubernetes_api_is_read_within_limits(
    answer: Callable[[Callable[[bytes], None]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(answer) as port:
        there = _kubernetes(f"http://127.0.0.1:{port}", tmp_path, monkeypatch)
        started = time.perf_counter()
        with pytest.raises(ClusterError, match=HOSTILE[answer]):
            there.ray_jobs("default")
    assert time.perf_counter() - started < 2


SHAPES = (None, 7, "text", [], [1], {"items": 7}, {"items": [7]}, {"items": [{"metadata": None}]}, {"kind": []})


@pytest.mark.parametrize("shape", SHAPES, ids=json.dumps)
def test_json_of_another_shape_is_one_line(shape: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = f"HTTP/1.1 200 OK\r\nContent-Length: {len(_VERSION)}\r\n\r\n{_VERSION}".encode()
    of_ray = lambda send: send(version)  # noqa: E731
    answers = iter([of_ray, of_ray, says(shape)])  # Ray's client asks twice for its version
    with server(lambda send: next(answers)(send)) as port:
        if shape == []:
            assert jobs.list_jobs(f"http://127.0.0.1:{port}") == []
        else:
            with pytest.raises(ClusterError, match="is not that of a Ray head"):
                jobs.list_jobs(f"http://127.0.0.1:{port}")
    with server(says(shape)) as port:
        there = _kubernetes(f"http://127.0.0.1:{port}", tmp_path, monkeypatch)
        for ask in (there.ray_jobs, there.pods, there.quotas):
            with pytest.raises(ClusterError, match="in its answer"):
                ask("default")


_VERSION = json.dumps({"ray_version": job_client.ray.__version__})


def test_a_host_that_cannot_be_encoded_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = "a" * 70 + ".example"
    with pytest.raises(ClusterError, match="does not answer"):
        jobs.list_jobs(f"http://{host}:8265")
    with pytest.raises(ClusterError):
        _kubernetes(f"http://{host}:6443", tmp_path, monkeypatch).pods("default")
    from smoe_ray.cluster.runtime import refuse_unreachable

    with pytest.raises(ClusterError, match="no name that a host can have"):
        refuse_unreachable(f"{host}:6379")


def _kubernetes(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> cluster.Cluster:
    named = {"clusters": {"server": url}, "users": {}, "contexts": {"cluster": "one", "user": "one"}}
    config = {kind: [{"name": "one", kind[:-1]: settings}] for kind, settings in named.items()}
    (folder / "config").write_text(json.dumps({"apiVersion": "v1", "current-context": "one", **config}))
    monkeypatch.setenv("KUBECONFIG", str(folder / "config"))
    return cluster.Cluster(Target())


def test_a_download_is_neither_endless_nor_slower_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_answers, "FILE", Limits(2**20, 0.5, 1e9))
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    for answer, what in (
        (gigabytes, "larger than 1,048,576"),
        (dripping_body, "failed 1 times"),
        (compressed, "compressed"),
    ):
        with server(answer) as port, pytest.raises(DataError, match=what):
            download.fetch(["cat"], "bitmap", tmp_path, f"http://127.0.0.1:{port}")
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 2**20


def test_a_command_needs_little_memory_for_what_has_no_end(tmp_path: Path) -> None:
    """From its start to its one line."""
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    script = (
        "import resource, subprocess, sys\n"
        "ended = subprocess.run(sys.argv[1:], capture_output=True, text=True, timeout=20)\n"
        "most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(ended.returncode, ended.stderr.count(chr(10)), most)"
    )
    command = [sys.executable, "-m", "smoe_ray.cli", "check", str(tmp_path / "zero.yaml")]
    ended = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=True)
    code, lines, kibibytes = map(int, ended.stdout.split())
    assert (code, lines) == (1, 1)
    assert kibibytes * 1024 < MOST_MEMORY
