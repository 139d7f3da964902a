from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from smoe_ray.data import Splits
from smoe_ray.errors import DivergedError
from smoe_ray.inspect.journal import JOURNAL
from smoe_ray.results import read_trials
from smoe_ray.spec import SearchStudy, TrialSpec, parse_study
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.testing.toy_training import BASE, Arrays, Toy, ToyEpoch

SEARCH = BASE + "space: {model.num_experts: {type: int, low: 1, high: 900}}\nnum_trials: 8\n"


def search(objectives: str = "[{metric: test.reconstruction}]", **fields: str) -> SearchStudy:
    text = SEARCH + f"objectives: {objectives}\n"
    study = parse_study(text, [f"{key}={value}" for key, value in fields.items()])
    assert isinstance(study, SearchStudy)
    return study


class DivergesWhereOdd:
    def __call__(self, trial: TrialSpec, data: Splits, checkpoint: Arrays | None) -> Iterator[ToyEpoch]:
        if trial.model.num_experts % 2:
            raise DivergedError("the loss is nan")
        return Toy()(trial, data, checkpoint)


def opened(out: Path) -> optuna.Study:
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(out / "toy" / JOURNAL)))
    return optuna.load_study(study_name="toy", storage=storage)


def test_optuna_opens_the_history_with_every_trial_in_its_right_state(out: Path) -> None:
    run_study(search(pruner="{name: median, grace_epochs: 1}"), out, LocalExecutor(fit=Toy()))
    history = opened(out)
    trials = {trial.trial_id: trial for trial in read_trials(out, "toy")}
    assert len(history.trials) == len(trials) == 8
    assert {trial.state.name for trial in history.trials} == {"COMPLETE", "PRUNED"}
    for mirrored in history.trials:
        record = trials[mirrored.user_attrs["trial_id"]]
        assert mirrored.params == {"model.num_experts": record.spec.model.num_experts}
        assert mirrored.state.name == {"finished": "COMPLETE", "pruned": "PRUNED"}[record.status]
        assert (mirrored.state.name == "PRUNED") == bool(mirrored.user_attrs["why"])
    assert history.best_value == min(trial.value for trial in history.trials if trial.value is not None)
    assert history.user_attrs["objectives"] == ["test.reconstruction"]


def test_a_diverged_trial_is_there_as_failed(out: Path) -> None:
    run_study(search(num_trials="4", sampler="{name: random}"), out, LocalExecutor(fit=DivergesWhereOdd()))
    records = read_trials(out, "toy")
    assert {record.status for record in records} == {"finished", "failed"}
    states = sorted(trial.state.name for trial in opened(out).trials)
    assert states.count("COMPLETE") == 4
    assert states.count("FAIL") == len(records) - 4


def test_several_objectives_make_a_pareto_set(out: Path) -> None:
    both = "[{metric: test.reconstruction}, {metric: experts.active_fraction, direction: maximize}]"
    run_study(search(both, sampler="{name: nsga2}"), out, LocalExecutor(fit=Toy()))
    history = opened(out)
    assert [direction.name for direction in history.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert history.best_trials


def test_the_mirror_is_made_anew_and_grows_with_the_search(out: Path) -> None:
    run_study(search(num_trials="3"), out, LocalExecutor(fit=Toy()))
    assert len(opened(out).trials) == 3
    (out / "toy" / JOURNAL).write_text("rubbish")
    run_study(search(), out, LocalExecutor(fit=Toy()))
    assert len(opened(out).trials) == 8


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_collapsed_trials_count_in_a_search_of_several_objectives(out: Path, sampler: str) -> None:
    both = "[{metric: test.reconstruction}, {metric: experts.active_fraction, direction: maximize}]"
    study = search(both, sampler=f"{{name: {sampler}}}", collapse="{min_active_fraction: 0.01, grace_epochs: 0}")
    run_study(study, out, LocalExecutor(fit=Toy()))
    states = [trial.state.name for trial in opened(out).trials]
    assert len(states) == 8
    assert set(states) == {"COMPLETE", "PRUNED"}
