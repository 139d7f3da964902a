"""The dashboard and plug-ins: the Submit page refuses those that are not allowed, and nothing here imports any."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from smoe_ray import plugins
from smoe_ray.cluster import jobs
from smoe_ray.errors import PluginError, ResultsError, StudyError
from smoe_ray.results import read_trials
from smoe_ray.spec import parse_study
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray_dashboard.pages.experts import inference
from smoe_ray_dashboard.pages.submit import submission
from support.plugin_packages import importable, write_package

TEXT = "name: tiny\nquestion: Is it imported?\n"
STUDIES = {
    "source": "base: {data: {source: 'traps:Thing'}}",
    "part": "base: {data: {source: combined, parts: {a: {source: 'traps:Thing'}}}}",
    "encoder": "base: {model: {encoder: 'traps:Thing'}}",
    "decoder": "base: {model: {decoder: {name: 'traps.deeper:Thing', width: 3}}}",
    "objective": "base: {objective: {name: 'traps:Thing', weight: 3}}",
    "axis": "axes: {model.encoder: [lite, 'traps:Thing']}",
    "axis of mappings": "axes: {model: [{num_experts: 2}, {decoder: 'traps:Thing'}]}",
    "search": "num_trials: 2\nobjectives: [{metric: test.kl}]\n"
    "space: {objective.name: {type: categorical, choices: [blend, 'traps:Thing']}}",
}


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    """The file that appears when `traps` is imported."""
    sprung = tmp_path / "sprung"
    write_package(tmp_path / "site", "traps", {"__init__": f"import pathlib; pathlib.Path({str(sprung)!r}).touch()"})
    with importable(tmp_path / "site", "traps"):
        yield sprung


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_what_is_not_allowed_is_refused_and_not_imported(
    trap: Path, study: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "submit", lambda *_, **__: pytest.fail("it was sent"))
    monkeypatch.setattr(sys, "argv", ["app.py", str(out)])
    for act in (submission.admitted, lambda text: submission.submit(text, "", "http://127.0.0.1:9")):
        with pytest.raises(PluginError, match=r"plug-in traps(\.deeper)?:Thing \(\w+\) is not allowed here"):
            act(TEXT + study)
    submission.check.clear()
    assert "is not allowed here" in submission.check(TEXT + study).wrong
    assert not trap.exists()


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_what_is_allowed_is_previewed_without_importing_it(
    trap: Path, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plugins.ALLOWED, "traps")
    submission.check.clear()
    checked = submission.check(TEXT + study)
    assert checked.name == "tiny"
    assert not trap.exists()
    with pytest.raises(PluginError):  # so the trap works
        plugins.load("encoder", "traps:Thing")
    assert trap.exists()


def test_a_root_of_a_plug_in_must_be_in_a_folder_that_is_allowed(trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.ALLOWED, "traps")
    monkeypatch.setenv(submission.ROOTS, "/data/drawings")
    text = TEXT + "base: {data: {source: 'traps:Thing', root: ROOT}}"
    assert submission.admitted(text.replace("ROOT", "/data/drawings/x")).name == "tiny"
    with pytest.raises(StudyError, match=r"data\.root: /etc is in none of the folders"):
        submission.admitted(text.replace("ROOT", "/etc"))


def test_the_page_says_so(open_page: Callable[..., AppTest], said: Callable[[AppTest], str], out: Path) -> None:
    submission.check.clear()
    at = open_page("submit", out, address="http://127.0.0.1:9")
    at = at.text_area[0].set_value(TEXT + STUDIES["objective"]).run()
    assert "plug-in traps:Thing (objective) is not allowed here" in said(at).replace("\\", "")
    assert at.button[0].disabled


def test_a_model_with_a_plug_in_is_not_loaded(trap: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
name: tiny
question: Is it loaded?
base:
  data: {source: synthetic, classes: [eye, pencil], train_per_class: 40, test_per_class: 10}
  model: {num_experts: 2, encoder: lite}
  training: {budget: 1 epochs}
"""
    run_study(parse_study(text), out, LocalExecutor(device="cpu"))
    [record] = read_trials(out, "tiny")
    monkeypatch.setenv(plugins.ALLOWED, "traps")
    tree = record.model_dump(mode="json")
    tree["spec"]["model"]["encoder"] = {"name": "traps:Thing", "width": 3}
    with pytest.raises(ResultsError, match="its encoder is the plug-in traps:Thing, and the dashboard imports none"):
        inference.model(type(record).model_validate(tree))
    assert not trap.exists()
