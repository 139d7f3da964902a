"""The page of collapse, without a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from smoe_ray.analysis import arms, collapse_rates, expert_deaths
from smoe_ray.results import read_results
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.testing.toy_training import Toy, toy_grid
from support.planted_folder import plant

Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planted")
    ends = [{"status": "failed", "error": "out of memory"}]
    plant(out, "arms", experts=(4, 8), seeds=3, embeddings=False, ends=ends)
    plant(out, "seeds", objectives=("blend",), experts=(4,), seeds=10, embeddings=False)
    return out


def table(at: AppTest, column: str) -> pd.DataFrame:
    """The table that has the column."""
    (found,) = [frame.value for frame in at.dataframe if column in frame.value.columns]
    return found


def test_dead_experts_with_their_time_of_death(open_page: Open, said: Said, planted: Path) -> None:
    at = open_page("collapse", planted, study="arms", part="Not in use")
    experts = expert_deaths(read_results(planted, "arms"))
    dead = experts[experts["state"] == "dead"]
    alive, never = ((experts["state"] == state).sum() for state in ("alive", "never used"))
    assert (
        f"Of {len(experts)} experts in 11 trials, {alive} are alive at the end, {len(dead)} are dead and {never} were "
        "never used." in said(at)
    )
    shown = table(at, "died")
    assert (shown["state"] == "never used").sum() == never
    shown = shown[shown["state"] == "dead"]
    keys = ["trial_id", "expert"]
    expected = dead.sort_values(keys)[[*keys, "died", "last_used"]].reset_index(drop=True)
    found = shown.sort_values(keys)[[*keys, "died", "last_used"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert shown["died"].is_monotonic_increasing


def test_collapse_rate_of_each_group(open_page: Open, said: Said, planted: Path) -> None:
    at = open_page("collapse", planted, study="arms", part="Rates and survival")
    rates = collapse_rates(read_results(planted, "arms"))
    assert f"{sum(rate.collapsed for rate in rates)} of {sum(rate.n for rate in rates)} finished runs" in said(at)
    shown = table(at, "collapsed")
    assert shown["arm"].tolist() == [rate.label for rate in rates]
    assert shown["collapsed"].tolist() == [str(rate.collapsed) for rate in rates]
    assert shown["low"].tolist() == [f"{rate.low:.0%}".replace("%", " %") for rate in rates]


def test_chosen_trials_have_their_usage(open_page: Open, said: Said, planted: Path) -> None:
    at = open_page("collapse", planted, study="arms")
    chosen = at.multiselect(key="trials")
    assert len(chosen.options) == 11  # the failed one is none
    assert len(chosen.value) == 2
    before = len(at.get("plotly_chart"))
    chosen.set_value(chosen.options[4:7]).run()
    assert len(at.get("plotly_chart")) == before + 1
    label = arms(read_results(planted, "arms")).iloc[4]
    assert f"{label}, seed" in said(at)


def test_runs_may_be_grouped_by_objective_and_size(open_page: Open, planted: Path) -> None:
    at = open_page("collapse", planted, study="arms", part="Rates and survival", groups="objective and size")
    assert table(at, "collapsed")["arm"].tolist() == ["blend, E=4", "blend, E=8", "likelihood, E=4", "likelihood, E=8"]


def test_groups_of_several_datasets_have_ids_of_their_own(open_page: Open, tmp_path: Path) -> None:
    few = {"source": "synthetic", "classes": ["eye", "cat"], "train_per_class": 20, "test_per_class": 5}
    study = toy_grid(datasets={"smooth": {**few, "jitter": 0}, "rough": {**few, "jitter": 2}}, seeds=[0])
    run_study(study, tmp_path, LocalExecutor(fit=Toy()))
    at = open_page("collapse", tmp_path, study=study.name, part="Rates and survival", groups="objective and size")
    groups = set(table(at, "collapsed")["arm"])
    assert len(groups) == 2 * len({group.partition(", ")[2] for group in groups})
    assert set(at.multiselect(key="objective and sizes").options) == groups


def test_bimodality_is_tested_when_asked_for(open_page: Open, said: Said, planted: Path) -> None:
    at = open_page("collapse", planted, study="arms", part="Bimodality")
    assert "bimodality test: cannot tell (2 runs, 10 needed) in every group; add seeds" in said(at)
    at = open_page("collapse", planted, study="seeds", part="Bimodality")
    assert table(at, "p, Holm")["verdict"].tolist() == ["one mode suffices"]


def test_a_failed_study_says_so(open_page: Open, said: Said, tmp_path: Path) -> None:
    ends = [{"status": "failed", "error": "out of memory"}]
    plant(tmp_path, "failed", objectives=("blend",), experts=(4,), seeds=1, embeddings=False, ends=ends)
    assert "failed: no trial to show yet; run the study first" in said(open_page("collapse", tmp_path, study="failed"))


def test_what_needs_finished_trials_says_so_and_the_rest_is_shown(open_page: Open, said: Said, begun: Path) -> None:
    at = open_page("collapse", begun, study="begun")
    assert len(at.get("plotly_chart")) == 2  # in use, usage
    at = open_page("collapse", begun, study="begun", part="Rates and survival")
    assert "no finished trial (1 running)" in said(at)
    assert len(at.get("plotly_chart")) == 1  # survival
