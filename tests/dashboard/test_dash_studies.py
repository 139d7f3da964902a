"""The page Studies: every study, how far it is, its trials as `smoe-ray table` has them; it follows the files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from smoe_ray.analysis import arms, collapse_rates
from smoe_ray.analysis.summary import trial_summary
from smoe_ray.analysis.survival import collapsed_share
from smoe_ray.columns import COLUMNS, trial_table
from smoe_ray.inspect.status import StudyStatus, study_status
from smoe_ray.results import Store, TrialFolder, read_results
from smoe_ray_dashboard import load
from smoe_ray_dashboard.pages.studies import data
from support.planted_folder import plant

Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]
ENDS = [{"status": "failed", "error": "why"}, {"status": "pruned", "reason": "collapsed"}, {"status": "running"}]


@pytest.fixture
def always_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_MIN_SECONDS", 0.0)
    monkeypatch.setattr(load, "_SHARE_OF_TIME", 0.0)


def planted(out: Path, name: str, **options: Any) -> None:
    """A study whose file asks for just the trials that are there."""
    options = {"objectives": ("blend", "likelihood"), "experts": (4, 8), "seeds": 3, "question": "Why?"} | options
    plant(out, name, embeddings=False, **options)
    study = {
        "name": name,
        "question": options["question"],
        "base": {"model": {"encoder": "lite", "latent_dim": 2}, "training": {"budget": "4 epochs"}},
        "axes": {
            "objective.name": options["objectives"],
            "model.num_experts": options["experts"],
            "data.train_per_class": [100],
        },
        "seeds": list(range(options["seeds"])),
    }
    (out / name / "study.yaml").write_text(json.dumps(study))


def rows(at: AppTest) -> pd.DataFrame:
    return at.dataframe[0].value.set_index("study")


def test_every_study_is_a_line_with_what_status_says_of_it(open_page: Open, out: Path) -> None:
    planted(out, "first", ends=ENDS)
    planted(out, "second", question="Is <b>it</b> *so*?")
    shown = rows(open_page("studies", out))
    assert list(shown.index) == ["first", "second"]
    status = study_status(str(out), "first")
    assert status is not None
    assert status.best is not None
    said = shown.loc["first"]
    assert said["finished"] == f"{status.finished} of {status.total}"
    assert [said[name] for name in ("running", "failed", "pruned")] == [status.running, status.failed, status.pruned]
    assert said["best"] == f"{status.best.value:.4g}"
    assert said["updated"] == status.updated_at
    assert said["collapsed"] == collapsed_share(read_results(out, "first"))
    assert shown.loc["second", "question"] == "Is <b>it</b> *so*?"


def test_what_runs_comes_first_then_what_was_begun_last(open_page: Open, out: Path) -> None:
    for name, days in (("old", 0), ("new", 2), ("newer", 3)):
        for record in plant(out, name, seeds=1, embeddings=False):
            moved = record.timings.model_copy(update={"started_at": record.timings.started_at + timedelta(days=days)})
            TrialFolder(Store(out), name, record.trial_id).write_record(record.model_copy(update={"timings": moved}))
    plant(out, "runs", seeds=1, embeddings=False, ends=[{"status": "running"}])
    at = open_page("studies", out)
    assert at.dataframe[0].value["study"].tolist() == ["runs", "newer", "new", "old"]
    assert at.selectbox(key="study").value == "runs"


def test_the_page_begins_with_how_far_a_study_is_and_its_best_trial(open_page: Open, said: Said, out: Path) -> None:
    planted(out, "first", ends=ENDS)
    planted(out, "second", objectives=("blend",), experts=(4,), seeds=1, ends=[{"status": "running"}])
    results = read_results(out, "first")
    last = results[results["status"] == "finished"].drop_duplicates("trial_id", keep="last").set_index("trial_id")
    loss, arm_of = last["test.reconstruction"], arms(results).astype(str)
    best = loss.idxmin()
    other = loss[arm_of[loss.index] != arm_of[best]].idxmin()
    assert (
        "__first: 9 of 12 trials finished, 1 running, 1 failed, 1 pruned. "
        f"Best: {arm_of[best]}, seed {last['seed'][best]}, test loss {loss[best]:.4g}; the best trial of another arm, "
        f"{arm_of[other]}, has {loss[other]:.4g}.__" in said(open_page("studies", out, study="first"))
    )
    assert "__second: 0 of 1 trial finished, 1 running.__" in said(open_page("studies", out, study="second"))


def test_the_trials_are_those_of_the_table_command(open_page: Open, out: Path) -> None:
    plant(out, "first", embeddings=False)
    plant(out, "second", ends=ENDS, embeddings=False)
    at = open_page("studies", out, study="second")
    assert at.selectbox(key="study").value == "second"
    summary = trial_summary(read_results(out, "second"))
    shown = at.dataframe[1].value
    assert list(shown["trial"]) == list(summary["trial_id"])
    for column in trial_table({"smoe_vae"}):
        head = COLUMNS[column].heading
        pd.testing.assert_series_equal(
            shown[head], summary[column].astype(shown[head].dtype), check_names=False, check_exact=True
        )


def test_it_shows_what_has_changed_since(open_page: Open, out: Path, always_anew: None) -> None:
    plant(out, "first", seeds=1, embeddings=False)
    at = open_page("studies", out)
    plant(out, "first", seeds=2, embeddings=False)
    at.run()
    assert set(at.dataframe[1].value["trial"]) == set(read_results(out, "first")["trial_id"])


def test_an_empty_place_says_what_to_do(open_page: Open, out: Path, said: Said) -> None:
    out.mkdir()
    at = open_page("studies", out)
    assert "contains no study yet" in said(at)
    assert "smoe-ray run" in said(at)
    assert not at.dataframe


def test_a_study_that_no_trial_has_started(open_page: Open, out: Path) -> None:
    plant(out, "demo", embeddings=False)
    shutil.rmtree(out / "demo" / "trials")
    at = open_page("studies", out)
    assert rows(at).loc["demo", "state"] == "not started"
    assert len(at.dataframe[1].value) == 0


@pytest.mark.parametrize("content", [None, b"", b"\xff\x00", b"[1, 2]", b"name: demo\nfoo: 1\n", b"{" * 10_000])
def test_a_broken_study_file_is_said_and_its_trials_are_shown(
    open_page: Open, out: Path, content: bytes | None
) -> None:
    planted(out, "demo")
    planted(out, "good")
    path = out / "demo" / "study.yaml"
    path.unlink() if content is None else path.write_bytes(content)
    at = open_page("studies", out)
    shown = rows(at)
    assert shown.loc["demo", "state"] == "unreadable"
    assert "study.yaml" in shown.loc["demo", "question"] or "Error" in shown.loc["demo", "question"]
    assert shown.loc["good", "state"] == "complete"
    assert len(at.dataframe[1].value) == 12


@pytest.mark.parametrize(
    ("counts", "minutes", "of_search", "expected"),
    [
        ((3, 0, 0, 0), 0, False, "complete"),
        ((1, 0, 1, 1), 0, False, "complete"),
        ((1, 0, 1, 1), 0, True, "incomplete"),  # a search proposes another trial for the one that failed
        ((2, 0, 1, 1), 0, True, "complete"),
        ((2, 0, 0, 0), 0, False, "incomplete"),
        ((0, 0, 0, 0), 0, False, "not started"),
        ((2, 1, 0, 0), 1, False, "running"),
        ((2, 1, 0, 0), 60, False, "stopped?"),
    ],
)
def test_the_state_in_a_word(counts: tuple[int, int, int, int], minutes: int, of_search: bool, expected: str) -> None:
    updated = datetime.now(UTC) - timedelta(minutes=minutes)
    status = StudyStatus("demo", 3, *counts, None, updated)
    assert data.state(status, data.settled(status, of_search)) == expected


def test_the_collapsed_share_is_that_of_the_collapse_rates(out: Path) -> None:
    plant(out, "demo", ends=ENDS, embeddings=False)
    results = read_results(out, "demo")
    rates = collapse_rates(results)
    assert collapsed_share(results) == sum(rate.collapsed for rate in rates) / sum(rate.n for rate in rates)
    assert collapsed_share(results.assign(**{"config.routing": "supervised"})) is None
