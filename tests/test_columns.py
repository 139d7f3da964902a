"""The registry of columns against what training really reports, what searches accept and what tables show."""

from __future__ import annotations

import pytest

from smoe_ray.columns import COLUMNS, EPOCHS, RESULTS, STATISTICS, Column, count, format_cell
from smoe_ray.data import load_splits
from smoe_ray.results import EPOCH_COLUMNS, TIMING_COLUMNS
from smoe_ray.spec import SCALAR_METRICS, SyntheticData, TrialSpec, trial_with
from smoe_ray.training import fit


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The row of a real epoch, of a trial that has every column: one that is routed by label."""
    data = SyntheticData(classes=("eye", "cat"), train_per_class=4, test_per_class=2)
    by_label = {"training.budget": "1 epochs", "model.encoder": "lite", "model.num_experts": 2, "routing": "supervised"}
    trial = trial_with(TrialSpec(data=data), by_label)
    [epoch] = fit(trial, load_splits(data, tmp_path_factory.mktemp("cache")))
    return epoch.row


def test_training_reports_exactly_the_registered_columns(row: dict[str, object]) -> None:
    assert set(row) == {column.name for column in EPOCHS} == set(EPOCH_COLUMNS)


@pytest.mark.parametrize("column", EPOCHS, ids=lambda column: column.name)
def test_a_column_has_its_type_and_number_format(row: dict[str, object], column: Column) -> None:
    kinds = {"float": float, "int": int, "list": list}
    assert isinstance(row[column.name], kinds[column.dtype])
    if column.dtype != "list":
        assert format_cell(column.name, row[column.name]) != str(None)
        assert not column.is_text


def test_what_a_search_may_optimise_is_measured_as_a_number(row: dict[str, object]) -> None:
    assert SCALAR_METRICS
    assert all(isinstance(row[metric], (float, int)) for metric in SCALAR_METRICS)


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
