"""From a study to trials and, for a search, back to Optuna's parameters."""

from __future__ import annotations

import math

import optuna
import pytest

from smoe_ray.errors import StudyError
from smoe_ray.inspect.past_trials import final_values, past_trial
from smoe_ray.planning import StudyPlan, corners, parameters_of, plan_grid, suggest
from smoe_ray.results import TrialRecord
from smoe_ray.spec import (
    Blend,
    Choices,
    GridStudy,
    IntRange,
    SearchStudy,
    TrialSpec,
    parse_study,
    trial_with,
)
from smoe_ray.study.sampler import make_pruner, make_sampler


def grid(**fields: object) -> GridStudy:
    study = GridStudy.model_validate({"name": "demo", "question": "why?", **fields})
    assert isinstance(study, GridStudy)
    return study


SEARCH = """
name: demo
question: why?
kind: search
base: {seed: 5}
space:
  objective.lambda_entropy: {type: float, low: 1, high: 1000, log: true, when: {objective.name: blend}}
  objective.name: {type: categorical, choices: [blend, likelihood]}
  model.num_experts: {type: int, low: 2, high: 12, step: 2}
  training.learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
objectives: [{metric: test.reconstruction}]
num_trials: 4
"""


def search(**changes: object) -> SearchStudy:
    study = parse_study(SEARCH)
    assert isinstance(study, SearchStudy)
    return study.model_copy(update=changes)


def test_a_grid_is_the_product_of_axes_and_seeds_first_axis_slowest() -> None:
    trials = plan_grid(grid(axes={"model.num_experts": [3, 1], "data.fraction": [0.5, 1.0]}, seeds=[4, 2]))
    assert [(trial.model.num_experts, trial.data.fraction, trial.seed) for trial in trials] == [
        (experts, fraction, seed) for experts in (3, 1) for fraction in (0.5, 1.0) for seed in (4, 2)
    ]


def test_a_grid_without_axes_is_its_base_with_each_seed() -> None:
    assert [trial.seed for trial in plan_grid(grid(seeds=[3, 1]))] == [3, 1]


def test_equal_trials_are_planned_once() -> None:
    # Supervised routing has no objective, so both cells are one trial; and threads change no number.
    axes = {"objective": [{"name": "blend"}, {"name": "expected"}], "resources.cpus": [1, 2]}
    assert len(plan_grid(grid(base={"routing": "supervised"}, axes=axes))) == 1
    assert len(plan_grid(grid(axes=axes))) == 2


def test_a_plan_expands_its_grid_once_and_lists_each_request_once() -> None:
    study = grid(axes={"model.num_experts": [3, 1], "resources.cpus": [1, 2]}, seeds=[4, 2])
    plan = StudyPlan(study)
    assert list(plan.known_trials) == plan_grid(study)
    assert plan.total == 4  # resources change no number, so they make no further trials
    assert [request.cpus for request in plan.resources] == [1]
    assert plan.grid is StudyPlan.of(plan).grid
    assert StudyPlan.of(search()).total == 4


def test_a_search_requests_the_resources_that_its_space_varies() -> None:
    varied = Choices(type="categorical", choices=(1, 2))
    assert [one.cpus for one in StudyPlan(search(space={"resources.cpus": varied})).resources] == [1, 2]
    assert [one.cpus for one in StudyPlan(search()).resources] == [1]


def test_an_impossible_cell_is_one_line() -> None:
    with pytest.raises(StudyError, match=r"model\.num_experts"):
        plan_grid(grid(axes={"model.num_experts": [1, 0]}))


def test_suggestions_stay_in_the_space_and_obey_conditions() -> None:
    study = search()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    proposals = optuna.create_study(sampler=make_sampler(study, 0))
    names = set()
    for _ in range(30):
        proposal = proposals.ask()
        trial = suggest(proposal, study)
        assert trial.objective is not None
        names.add(trial.objective.name)
        assert ("objective.lambda_entropy" in proposal.params) == (trial.objective.name == "blend")
        assert trial.model.num_experts in range(2, 13, 2)
        assert 1e-4 <= trial.training.learning_rate <= 1e-2
        assert trial.seed == 5
        assert parameters_of(study, trial) == proposal.params
    assert names == {"blend", "likelihood"}


@pytest.mark.parametrize(
    "values",
    [
        {"model.num_experts": 20},
        {"training.learning_rate": 0.5},
        {"training.beta": 0.5},
        {"objective": {"name": "expected"}},
        {"routing": "supervised"},
    ],
)
def test_a_trial_outside_the_search_has_no_parameters(values: dict[str, object]) -> None:
    study = search()
    inside = trial_with(study.base, {"model.num_experts": 4, "objective.name": "blend"})
    assert parameters_of(study, inside) is not None
    assert parameters_of(study, trial_with(inside, values)) is None
    assert parameters_of(study, inside.model_copy(update={"seed": 6})) is None


def test_parameters_are_the_choices_as_the_study_writes_them() -> None:
    space = """
  training.learning_rate: {type: categorical, choices: [1e-4, "1e-2"]}
  training.budget: {type: categorical, choices: [1 epoch, 2 epochs, many]}
"""
    study = parse_study(
        SEARCH.partition("space:")[0] + f"space:{space}" + "objectives: [{metric: train.loss}]\nnum_trials: 4"
    )
    assert isinstance(study, SearchStudy)
    inside = trial_with(study.base, {"training.learning_rate": 0.01, "training.budget": "1 epochs"})
    assert parameters_of(study, inside) == {"training.learning_rate": "1e-2", "training.budget": "1 epoch"}
    inside = trial_with(inside, {"training.learning_rate": 0.0001})
    assert parameters_of(study, inside) == {"training.learning_rate": 0.0001, "training.budget": "1 epoch"}
    assert parameters_of(study, trial_with(inside, {"training.budget": "3 epochs"})) is None


def test_corners_are_the_ends_of_each_parameter_where_its_conditions_hold() -> None:
    names = Choices(type="categorical", choices=("expected", "blend", "likelihood"))
    weights = Choices(type="categorical", choices=(1, 30, 1000), when={"objective.name": "blend"})
    study = search(space=search().space | {"objective.name": names, "objective.lambda_entropy": weights})
    trials = corners(study)
    assert {trial.model.num_experts for trial in trials} == {2, 12}
    assert {trial.training.learning_rate for trial in trials} == {1e-4, 1e-2}
    blends = [trial.objective for trial in trials if isinstance(trial.objective, Blend)]
    assert {objective.lambda_entropy for objective in blends} == {1, 30, 1000}
    assert {trial.objective.name for trial in trials if trial.objective} == set(names.choices)
    assert all(parameters_of(study, trial) is not None for trial in trials)


def test_a_range_that_its_steps_do_not_fill_ends_at_its_last_step() -> None:
    study = search(space={"model.num_experts": IntRange(type="int", low=2, high=9, step=3)})
    assert {trial.model.num_experts for trial in corners(study)} == {2, 8}


def test_a_parameter_whose_condition_never_holds_has_no_corner() -> None:
    never = Choices(type="categorical", choices=("paper_text",), when={"objective.name": "expected"})
    study = search(space=search().space | {"objective.balance_form": never})
    assert {trial.objective.balance_form for trial in corners(study) if trial.objective} == {"released_code"}


def test_proposals_repeat_with_the_seed_and_differ_after_a_history() -> None:
    study = search()

    def proposed(trials_before: int) -> list[TrialSpec]:
        proposals = optuna.create_study(sampler=make_sampler(study, trials_before))
        return [suggest(proposals.ask(), study) for _ in range(5)]

    assert proposed(0) == proposed(0)
    assert not set(map(str, proposed(0))) & set(map(str, proposed(3)))


@pytest.mark.parametrize("name", ["tpe", "random", "nsga2", "gp"])
def test_every_sampler_proposes_from_a_history(name: str) -> None:
    study = search(sampler=search().sampler.model_copy(update={"name": name}))
    proposals = optuna.create_study(sampler=make_sampler(study, 0))
    for value in range(12):
        proposal = proposals.ask()
        suggest(proposal, study)
        proposals.tell(proposal, float(value))
    assert len(proposals.trials) == 12


@pytest.mark.parametrize("name", ["median", "asha"])
def test_pruners_spare_the_grace_epochs_and_stop_the_hopeless(name: str) -> None:
    study = search()
    study = study.model_copy(update={"pruner": study.pruner.model_copy(update={"name": name, "grace_epochs": 3})})
    proposals = optuna.create_study(sampler=make_sampler(study, 0), pruner=make_pruner(study))
    for number in range(9):
        good = proposals.ask()
        suggest(good, study)
        for epoch in range(1, 10):
            good.report(number / 10, epoch)
            good.should_prune()
        proposals.tell(good, number / 10)
    bad = proposals.ask()
    stopped = []
    for epoch in range(1, 10):
        bad.report(100.0, epoch)
        stopped.append(bad.should_prune())
    assert not any(stopped[:2])
    assert any(stopped)


def test_the_last_epoch_is_the_result_and_an_unmeasured_one_is_none() -> None:
    study = search()
    rows = [{"epoch": 1, "test.reconstruction": 3.0}, {"epoch": 2, "test.reconstruction": 0.0}]
    assert final_values(study, rows) == [0.0]
    assert final_values(study, [{"epoch": 1}]) is None
    assert final_values(study, [{"epoch": 1, "test.reconstruction": math.nan}]) is None
    assert final_values(study, []) is None


def test_past_trials_come_back_as_optuna_knew_them(make_record: object) -> None:
    study = search(pruner=search().pruner.model_copy(update={"name": "median"}))
    trial = trial_with(study.base, {"model.num_experts": 4, "objective.name": "blend"})
    rows = [{"epoch": 1, "test.reconstruction": 3.0}, {"epoch": 2}, {"epoch": 3, "test.reconstruction": 2.0}]
    record: TrialRecord = make_record(trial)  # type: ignore[operator]
    past = past_trial(study, record, rows)
    assert past is not None
    assert past.values == [2.0]
    assert past.intermediate_values == {1: 3.0, 3: 2.0}
    assert past.params["model.num_experts"] == 4
    assert past.params["objective.lambda_entropy"] == 400.0
    pruned = past_trial(study, record.model_copy(update={"status": "pruned"}), rows[:1])
    assert pruned is not None
    assert pruned.state == optuna.trial.TrialState.PRUNED
    failed = past_trial(study, record.model_copy(update={"status": "failed", "error": "nan"}), rows)
    unmeasured = past_trial(study, record, [{"epoch": 1, "test.reconstruction": math.nan}])
    assert failed is not None
    assert unmeasured is not None
    assert failed.state == unmeasured.state == optuna.trial.TrialState.FAIL
    assert failed.user_attrs["why"] == "nan"
    assert past_trial(study, record.model_copy(update={"status": "running"}), rows) is None
