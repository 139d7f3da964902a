"""The registry of columns against what training really reports, what searches accept and what tables show."""

from __future__ import annotations

import pytest

from smoe_ray.columns import COLUMNS, EPOCHS, RESULTS, STATISTICS, Column, count, format_cell, names_of
from smoe_ray.data import load_splits
from smoe_ray.results import EPOCH_COLUMNS, TIMING_COLUMNS
from smoe_ray.spec import SCALAR_METRICS, SyntheticData, TrialSpec, trial_with
from smoe_ray.training import fit


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """By family, the row of a real epoch of a trial that has every column of it: of an SMoE-VAE, routed by label."""
    data = SyntheticData(classes=("eye", "cat"), train_per_class=4, test_per_class=2)
    splits = load_splits(data, tmp_path_factory.mktemp("cache"))
    settings: dict[str, dict[str, object]] = {
        "smoe_vae": {"model.encoder": "lite", "model.num_experts": 2, "routing": "supervised"},
        "contrastive": {"model": {"family": "contrastive", "widths": [4] * 4}, "objective": {"name": "contrastive"}},
    }
    found = {}
    for family, values in settings.items():
        [epoch] = fit(trial_with(TrialSpec(data=data), {"training.budget": "1 epochs", **values}), splits)
        found[family] = epoch.row
    return found


@pytest.mark.parametrize(("family", "further"), [("smoe_vae", set()), ("contrastive", {"train.load"})])
def test_training_reports_exactly_the_registered_columns(
    rows: dict[str, dict[str, object]], family: str, further: set[str]
) -> None:
    assert set(rows[family]) == {*names_of(family, EPOCHS), *further}
    assert set(EPOCH_COLUMNS) == {column.name for column in EPOCHS}


@pytest.mark.parametrize("column", EPOCHS, ids=lambda column: column.name)
def test_a_column_has_its_type_and_number_format(rows: dict[str, dict[str, object]], column: Column) -> None:
    kinds = {"float": float, "int": int, "list": list}
    row = rows[column.family or "smoe_vae"]
    assert isinstance(row[column.name], kinds[column.dtype])
    if column.dtype != "list":
        assert format_cell(column.name, row[column.name]) != str(None)
        assert not column.is_text


def test_what_a_search_may_optimise_is_measured_as_a_number(rows: dict[str, dict[str, object]]) -> None:
    assert SCALAR_METRICS
    for family, row in rows.items():
        metrics = [metric for metric in SCALAR_METRICS if COLUMNS[metric].family in (None, family)]
        assert all(isinstance(row[metric], (float, int)) for metric in metrics)


@pytest.mark.parametrize(
    ("number", "words", "counted"),
    [
        (1, ("trial",), "1 trial"),
        (1.0, ("epoch",), "1 epoch"),
        (0, ("trial",), "0 trials"),
        (2.5, ("epoch",), "2.5 epochs"),
        (1_234_567, ("image",), "1,234,567 images"),
        (2, ("class", "classes"), "2 classes"),
    ],
)
def test_only_one_is_counted_in_the_singular(number: float, words: tuple[str, ...], counted: str) -> None:
    assert count(number, *words) == counted


def test_timing_columns() -> None:
    assert TIMING_COLUMNS == ("cost.wall_s", "cost.images_per_s")


def test_every_column_stands_once_and_is_headed() -> None:
    assert len(COLUMNS) == len(RESULTS) + len(STATISTICS)
    assert all(column.heading for column in COLUMNS.values())
    exported = [column for column in EPOCHS if column.gauge]
    assert all(column.label.isascii() for column in exported)  # Prometheus help texts made by Ray are ASCII
    gauges = [column.gauge for column in exported]
    assert gauges
    assert len(set(gauges)) == len(gauges)
