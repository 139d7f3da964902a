"""Kill anything at any moment, run again: nothing finished is trained twice, and the table is the same."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd
import pytest

from smoe_ray.errors import StorageError, WorkerDiedError
from smoe_ray.results import Store, TrialFolder, read_results, read_trials, read_weights
from smoe_ray.study import LocalExecutor, StudyPlan, StudyRun, run_study, trial_run
from smoe_ray.study.events import Notice, TrialDeferred
from smoe_ray.study.trial_run import record_failure, train_trial
from smoe_ray.testing.toy_training import Toy, epochs_computed, table, toy_grid
from support.processes import alive, wait_until
from support.toy_runs import STUDY, assert_same, start, workers
from support.toy_training import Blocks, FailsOnArrival, RealFit


def has_sigint_blocked(pid: int) -> bool:
    [blocked] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigBlk")]
    return bool(int(blocked.split()[1], 16) & 1 << (signal.SIGINT - 1))


def stamps(out: Path) -> dict[str, tuple[int, Any]]:
    """When the files of finished trials were written, and their records."""
    return {
        record.trial_id: ((out / "toy/trials" / record.trial_id / "model.safetensors").stat().st_mtime_ns, record)
        for record in read_trials(out, "toy")
        if record.status == "finished"
    }


@pytest.mark.parametrize(("jobs", "killed_after"), [(0, 2), (1, 7), (2, 4), (2, 9)])
def test_kill_9_of_a_whole_run(out: Path, log: Path, undisturbed: Path, jobs: int, killed_after: int) -> None:
    process = start(out, jobs, pause=0.1)
    wait_until(lambda: len(epochs_computed(log)) >= killed_after)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(map(alive, workers(log))))  # workers do not outlive their parent
    before, computed = stamps(out), epochs_computed(log)

    run_study(STUDY, out, LocalExecutor(jobs, fit=Toy(log=log)))
    after = stamps(out)
    assert {trial_id: after[trial_id] for trial_id in before} == before
    assert_same(out, undisturbed)
    # Nothing is computed again but the epoch that each process was in, and one whose checkpoint was not written yet.
    again = [epoch for epoch, times in Counter(epochs_computed(log)).items() if times > 1]
    assert len(again) <= 2 * max(1, jobs)
    restarted = [record for record in read_trials(out, "toy") if record.timings.restarts]
    assert all(record.timings.restarts == 1 for record in restarted)
    assert {record.spec.seed for record in restarted} <= {seed for seed, _ in computed}


def test_workers_end_with_their_parent_even_in_mid_epoch(out: Path, log: Path) -> None:
    process = start(out, 2, pause=60)
    wait_until(lambda: log.exists() and len(workers(log)) == 2)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(map(alive, workers(log))))


def test_what_a_kill_leaves_aside_is_cleared_by_the_next_run(out: Path) -> None:
    [record] = run_study(toy_grid(seeds=[0]), out, LocalExecutor(fit=Toy()))
    folder = TrialFolder(Store(out), "toy", record.trial_id)
    folder.write_checkpoint({"epoch": np.array(3)}, [])  # killed between the commit and the deletion of the checkpoint
    run_study(toy_grid(seeds=[0]), out, LocalExecutor(fit=Toy()))
    path = out / folder.name
    assert not (path / "checkpoint").exists()

    folder.write_record(record.model_copy(update={"status": "running"}))  # killed in the middle of two writes
    folder.write_checkpoint({"epoch": np.array(0), "weight": np.zeros(8)}, [])
    for name in (".epochs.parquet.99.tmp", "checkpoint/.state.safetensors.99.tmp"):
        (path / name).write_bytes(b"half of")
    run_study(toy_grid(seeds=[0]), out, LocalExecutor(fit=Toy()))
    assert {file.name for file in path.iterdir()} == {
        "trial.json",
        "epochs.parquet",
        "model.safetensors",
        "embeddings.npz",
    }


def test_a_checkpoint_that_another_process_may_need_is_not_cleared(out: Path, tmp_path: Path) -> None:
    run = StudyRun(StudyPlan(toy_grid(seeds=[0])), str(out), tmp_path / "cache")
    [task] = run.pending()
    train_trial(task, lambda rows: False, Toy())
    task.folder.write_checkpoint({"epoch": np.array(1)}, [])
    with filelock.FileLock(out / task.folder.lock_name):
        assert run.pending() == []
        assert task.folder.read_checkpoint() is not None
    assert run.pending() == []
    assert task.folder.read_checkpoint() is None


def test_a_trial_that_died_but_is_still_held_fails_without_being_written(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_run, "_LOCK_TIMEOUT_S", 0.05)
    [task] = StudyRun(StudyPlan(toy_grid(seeds=[0])), str(out), tmp_path / "cache").pending()
    error = WorkerDiedError("killed twice")
    with filelock.FileLock(out / task.folder.lock_name):
        assert record_failure(task, error).error == "killed twice"
        assert task.folder.read_record() is None
    assert record_failure(task, error) == task.folder.read_record()


@pytest.mark.parametrize("jobs", [0, 2])
def test_real_training_killed_in_mid_trial_ends_with_identical_weights(out: Path, log: Path, jobs: int) -> None:
    run_study(STUDY, out.with_name("undisturbed"), LocalExecutor(fit=RealFit(log)))
    log.unlink()
    process = start(out, jobs, "real", pause=0.1)
    wait_until(lambda: len(epochs_computed(log)) >= 7)
    process.kill()
    process.communicate()
    run_study(STUDY, out, LocalExecutor(fit=RealFit(log)))
    assert 1 <= sum(record.timings.restarts for record in read_trials(out, "toy")) <= max(1, jobs)
    assert Counter(epochs_computed(log))[(0, 1)] == 1
    for record in read_trials(out, "toy"):
        mine = read_weights(out, "toy", record.trial_id)
        theirs = read_weights(out.with_name("undisturbed"), "toy", record.trial_id)
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    pd.testing.assert_frame_equal(table(out, STUDY), table(out.with_name("undisturbed"), STUDY), check_exact=True)


def test_a_run_killed_again_and_again_still_ends_with_the_same_table(out: Path, log: Path, undisturbed: Path) -> None:
    for _ in range(3):
        done = len(epochs_computed(log))
        process = start(out, 2, pause=0.03)
        wait_until(lambda: len(epochs_computed(log)) > done + 2 or process.poll() is not None)  # noqa: B023
        process.kill()
        process.communicate()
        wait_until(lambda: not any(map(alive, workers(log))))
    run_study(STUDY, out, LocalExecutor(fit=Toy(log=log)))
    assert_same(out, undisturbed)


def test_two_processes_share_a_study(out: Path, log: Path, undisturbed: Path) -> None:
    both = [start(out, jobs, pause=0.05) for jobs in (1, 2)]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert sorted(epochs_computed(log)) == [(seed, epoch) for seed in range(4) for epoch in range(1, 5)]
    assert_same(out, undisturbed)


def test_a_trial_of_another_process_is_left_to_it_and_waited_for(out: Path, log: Path, undisturbed: Path) -> None:
    other = start(out, 1, pause=0.2)
    wait_until(lambda: bool(epochs_computed(log)))
    events: list[Any] = []
    records = run_study(STUDY, out, LocalExecutor(fit=Toy(log=log)), on_event=events.append)
    other.communicate(timeout=120)
    assert any(isinstance(event, TrialDeferred) for event in events)
    assert [record.status for record in records] == ["finished"] * 4
    assert max(Counter(epochs_computed(log)).values()) == 1
    assert_same(out, undisturbed)


def test_a_trial_whose_process_dies_meanwhile_is_taken_over(out: Path, log: Path, undisturbed: Path) -> None:
    other = start(out, 1, pause=1.0)
    wait_until(lambda: len(epochs_computed(log)) == 2)

    def when_left(event: Any) -> None:
        if isinstance(event, TrialDeferred):
            other.kill()

    run_study(STUDY, out, LocalExecutor(fit=Toy(log=log)), on_event=when_left)
    other.communicate()
    assert_same(out, undisturbed)
    assert Counter(epochs_computed(log))[(0, 1)] == 1


def test_a_worker_that_dies_once_costs_nothing_but_time(out: Path, log: Path, undisturbed: Path) -> None:
    events: list[Any] = []
    toy = Toy(log=log, kill_seed=1, kill_times=1)
    run_study(STUDY, out, LocalExecutor(1, fit=toy), on_event=events.append)
    assert_same(out, undisturbed)
    [record] = [record for record in read_trials(out, "toy") if record.timings.restarts]
    assert record.spec.seed == 1
    assert [event.text for event in events if isinstance(event, Notice)] == [
        f"trial {record.trial_id}: its process was killed by signal 9; it is resumed"
    ]
    assert Counter(epochs_computed(log))[(1, 1)] == 1
    assert os.getpid() not in workers(log)


def test_a_worker_that_dies_twice_fails_its_trial_alone(out: Path, log: Path, undisturbed: Path) -> None:
    toy = Toy(log=log, kill_seed=1, kill_times=2)
    records = run_study(STUDY, out, LocalExecutor(1, fit=toy))
    statuses = {record.spec.seed: record.status for record in records}
    assert statuses == {0: "finished", 1: "failed", 2: "finished", 3: "finished"}
    [failed] = [record for record in records if record.status == "failed"]
    assert failed.error_kind == WorkerDiedError.__name__
    assert "killed by signal 9, for the second time; out of memory?" in (failed.error or "")
    results = read_results(out, "toy")
    assert list(results[results.seed == 1]["epoch"]) == [1]
    # It was nobody's fault: running the study again goes on with it.
    run_study(STUDY, out, LocalExecutor(fit=Toy(log=log)))
    assert_same(out, undisturbed)
    assert Counter(epochs_computed(log))[(1, 1)] == 1


def test_a_worker_that_cannot_start_ends_the_study_in_one_line(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkerDiedError, match="ended with exit code 1 before it could train anything") as caught:
        run_study(STUDY, out, LocalExecutor(2, fit=FailsOnArrival()))
    assert "\n" not in str(caught.value)
    assert "cannot be imported twice" in capfd.readouterr().err


@pytest.mark.parametrize(("jobs", "number"), [(0, signal.SIGTERM), (2, signal.SIGINT), (2, signal.SIGHUP)])
def test_a_signal_to_stop_leaves_everything_resumable(
    out: Path, log: Path, undisturbed: Path, jobs: int, number: signal.Signals
) -> None:
    process = start(out, jobs, pause=0.3)
    wait_until(lambda: len(epochs_computed(log)) >= 6)
    # A worker that heard it would now and then print its own traceback: see that none can.
    assert all(has_sigint_blocked(pid) == (pid != process.pid) for pid in workers(log))
    os.killpg(process.pid, number)  # as a terminal does: to the workers, too
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said == "Interrupted. Nothing that was trained is lost: run the same command again to resume.\n"
    assert not any(map(alive, workers(log)))
    before = stamps(out)
    run_study(STUDY, out, LocalExecutor(jobs, fit=Toy(log=log)))
    assert {trial_id: stamps(out)[trial_id] for trial_id in before} == before
    assert_same(out, undisturbed)


@pytest.mark.parametrize("jobs", [0, 2])
def test_an_unwritable_out_is_one_line(tmp_path: Path, jobs: int) -> None:
    (tmp_path / "taken").write_text("a file where a folder is needed")
    process = start(tmp_path / "taken" / "out", jobs)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said == f"error: {tmp_path}/taken: is a file; --out needs a folder\n"


class _NoRoom(Toy):
    def __call__(self, *args: Any) -> Any:
        for epoch in super().__call__(*args):
            if epoch.epoch == 3:  # the trial's folder can be written to no longer
                assert self.log is not None
                trials = self.log.parent / "out/toy/trials"
                for folder in trials.iterdir():
                    (folder / "epochs.parquet").unlink()
                    (folder / "epochs.parquet").mkdir()
            yield epoch


@pytest.mark.parametrize("jobs", [0, 2])
def test_storage_that_comes_back_costs_nothing_but_time(out: Path, undisturbed: Path, jobs: int) -> None:
    notices: list[str] = []

    def mend(event: Any) -> None:
        if isinstance(event, Notice):
            notices.append(event.text)
            [blocked] = [file for file in out.glob("toy/trials/*/epochs.parquet") if file.is_dir()]
            blocked.rmdir()
            blocked.with_name("aside").rename(blocked)

    run_study(STUDY, out, LocalExecutor(jobs, fit=Blocks(out=out)), on_event=mend)
    [notice] = notices
    assert "epochs.parquet: cannot be written" in notice
    assert notice.endswith("; trying again")
    assert_same(out, undisturbed)


@pytest.mark.parametrize("jobs", [0, 2])
def test_storage_that_stays_away_stops_the_study_and_fails_no_trial(out: Path, log: Path, jobs: int) -> None:
    with pytest.raises(StorageError, match=r"epochs\.parquet: cannot be written") as caught:
        run_study(toy_grid(seeds=[0]), out, LocalExecutor(jobs, fit=_NoRoom(log=log), storage_timeout_s=0))
    assert "\n" not in str(caught.value)
    assert [record.status for record in read_trials(out, "toy")] == ["running"]


def test_each_step_of_the_order_of_writes_may_be_the_last(tmp_path: Path, undisturbed: Path) -> None:
    """Stop after every single write of a trial, in turn, and run again."""
    study = toy_grid(seeds=[0])

    class Stop(BaseException):
        pass

    class Brittle(Store):
        left = 0

        def write(self, name: str, content: bytes) -> None:
            if Brittle.left == 0:
                raise Stop
            Brittle.left -= 1
            super().write(name, content)

    class BrittleTask:
        """A task whose folder stops after so many writes."""

        def __init__(self, task: Any) -> None:
            self._task = task

        def __getattr__(self, name: str) -> Any:
            return getattr(self._task, name)

        @property
        def folder(self) -> TrialFolder:
            return TrialFolder(Brittle(self._task.out), self._task.study, self._task.trial_id)

    writes, completed = 0, False
    while not completed:
        out = tmp_path / str(writes)
        [task] = StudyRun(StudyPlan(study), str(out), tmp_path / "cache").pending()
        Brittle.left = writes
        try:
            train_trial(BrittleTask(task), lambda rows: False, Toy())  # type: ignore[arg-type]
            completed = True
        except Stop:
            pass
        record = train_trial(task, lambda rows: False, Toy())
        assert record is not None
        assert record.status == "finished"
        results = table(out, study)
        expected = table(undisturbed, STUDY)
        expected = expected[expected.seed == 0].reset_index(drop=True)
        pd.testing.assert_frame_equal(results, expected, check_exact=True)
        assert np.array_equal(
            read_weights(out, "toy", task.trial_id)["weight"], read_weights(undisturbed, "toy", task.trial_id)["weight"]
        )
        assert not (out / "toy/trials" / task.trial_id / "checkpoint").exists()
        writes += 1
    # The record, then (epochs, checkpoint, record) x 3, (epochs, weights, embeddings), the final record
    assert writes == 1 + 3 * 3 + 3 + 1 + 1
