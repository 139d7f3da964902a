"""Every page begins with what it has found, in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from smoe_ray.analysis import collapse_rates
from smoe_ray.results import read_results
from support.planted_folder import plant

Open = Callable[..., AppTest]
ENDS = [{"status": "failed", "error": "why"}, {"status": "pruned", "reason": "collapsed"}, {"status": "running"}]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planted")
    plant(out, "arms", seeds=3, ends=ENDS)
    plant(out, "alone", objectives=("blend",), experts=(4,), seeds=1)
    return out


def answer(at: AppTest) -> str:
    """The first bold sentence."""
    return next(one.value for one in at.markdown if one.value.startswith("__")).strip("_").replace("\\", "")


def kinds_of(block: Any) -> Iterator[str]:
    """Kinds of what is on a page, from top to bottom."""
    for each in block.children.values():
        if hasattr(each, "children"):
            yield from kinds_of(each)
        else:
            yield each.type


def test_a_trial_tells_its_place(open_page: Open, planted: Path) -> None:
    results = read_results(planted, "arms")
    last = results.drop_duplicates("trial_id", keep="last").set_index("trial_id")
    loss = last.loc[last["status"] == "finished", "test.reconstruction"].sort_values()
    for place, trial in ((1, loss.index[0]), (9, loss.index[8])):
        rank = "the best" if place == 1 else f"number {place}"
        said = f"Finished after 4 epochs: test loss {loss[trial]:.4g}, {rank} of 9 finished trials."
        assert answer(open_page("trial", planted, study="arms", trial=trial)) == said
    [failed] = last.index[last["status"] == "failed"]
    assert answer(open_page("trial", planted, study="arms", trial=failed)) == "Failed after 2 epochs."


def test_collapse_tells_how_many_runs_collapsed(open_page: Open, planted: Path) -> None:
    rates = collapse_rates(read_results(planted, "arms"))
    collapsed, runs = sum(rate.collapsed for rate in rates), sum(rate.n for rate in rates)
    said = answer(open_page("collapse", planted, study="arms"))
    assert said.startswith(
        f"{collapsed} of {runs} finished runs collapsed: fewer than half of their experts are active"
    )
    assert "experts in 11 trials" in said


def test_experts_tell_how_many_are_chosen(open_page: Open, planted: Path) -> None:
    assert "of 4 experts receive test images; the busiest, expert " in answer(
        open_page("experts", planted, study="alone")
    )


def test_the_verdict_and_the_recommendation_come_before_the_widgets(open_page: Open, planted: Path) -> None:
    kinds = [*kinds_of(open_page("routing", planted, study="arms").main)]
    assert kinds.index("markdown") < kinds.index("multiselect")
    at = open_page("loss_surface", planted, study="arms")
    [sentence] = [*at.warning, *at.success]
    assert sentence.value.startswith("At 300 training images")
    kinds = [*kinds_of(at.main)]
    assert kinds.index(sentence.type) < kinds.index("button_group")
