"""The page Trials: one column per setting that varies, filters and groups that a link carries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from smoe_ray.analysis.summary import trial_summary
from smoe_ray.results import read_results
from smoe_ray_dashboard.pages.trials import data
from support.planted_folder import plant

Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]
ENDS = [{"status": "failed", "error": "why"}, {"status": "running"}]


def test_every_setting_that_varies_is_a_column_and_no_other(open_page: Open, out: Path) -> None:
    plant(out, "demo", ends=ENDS, embeddings=False)
    shown = open_page("trials", out, study="demo", measures=["test.reconstruction"]).dataframe[0].value
    fixed, measures = ["arm", "seed", "status", "epoch"], ["test.reconstruction"]
    settings = [name for name in shown if name not in (*fixed, *measures, "trial_id")]
    assert settings[:2] == ["model.num_experts", "objective.name"]
    assert all(name.startswith("objective.") for name in settings[2:])  # which follow from the objective's name
    summary = trial_summary(read_results(out, "demo"))
    assert shown["trial_id"].tolist() == summary["trial_id"].tolist()
    for name in ("objective.name", "model.num_experts"):
        assert shown[name].tolist() == summary[f"config.{name}"].tolist()
    assert shown["test.reconstruction"].tolist() == summary["test.reconstruction"].tolist()


def test_settings_that_follow_from_another_stand_behind_the_trial(open_page: Open, out: Path) -> None:
    plant(out, "demo", embeddings=False)
    shown = list(open_page("trials", out, study="demo", measures=["test.reconstruction"]).dataframe[0].value)
    before, after = shown[: shown.index("trial_id")], shown[shown.index("trial_id") + 1 :]
    assert [name for name in before if "." in name and name != "test.reconstruction"] == [
        "model.num_experts",
        "objective.name",
    ]
    assert after  # the weights of one objective, which the other lacks
    assert all(name.startswith("objective.") for name in after)


def test_a_link_carries_filters_by_value_and_by_range(open_page: Open, out: Path, said: Said) -> None:
    plant(out, "demo", ends=ENDS, embeddings=False)
    summary = trial_summary(read_results(out, "demo"))
    loss = summary["test.reconstruction"]
    low, high = float(loss.quantile(0.3)), float(loss.quantile(0.8))
    expected = summary[(summary["config.model.num_experts"] == 8) & (loss >= low) & (loss <= high)]
    assert 0 < len(expected) < len(summary) / 2
    selections = {
        "filter": ["model.num_experts", "test.reconstruction"],
        "is.model.num_experts": "8",
        "from.test.reconstruction": repr(low),
        "to.test.reconstruction": repr(high),
    }
    at = open_page("trials", out, study="demo", **selections)
    assert at.dataframe[0].value["trial_id"].tolist() == expected["trial_id"].tolist()
    assert f"{len(expected)} of 12 trials" in said(at)
    at.multiselect(key="filter").set_value(["test.reconstruction"]).run()
    assert "is.model.num_experts" not in at.query_params
    assert len(at.dataframe[0].value) == ((loss >= low) & (loss <= high)).sum()


def test_groups_have_n_mean_and_spread_of_the_finished_trials_that_pass(open_page: Open, out: Path) -> None:
    plant(out, "demo", ends=ENDS, embeddings=False)
    at = open_page("trials", out, study="demo", group=["objective.name", "model.num_experts"])
    shown = at.dataframe[0].value.set_index(["model.num_experts", "objective.name"])
    summary = trial_summary(read_results(out, "demo"))
    finished = summary[summary["status"] == "finished"]
    groups = finished.groupby(["config.model.num_experts", "config.objective.name"])["test.reconstruction"]
    assert (
        shown["n"].to_dict()
        == groups.size().to_dict()
        == {(4, "blend"): 1} | dict.fromkeys(((4, "likelihood"), (8, "blend"), (8, "likelihood")), 3)
    )
    assert shown["test.reconstruction"].to_dict() == groups.mean().to_dict()
    assert shown["test.reconstruction_sd"].dropna().to_dict() == pytest.approx(groups.std(ddof=1).dropna().to_dict())


def test_a_row_without_a_value_passes_no_filter_of_that_column() -> None:
    table = pd.DataFrame({"width": [1.0, None, 3.0], "kind": ["a", None, "b"]})
    assert data.filtered(table, {"width": data.Range(None, 3.0)}).index.tolist() == [0, 2]
    assert data.filtered(table, {"width": data.Range(2.0, None)}).index.tolist() == [2]
    assert data.filtered(table, {"kind": data.Listed(frozenset({"a"}))}).index.tolist() == [0]
    assert data.filtered(table, {"kind": data.Listed(frozenset()), "width": data.Range(None, None)}).equals(table)


def test_selected_trials_are_compared(open_page: Open, out: Path, said: Said) -> None:
    records = plant(out, "demo", embeddings=False)
    chosen = [record.trial_id for record in records[:3]]
    at = open_page("trials", out, study="demo", trials=[*chosen, "gone"])
    assert "3 selected" in said(at)
    assert [link.label for link in at.get("page_link")] == ["Compare"]
    only = open_page("trials", out, study="demo", trials=chosen, filter="seed", **{"is.seed": "2"})
    assert "3 selected, 2 of them filtered out" in said(only)
