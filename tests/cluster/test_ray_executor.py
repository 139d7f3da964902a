"""What only Ray does: processes are reused, die and are replaced; room may lack; storage comes back."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray

from smoe_ray.cluster.ray_executor import RayExecutor
from smoe_ray.errors import ClusterError, DataError, StorageError, StudyError, WorkerDiedError
from smoe_ray.results import read_results, read_trials
from smoe_ray.spec import SearchStudy, parse_study
from smoe_ray.study import LocalExecutor, run_study, trial_queue
from smoe_ray.study.events import EpochDone, Notice
from smoe_ray.study.probe_run import plan_probes, probe_trial
from smoe_ray.study.search import SearchSource
from smoe_ray.testing.toy_training import BASE, Toy, epochs_computed, toy_grid
from support.planted_folder import plant
from support.processes import alive, descendants, wait_until
from support.toy_runs import STUDY, assert_same, start, workers
from support.toy_training import Blocks, FailsOnArrival, Moods, refuse, square

SLOW = pytest.mark.slow


def notices(events: list[Any]) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice)]


@pytest.mark.usefixtures("private_ray")
class TestOnOneRay:
    def test_processes_are_reused_and_one_dies_and_is_replaced(self, out: Path, log: Path, undisturbed: Path) -> None:
        events: list[Any] = []
        toy = Toy(log=log, kill_seed=1, kill_times=1)
        run_study(STUDY, out, RayExecutor(fit=toy), on_event=events.append)
        assert_same(out, undisturbed)
        [again] = [record for record in read_trials(out, "toy") if record.timings.restarts]
        assert again.spec.seed == 1
        assert notices(events) == [f"trial {again.trial_id}: its process was killed; it is resumed"]
        assert Counter(epochs_computed(log))[(1, 1)] == 1
        rows = [event.rows for event in events if isinstance(event, EpochDone) and event.trial_id == again.trial_id]
        assert [[row["epoch"] for row in each] for each in rows] == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]]
        assert len(workers(log)) <= 3  # two CPUs, one death

    def test_a_trial_whose_processes_die_again_and_again_fails_alone(
        self, out: Path, log: Path, undisturbed: Path
    ) -> None:
        events: list[Any] = []
        toy = Toy(log=log, kill_seed=1, kill_times=9)
        records = run_study(STUDY, out, RayExecutor(fit=toy), on_event=events.append)
        assert {record.spec.seed: record.status for record in records}[1] == "failed"
        assert Counter(record.status for record in records) == {"finished": 3, "failed": 1}
        [failed] = [record for record in records if record.status == "failed"]
        assert failed.error_kind == WorkerDiedError.__name__
        assert "its process was killed, for the third time" in (failed.error or "")
        assert len(notices(events)) == 2
        run_study(STUDY, out, RayExecutor(fit=Toy(log=log)))
        assert_same(out, undisturbed)
        assert Counter(epochs_computed(log))[(1, 1)] == 1

    def test_what_no_node_can_host_is_refused_before_anything_starts(self, out: Path) -> None:
        study = toy_grid(**{"resources.cpus": 64})
        with pytest.raises(StudyError) as caught:
            run_study(study, out, RayExecutor(fit=Toy()))
        assert str(caught.value) == (
            "resources: a trial asks for 64 CPUs, but the cluster has 1 node (1 x 2 CPUs); "
            "lower resources of the study or add nodes"
        )
        assert read_trials(out, "toy") == []

    def test_a_study_that_nothing_can_host_any_more_ends(self, out: Path, undisturbed: Path) -> None:
        class Squatter:
            def here(self) -> None: ...

        squatter = ray.remote(num_cpus=2)(Squatter).remote()
        ray.get(squatter.here.remote())
        try:
            with pytest.raises(StudyError, match="for 2 s nothing could host its trials; the cluster has 1 node") as e:
                run_study(STUDY, out, RayExecutor(fit=Toy(), deadline_s=2))
        finally:
            ray.kill(squatter)
        assert "\n" not in str(e.value)
        run_study(STUDY, out, RayExecutor(fit=Toy()))
        assert_same(out, undisturbed)

    def test_storage_that_comes_back_costs_nothing_but_time(self, out: Path, undisturbed: Path) -> None:
        events: list[Any] = []

        def mend(event: Any) -> None:
            events.append(event)
            if isinstance(event, Notice):
                for blocked in out.glob("toy/trials/*/epochs.parquet"):
                    if blocked.is_dir():
                        blocked.rmdir()
                        blocked.with_name("aside").rename(blocked)

        run_study(STUDY, out, RayExecutor(fit=Blocks(out=out)), on_event=mend)
        [notice] = notices(events)
        assert "epochs.parquet: cannot be written" in notice
        assert notice.endswith("; trying again")
        assert_same(out, undisturbed)

    def test_storage_that_stays_away_ends_the_study_and_fails_no_trial(self, out: Path) -> None:
        study = toy_grid(seeds=[0])
        with pytest.raises(StorageError, match=r"epochs\.parquet: cannot be") as caught:
            run_study(study, out, RayExecutor(fit=Blocks(out=out), storage_timeout_s=1))
        assert "\n" not in str(caught.value)
        assert [record.status for record in read_trials(out, "toy")] == ["running"]

    def test_a_process_that_cannot_start_ends_the_study_in_one_line(self, out: Path) -> None:
        with pytest.raises(WorkerDiedError, match=r"before it could train anything: .*cannot be imported") as caught:
            run_study(toy_grid(seeds=[0]), out, RayExecutor(fit=FailsOnArrival()))
        assert "\n" not in str(caught.value)

    def test_no_more_trials_at_once_than_asked_for(self, out: Path, log: Path) -> None:
        run_study(STUDY, out, RayExecutor(jobs=1, fit=Toy(log=log)))
        assert len(workers(log)) == 1
        assert [seed for seed, _ in epochs_computed(log)] == sorted(seed for seed, _ in epochs_computed(log))

    def test_a_callback_that_raises_ends_the_study(self, out: Path) -> None:
        def on_event(event: Any) -> None:
            if isinstance(event, EpochDone):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run_study(STUDY, out, RayExecutor(fit=Toy(pause=0.2)), on_event=on_event)

    @pytest.mark.parametrize("pruner", ["asha", "median"])
    def test_optuna_hears_how_each_trial_ended(self, out: Path, pruner: str, monkeypatch: pytest.MonkeyPatch) -> None:
        searches: list[SearchSource] = []

        class Seen(SearchSource):
            def __init__(self, run: Any) -> None:
                super().__init__(run)
                searches.append(self)

        monkeypatch.setattr(trial_queue, "SearchSource", Seen)
        study = parse_study(
            BASE
            + f"""
space:
  model.num_experts: {{type: int, low: 1, high: 40}}
objectives: [{{metric: test.reconstruction}}]
num_trials: 12
pruner: {{name: {pruner}, grace_epochs: 1, reduction_factor: 2}}
collapse: {{min_active_fraction: 0.04, grace_epochs: 2}}
"""
        )
        assert isinstance(study, SearchStudy)
        records = {record.trial_id: record for record in run_study(study, out, RayExecutor(fit=Moods()))}
        assert len([record for record in records.values() if record.status in ("finished", "pruned")]) >= 12
        states = Counter(trial.state.name for trial in searches[0]._optuna.trials)
        ends = Counter(record.status for record in records.values())
        results = read_results(out, study.name)
        unmeasured = {
            trial_id
            for trial_id, record in records.items()
            if record.status == "finished"
            and results[results.trial_id == trial_id]["test.reconstruction"].isna().iloc[-1]
        }
        assert unmeasured
        assert states["PRUNED"] == ends["pruned"] > 0
        assert states["COMPLETE"] == ends["finished"] - len(unmeasured) > 0
        assert states["FAIL"] >= len(unmeasured)
        assert states["RUNNING"] == states["WAITING"] == 0
        reasons = [record.reason or "" for record in records.values() if record.status == "pruned"]
        assert all(f"({pruner} pruner)" in reason or "experts collapsed" in reason for reason in reasons)
        assert any(f"({pruner} pruner)" in reason for reason in reasons)

    def test_map_keeps_the_order(self) -> None:
        assert list(RayExecutor(jobs=1).map(square, range(7))) == [0, 1, 4, 9, 16, 25, 36]
        with pytest.raises(DataError, match="no data"):  # what the function raises, not what Ray makes of it
            list(RayExecutor().map(refuse, range(2)))

    @pytest.mark.slow
    def test_trials_are_probed_as_tasks(self, out: Path) -> None:
        trials = [record.trial_id for record in plant(out, "probed", objectives=["blend"], experts=[2], seeds=2)]
        tasks = plan_probes(str(out), "probed").tasks
        assert [(task.trial_id, task.error) for task in RayExecutor().map(probe_trial, tasks)] == [
            (trial_id, None) for trial_id in trials
        ]
        assert plan_probes(str(out), "probed").tasks == []


def test_an_address_that_is_no_ray_is_one_line(tmp_path: Path) -> None:
    for address, hint in (("http://head:8265", "smoe-ray submit"), ("ray://head:10001", "smoe-ray submit")):
        with pytest.raises(ClusterError, match=hint) as caught:
            run_study(STUDY, tmp_path, RayExecutor(address, fit=Toy()))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "ending",
    ["killed", "told to stop", *(pytest.param(end, marks=pytest.mark.slow) for end in ("gcs_server", "raylet"))],
)
def test_a_driver_that_ends_early_leaves_everything_resumable_and_nothing_else(
    out: Path, log: Path, undisturbed: Path, ending: str
) -> None:
    process = start(out, "ray", pause=0.3)
    wait_until(lambda: len(epochs_computed(log)) >= 6)
    of_ray = descendants(process.pid)
    began = time.monotonic()
    if ending == "killed":
        process.kill()
    elif ending == "told to stop":
        process.terminate()
    else:
        [victim] = [each for each, name in of_ray.items() if name == ending]
        os.kill(victim, signal.SIGKILL)
    printed, said = process.communicate(timeout=120)
    assert printed == ""
    if ending == "told to stop":
        assert process.returncode == 130
        assert said == "Interrupted. Nothing that was trained is lost: run the same command again to resume.\n"
    elif ending != "killed":
        assert time.monotonic() - began < 15
        assert process.returncode == 1
        assert re.fullmatch(
            r"error: Ray.* has ended \(its (GCS|raylet) is gone\); what was trained is kept: "
            r"run the same command again to go on\n",
            said,
        )
    wait_until(lambda: not any(map(alive, workers(log))), seconds=20)
    wait_until(lambda: not any(map(alive, of_ray)), "Ray's processes end with their driver", seconds=20)
    wait_until(lambda: not list(Path("/tmp").glob(f"smoe-{process.pid}-*")), "its folder goes", seconds=20)
    finished = {record.trial_id: record for record in read_trials(out, "toy") if record.status == "finished"}
    run_study(STUDY, out, LocalExecutor(fit=Toy(log=log)))
    assert_same(out, undisturbed)
    after = {record.trial_id: record for record in read_trials(out, "toy")}
    assert {trial_id: after[trial_id] for trial_id in finished} == finished
    again = [epoch for epoch, times in Counter(epochs_computed(log)).items() if times > 1]
    assert len(again) <= 4
