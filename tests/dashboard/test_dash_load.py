"""What the pages read: the same as `read_results` and `study_status`, once for each state of the files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest
import s3fs
import streamlit as st
from moto.server import ThreadedMotoServer

from smoe_ray.errors import ResultsError
from smoe_ray.inspect.status import study_status
from smoe_ray.results import StudyReader, list_studies, read_embeddings, read_results
from smoe_ray_dashboard import load
from smoe_ray_dashboard.__main__ import warm_up
from support.planted_folder import plant
from support.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | str], None]:
    """Start the dashboard's reads on a place; every one of them looks at it anew."""

    def on(out: Path | str) -> None:
        st.cache_data.clear()
        st.cache_resource.clear()
        monkeypatch.setattr(sys, "argv", ["app.py", str(out)])
        monkeypatch.setattr(load, "_MIN_SECONDS", 0.0)
        monkeypatch.setattr(load, "_SHARE_OF_TIME", 0.0)

    return on


def touch(path: Path) -> None:
    """Another version of a file."""
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))


def test_results_and_status_are_those_of_the_command_line(out: Path, started: Callable[[Path], None]) -> None:
    plant(out, "demo", ends=[{"status": "failed", "error": "why"}, {"status": "running"}])
    started(out)
    assert load.studies() == ["demo"]
    found = load.results("demo")
    pd.testing.assert_frame_equal(found.table, read_results(out, "demo"))
    assert list(found.records) == sorted(found.table["trial_id"].unique())
    assert load.status("demo") == study_status(str(out), "demo")
    assert load.status("demo", with_best=False) == study_status(str(out), "demo")._replace(best=None)
    assert load.question("demo") == "Does it hold?"


def test_what_was_computed_is_kept_until_a_file_changes(out: Path, started: Callable[[Path], None]) -> None:
    records = plant(out, "demo")
    started(out)
    calls = []

    @load.cached
    def count(study: str, factor: int) -> int:
        calls.append(factor)
        return factor * len(load.results(study).table)

    rows = len(load.results("demo").table)
    assert [count("demo", 2), count("demo", 2), count("demo", 3)] == [2 * rows, 2 * rows, 3 * rows]
    assert calls == [2, 3]
    touch(out / "demo" / "trials" / records[0].trial_id / "epochs.parquet")
    count("demo", 2)
    assert calls == [2, 3, 2]


def test_two_functions_of_one_name_are_kept_apart(out: Path, started: Callable[[Path], None]) -> None:
    plant(out, "demo")
    started(out)

    def one() -> Callable[[str], int]:
        @load.cached
        def value(study: str) -> int:
            return 1

        return value

    def other() -> Callable[[str], int]:
        @load.cached
        def value(study: str) -> int:
            return 2

        return value

    assert (one()("demo"), other()("demo")) == (1, 2)


def test_a_new_trial_appears(out: Path, started: Callable[[Path], None]) -> None:
    plant(out, "demo", seeds=1)
    started(out)
    before = load.results("demo")
    plant(out, "demo", seeds=2)
    after = load.results("demo")
    assert after.version != before.version
    assert set(after.records) > set(before.records)


def test_arrays_are_those_of_the_trial_and_shared_read_only(
    out: Path, started: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = plant(out, "demo")[0].trial_id
    started(out)
    kept = load.embeddings("demo", trial)
    for name, array in read_embeddings(out, "demo", trial).items():
        np.testing.assert_array_equal(kept[name], array)
    assert load.embeddings("demo", trial) is kept
    with pytest.raises(ValueError, match="read-only"):
        kept["mu"][0] = 0
    monkeypatch.setattr(load, "_MAX_BYTES_OF_TRIAL", 100)
    with pytest.raises(ResultsError, match="too many to load"):
        load.embeddings("demo", trial)


@pytest.mark.parametrize("name", ["study.yaml", "optuna.journal"])
def test_a_huge_file_is_refused_in_a_sentence(out: Path, started: Callable[[Path], None], name: str) -> None:
    plant(out, "demo")
    with (out / "demo" / name).open("a+b") as huge:
        huge.truncate(10_000_000_000)
    started(out)
    with pytest.raises(ResultsError, match="are not read"):
        load.file("demo", name)


def test_a_study_of_a_billion_trials_is_not_planned(out: Path, started: Callable[[Path], None]) -> None:
    plant(out, "demo")
    axes = {f"objective.lambda_{name}": list(range(1, 40_000)) for name in ("balance", "entropy")}
    study = {"name": "demo", "question": "?", "base": {}, "axes": axes}
    (out / "demo" / "study.yaml").write_text(json.dumps(study))
    started(out)
    with pytest.raises(ResultsError, match="too many to plan"):
        load.status("demo")


def test_a_bucket_is_read_and_followed_beside(
    started: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", **dict.fromkeys(names, "key")}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()  # others may have spoken to a server that is gone
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="dashboard")
    uri = "s3://dashboard/results"
    plant(uri, "demo", seeds=1)
    started(uri)
    monkeypatch.setattr(load, "_QUICK_SECONDS", -1.0)  # as if each look took long
    before = load.results("demo")
    pd.testing.assert_frame_equal(before.table, read_results(uri, "demo"))
    plant(uri, "demo", seeds=2)
    wait_until(lambda: load.results("demo").version != before.version, seconds=60, pause=0.05)
    pd.testing.assert_frame_equal(load.results("demo").table, read_results(uri, "demo"))
    server.stop()


def test_the_first_page_loads_neither_torch_nor_ray(out: Path) -> None:
    plant(out, "demo")
    program = f"""
import sys
from streamlit.testing.v1 import AppTest
sys.argv = ["app.py", {str(out)!r}]
at = AppTest.from_file({str(ROOT / "dashboard" / "script" / "app.py")!r}, default_timeout=120).run()
assert not at.exception and len(at.dataframe) == 2, at
print([name for name in ("torch", "ray", "statsmodels", "sklearn", "matplotlib", "optuna") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# --- a place that takes long to look at -------------------------------------------------------------------------------


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is cleared, a look at OUT does not end. Every one counts as slow."""
    gate, look = threading.Event(), StudyReader.look
    gate.set()

    def look_at_the_gate(reader: StudyReader) -> None:
        assert gate.wait(60)
        look(reader)

    monkeypatch.setattr(StudyReader, "look", look_at_the_gate)
    monkeypatch.setattr(load, "_QUICK_SECONDS", -1.0)
    return gate


def test_whoever_asks_during_a_slow_look_has_the_last_state_at_once(
    out: Path, started: Callable[[Path], None], gate: threading.Event
) -> None:
    plant(out, "demo", seeds=1)
    started(out)
    before = load.status("demo")
    gate.clear()
    for _ in range(3):
        assert load.question("demo") == "Does it hold?"
        assert load.status("demo") == before
    looking = load._followed("demo")._refreshing
    assert looking is not None
    assert looking.is_alive()  # so nobody has waited for it
    gate.set()
    looking.join()


def test_a_study_file_that_changes_alone_changes_the_status(
    out: Path, started: Callable[[Path], None], gate: threading.Event
) -> None:
    plant(out, "demo", seeds=1)
    started(out)
    assert load.status("demo").total == 1
    with (out / "demo" / "study.yaml").open("a") as file:
        file.write("seeds: [0, 1, 2]\n")
    gate.clear()
    assert load.status("demo").total == 1  # the last state, while a look goes on
    gate.set()
    wait_until(lambda: load.status("demo").total == 3, seconds=60, pause=0.05)
    looking = load._followed("demo")._refreshing
    assert looking is not None
    looking.join()


def test_table_and_records_are_of_one_state_whoever_looks_meanwhile(
    out: Path, started: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(out, "demo", seeds=1)
    started(out)
    followed, trials = load._followed("demo"), load._Followed.trials

    def then_another_session_looks(self: Any) -> load.Trials:
        found = trials(self)
        plant(out, "demo", seeds=2)
        with self._lock:
            self._refresh()
        return found

    monkeypatch.setattr(load._Followed, "trials", then_another_session_looks)
    results = followed.results()
    assert set(results.table["trial_id"]) == set(results.records)
    assert results.version == followed._reader.version


def test_a_server_reads_ahead_all_that_can_be_read(out: Path, started: Callable[[Path], None]) -> None:
    (out / "broken" / "trials").mkdir(parents=True)
    (out / "broken" / "study.yaml").write_text("name: [")
    planted = plant(out, "sound", objectives=("blend",), experts=(4,), seeds=2, embeddings=False)
    started(out)
    warm_up(str(out))
    assert load.is_read("sound")
    assert set(load.results("sound").records) == {record.trial_id for record in planted}
    assert load.question("broken").startswith(f"({out}/broken/study.yaml")


def test_a_server_starts_where_nothing_can_be_read() -> None:
    with pytest.raises(ResultsError):
        list_studies("nosuch://place")
    warm_up("nosuch://place")
