"""Results in an object store: a real S3 server on loopback, reached through fsspec as a user would."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from smoe_ray.errors import ResultsError, StorageError
from smoe_ray.results import (
    TIMING_COLUMNS,
    Store,
    StudyReader,
    list_studies,
    read_embeddings,
    read_results,
    read_trials,
)
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.testing.toy_training import Toy, table, toy_grid


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "SMOE_RAY_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # others may have spoken to a server that is gone
    name = tmp_path.name.replace("_", "-").lower()[:40]
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


def test_a_study_runs_into_a_bucket_and_is_resumed_there(bucket: str, out: Path, log: Path) -> None:
    uri = f"{bucket}/team/results"
    study = toy_grid(seeds=[0, 1])
    for place in (uri, uri, str(out)):
        records = run_study(study, place, LocalExecutor(fit=Toy(log=log)))
        assert [record.status for record in records] == ["finished", "finished"]
    assert len(log.read_text().splitlines()) == 2 * 2 * 4  # the second run found everything done
    there = read_results(uri, "toy").drop(columns=list(TIMING_COLUMNS))
    pd.testing.assert_frame_equal(there, table(out, study), check_exact=True)
    assert list_studies(uri) == ["toy"]
    trial = read_trials(uri, "toy")[0]
    assert set(read_embeddings(uri, "toy", trial.trial_id)) == set(read_embeddings(out, "toy", trial.trial_id))


def test_a_reader_follows_a_bucket(bucket: str, tmp_path: Path) -> None:
    uri = f"{bucket}/results"
    run_study(toy_grid(seeds=[0, 1]), uri, LocalExecutor(fit=Toy()))
    reader = StudyReader(uri, "toy")
    reader.look()
    before, version = reader.table(), reader.version
    pd.testing.assert_frame_equal(before, read_results(uri, "toy"))
    first = read_trials(uri, "toy")[0].trial_id
    moment = reader.modified(first)
    assert moment is not None
    assert moment.tzinfo is not None
    reader.look()
    assert reader.version == version
    Store(uri).write(f"toy/trials/{first}/epochs.parquet", b"broken")
    reader.look()
    assert reader.version != version
    assert set(reader.table()["trial_id"]) == set(before["trial_id"]) - {first}
    assert "epochs.parquet: damaged" in reader.problems()[0]
    run_study(toy_grid(seeds=[0, 1]), uri, LocalExecutor(fit=Toy()))
    reader.look()
    assert set(reader.table()["trial_id"]) == set(before["trial_id"])
    [kept] = [name for name in Store(uri).folders("toy/trials") if name.startswith(f"{first}.damaged-")]
    assert Store(uri).read(f"toy/trials/{kept}/epochs.parquet") == b"broken"


def test_the_command_line_reads_a_bucket(bucket: str) -> None:
    uri = f"{bucket}/results"
    run_study(toy_grid(seeds=[0]), uri, LocalExecutor(fit=Toy()))
    command = [sys.executable, "-c", "from smoe_ray.cli import program; program()"]
    shown = subprocess.run([*command, "table", uri, "toy"], capture_output=True, text=True, check=True)
    assert "finished" in shown.stdout


def test_an_absent_bucket_is_one_clear_line(bucket: str) -> None:
    with pytest.raises(ResultsError, match="s3://no-such-bucket-here"):
        run_study(toy_grid(seeds=[0]), "s3://no-such-bucket-here/results", LocalExecutor(fit=Toy()))


def test_a_server_that_is_gone_is_one_clear_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ResultsError, match=r"s3://.*results"):
        read_results(f"{bucket}/results", "toy")
    s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server on loopback that answers every request alike."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which answers Expect: 100-continue

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET = do_HEAD = answer

        def log_message(self, *_args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (403, b"<Error><Code>AccessDenied</Code></Error>", "403 AccessDenied for PutObject"),
        (403, b"", "403 Forbidden for PutObject"),
    ],
)
def test_a_refusal_names_status_code_and_request(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, reason: str
) -> None:
    with answering(status, body) as address:
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        store = Store("s3://bucket/results")
        with pytest.raises(StorageError) as caught:
            store.write("study", b"content")
    assert str(caught.value) == f"s3://bucket/results/study: cannot be written: {reason}"
