"""The page of the loss surface, without a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from smoe_ray.analysis import loss_against_experts, loss_surface, recommend
from smoe_ray.analysis.outcomes import with_soft_loss
from smoe_ray.results import read_results
from support.planted_folder import plant

Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planted")
    plant(
        out,
        "rich",
        objectives=("blend",),
        experts=(2, 4, 8, 16),
        per_class=(100, 300, 1000),
        seeds=2,
        embeddings=False,
    )
    plant(out, "small", experts=(4, 8), per_class=(100, 300), seeds=1, embeddings=False)
    plant(out, "supervised", objectives=("blend",), routing="supervised", seeds=1, embeddings=False)
    return out


def drawn(at: AppTest, number: int = 0) -> str:
    """What the browser gets of a chart."""
    charts = at.get("plotly_chart")
    assert charts, "no chart on the page"
    return str(charts[number].proto.spec)


def test_the_answer_is_that_of_recommend(open_page: Open, said: Said, planted: Path) -> None:
    at = open_page("loss_surface", planted, study="rich")
    results = read_results(planted, "rich")
    told = said(at)
    assert recommend(results).sentence in told
    assert len(at.get("plotly_chart")) == 2
    assert "training images per active expert" in told
    # Another budget is another question; the fit is at hand.
    at.number_input(key="images").set_value(600).run()
    assert recommend(results, samples=600).sentence in said(at)
    at.number_input(key="images").set_value(10_000_000).run()
    assert "more than a factor of 4 beyond" in said(at)
    assert "published, arXiv" not in drawn(at)


def test_a_study_that_cannot_tell_says_why_and_what_to_add(open_page: Open, said: Said, planted: Path) -> None:
    at = open_page("loss_surface", planted, study="small")
    told = said(at)
    assert (
        "the study cannot tell the best number of active experts: a fit needs 4 counts of active experts (it has 2)"
        in told
    )
    assert "add 3 runs each of" in told
    assert "The study cannot tell, so no fit is drawn" in told
    assert at.selectbox(key="arm").options == ["blend", "likelihood"]


def test_every_switch_comes_from_the_url(open_page: Open, said: Said, planted: Path) -> None:
    results = with_soft_loss(read_results(planted, "rich"))
    at = open_page("loss_surface", planted, study="rich", loss="soft", experts="configured", effort="steps")
    most = int(loss_surface(results, "steps").surfaces[0].x_C.max())
    assert at.number_input(key="steps").value == most
    assert recommend(results, steps=most, experts="configured").sentence in said(at)
    assert "equal optimizer steps per configured expert" in said(at)
    assert "soft gating" in drawn(at)
    assert "configured experts" in drawn(at)


def test_curves_against_experts_and_the_arms_that_are_shown(open_page: Open, planted: Path) -> None:
    at = open_page("loss_surface", planted, study="small", figure="experts")
    labels = [curve.label for curve in loss_against_experts(read_results(planted, "small")).curves]
    arms = at.multiselect(key="arms")
    assert [arms.options[place] for place in arms.indices] == labels
    arms.set_value(arms.value[:1]).run()
    assert labels[0] in drawn(at)
    assert labels[1] not in drawn(at)


@pytest.mark.parametrize("figure", ["surface", "experts", "samples per expert"])
def test_published_results_are_off_until_asked_for_and_named(open_page: Open, planted: Path, figure: str) -> None:
    at = open_page("loss_surface", planted, study="small", figure=figure)
    assert "arXiv" not in drawn(at)
    at.toggle(key="published").set_value(True).run()
    assert "published, arXiv:2509.10025" in drawn(at)


def test_published_results_are_not_laid_over_what_they_do_not_count(open_page: Open, said: Said, planted: Path) -> None:
    at = open_page("loss_surface", planted, study="small", published="true", loss="soft")
    assert "Published results are for active experts and hard loss" in said(at)
    assert "arXiv" not in drawn(at)


def test_without_unsupervised_trials_the_page_says_what_to_do(open_page: Open, said: Said, planted: Path) -> None:
    at = open_page("loss_surface", planted, study="supervised")
    assert "every finished trial is supervised; add trials with routing: unsupervised" in said(at)


def test_before_the_first_finished_trial(open_page: Open, said: Said, begun: Path) -> None:
    assert "no finished trial (1 running)" in said(open_page("loss_surface", begun, study="begun"))
