"""Studies that are too large to plan are refused by multiplication, before anything is expanded."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from smoe_ray.cli import app
from smoe_ray.errors import StudyError
from smoe_ray.inspect.preview import preview
from smoe_ray.planning import StudyPlan, plan_grid, search_space, size, trials_to_plan
from smoe_ray.spec import parse_study

BASE = {"data": {"source": "synthetic", "classes": ["eye"], "train_per_class": 20, "test_per_class": 5}}
THOUSAND = list(range(1, 1001))
CUBE = {
    "axes": {"model.num_experts": THOUSAND, "model.latent_dim": THOUSAND, "training.batch_size": THOUSAND},
}


def text(**more: Any) -> str:
    return yaml.safe_dump({"name": "many", "question": "?", "base": BASE, **more}, sort_keys=False)


def search(num_trials: int, **space: Any) -> str:
    parameters = {path.replace("__", "."): parameter for path, parameter in space.items()}
    return text(objectives=[{"metric": "test.kl", "direction": "minimize"}], num_trials=num_trials, space=parameters)


def choices(**more: Any) -> dict[str, Any]:
    return {"type": "categorical", "choices": THOUSAND, **more}


TOO_MANY = {
    "cube": (text(**CUBE), "1,000,000,000 trials (1,000 values of model.num_experts x 1,000 values of"),
    "seeds": (
        text(seeds=list(range(201)), axes={"training.batch_size": list(range(1, 101))}),
        "study many: 20,100 trials (100 values of training.batch_size x 201 seeds); a study may have 20,000: split it",
    ),
    "search": (search(10**9, training__batch_size=choices()), "num_trials: 1,000,000,000; a study may have"),
    "corners": (
        search(5, model__num_experts=choices(), model__latent_dim=choices()),
        "1,002,000 corners of the space; a study may have",
    ),
}


@pytest.mark.parametrize("name", TOO_MANY)
def test_a_study_of_too_many_trials_is_refused_at_once_and_in_little_memory(name: str) -> None:
    study, message = parse_study(TOO_MANY[name][0]), TOO_MANY[name][1]
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(StudyError) as refusal:
            preview(StudyPlan(study))
        took_s, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message in str(refusal.value)
    assert (took_s < 1, peak < 2_000_000) == (True, True), (took_s, peak)


def test_corners_that_conditions_multiply_are_counted_as_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_space, "MAX_TRIALS", 50)
    conditional = choices(when={"training.batch_size": THOUSAND})
    study = parse_study(search(5, training__batch_size=choices(), model__num_experts=conditional))
    with pytest.raises(StudyError, match="study many: more than 50 corners of the space: split it"):
        preview(StudyPlan(study))


def test_a_study_of_just_as_many_is_planned_and_repeated_trials_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "MAX_TRIALS", 6)
    largest = parse_study(text(seeds=[0, 1, 2], axes={"training.batch_size": [32, 32]}))
    assert (trials_to_plan(largest), len(plan_grid(largest))) == (6, 3)


@pytest.mark.parametrize("command", ["check", "run", "submit", "k8s submit"])
def test_every_command_that_plans_refuses_it(command: str, tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_text(text(**CUBE))
    options = {"run": ["--out", str(tmp_path / "out")], "submit": ["--address", "http://127.0.0.1:1", "--out", "/r"]}
    words = [*command.split(), str(tmp_path / "many.yaml"), *options.get(command, [])]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, StudyError), refused.exception
    assert "1,000,000,000 trials" in str(refused.exception)
    assert not (tmp_path / "out").exists()
