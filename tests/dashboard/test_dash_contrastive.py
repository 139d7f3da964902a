"""Every page on trials of a model that reconstructs nothing: it shows what there is, and says what there is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from smoe_ray.results import read_results, read_trials
from support.contrastive_study import NAME, train

Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("contrastive")
    train(out)
    return out


@pytest.mark.parametrize(
    "page", ["studies", "trials", "compare", "loss_surface", "routing", "collapse", "experts", "expert", "trial"]
)
def test_every_page_shows_what_there_is(open_page: Open, out: Path, page: str) -> None:
    open_page(page, out, study=NAME)


def test_trials_are_compared_by_their_read_out(open_page: Open, said: Said, out: Path) -> None:
    at = open_page("compare", out, study=NAME)
    assert at.selectbox(key="metric").value == "test.linear_accuracy"
    assert "Highest linear read-out: " in said(at)
    assert "its model reconstructs nothing" in said(open_page("compare", out, study=NAME, compare="Reconstructions"))


def test_a_trial_has_its_read_outs_and_no_reconstruction(open_page: Open, said: Said, out: Path) -> None:
    record = read_trials(out, NAME)[0]
    results = read_results(out, NAME)
    last = results[results["trial_id"] == record.trial_id].iloc[-1]
    text = said(open_page("trial", out, study=NAME, trial=record.trial_id))
    assert f"linear read-out: {last['test.linear_accuracy']:.3f}" in text
    assert f"20 nearest neighbours: {last['test.knn_accuracy']:.3f}" in text
    assert "test loss" not in text


def test_the_experts_have_images_and_no_decodings(open_page: Open, said: Said, out: Path) -> None:
    text = said(open_page("experts", out, study=NAME))
    assert "Inputs (this model reconstructs nothing), at most 8 images per expert" in text
    for view in ("Swap matrix", "Doodle"):
        text = said(open_page("experts", out, study=NAME, show=view))
        assert "is of the model family contrastive, which has no decoders: nothing is reconstructed" in text
