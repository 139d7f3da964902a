"""A grid on several datasets: what is planned, how it is overridden, and what every verb says of its results."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from smoe_ray.errors import StudyError
from smoe_ray.planning import plan_grid
from smoe_ray.results import read_results
from smoe_ray.spec import GridStudy, dump_study, parse_study

STUDY = """
name: two
question: Do several experts pay off on both?
datasets:
  digits: {source: images, root: digits.npz}
  letters: {source: images, root: letters.npz}
base:
  model: {encoder: lite, latent_dim: 2, gate_hidden: [4]}
  training: {budget: 1 epochs, batch_size: 16}
axes:
  model.num_experts: [1, 2]
seeds: [0]
"""


def study(*overrides: str, **changes: Any) -> GridStudy:
    read = parse_study(yaml.safe_dump({**yaml.safe_load(STUDY), **changes}, sort_keys=False), overrides)
    assert isinstance(read, GridStudy)
    return read


def test_the_grid_is_planned_on_every_dataset_though_only_their_folders_differ() -> None:
    trials = plan_grid(study())
    assert [(trial.dataset, trial.data.model_dump()["root"], trial.model.num_experts) for trial in trials] == [
        ("digits", "digits.npz", 1),
        ("digits", "digits.npz", 2),
        ("letters", "letters.npz", 1),
        ("letters", "letters.npz", 2),
    ]
    assert study().num_combinations == len(trials) == 4
    assert parse_study(dump_study(study())) == study()


def test_datasets_are_merged_over_the_data_of_the_base() -> None:
    base = {"data": {"source": "synthetic", "train_per_class": 7, "jitter": 0.5}}
    datasets = {"few": {"train_per_class": 3}, "smooth": {"jitter": 0}}
    few, smooth = plan_grid(study(base=base, datasets=datasets, axes={}, seeds=[0]))
    assert (few.data.train_per_class, few.data.model_dump()["jitter"]) == (3, 0.5)
    assert (smooth.data.train_per_class, smooth.data.model_dump()["jitter"]) == (7, 0)


def test_overrides_change_one_dataset_or_all() -> None:
    one = study("datasets.letters.root=elsewhere", "datasets.letters.train_per_class=5")
    assert one.datasets["letters"] == {"source": "images", "root": "elsewhere", "train_per_class": 5}
    assert one.datasets["digits"] == {"source": "images", "root": "digits.npz"}
    drawn = study("datasets.letters={source: synthetic}")
    assert drawn.datasets["letters"] == {"source": "synthetic"}
    assert list(study("datasets={drawn: {source: synthetic}}").datasets) == ["drawn"]


@pytest.mark.parametrize(
    ("overrides", "changes", "message"),
    [
        (["data.root=x"], {}, "every dataset has its own; set datasets.digits.root or datasets.letters.root"),
        ([], {"axes": {"data": [{"source": "synthetic"}]}}, "axes.data: 'datasets' replace it"),
        ([], {"axes": {"dataset": ["digits"]}}, "axes.dataset: a name, not a setting; give each data setting its name"),
        ([], {"datasets": {"Two words": {}}}, "datasets"),
        (["datasets.diggits.root=x"], {}, r"dataset='diggits'.*data.root: unknown key"),
        ([], {"datasets": {}, "axes": {"data": [{"source": "images", "root": "a"}, {"source": "images", "root": "b"}]}},
         "differ only in where their data lie"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(overrides: list[str], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        plan_grid(study(*overrides, **changes))
    assert "\n" not in str(caught.value)


def test_every_verb_on_two_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smoe_ray: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMOE_RAY_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name, per_class in (("digits", 8), ("letters", 16)):
        train, test = (rng.integers(0, 256, (2 * count, 28, 28), dtype=np.uint8) for count in (per_class, 4))
        np.savez(
            tmp_path / name, x_train=train, y_train=np.arange(len(train)) % 2, x_test=test, y_test=np.arange(8) % 2
        )
    (tmp_path / "two.yaml").write_text(STUDY)

    def works(*words: str) -> str:
        code, printed, error = smoe_ray(*words)
        assert code == 0, error
        return printed

    assert re.search(r"dataset +digits, letters", works("check", "two.yaml"))
    assert "digits, E=1" in works(
        "run", "two.yaml", "--out", "out", "--executor", "local", "--jobs", "0", "--device", "cpu"
    )
    results = read_results("out", "two")
    assert results.groupby("config.dataset")["data.train_images"].unique().str.len().to_dict() == {
        "digits": 1,
        "letters": 1,
    }
    status = works("status", "two", "--out", "out")
    assert "4 of 4 finished" in status
    assert "best" not in status
    assert "digits, " not in works("table", "out", "two", "--dataset", "letters")
    assert works("recommend", "out", "two").splitlines()[0].startswith("digits: at 16 training images")
    assert works("recommend", "out", "two", "--dataset", "letters").startswith("At 32 training images")
    assert works("figure", "out", "two", "--to", "figures", "--kind", "datasets").startswith("figures/two-datasets.svg")
    works("figure", "out", "two", "--to", "figures", "--kind", "training_curves", "--dataset", "digits")
    code, _, error = smoe_ray("figure", "out", "two", "--to", "figures", "--kind", "training_curves")
    assert code == 1
    assert error.count("\n") == 1
    assert "no common scale" in error
