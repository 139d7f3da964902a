"""run_study and train_trial beyond what every executor must do."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from smoe_ray import plugins
from smoe_ray.data import files
from smoe_ray.errors import StudyError, TrialError
from smoe_ray.results import TIMING_COLUMNS, TrialRecord, list_studies, read_results, read_trials
from smoe_ray.spec import SearchStudy, parse_study
from smoe_ray.study import LocalExecutor, StudyPlan, StudyRun, refuse_failures, run_study
from smoe_ray.study.events import EpochDone, Notice
from smoe_ray.study.trial_run import fit_on, train_trial
from smoe_ray.testing.toy_training import BASE, Toy, epochs_computed, table, toy_grid
from support.plugin_packages import RINGS, importable, write_package


def toy_search(**fields: str) -> SearchStudy:
    space = "space: {model.num_experts: {type: int, low: 1, high: 900}}\nobjectives: [{metric: test.reconstruction}]\n"
    study = parse_study(BASE + space + "num_trials: 6\n", [f"{key}={value}" for key, value in fields.items()])
    assert isinstance(study, SearchStudy)
    return study


def test_out_behind_a_uri_gives_the_same_table_and_keeps_data_in_the_users_cache(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOE_RAY_CACHE", str(tmp_path / "cache"))
    assert files.cache_folder() == tmp_path / "cache"
    uri = f"memory://{tmp_path.name}"
    study = toy_grid(seeds=[0, 1])
    for place in (uri, uri, str(out)):
        assert len(run_study(study, place, LocalExecutor(fit=Toy()))) == 2
    there = read_results(uri, "toy").drop(columns=list(TIMING_COLUMNS))
    pd.testing.assert_frame_equal(there, table(out, study), check_exact=True)
    assert list_studies(uri) == list_studies(out) == ["toy"]
    assert (tmp_path / "cache/data").is_dir()
    assert (out / ".cache/data").is_dir()


@pytest.mark.parametrize("kind", ["grid", "search"])
def test_images_that_a_decoder_cannot_make_are_refused_before_any_trial(
    kind: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path, "wide", {"rings": RINGS.replace("[:28, :28]", "[:28, :30]")})
    monkeypatch.setenv(plugins.ALLOWED, "wide")
    data = {"base.data": {"source": "wide.rings:Rings"}}
    study = toy_grid(**data) if kind == "grid" else toy_search(**data)
    with importable(tmp_path, "wide"), pytest.raises(StudyError, match=r"28x30 pixels, .* can make 28x28 and 28x32"):
        run_study(study, out, LocalExecutor(fit=Toy()))
    assert not (out / "toy").exists()


def test_two_runs_of_one_search_share_its_trials(out: Path, log: Path) -> None:
    def run() -> None:
        run_study(toy_search(), out, LocalExecutor(fit=Toy(log=log, pause=0.03)))

    both = [threading.Thread(target=run) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    trials = read_trials(out, "toy")
    assert {trial.status for trial in trials} == {"finished"}
    assert 6 <= len(trials) <= 7  # each counts what the other has finished, but not what it is at
    assert len(epochs_computed(log)) == 4 * len(trials)


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "gp", "cmaes"])
def test_every_sampler_searches(out: Path, sampler: str) -> None:
    assert len(run_study(toy_search(**{"sampler.name": sampler}), out, LocalExecutor(fit=Toy()))) == 6


def test_an_undisturbed_search_repeats_itself(tmp_path: Path) -> None:
    first, second = (
        [record.trial_id for record in run_study(toy_search(), tmp_path / name, LocalExecutor(fit=Toy()))]
        for name in ("a", "b")
    )
    assert first == second


def test_what_other_studies_left_in_the_folder_is_no_part_of_a_search(out: Path) -> None:
    run_study(toy_grid(), out, LocalExecutor(fit=Toy()))  # seed 0 with 3 experts is a point of the space; others not
    records = run_study(toy_search(), out, LocalExecutor(fit=Toy()))
    assert len(records) == 6
    assert {record.spec.seed for record in records} == {0}
    assert len(read_trials(out, "toy")) == 4 + 5


def test_training_uses_the_threads_that_the_spec_says_and_gives_them_back(out: Path) -> None:
    before = torch.get_num_threads()
    seen = []

    def look(event: Any) -> None:
        if isinstance(event, EpochDone):
            seen.append(torch.get_num_threads())

    study = toy_grid(**{"seeds": [0], "resources.cpus": 3, "training.budget": "2 epochs"})
    run_study(study, out, LocalExecutor(fit=fit_on("cpu")), on_event=look)
    assert seen == [3, 3]
    assert torch.get_num_threads() == before


def test_a_trial_whose_data_changed_since_it_was_planned_fails(out: Path, tmp_path: Path) -> None:
    run = StudyRun(StudyPlan(toy_grid(seeds=[0])), str(out), tmp_path / "cache")
    [task] = run.pending()
    record = train_trial(replace(task, trial_id="0" * 12), lambda rows: False, Toy())
    assert record is not None
    assert record.status == "failed"
    assert "not those that the study was planned with" in (record.error or "")


def test_a_listener_that_breaks_fails_no_trial(out: Path) -> None:
    def broken(event: Any) -> None:
        if isinstance(event, EpochDone):
            raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError):
        run_study(toy_grid(), out, LocalExecutor(fit=Toy()), on_event=broken)
    assert [record.status for record in read_trials(out, "toy")] == ["running"]
    records = run_study(toy_grid(), out, LocalExecutor(fit=Toy()))
    assert {record.status for record in records} == {"finished"}


def test_an_interrupt_says_how_to_go_on_and_is_passed_on(out: Path) -> None:
    heard = []

    def interrupted(event: Any) -> None:
        heard.append(event)
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(toy_grid(), out, LocalExecutor(fit=Toy()), on_event=interrupted)
    assert heard[-1] == Notice("Interrupted. Nothing that was trained is lost: run the same command again to resume.")


def test_a_wrong_number_of_jobs_is_refused() -> None:
    with pytest.raises(ValueError, match="jobs is -1"):
        LocalExecutor(jobs=-1)


def test_only_failures_that_a_retry_could_mend_are_refused_unless_strict(out: Path) -> None:
    finished, *_ = run_study(toy_grid(seeds=[0]), out, LocalExecutor(fit=Toy()))

    def failed(kind: str) -> TrialRecord:
        return finished.model_copy(update={"status": "failed", "error": f"it was {kind}", "error_kind": kind})

    diverged, killed = failed("DivergedError"), failed("WorkerDiedError")
    assert refuse_failures([finished], strict=False) is None
    counted = refuse_failures([finished, diverged, diverged], strict=False)
    assert counted is not None
    assert counted.startswith(f"2 of 3 trials diverged, the first ({finished.trial_id}) with: it was DivergedError")
    with pytest.raises(TrialError, match=r"2 of 3 trials failed, the first .* it was WorkerDiedError"):
        refuse_failures([finished, diverged, killed], strict=False)
    with pytest.raises(TrialError, match=r"1 of 2 trials failed, the first .* it was DivergedError"):
        refuse_failures([finished, diverged])
