"""Search spaces as people write them: choices of any kind, conditions that can hold, spaces with an end."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest

from smoe_ray.columns import count
from smoe_ray.errors import StudyError
from smoe_ray.inspect.preview import in_words, preview
from smoe_ray.inspect.status import study_status
from smoe_ray.planning import StudyPlan, corners, distributions, parameters_of, suggest, trial_of
from smoe_ray.spec import SearchStudy, dump_study, parse_study

BASE = """
name: demo
question: q
base:
  data: {source: synthetic, classes: [eye, pencil], train_per_class: 20, test_per_class: 5}
  model: {num_experts: 2, encoder: lite}
  training: {budget: 4 epochs, batch_size: 16}
objectives: [{metric: test.reconstruction}]
"""


def search(space: str, num_trials: int = 5, extra: str = "") -> SearchStudy:
    study = parse_study(f"{BASE}num_trials: {num_trials}\n{extra}\nspace:\n{space}")
    assert isinstance(study, SearchStudy)
    return study


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("{objective.name: blnd}", "'blnd' is none of blend, likelihood; did you mean 'blend'"),
        ("{objective.name: [blend, likelyhood]}", "'likelyhood' is none .* did you mean 'likelihood'"),
        ("{objective.name: true}", "true is none of blend, likelihood, the values of objective.name"),
        ("{objective.name: []}", "no value is listed"),
        ("{model.num_experts: 20}", "20 is none of 1, 5, 9, the values of model.num_experts"),
        ("{model.num_experts: 10}", "10 is none of 1, 5, 9, "),
        ("{model.num_experts: 'one'}", "'one' is none of 1, 5, 9, "),
        ("{training.beta: 2}", "2 is none of 0.1 to 1, the values of training.beta"),
    ],
)
def test_a_condition_that_never_holds_is_refused(condition: str, expected: str) -> None:
    with pytest.raises(StudyError, match=r"space\.objective\.lambda_balance\.when: .*" + expected):
        search(
            f"""
  objective.name: {{type: categorical, choices: [blend, likelihood]}}
  model.num_experts: {{type: int, low: 1, high: 10, step: 4}}
  training.beta: {{type: float, low: 0.1, high: 1}}
  objective.lambda_balance: {{type: float, low: 1, high: 10, when: {condition}}}
"""
        )


def test_conditions_that_hold_are_accepted() -> None:
    study = search("""
  objective.name: {type: categorical, choices: [blend, likelihood]}
  model.gate_hidden: {type: categorical, choices: [[64, 32], [16]]}
  training.beta: {type: float, low: 1, high: 2, when: {objective.name: [blend], model.gate_hidden: [[16]]}}
""")
    held = {(trial.objective.name, trial.model.gate_hidden) for trial in corners(study) if trial.training.beta != 0.01}
    assert held == {("blend", (16,))}


CHOICES = {
    "lists": ("model.gate_hidden", "[[64, 32], [16], []]", [(64, 32), (16,), ()]),
    "mappings": (
        "objective",
        "[{name: blend, lambda_entropy: 1}, {name: likelihood}]",
        ["blend", "likelihood"],
    ),
    "lists of words": ("data.classes", "[[eye, pencil], [face, cat]]", [("eye", "pencil"), ("face", "cat")]),
    "booleans": ("training.compile", "[true, false]", [True, False]),
    "words": ("training.budget", "['1 epochs', '2 epochs']", ["1 epochs", "2 epochs"]),
}


@pytest.mark.parametrize("kind", CHOICES)
def test_choices_are_sampled_and_known_again(kind: str) -> None:
    path, choices, expected = CHOICES[kind]
    study = search(f"  {path}: {{type: categorical, choices: {choices}}}\n")
    assert parse_study(dump_study(study)) == study
    proposals = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            proposal = proposals.ask()
            trial = suggest(proposal, study)
            assert parameters_of(study, trial) == proposal.params
            assert trial_of(study, proposal.params) == trial
            assert set(proposal.distributions) == {path}
            assert proposal.distributions[path] == distributions(study, [path])[path]
            value: Any = trial
            for part in path.split("."):
                value = getattr(value, part)
            seen.append(value.name if kind == "mappings" else str(value) if kind == "words" else value)
    assert set(seen) == set(expected)
    assert len(corners(study)) >= len(expected)


def test_a_date_is_no_choice() -> None:
    with pytest.raises(StudyError, match=r"write text in quotes: '2024-01-01'"):
        search("  data.root: {type: categorical, choices: [2024-01-01]}\n")


SPACES = {
    "int in steps": ("  model.num_experts: {type: int, low: 1, high: 10, step: 4}\n", 3),
    "float in steps": ("  training.beta: {type: float, low: 0.1, high: 0.45, step: 0.1}\n", 4),
    "choices": ("  model.encoder: {type: categorical, choices: [lite, medium]}\n", 2),
    "lists": ("  model.gate_hidden: {type: categorical, choices: [[16], [8]]}\n", 2),
    "one point": ("  training.beta: {type: float, low: 0.5, high: 0.5}\n", 1),
    "the same twice": ("  training.budget: {type: categorical, choices: [1 epoch, 1 epochs, 2 epochs]}\n", 2),
    "conditional": (
        "  objective.name: {type: categorical, choices: [blend, likelihood]}\n"
        "  objective.lambda_entropy: {type: int, low: 1, high: 3, when: {objective.name: blend}}\n",
        4,
    ),
}


@pytest.mark.parametrize("kind", SPACES)
def test_a_space_with_few_trials_ends_when_all_are_done(smoe_ray, tmp_path: Path, out: Path, kind: str) -> None:
    space, number = SPACES[kind]
    study = search(space, num_trials=6)
    assert StudyPlan(study).total == preview(study).trials == number
    assert any(f"the space has {count(number, 'trial')}, fewer" in text for _, text in in_words(study, preview(study)))
    if kind not in ("int in steps", "lists", "conditional"):
        return
    path = tmp_path / "study.yaml"
    path.write_text(dump_study(study.model_copy(update={"base": study.base})).replace("4 epochs", "1 epochs"))
    for _ in range(2):
        code, _, error = smoe_ray("run", path, "--out", out, "--executor", "local", "--jobs", 0, "--device", "cpu")
        assert code == 0, error
        assert f"the space has {number} trials, all done (num_trials is 6)" in error
        assert "Warning" not in error
    status = study_status(str(out), "demo")
    assert status is not None
    assert (status.finished, status.total) == (number, number)


@pytest.mark.parametrize(
    ("space", "num_trials"),
    [
        ("  training.beta: {type: float, low: 0.1, high: 1}\n", 100),
        ("  model.num_experts: {type: int, low: 1, high: 9}\n", 8),
        ("  training.beta: {type: float, low: 0, high: 1, step: 1e-9}\n", 50),
    ],
)
def test_a_large_space_runs_num_trials(space: str, num_trials: int) -> None:
    plan = StudyPlan(search(space, num_trials))
    assert plan.points is None
    assert plan.total == num_trials
    assert not preview(plan).notes


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ("pruner: {name: median, grace_epochs: 4}", "pruner.grace_epochs is 4, but no trial is longer than 4 epochs"),
        ("pruner: {name: asha, grace_epochs: 9}", "pruner.grace_epochs is 9"),
        ("collapse: {min_effective: 2, grace_epochs: 5}", "collapse.grace_epochs is 5"),
        ("pruner: {name: median, grace_epochs: 3}", None),
        ("pruner: {name: none, grace_epochs: 9}", None),
    ],
)
def test_a_grace_beyond_the_budget_is_told(extra: str, told: str | None) -> None:
    notes = preview(search("  training.beta: {type: float, low: 0.1, high: 1}\n", extra=extra)).notes
    assert [told in note for note in notes if told] == ([True] if told else [])
    assert bool(notes) == bool(told)


def test_a_grace_within_the_longest_trial_or_in_steps_is_not_told() -> None:
    budget = "  training.budget: {type: categorical, choices: [1 epoch, 12 epochs, 3 epochs]}\n"
    assert not preview(search(budget, num_trials=2, extra="pruner: {name: median, grace_epochs: 9}")).notes
    steps = BASE.replace("4 epochs", "30 steps") + "num_trials: 9\npruner: {name: median, grace_epochs: 10}\n"
    space = "space: {training.beta: {type: float, low: 0.1, high: 1}}"
    [note] = preview(parse_study(steps + space)).notes  # 40 images in batches of 16: 3 steps per epoch
    assert "no trial is longer than 10 epochs" in note
