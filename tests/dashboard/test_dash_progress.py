"""How far a running trial is, and when it will be done."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from smoe_ray.results import Store, TrialFolder
from smoe_ray.spec import trial_with
from smoe_ray_dashboard import progress
from support.planted_folder import plant

Open = Callable[..., AppTest]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (5400, "1.5 h"), (200_000, "2 days")],
)
def test_a_time_in_words(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


def test_what_is_left_follows_from_what_the_epochs_took() -> None:
    half = progress.Progress(epoch=4, epochs=12, seconds=40, age_s=3)
    assert half.total_s == 120
    assert half.left_s == 77
    assert progress.Progress(12, 12, 40, 3).left_s == 0
    assert math.isnan(progress.Progress(0, 12, 5, 3).left_s)
    assert math.isnan(progress.Progress(0, None, 5, 3).left_s)


def test_a_budget_in_steps_is_told_in_epochs(out: Path) -> None:
    record = plant(out, "demo", objectives=("blend",), experts=(4,), seeds=1, embeddings=False)[0]
    spec = trial_with(record.spec, {"training.budget": "11 steps", "training.batch_size": 100})  # of 300 images
    assert progress.epochs_of(record) == 4
    assert progress.epochs_of(record.model_copy(update={"spec": spec})) == 4
    assert progress.epochs_of(record.model_copy(update={"data": None})) is None


def test_a_study_that_runs_says_how_far_it_is(open_page: Open, out: Path, said: Callable[[AppTest], str]) -> None:
    ends = [{"status": "running"}, {"status": "running"}]
    records = plant(out, "demo", objectives=("blend",), experts=(4,), seeds=2, embeddings=False, ends=ends)
    for record in records:
        started = datetime.now(UTC) - timedelta(minutes=9)
        timings = record.timings.model_copy(update={"seconds": 500.0, "started_at": started, "finished_at": None})
        TrialFolder(Store(out), "demo", record.trial_id).write_record(record.model_copy(update={"timings": timings}))
    study = {
        "name": "demo",
        "question": "Why?",
        "base": {"model": {"encoder": "lite", "latent_dim": 2, "num_experts": 4}, "training": {"budget": "4 epochs"}},
        "axes": {"objective.name": ["blend"], "data.train_per_class": [100]},
        "seeds": [0, 1, 2, 3, 4, 5],
    }
    (out / "demo" / "study.yaml").write_text(json.dumps(study))
    for page in ("search", "collapse"):  # half of two trials and four more, two at a time
        text = said(open_page(page, out, study="demo"))
        assert "2 trials running, the farthest: epoch 2 of 4, about 42 min left, as of " in text
    at = open_page("trial", out, study="demo", trial=records[1].trial_id)
    assert "Running: epoch 2 of 4, about 8 min left, as of " in said(at)
    assert {metric.label: metric.value for metric in at.metric}["epochs"] == "2 of 4"
    assert "epoch 2 of" not in said(open_page("routing", out, study="demo"))
