"""The contract of executors: what every executor must do, as tests that an author of one runs on it.

Subclass the contract in a test module and give it a factory, for one executor or for several::

    import pytest

    from my_package import MyExecutor
    from smoe_ray.testing.executors import ExecutorContract, MakeExecutor


    class TestMyExecutor(ExecutorContract):
        @pytest.fixture(params=[1, 4])
        def make_executor(self, request: pytest.FixtureRequest) -> MakeExecutor:
            return lambda fit: MyExecutor(workers=request.param, fit=fit)

pytest collects every test of the contract from the subclass. ``pytest.register_assert_rewrite("smoe_ray.testing")`` in
``conftest.py`` makes failures show the values compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from smoe_ray.data import Splits, load_splits
from smoe_ray.errors import StudyError
from smoe_ray.inspect.preview import preview
from smoe_ray.planning import StudyPlan
from smoe_ray.planning import plan as planning
from smoe_ray.planning.grid import trials_by_identity
from smoe_ray.results import Store, TrialFolder, read_embeddings, read_results, read_trials, read_weights
from smoe_ray.spec import GridStudy, IntRange, TrialSpec, load_study, parse_study
from smoe_ray.study import Executor, plan_grid, run_study
from smoe_ray.study.events import EpochDone, Notice, StudyStarted, TrialEnded, TrialStarted
from smoe_ray.study.trial_run import fit_on
from smoe_ray.testing.toy_training import BASE, Arrays, Toy, epochs_computed, table, toy_grid, toy_search

Fit = Callable[[TrialSpec, Splits, Arrays | None], Iterator[Any]]
MakeExecutor = Callable[[Fit | None], Executor]
"""Makes the executor under test, which trains with this function; None: with the real training."""


class ExecutorContract:
    """What every executor must do; subclass it and override `make_executor` (see the module).

    Most tests train with `Toy`, in milliseconds per epoch: the executor must hand it to its workers, by pickle where
    they are other processes. Tests read the results folder and count the epochs that `Toy` noted in its log, so an
    executor that trains too little, too much or nothing fails them.
    """

    @pytest.fixture
    def make_executor(self) -> MakeExecutor:
        """A factory of the executor under test."""
        raise NotImplementedError("override the fixture make_executor")

    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        """The results folder; workers must be able to write to it."""
        return tmp_path / "out"

    @pytest.fixture
    def log(self, tmp_path: Path) -> Path:
        """The file in which toy trainings note each epoch that they compute; workers must be able to write to it."""
        return tmp_path / "log"

    def test_a_grid_gives_what_a_plain_loop_gives(self, make_executor: MakeExecutor, out: Path, log: Path) -> None:
        study = toy_grid(**{"axes.model.num_experts": [2, 3], "seeds": [0, 1]})
        records = run_study(study, out, make_executor(Toy(log=log)))
        assert {record.status for record in records} == {"finished"}
        assert len(records) == 4

        results = read_results(out, study.name)
        for trial in plan_grid(study):
            splits = load_splits(trial.data, out / ".cache" / "data")
            epochs = list(Toy()(trial, splits, None))
            mine = results[
                (results.seed == trial.seed) & (results["config.model.num_experts"] == trial.model.num_experts)
            ]
            assert list(mine["epoch"]) == [1, 2, 3, 4]
            assert list(mine["train.loss"]) == [epoch.row["train.loss"] for epoch in epochs]
            assert list(mine["experts.active"]) == [epoch.row["experts.active"] for epoch in epochs]
            weights = read_weights(out, study.name, mine["trial_id"].iloc[0])
            assert np.array_equal(weights["weight"], epochs[-1].weights()["weight"])
        assert len(epochs_computed(log)) == 16

    def test_real_training_gives_what_a_plain_loop_gives(self, make_executor: MakeExecutor, out: Path) -> None:
        study = toy_grid(**{"axes.objective": [{"name": "blend"}, {"name": "likelihood"}], "seeds": [3]})
        records = run_study(study, out, make_executor(None))
        assert len({record.trial_id for record in records}) == len(records) == 2
        for record in records:
            assert record.status == "finished", record.error
            splits = load_splits(record.spec.data, out / ".cache" / "data")
            epochs = [(epoch.row, epoch.weights()) for epoch in fit_on("auto")(record.spec, splits, None)]
            results = read_results(out, study.name)
            mine = results[results.trial_id == record.trial_id]
            for column in ("train.loss", "test.reconstruction", "experts.effective"):
                assert list(mine[column]) == [row[column] for row, _ in epochs]
            weights = read_weights(out, study.name, record.trial_id)
            assert weights.keys() == epochs[-1][1].keys()
            assert all(np.array_equal(weights[name], epochs[-1][1][name]) for name in weights)
            embeddings = read_embeddings(out, study.name, record.trial_id)
            assert embeddings["mu"].shape == (20, 32)
            assert np.array_equal(embeddings["image"], splits.test.image_BHW)
            assert np.array_equal(embeddings["expert"], embeddings["gate"].argmax(1))

    def test_a_study_is_planned_once_per_run(
        self, make_executor: MakeExecutor, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expansions: list[str] = []

        def counted(study: GridStudy) -> dict[str, TrialSpec]:
            expansions.append(study.name)
            return trials_by_identity(study)

        monkeypatch.setattr(planning, "trials_by_identity", counted)
        plan = StudyPlan(toy_grid(seeds=[0, 1]))
        preview(plan)
        assert len(run_study(plan, out, make_executor(Toy()))) == 2
        assert expansions == ["toy"]
        run_study(plan.study, out, make_executor(Toy()))
        assert expansions == ["toy", "toy"]

    def test_a_finished_trial_has_the_files_of_the_contract(self, make_executor: MakeExecutor, out: Path) -> None:
        study = toy_grid(seeds=[0])
        [record] = run_study(study, out, make_executor(Toy()))
        folder = out / study.name / "trials" / record.trial_id
        files = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        assert files == {"trial.json", "epochs.parquet", "model.safetensors", "embeddings.npz"}
        assert load_study(out / study.name / "study.yaml") == study
        [stored] = read_trials(out, study.name)
        assert stored == record
        assert stored.timings.finished_at is not None
        assert stored.timings.finished_at >= stored.timings.started_at
        assert stored.timings.restarts == 0
        assert stored.data is not None
        assert (stored.data.train_images, stored.data.test_images) == (40, 20)
        assert stored.data.class_names == ("eye", "cat")
        assert {name.partition("/")[0] for name in stored.data.style_names} == {"eye", "cat"}

    def test_embeddings_are_kept_only_when_asked_for(self, make_executor: MakeExecutor, out: Path) -> None:
        study = toy_grid(**{"seeds": [0], "evaluation.save_embeddings": False})
        [record] = run_study(study, out, make_executor(Toy()))
        assert not (out / study.name / "trials" / record.trial_id / "embeddings.npz").exists()

    def test_running_again_trains_nothing(self, make_executor: MakeExecutor, out: Path, log: Path) -> None:
        study = toy_grid()
        before = run_study(study, out, make_executor(Toy(log=log)))
        files = {path: path.read_bytes() for path in (out / study.name / "trials").rglob("*.*")}
        computed = epochs_computed(log)
        assert len(before) == 4
        assert len(computed) == 16
        events: list[Any] = []
        again = run_study(study, out, make_executor(Toy(log=log)), on_event=events.append)
        assert epochs_computed(log) == computed
        assert sorted(again, key=lambda record: record.trial_id) == sorted(before, key=lambda record: record.trial_id)
        assert {path: path.read_bytes() for path in (out / study.name / "trials").rglob("*.*")} == files
        assert events == [StudyStarted(study.name, 4, 4)]

    def test_a_study_that_grew_trains_what_is_new_and_says_so(
        self, make_executor: MakeExecutor, out: Path, log: Path
    ) -> None:
        run_study(toy_grid(seeds=[0, 1]), out, make_executor(Toy(log=log)))
        events: list[Any] = []
        records = run_study(toy_grid(seeds=[1, 2]), out, make_executor(Toy(log=log)), on_event=events.append)
        assert sorted(seed for seed, epoch in epochs_computed(log) if epoch == 1) == [0, 1, 2]
        assert sorted(record.spec.seed for record in records) == [1, 2]
        assert [event for event in events if isinstance(event, Notice)] == [
            Notice(
                f"{out}/toy/study.yaml described another version of this study and is replaced; "
                "trials of both stay in the table."
            )
        ]
        assert set(table(out, toy_grid())["seed"]) == {0, 1, 2}

    def test_events_tell_all_that_happens(self, make_executor: MakeExecutor, out: Path, log: Path) -> None:
        events: list[Any] = []
        records = run_study(toy_grid(), out, make_executor(Toy(log=log)), on_event=events.append)
        assert sorted(record.spec.seed for record in records) == [0, 1, 2, 3]
        assert len(epochs_computed(log)) == 16
        assert StudyStarted("toy", 4, 0) in events
        for record in records:
            mine = [event for event in events if getattr(event, "trial_id", "") == record.trial_id]
            assert mine[0] == TrialStarted(record.trial_id, record.spec)
            assert [len(event.rows) for event in mine if isinstance(event, EpochDone)] == [1, 2, 3, 4]
            assert TrialEnded(record) in events

    def test_a_failed_trial_keeps_its_rows_and_stops_no_other(
        self, make_executor: MakeExecutor, out: Path, log: Path
    ) -> None:
        study = toy_grid()
        toy = Toy(log=log, diverge_seed=1, raise_seed=2)
        records = {record.spec.seed: record for record in run_study(study, out, make_executor(toy))}
        assert {seed: record.status for seed, record in records.items()} == {
            0: "finished",
            1: "failed",
            2: "failed",
            3: "finished",
        }
        assert records[1].error == "epoch 2: train.loss is nan (kl inf)"
        assert records[1].error_kind == "DivergedError"
        assert records[2].error == "the disk is on fire"
        assert "in _misbehave" in (records[2].traceback or "")
        results = read_results(out, study.name)
        assert list(results[results.seed == 1]["epoch"]) == [1]
        assert list(results[results.seed == 3]["epoch"]) == [1, 2, 3, 4]

        # Again: what diverged would diverge again; what broke may be mended, and goes on at its checkpoint.
        log.unlink()
        records = {record.spec.seed: record for record in run_study(study, out, make_executor(Toy(log=log)))}
        assert {seed: record.status for seed, record in records.items()} == {
            0: "finished",
            1: "failed",
            2: "finished",
            3: "finished",
        }
        assert epochs_computed(log) == [(2, 2), (2, 3), (2, 4)]
        assert records[2].timings.restarts == 1
        assert records[2].error is None

        log.unlink()
        records = {
            record.spec.seed: record for record in run_study(study, out, make_executor(Toy(log=log)), retry_failed=True)
        }
        assert {record.status for record in records.values()} == {"finished"}
        assert epochs_computed(log) == [(1, 1), (1, 2), (1, 3), (1, 4)]
        fresh = out.with_name("fresh")
        assert len(run_study(study, fresh, make_executor(Toy()))) == 4
        pd.testing.assert_frame_equal(table(out, study), table(fresh, study), check_exact=True)

    def test_a_trial_that_diverges_whenever_it_is_tried_keeps_no_checkpoint(
        self, make_executor: MakeExecutor, out: Path
    ) -> None:
        study = toy_grid(seeds=[1])
        for retry_failed in (False, True):
            [record] = run_study(study, out, make_executor(Toy(diverge_seed=1)), retry_failed=retry_failed)
            assert record.error_kind == "DivergedError"
            assert record.timings.restarts == retry_failed
            assert not (out / "toy/trials" / record.trial_id / "checkpoint").exists()

    def test_bad_data_fail_the_trial_in_one_line(self, make_executor: MakeExecutor, out: Path) -> None:
        study = toy_grid(**{"axes.data.fraction": [0.01, 1.0], "seeds": [0]})
        records = {record.spec.data.fraction: record for record in run_study(study, out, make_executor(Toy()))}
        assert len(records) == 2
        assert records[1.0].status == "finished"
        assert records[0.01].status == "failed"
        assert records[0.01].error_kind == "DataError"
        results = read_results(out, study.name)
        assert results[results["config.data.fraction"] == 0.01]["epoch"].isna().all()

    def test_results_can_lie_behind_a_uri(self, make_executor: MakeExecutor, out: Path) -> None:
        study = toy_grid(seeds=[0, 1])
        for place in (f"file://{out}", out.with_name("plain")):
            assert len(run_study(study, place, make_executor(Toy()))) == 2
        pd.testing.assert_frame_equal(table(out, study), table(out.with_name("plain"), study), check_exact=True)

    def test_a_search_ends_with_as_many_trials_as_asked_for(
        self, make_executor: MakeExecutor, out: Path, log: Path
    ) -> None:
        study = toy_search()
        records = run_study(study, out, make_executor(Toy(log=log)))
        assert [record.status for record in records] == ["finished"] * 5
        assert len({record.trial_id for record in records}) == 5
        assert len(read_trials(out, study.name)) == 5
        assert len(epochs_computed(log)) == 5 * 4

        # A search that grew goes on from what there is.
        log.unlink()
        records = run_study(toy_search(num_trials=8), out, make_executor(Toy(log=log)))
        assert len(records) == len(read_trials(out, study.name)) == 8
        assert len(epochs_computed(log)) == 3 * 4
        log.unlink()
        assert len(run_study(toy_search(num_trials=8), out, make_executor(Toy(log=log)))) == 8
        assert epochs_computed(log) == []

    def test_a_search_knows_its_trials_however_a_choice_is_written(
        self, make_executor: MakeExecutor, out: Path, log: Path
    ) -> None:
        space = """
space:
  training.learning_rate: {type: categorical, choices: [1e-4, 1e-3]}
  training.budget: {type: categorical, choices: [1 epochs, 2 epoch]}
  training.batch_size: {type: categorical, choices: ["8", "16"], when: {training.budget: 1 epochs}}
objectives: [{metric: test.reconstruction}]
num_trials: 3
"""
        study = parse_study(BASE + space)
        before = run_study(study, out, make_executor(Toy(log=log)))
        computed = epochs_computed(log)
        assert len({record.trial_id for record in before}) == 3
        assert len(computed) == sum(record.spec.training.budget.amount for record in before)
        events: list[Any] = []
        again = run_study(study, out, make_executor(Toy(log=log)), on_event=events.append)
        assert {record.trial_id for record in again} == {record.trial_id for record in before}
        assert epochs_computed(log) == computed
        assert events == [StudyStarted(study.name, 3, 3)]

    def test_a_search_prunes_and_counts_what_it_pruned(self, make_executor: MakeExecutor, out: Path) -> None:
        pruner = {"name": "median", "grace_epochs": 2}
        study = toy_search(num_trials=14, pruner=pruner, **{"training.budget": "6 epochs"})
        records = run_study(study, out, make_executor(Toy()))
        assert len(records) == 14
        pruned = [record for record in records if record.status == "pruned"]
        assert pruned
        results = read_results(out, study.name)
        for record in pruned:
            epochs = list(results[results.trial_id == record.trial_id]["epoch"])
            assert epochs == list(range(1, len(epochs) + 1))
            assert 2 <= len(epochs) < 6
            assert not (out / study.name / "trials" / record.trial_id / "checkpoint").exists()

    def test_a_search_goes_on_where_it_was_killed(self, make_executor: MakeExecutor, out: Path, log: Path) -> None:
        study = toy_search()
        records = run_study(study, out, make_executor(Toy()))
        # As a kill after the second epoch of one trial leaves it:
        victim = records[-1]
        folder = TrialFolder(Store(out), study.name, victim.trial_id)
        rows, weights = folder.read_rows(), folder.read_weights()
        epochs = list(Toy()(victim.spec, load_splits(victim.spec.data, out / ".cache" / "data"), None))
        folder.store.remove(folder.name)
        folder.write_epochs(rows[:2])
        folder.write_checkpoint(epochs[0].checkpoint(), [epochs[0].row])
        folder.write_record(victim.model_copy(update={"status": "running"}))

        again = {record.trial_id: record for record in run_study(study, out, make_executor(Toy(log=log)))}
        assert [epoch for _, epoch in epochs_computed(log)] == [2, 3, 4]
        assert again[victim.trial_id].timings.restarts == 1
        assert len(again) == len(read_trials(out, study.name)) == 5
        assert [row["train.loss"] for row in folder.read_rows()] == [row["train.loss"] for row in rows]
        assert np.array_equal(folder.read_weights()["weight"], weights["weight"])

    def test_a_search_that_only_fails_ends_with_one_line(self, make_executor: MakeExecutor, out: Path) -> None:
        with pytest.raises(StudyError, match=r"0 of 3 trials are done, but [45] proposals failed") as caught:
            run_study(toy_search(num_trials=3), out, make_executor(Toy(raise_seed=0)))
        assert "\n" not in str(caught.value)

    def test_a_search_space_with_too_few_trials_ends_when_all_are_done(
        self, make_executor: MakeExecutor, out: Path
    ) -> None:
        study = toy_search()
        small = study.model_copy(update={"space": {"model.num_experts": IntRange(type="int", low=1, high=3)}})
        for _ in ("run", "resume"):
            events: list[Any] = []
            assert len(run_study(small, out, make_executor(Toy()), on_event=events.append)) == 3
            notices = [event.text for event in events if isinstance(event, Notice)]
            assert notices == ["the space has 3 trials, all done (num_trials is 5)"]
        assert len(read_trials(out, "toy")) == 3

    def test_several_objectives_are_searched_together(self, make_executor: MakeExecutor, out: Path) -> None:
        objectives = [{"metric": "test.reconstruction"}, {"metric": "experts.active", "direction": "maximize"}]
        assert len(run_study(toy_search(objectives=objectives, num_trials=3), out, make_executor(Toy()))) == 3
