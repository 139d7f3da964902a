"""Trackers that follow a running study: they have what an export has, and whatever they do, the study goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from smoe_ray.errors import SmoeRayError
from smoe_ray.export import tensorboard_events, tracker_for
from smoe_ray.export.tracker import End, Measured
from smoe_ray.results import TrialRecord, read_results
from smoe_ray.spec import dump_study
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.study.events import EpochDone, Event, Notice, TrialDeferred, TrialEnded, TrialStarted
from smoe_ray.study.live_log import LiveLog
from smoe_ray.testing.toy_training import Toy, toy_grid
from support.trackers import read_wandb, unreachable_internet

Run = Callable[..., tuple[int, str, str]]
LOSS = "test.reconstruction"
STUDY = toy_grid(seeds=[0, 1])


class Memory:
    """A tracker that keeps what it is told, and already has some epochs."""

    def __init__(self, has: int = 0) -> None:
        self.has = has
        self.told: list[tuple[Any, ...]] = []

    def start(self, trial_id: str, config: Mapping[str, Any], moment_s: float) -> int:
        self.told.append(("start", trial_id, config["seed"]))
        return self.has

    def log(self, trial_id: str, epochs: Sequence[Measured]) -> None:
        self.told.append(("log", trial_id, [epoch.epoch for epoch in epochs]))

    def end(self, trial_id: str, how: End, why: str | None, moment_s: float) -> None:
        self.told.append(("end", trial_id, how))

    def close(self) -> None:
        self.told.append(("close",))


class Broken(Memory):
    def log(self, trial_id: str, epochs: Sequence[Measured]) -> None:
        raise SystemExit("no more\nroom")


class Silent(Memory):
    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def start(self, trial_id: str, config: Mapping[str, Any], moment_s: float) -> int:
        self.released.wait()
        return 0


def follow(tracker: Memory, events: Sequence[Event], wait_s: float = 30) -> list[str]:
    """Tell a tracker events; the notices that came of it."""
    got: list[Event] = []
    with LiveLog([("it", lambda: tracker)], got.append, wait_s) as log:
        for event in events:
            log(event)
    assert [event for event in got if not isinstance(event, Notice)] == list(events)
    return [event.text for event in got if isinstance(event, Notice)]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """Of one trial of four epochs."""
    kept: list[Event] = []
    run_study(toy_grid(seeds=[0]), tmp_path_factory.mktemp("out"), LocalExecutor(fit=Toy()), on_event=kept.append)
    return [event for event in kept if isinstance(event, TrialStarted | EpochDone | TrialEnded)]


def record_of(events: Sequence[Event]) -> TrialRecord:
    assert isinstance(events[-1], TrialEnded)
    return events[-1].record


def test_each_epoch_is_told_once(events: list[Event]) -> None:
    tracker = Memory()
    assert follow(tracker, events) == []
    trial = record_of(events).trial_id
    epochs = [("log", trial, [number]) for number in (1, 2, 3, 4)]
    assert tracker.told == [("start", trial, 0), *epochs, ("end", trial, "finished"), ("close",)]


def test_what_the_tracker_has_of_an_earlier_run_is_not_told_again(events: list[Event]) -> None:
    tracker = Memory(has=2)
    follow(tracker, events[:1] + events[2:])  # resumed: the first event has the epochs before it, too
    assert [told[2] for told in tracker.told if told[0] == "log"] == [[3], [4]]
    tracker = Memory()
    follow(tracker, events[:1] + events[2:])
    assert [told[2] for told in tracker.told if told[0] == "log"] == [[1, 2], [3], [4]]


def test_a_trial_that_the_study_was_stopped_in_is_interrupted(events: list[Event]) -> None:
    tracker = Memory()
    follow(tracker, events[:3])
    assert tracker.told[-2:] == [("end", record_of(events).trial_id, "interrupted"), ("close",)]


def test_a_trial_of_another_process_is_not_told(events: list[Event]) -> None:
    tracker = Memory()
    record = record_of(events)
    follow(tracker, [events[0], TrialDeferred(record.trial_id), events[0], events[-1]])
    assert tracker.told == [("close",)]
    failed = record.model_copy(update={"status": "failed"})
    follow(tracker, [events[0], TrialEnded(failed)])
    assert tracker.told[1:3] == [("start", record.trial_id, 0), ("end", record.trial_id, "failed")]


def test_one_that_fails_costs_one_notice(events: list[Event]) -> None:
    [notice] = follow(Broken(), [*events, *events])
    assert notice.startswith("it: no more room; ")


def test_one_that_does_not_answer_keeps_nobody_waiting(events: list[Event]) -> None:
    tracker = Silent()
    [notice] = follow(tracker, events, wait_s=0.01)
    tracker.released.set()
    assert notice.startswith("it: has not taken everything after 0 s; ")


def test_tensorboard_follows_a_run_and_goes_on_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.summary.writer import event_file_writer

    # The trial that is run twice has files .9 and .10 of this process: in the order of names the second comes first.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(8))

    def run(fit: Toy) -> None:
        with LiveLog([tracker_for(f"tensorboard:{tmp_path / 'logs'}", STUDY)]) as log:
            run_study(STUDY, tmp_path / "out", LocalExecutor(fit=fit), on_event=log)

    run(Toy(raise_seed=1))
    run(Toy())
    for trial, rows in read_results(tmp_path / "out", STUDY.name).groupby("trial_id"):
        scalars = (
            EventAccumulator(str(tmp_path / "logs" / STUDY.name / str(trial))).Reload().Scalars("test/reconstruction")
        )
        assert [event.step for event in scalars] == [1, 2, 3, 4]
        assert [event.value for event in scalars] == pytest.approx(rows[LOSS].tolist())


_PARSING_THREADS = """
import builtins, sys, threading
from pathlib import Path

from smoe_ray.export import tracker_for
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.study.live_log import LiveLog
from smoe_ray.testing.toy_training import Toy, toy_grid

compile, threads = builtins.compile, []

def noting(source, filename, mode, flags=0, *others, **options):
    if flags & 0x400:  # ast.PyCF_ONLY_AST
        threads.append(threading.current_thread())
    return compile(source, filename, mode, flags, *others, **options)

if __name__ == "__main__":
    builtins.compile = noting
    place, study = Path(sys.argv[2]), toy_grid(seeds=[0])
    with LiveLog([tracker_for(sys.argv[1], study)]) as log:
        threads.clear()
        run_study(study, place / "out", LocalExecutor(fit=Toy()), on_event=log)
    print({thread.name for thread in threads})
"""


@pytest.mark.parametrize("to", ["tensorboard:logs", "wandb:mine", pytest.param("mlflow:logs", marks=pytest.mark.slow)])
def test_no_tracker_parses_code_beside_the_study(to: str, tmp_path: Path) -> None:
    """Reading arrays parses, and two threads that parse can make each other fail (gh-106905)."""
    program = [sys.executable, "-W", "ignore", "-c", _PARSING_THREADS, to, str(tmp_path)]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "{'MainThread'}"


@pytest.mark.parametrize(("newest", "waited"), [(98, 0), (99, 0), (100, 0.5), (200, 1)])
def test_a_new_event_file_is_made_in_a_later_second_than_those_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newest: int, waited: float
) -> None:
    """At half past second 100; a file of the future, of a clock that was put back, costs no more than a second."""
    for second in (90, newest):
        (tmp_path / f"events.out.tfevents.{second:010d}.host.1.9").touch()
    slept: list[float] = []
    monkeypatch.setattr(tensorboard_events.time, "time", lambda: 100.5)
    monkeypatch.setattr(tensorboard_events.time, "sleep", slept.append)
    tensorboard_events._wait_for_a_later_name(tmp_path)
    assert slept == [waited]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries below MLflow
def test_mlflow_follows_a_run_and_goes_on_in_the_next(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    for fit, ends in ((Toy(raise_seed=1), ["FAILED", "FINISHED"]), (Toy(), ["FINISHED", "FINISHED"])):
        with LiveLog([tracker_for(f"mlflow:{tmp_path / 'logs'}", STUDY)]) as log:
            run_study(STUDY, tmp_path / "out", LocalExecutor(fit=fit), on_event=log)
        client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'logs' / 'mlflow.db'}")
        runs = client.search_runs([client.get_experiment_by_name(STUDY.name).experiment_id])
        assert sorted(run.info.status for run in runs) == ends
    for run in runs:
        rows = read_results(tmp_path / "out", STUDY.name).query(f"trial_id == '{run.data.tags['trial_id']}'")
        history = client.get_metric_history(run.info.run_id, LOSS)
        assert {metric.step: metric.value for metric in history} == dict(enumerate(rows[LOSS], 1))
        assert len(history) == 4
        assert run.data.params["seed"] == str(rows["seed"].iloc[0])


def test_wandb_follows_a_run_off_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    got: list[Event] = []
    with unreachable_internet(monkeypatch) as asked, LiveLog([tracker_for("wandb:mine", STUDY)], got.append) as log:
        run_study(STUDY, tmp_path / "out", LocalExecutor(fit=Toy(raise_seed=1)), on_event=log)
    assert asked == []
    assert [event for event in got if isinstance(event, Notice)] == []
    runs = [read_wandb(file) for file in (tmp_path / "wandb").rglob("*.wandb")]
    assert {run["project"] for run in runs} == {"mine"}
    for trial, rows in read_results(tmp_path / "out", STUDY.name).groupby("trial_id"):
        [run] = [run for run in runs if run["run_id"] == f"{STUDY.name}-{trial}"]
        assert [row["test/reconstruction"] for row in run["history"]] == rows[LOSS].tolist()
        assert run["summary"]["status"] == rows["status"].iloc[0]
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))  # where no key is
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with LiveLog([tracker_for("wandb:mine", STUDY)], got.append):
        pass
    [notice] = [event for event in got if isinstance(event, Notice)]
    assert notice.text.startswith("--log-to wandb: WANDB_MODE=online needs WANDB_API_KEY")


def test_the_command_follows_where_it_can(smoe_ray: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tmp_path / "toy.yaml"
    study.write_text(dump_study(toy_grid(seeds=[0], **{"base.training.budget": "1 epochs"})))
    (tmp_path / "file").touch()
    code, _, error = smoe_ray(
        "run", study, "--out", tmp_path / "out", "--executor", "local", "--jobs", 0,
        "--log-to", f"tensorboard:{tmp_path / 'logs'}", "--log-to", f"tensorboard:{tmp_path / 'file'}",
    )  # fmt: skip
    assert code == 0, error
    assert error.count("--log-to tensorboard: ") == 1
    assert "Not a directory" in error
    assert len(list((tmp_path / "logs" / "toy").iterdir())) == 1


@pytest.mark.parametrize(
    ("to", "expected"),
    [("tensorbord:logs", "did you mean 'tensorboard'?"), ("mlflow", "say where, as --log-to mlflow:URI"),
     ("parquet:x", "none of tensorboard:DIR, mlflow:URI")],
)  # fmt: skip
def test_a_mistake_is_refused_before_anything_runs(to: str, expected: str) -> None:
    with pytest.raises(SmoeRayError) as error:
        tracker_for(to, STUDY)
    assert expected in str(error.value)
