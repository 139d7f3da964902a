"""Studies as jobs of a real Ray head on loopback, with a token; and what a user reads when something is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from smoe_ray.cluster import jobs
from smoe_ray.errors import ClusterError, StudyError
from smoe_ray.results import TIMING_COLUMNS, Store, TrialFolder, read_results, read_trials
from smoe_ray.spec import GridStudy, SearchStudy, dump_study, load_study, parse_study
from smoe_ray.study import LocalExecutor, run_study
from support.processes import wait_until
from support.ray_cluster import Head, ray_head

HOSTILE = 'it\'s "quoted" $(touch pwned) `touch pwned` ; touch pwned\n& touch pwned | \\ \x1b[2J ünï 雪 %s {0}'
"""To a shell, each of these would be a command."""

PATIENCE_S = 180


def study_text(name: str, **changes: object) -> str:
    base = {
        "data": {"source": "synthetic", "classes": ["eye", "pencil"], "train_per_class": 40, "test_per_class": 10},
        "model": {"num_experts": 2, "encoder": "lite"},
        "training": {"budget": "2 epochs", "batch_size": 16},
    }
    study = {"name": name, "question": HOSTILE, "base": base, "axes": {"objective.name": ["blend", "likelihood"]}}
    return yaml.safe_dump(study | changes, allow_unicode=True)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as started:
        yield started


@pytest.fixture(autouse=True)
def _no_ray_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def cluster(head: Head, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of the head, whose token the environment holds."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    return head.address


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(study_text("tiny"))
    return path


def table(results: pd.DataFrame) -> pd.DataFrame:
    return results.drop(columns=list(TIMING_COLUMNS))


async def as_in_a_notebook(job: jobs.Job) -> str:
    """The whole log, followed where an event loop runs."""
    return "".join(job.logs(follow=True))


# --- on a cluster -----------------------------------------------------------------------------------------------------


def test_a_study_from_submit_to_results(smoe_ray, cluster: str, study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out'; touch pwned; $(touch pwned) ü"
    code, printed, error = smoe_ray(
        "submit", study, "--address", cluster, "--out", out, "--note", HOSTILE, "--follow"
    )  # fmt: skip
    assert code == 0, error
    assert "must see" in error
    job_id = printed.splitlines()[0]
    assert re.fullmatch("tiny-[0-9a-f]{8}", job_id)
    assert "[2/2 done" in printed

    code, printed, _ = smoe_ray("jobs", "--address", cluster)
    assert job_id in printed
    assert "\x1b[2J" not in printed
    [listed] = [listed for listed in jobs.list_jobs(cluster) if listed.job.id == job_id]
    assert (listed.job.out, listed.job.note, listed.state) == (str(out), HOSTILE, "succeeded")

    for arguments in ((job_id,), (study, "--out", out)):
        code, printed, _ = smoe_ray("status", *arguments, "--address", cluster)
        assert "succeeded" in printed
        assert "2 of 2 finished" in printed
    assert "[2/2 done" in smoe_ray("logs", job_id, "--address", cluster)[1]
    assert smoe_ray("stop", job_id, "--address", cluster)[1] == f"{job_id}: succeeded\n"
    assert "[2/2 done" in asyncio.run(as_in_a_notebook(listed.job))

    run_study(load_study(study), tmp_path / "here", LocalExecutor(device="cpu"))
    pd.testing.assert_frame_equal(table(listed.job.results()), table(read_results(tmp_path / "here", "tiny")))
    assert not list(tmp_path.rglob("pwned"))
    assert not any(Path(folder, "pwned").exists() for folder in (Path.cwd(), Path.home(), "/"))


@pytest.mark.slow
def test_a_running_study_is_not_started_twice_and_a_stopped_one_goes_on(smoe_ray, cluster: str, tmp_path: Path) -> None:
    text = study_text("long", axes={}, seeds=[0, 1], max_concurrent_trials=1)
    spec = parse_study(text, ["training.budget=40 epochs", "evaluation.every=40"])
    out = tmp_path / "out"
    with ThreadPoolExecutor(2) as both:
        submitted = list(both.map(lambda _: jobs.submit(spec, cluster, out), range(2)))
    job = submitted[0]
    assert {one.id for one in submitted} == {job.id}
    assert sorted(one.is_new for one in submitted) == [False, True]

    wait_until(lambda: bool(rows_written(out, "long")))
    assert not jobs.submit(spec, cluster, out).is_new
    assert smoe_ray("submit", write(tmp_path, spec), "--address", cluster, "--out", out)[2].count("runs already") == 1
    status = job.status()
    assert status.state == "running"
    assert status.trials is not None
    assert (status.trials.total, status.trials.finished, status.trials.running) == (2, 0, 1)

    started = time.monotonic()
    assert job.stop() == "stopped"
    assert time.monotonic() - started < jobs.STOP_GRACE_S  # it was not killed
    assert "Interrupted. Nothing that was trained is lost" in "".join(job.logs())
    assert "running or interrupted" in smoe_ray("status", "long", "--out", out)[1]
    [stopped] = rows_written(out, "long").values()
    assert 0 < stopped < 40

    again = jobs.submit(spec, cluster, out)
    assert (again.id, again.is_new) == (f"{job.id}-2", True)
    assert again.wait(PATIENCE_S) == "succeeded"
    assert sorted(record.timings.restarts for record in read_trials(out, "long")) == [0, 1]
    run_study(spec, tmp_path / "here", LocalExecutor(device="cpu"))
    pd.testing.assert_frame_equal(table(again.results()), table(read_results(tmp_path / "here", "long")))

    finished = smoe_ray("submit", write(tmp_path, spec), "--address", cluster, "--out", out, "--wait")
    assert finished[:2] == (0, f"{job.id}-3\n")
    assert "2 trials, 2 of them done before" in smoe_ray("logs", f"{job.id}-3", "--address", cluster)[1]


def rows_written(out: Path, study: str) -> dict[str, int]:
    store = Store(out)
    names = store.folders(f"{study}/trials")
    return {name: rows for name in names if (rows := len(TrialFolder(store, study, name).read_rows()))}


def write(folder: Path, study: GridStudy) -> Path:
    path = folder / f"{study.name}.yaml"
    path.write_text(dump_study(study))
    return path


@pytest.mark.slow
def test_a_job_that_fails_says_why(smoe_ray, cluster: str, study: Path, tmp_path: Path) -> None:
    code, printed, error = smoe_ray(
        "submit", study, "--address", cluster, "--out", tmp_path / "out", "--wait", "--strict",
        "--set", "training.learning_rate=1e30", "--set", "axes={}",
    )  # fmt: skip
    assert code == 1
    said = error.splitlines()[-1]
    assert said.startswith(f"smoe-ray: job {printed.strip()} failed: smoe-ray: 1 of 1 trials failed, the first (")
    assert "the loss diverged" in said

    # Not strict: a diverged trial is a result. Nothing is trained again, and the job succeeds.
    code, printed, error = smoe_ray(
        "submit", study, "--address", cluster, "--out", tmp_path / "out", "--follow",
        "--set", "training.learning_rate=1e30", "--set", "axes={}",
    )  # fmt: skip
    assert code == 0, error
    assert "smoe-ray: 1 of 1 trials diverged, the first (" in printed


def test_the_address_that_is_given_wins(
    cluster: str, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    jobs.list_jobs(cluster)
    assert os.environ["RAY_ADDRESS"] == os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:9"


def test_without_an_address_the_environment_has_it(smoe_ray, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    assert smoe_ray("jobs")[0] == 0


def test_the_token_may_lie_in_a_file(smoe_ray, head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(f"{head.token}\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert smoe_ray("jobs", "--address", head.address)[0] == 0


# --- what is wrong, in one line ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "the cluster wants a token; set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH"),
        ({"RAY_AUTH_TOKEN": "wrong"}, "the token is not that of this cluster"),
        ({"RAY_AUTH_TOKEN": "two words"}, "no single printable word"),
        ({"RAY_AUTH_TOKEN_PATH": "/absent"}, "/absent: the token cannot be read (No such file or directory)"),
        ({"RAY_AUTH_MODE": "token", "HOME": "/absent"}, "/absent/.ray/auth_token: the token cannot be read"),
    ],
)
@pytest.mark.parametrize(
    "verb", ["jobs", "submit {study} --out {out}", "status tiny-1", "logs -f tiny-1", "stop tiny-1"]
)
def test_without_its_token_a_cluster_gives_nothing(
    smoe_ray, head: Head, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str], expected: str, verb: str,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = [word.format(study=study, out=tmp_path / "out") for word in verb.split()]
    assert_one_line(smoe_ray(*words, "--address", head.address), expected)


@pytest.mark.parametrize("job", ["absent", "tiny-00000000", "../../api/version", "a b", "$(touch pwned)", "%2e%2e"])
@pytest.mark.parametrize("verb", ["status", "logs", "stop"])
def test_a_job_that_is_not_there(smoe_ray, cluster: str, verb: str, job: str) -> None:
    assert_one_line(smoe_ray(verb, job, "--address", cluster), f"no job {job!r} there; smoe-ray jobs lists them")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:9", "does not answer (Connection refused)"),
        ("http://no-such-host.invalid:8265", "does not answer ("),
        ("http://127.0.0.1:port", "does not answer (Failed to parse"),
        ("ray://127.0.0.1:10001", "not the address of a cluster"),
        ("auto", "not the address of a cluster"),
        ("os://127.0.0.1", "not the address of a cluster"),
        ("http://user:word@127.0.0.1:9", "not the address of a cluster"),
    ],
)
def test_a_wrong_address(smoe_ray, study: Path, tmp_path: Path, address: str, expected: str) -> None:
    assert_one_line(smoe_ray("jobs", "--address", address), expected)
    assert_one_line(smoe_ray("submit", study, "--address", address, "--out", tmp_path / "out"), expected)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, "<html>", "something answers there, but it is no Ray head (HTTP 200)"),
        (404, "no", "something answers there, but it is no Ray head (HTTP 404)"),
        (200, "[]", "something answers there, but it is no Ray head"),
        (200, json.dumps({"ray_version": "2.9.3"}), "Ray 2.9.3 runs there, and 2."),
    ],
)
def test_something_else_at_the_address(smoe_ray, status: int, body: str, expected: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert_one_line(smoe_ray("jobs", "--address", f"http://127.0.0.1:{server.server_port}"), expected)
        finally:
            server.shutdown()


def test_what_cannot_run_is_not_sent(tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:9"
    with pytest.raises(StudyError, match="501 characters; 500 are allowed"):
        jobs.submit(study, nowhere, tmp_path, note="n" * 501)
    with pytest.raises(StudyError, match=r"set model\.num_experts to 2"):
        jobs.submit(study, nowhere, tmp_path, ["routing=supervised", "model.num_experts=3"])
    monkeypatch.setattr(jobs, "MAX_STUDY_BYTES", 1000)
    with pytest.raises(StudyError, match=r"study tiny: 1,[0-9]{3} bytes with all its defaults, more than the 1,000"):
        jobs.submit(study, nowhere, tmp_path)


def test_results_tell_the_status_when_the_cluster_is_gone(smoe_ray, study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_study(load_study(study), out, LocalExecutor(device="cpu"))
    code, printed, _ = smoe_ray("status", study, "--out", out, "--address", "http://127.0.0.1:9")
    assert code == 0
    assert "unknown: http://127.0.0.1:9: does not answer" in printed
    assert "2 of 2 finished" in printed
    assert_one_line(smoe_ray("status", "absent", "--out", out), "no such study (studies there: tiny)")


def assert_one_line(ended: tuple[int, str, str], expected: str) -> None:
    code, _, error = ended
    assert code == 1
    assert error.count("\n") == 1, error
    assert error.startswith("smoe-ray: ")
    assert expected in error


@pytest.mark.parametrize("verb", ["submit", "jobs", "status", "logs", "stop"])
def test_help_shows_an_example(smoe_ray, verb: str) -> None:
    code, printed, _ = smoe_ray(verb, "--help")
    assert code == 0
    assert f"Example: smoe-ray {verb}" in " ".join(printed.split())


# --- what is sent -----------------------------------------------------------------------------------------------------


class Recorder:
    """Stands for the head: keeps what a submission would have told it."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.order: dict[str, object] = {}

    def list_jobs(self) -> list[object]:
        return []

    def submit_job(self, **order: object) -> None:
        folder = Path(order["runtime_env"]["working_dir"])  # type: ignore[index]
        self.files = {path.name: path.read_text() for path in folder.iterdir()}
        self.order = order


@given(
    note=st.text(max_size=500),
    out=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
)
def test_no_word_of_the_user_is_in_the_command(note: str, out: str) -> None:
    recorder = Recorder()
    spec = parse_study(study_text("tiny"))
    with tempfile.TemporaryDirectory() as folder:
        job = jobs.Job("tiny-0", "http://head:8265", "tiny", out, note)
        job = jobs._send(recorder, job, dump_study(spec), [], folder)  # type: ignore[arg-type]
    assert recorder.order["entrypoint"] == "python -m smoe_ray.cluster.job_entry"
    assert set(recorder.files) == {"study.yaml", "job.json"}
    assert parse_study(recorder.files["study.yaml"]) == spec
    assert json.loads(recorder.files["job.json"]) == {"out": out}
    assert recorder.order["metadata"] == {"smoe_ray.study": "tiny", "smoe_ray.out": out, "smoe_ray.note": note}
    assert job.note == note


def test_relative_places_are_made_absolute_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"near": "drawings", "far": "s3://bucket/drawings", "there": "/drawings"}
    text = study_text(
        "roots", base={"data": {"source": "images", "root": "there"}},
        datasets={name: {"root": root} for name, root in places.items()}, axes={"data.root": ["x"]},
    )  # fmt: skip
    spec, sent = jobs._study_to_send(parse_study(text), ["axes.data.root=[y]"])
    assert parse_study(sent) == spec
    assert isinstance(spec, GridStudy)
    assert spec.base.data.root == str(tmp_path / "there")
    assert spec.axes["data.root"] == (str(tmp_path / "y"),)
    sent_places = {name: data["root"] for name, data in spec.datasets.items()}
    assert sent_places == places | {"near": str(tmp_path / "drawings")}


def test_so_are_the_places_that_a_search_may_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = """
kind: search
name: places
question: Which drawings?
base: {data: {source: images, root: there}}
space: {data.root: {type: categorical, choices: [drawings, "s3://bucket/drawings"]}}
objectives: [{metric: test.psnr, direction: maximize}]
num_trials: 2
"""
    spec, _ = jobs._study_to_send(parse_study(text), [])
    assert isinstance(spec, SearchStudy)
    assert spec.space["data.root"].choices == (str(tmp_path / "drawings"), "s3://bucket/drawings")


SIGTERM_PROGRAM = """
import os, signal, threading, time
from smoe_ray.cluster.job_entry import answer_sigterm_as_ctrl_c
answer_sigterm_as_ctrl_c()
signal.signal(signal.SIGTERM, lambda *_: os._exit(3))  # as ray.init does
try:
    print("ready", flush=True)
    threading.Event().wait()
except KeyboardInterrupt:
    print("as on Ctrl-C")
"""


def test_sigterm_does_what_ctrl_c_does_even_where_ray_has_its_own_handler_and_blocks_sigint() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SIGTERM_PROGRAM],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.communicate(timeout=60)[0] == "as on Ctrl-C\n"
    assert process.returncode == 0


def test_what_a_job_failed_with_is_its_last_line() -> None:
    assert jobs._last_line("Job entrypoint command failed\nlast logs:\n  smoe-ray: no\n\n") == "smoe-ray: no"
    assert jobs._last_line(None) == ""


def test_a_job_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.Job, "state", lambda _: "running")
    with pytest.raises(ClusterError, match="job tiny-1: still running after 0 s"):
        jobs.Job("tiny-1", "http://head:8265", "tiny", "out").wait(timeout_s=0)
