"""Every verb on trials of a model that reconstructs nothing: what is absent is said in one sentence."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from smoe_ray.analysis import representatives
from smoe_ray.analysis.comparison import comparable_arms
from smoe_ray.errors import ResultsError
from smoe_ray.inspect.status import study_status
from smoe_ray.model import ContrastiveMoE, SMoEVAE
from smoe_ray.results import read_results, read_trials
from support.contrastive_study import NAME, train

Command = Callable[..., tuple[int, str, str]]
LACKING = "the model family contrastive reconstructs nothing"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("contrastive")
    train(out)
    return out


def test_the_table_has_the_read_outs_and_no_empty_column(out: Path, smoe_ray: Command) -> None:
    code, text, _ = smoe_ray("table", out, NAME)
    headings, *rows = text.splitlines()
    assert code == 0
    assert len(rows) == 6
    assert "linear read-out, untrained" in headings
    assert not re.search("test loss|gap|PSNR|KL|latents", headings)
    assert all(row.count(" ") and not row.endswith("nan") for row in rows)


def test_studies_are_judged_by_the_linear_read_out(out: Path) -> None:
    results = read_results(out, NAME)
    last = results[results["epoch"] == 2].set_index("trial_id")["test.linear_accuracy"]
    status = study_status(str(out), NAME)
    assert status is not None
    assert status.best is not None
    assert (status.best.metric, status.best.value) == ("test.linear_accuracy", last.max())
    arms = comparable_arms(results)
    assert (arms.metric, len(arms.outcomes), len(arms.labels)) == ("test.linear_accuracy", 6, 2)
    mean_of = arms.outcomes.groupby("arm")["test.linear_accuracy"].mean()
    assert [one.label for one in representatives(results, 1).trials] == [mean_of.idxmax()]


def test_a_report_says_what_there_is_not(out: Path, tmp_path: Path, smoe_ray: Command) -> None:
    assert smoe_ray("report", out, NAME, "--to", tmp_path)[0] == 0
    page = html.unescape((tmp_path / "index.html").read_text(encoding="utf-8"))
    text = re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style|svg).*?</\1>", "", page, flags=re.DOTALL))
    assert f"no finished trial has test.reconstruction: {LACKING}" in text
    assert "These models tell images apart and redraw none" in text
    assert "which has no decoders: nothing is reconstructed" in text
    for shown in ("Gallery", "Training curves", "Differences from the reference", "Experts against classes"):
        assert f"Not shown: {shown}" not in text
        assert shown in text


def test_what_needs_a_reconstruction_is_refused_in_one_line(out: Path, smoe_ray: Command) -> None:
    for verb in (("probe", out, NAME), ("recommend", out, NAME)):
        code, _, problem = smoe_ray(*verb)
        assert code == 1
        assert len(problem.splitlines()) == 1
        assert "contrastive" in problem


def test_exports_and_checks_read_them(out: Path, tmp_path: Path, smoe_ray: Command) -> None:
    assert smoe_ray("verify", out)[0] == 0
    assert smoe_ray("export", out, NAME, "--to", "parquet", tmp_path)[0] == 0
    trial = read_trials(out, NAME)[0]
    folder = tmp_path / "model"
    assert smoe_ray("export", out, NAME, "--model", trial.trial_id, "--to", folder)[0] == 0
    assert json.loads((folder / "config.json").read_bytes())["model_type"] == "contrastive"
    assert not ContrastiveMoE.from_pretrained(folder).training
    with pytest.raises(ResultsError, match="a model of the family contrastive: load it by ContrastiveMoE"):
        SMoEVAE.from_pretrained(folder)
