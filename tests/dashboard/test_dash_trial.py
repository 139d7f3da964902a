"""The page Trial: what became of one trial, its curves and cost, and a spec that runs again."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from smoe_ray.analysis.curves import trial_curves
from smoe_ray.analysis.summary import trial_summary
from smoe_ray.cli import main
from smoe_ray.errors import ResultsError
from smoe_ray.results import Store, TrialFolder, TrialRecord, read_results
from smoe_ray.spec import GridStudy, TrialSpec, parse_study, trial_with
from smoe_ray.study import plan_grid
from smoe_ray_dashboard import load
from smoe_ray_dashboard.pages.trial import data
from smoe_ray_dashboard.pages.trial.charts import error_chart, terms_chart
from support.planted_folder import plant

Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]
ERROR = {
    "status": "failed",
    "error": "the loss became <b>NaN</b> in epoch 2; lower *it*",
    "error_kind": "DivergedError",
    "traceback": 'Traceback (most recent call last):\n  File "fit.py"\n<script>alert(1)</script>',
}


def test_its_numbers_are_those_of_the_table_command(open_page: Open, out: Path, said: Said) -> None:
    records = plant(out, "demo", ends=[ERROR])
    row = trial_summary(read_results(out, "demo")).set_index("trial_id").loc[records[5].trial_id]
    at = open_page("trial", out, study="demo", trial=records[5].trial_id)
    shown = {metric.label: metric.value for metric in at.metric}
    assert shown == {
        "status": "finished",
        "epochs": "4",
        "test loss": f"{row['test.reconstruction']:.2f}",
        "soft loss": f"{row['test.reconstruction_soft']:.2f}",
        "gap": f"{row['gap']:.2f}",
        "PSNR": "\N{EN DASH}",
        "active experts": f"{row['experts.active']:.0f} of {row['experts.configured']:.0f}",
        "MaxVio": f"{row['experts.max_violation']:.2f}",  # regret and label accuracy were not measured
        "test KL": "\N{EN DASH}",  # what is planted did not measure it
        "active latents": "\N{EN DASH}",
    }
    assert not at.error
    assert not at.warning
    facts = dict(at.dataframe[0].value.itertuples(index=False, name=None))
    assert facts["host"] == "here"
    assert facts["optimizer steps"] == f"{row['cost.steps']:,.0f}"
    assert facts["started, UTC"] == "2026-01-02 03:04:05"


def test_a_collapsed_posterior_is_told_on_its_page_and_beside_its_study(open_page: Open, out: Path, said: Said) -> None:
    records = plant(out, "demo", embeddings=False)
    for record in records[:2]:
        folder = TrialFolder(Store(out), "demo", record.trial_id)
        unused = {"latent.configured": 32, "latent.active": 2, "latent.kl": 0.004, "test.kl": 0.128, "cost.steps": 500}
        folder.write_epochs([row | unused for row in folder.read_rows()])
    at = open_page("trial", out, study="demo", trial=records[0].trial_id)
    shown = {metric.label: metric.value for metric in at.metric}
    assert (shown["test KL"], shown["active latents"]) == ("0.13", "2 of 32")
    assert "posterior collapse in 1 of 1 trials" in at.warning[0].value
    assert "posterior collapse in 2 of 12 trials" in open_page("studies", out, study="demo").warning[0].value
    assert not open_page("trial", out, study="demo", trial=records[3].trial_id).warning


def test_another_trial_is_a_choice_away(open_page: Open, out: Path) -> None:
    records = plant(out, "demo", ends=[ERROR])
    at = open_page("trial", out, study="demo", trial=records[5].trial_id)
    at.selectbox(key="trial").set_value(records[0].trial_id).run()
    assert at.metric[0].value == "failed"
    assert at.query_params["trial"] == records[0].trial_id


def test_a_failed_trial_says_why_as_plain_text(open_page: Open, out: Path) -> None:
    record = plant(out, "demo", ends=[ERROR])[0]
    at = open_page("trial", out, study="demo", trial=record.trial_id)
    [error] = at.error
    assert error.value == r"DivergedError\: the loss became \<b\>NaN\<\/b\> in epoch 2; lower \*it\*"
    assert any("<script>alert(1)</script>" in code.value for code in at.code)


def test_a_pruned_trial_says_why(open_page: Open, out: Path, said: Said) -> None:
    record = plant(out, "demo", ends=[{"status": "pruned", "reason": "experts collapsed"}])[0]
    assert "Stopped early: experts collapsed" in said(open_page("trial", out, study="demo", trial=record.trial_id))


def test_a_trial_before_its_first_epoch(open_page: Open, out: Path, said: Said) -> None:
    record = plant(out, "demo")[0].model_copy(update={"status": "running", "data": None})
    folder = TrialFolder(Store(out), "demo", record.trial_id)
    folder.write_record(record)
    (out / folder.name / "epochs.parquet").unlink()
    at = open_page("trial", out, study="demo", trial=record.trial_id)
    assert "no epoch has ended yet" in said(at)
    assert at.metric[0].value == "running"
    assert not at.error


def specs() -> list[TrialSpec]:
    """One of each kind that a study can make."""
    changes = [
        {},
        {"objective.name": "blend", "objective.lambda_entropy": 1e-5},
        {"routing": "supervised", "model.num_experts": 5},
        {"data": {"source": "quickdraw", "layout": "bitmap", "root": "no: *such* <folder>", "classes": ["cat", "eye"]}},
        {"evaluation.latent": "sample", "training.learning_rate": 1e-05},
    ]
    return [trial_with(TrialSpec(seed=seed), change) for seed, change in enumerate(changes)]


@pytest.mark.parametrize("spec", specs())
def test_its_spec_as_a_study_is_that_trial_again(out: Path, spec: TrialSpec) -> None:
    record = plant(out, "demo", embeddings=False)[0].model_copy(update={"spec": spec})
    study = parse_study(data.rerun_yaml(record))
    assert isinstance(study, GridStudy)
    [trial] = plan_grid(study)
    assert trial == record.spec


def test_its_spec_passes_check(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = plant(out, "demo", embeddings=False)[0]
    (tmp_path / "again.yaml").write_text(data.rerun_yaml(record))
    monkeypatch.setattr(sys, "argv", ["smoe-ray", "check", str(tmp_path / "again.yaml")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code


def test_what_is_taken_away_is_the_trial_alone(open_page: Open, out: Path) -> None:
    records = plant(out, "demo", embeddings=False)
    at = open_page("trial", out, study="demo", trial=records[1].trial_id)
    labels = [button.label for button in at.get("download_button")]
    assert labels == [
        "Epochs (CSV)",
        "Run again (YAML)",
        *(f"{w} ({e})" for w in ("Curves", "Usage") for e in ("SVG", "PNG")),
    ]


def test_curves_hold_the_epochs_that_were_measured(out: Path) -> None:
    record = plant(out, "demo", embeddings=False)[0]
    results = read_results(out, "demo")
    rows = results[results["trial_id"] == record.trial_id]
    info = trial_curves(results, record.trial_id)
    by_label = {series.label: series for series in info.errors}
    assert list(by_label) == ["test, hard gating", "test, soft gating", "training"]
    np.testing.assert_array_equal(by_label["training"].value_T, rows["train.reconstruction"])
    assert [series.label for series in info.terms] == ["reconstruction (squared error per image)"]
    chart = error_chart(info)
    assert [trace.name for trace in chart.data] == list(by_label)
    np.testing.assert_array_equal(chart.data[0].y, rows["test.reconstruction"])
    assert len(terms_chart(info).data) == 1
    with pytest.raises(ResultsError, match="no epoch has ended"):
        trial_curves(results, "absent")


def test_a_trial_of_an_older_version_without_a_column(open_page: Open, out: Path, said: Said) -> None:
    record: TrialRecord = plant(out, "demo", embeddings=False)[0]
    folder = TrialFolder(Store(out), "demo", record.trial_id)
    pq.write_table(pa.table({"epoch": [1, 2], "train.loss": [2.0, 1.0]}), out / folder.name / "epochs.parquet")
    at = open_page("trial", out, study="demo", trial=record.trial_id)
    assert {metric.label: metric.value for metric in at.metric}["test loss"] == "\N{EN DASH}"


@pytest.mark.parametrize("name", ["trial", "experts"])
def test_a_link_to_a_trial_that_is_gone_shows_nothing_in_its_place(
    open_page: Open, out: Path, said: Said, name: str
) -> None:
    records = plant(out, "demo", objectives=("blend",), experts=(4,), seeds=2)
    at = open_page(name, out, study="demo", trial="gone")
    assert "Trial 'gone' is not " in said(at)
    assert "any more" in said(at)
    assert not at.metric
    assert not at.get("plotly_chart")
    assert at.selectbox(key="trial").value is None
    assert "gone" in at.query_params["trial"]
    at.run()  # as a refresh does
    assert "Trial 'gone'" in said(at)
    at.selectbox(key="trial").set_value(records[1].trial_id).run()
    assert "gone" not in said(at)
    assert records[1].trial_id in at.query_params["trial"]


def test_a_trial_that_is_deleted_while_it_is_shown_is_gone(open_page: Open, out: Path, said: Said) -> None:
    records = plant(out, "demo", embeddings=False)
    at = open_page("trial", out, study="demo", trial=records[0].trial_id)
    assert at.metric
    shutil.rmtree(out / "demo" / "trials" / records[0].trial_id)
    st.cache_resource.clear()
    st.cache_data.clear()
    at.run()
    assert f"Trial '{records[0].trial_id}' is not here any more" in said(at)
    assert not at.metric


def test_a_link_to_a_study_that_is_gone_shows_no_other(open_page: Open, out: Path, said: Said) -> None:
    plant(out, "demo", embeddings=False)
    plant(out, "other", objectives=("blend",), embeddings=False)
    at = open_page("studies", out, study="gone")
    assert "Study 'gone' is not here any more" in said(at)
    assert not at.dataframe
    assert "gone" in at.query_params["study"]
    at.selectbox(key="study").set_value("other").run()
    assert "other" in at.query_params["study"]
    assert len(at.dataframe) == 2


def test_a_trial_of_another_study_is_a_selection_not_a_link(open_page: Open, out: Path, said: Said) -> None:
    records = plant(out, "demo", embeddings=False)
    plant(out, "other", objectives=("likelihood",), experts=(3,), embeddings=False)
    at = open_page("trial", out, study="demo", trial=records[0].trial_id)
    at.selectbox(key="study").set_value("other").run()
    assert "any more" not in said(at)
    assert at.metric


def test_a_trial_that_no_process_trains_is_not_running(open_page: Open, out: Path, said: Said) -> None:
    records = plant(out, "demo", objectives=("blend",), experts=(4,), seeds=1, ends=[{"status": "running"}])
    folder = TrialFolder(Store(out), "demo", records[0].trial_id)
    folder.write_record(records[0].model_copy(update={"host": socket.gethostname()}))
    with folder.claim(0) as held:
        assert held
        at = open_page("trial", out, study="demo", trial=records[0].trial_id)
        assert "No process is training it" not in said(at)
        assert not folder.is_abandoned(socket.gethostname())
    assert "No process is training it" in said(at.run())
    [running] = load.trials("demo").records.values()
    assert load.is_abandoned(running)
    folder.write_record(running.model_copy(update={"status": "finished"}))
    assert not load.is_abandoned(running)  # it had ended before its lock was free
    assert not folder.is_abandoned("another machine")  # whose locks cannot be seen
