"""What `--json` prints: one document of the documented fields, which the Python API gives as well."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import smoe_ray as api
from smoe_ray.cluster.jobs import ListedJob
from support.planted_folder import plant

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "export.md"
STUDY = """\
kind: grid
name: tiny
question: Does it run?
base: {data: {source: synthetic, train_per_class: 20, test_per_class: 5}, model: {encoder: lite}}
axes: {model.num_experts: [2, 4]}
"""


def documented_fields(command: str) -> set[str]:
    """Fields in the row of docs/export.md about a command."""
    [row] = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `smoe-ray {command} ")]
    return set(re.findall(r"`(\w+)`", row.split(" | ")[2]))


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


@pytest.fixture
def read(smoe_ray: Run) -> Callable[..., Any]:
    """The document that a command prints."""

    def document(*arguments: object, code: int = 0) -> Any:
        ended, printed, error = smoe_ray(*arguments, "--json")
        assert ended == code, error
        return json.loads(printed, parse_constant=no_constant)

    return document


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    plant(out, "demo", objectives=("likelihood",), seeds=2, embeddings=False, ends=[{"status": "failed"}])
    surface = {"experts": (2, 4, 8, 16), "per_class": (50, 200, 800), "seeds": 2}
    plant(out, "surface", objectives=("likelihood",), embeddings=False, **surface)  # type: ignore[arg-type]
    return out


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY)
    return file


def test_check(read: Callable[..., Any], study: Path) -> None:
    said = read("check", study)
    assert set(said) == documented_fields("check")
    assert (said["study"], said["kind"], said["trials"]) == ("tiny", "grid", 2)
    assert said["image_shapes"] == [[1, 28, 28]]
    assert said["params_total"][0] < said["params_total"][1]
    assert api.as_json(api.preview(api.load_study(study))).items() <= said.items()


def test_check_says_what_is_absent_and_fails(read: Callable[..., Any], study: Path) -> None:
    said = read("check", study, "--set", "base.data={source: quickdraw, root: /absent}", code=1)
    assert {need["state"] for need in said["needs"]} == {"absent"}
    assert said["train_images"] is None or said["train_images"][0] > 0


def test_status(read: Callable[..., Any], planted: Path) -> None:
    said = read("status", "surface", "--out", planted)
    assert set(said) == documented_fields("status")
    assert (said["finished"], said["job"]) == (0, None)  # a plan of one trial, none of those planted
    assert api.as_json(api.study_status(str(planted), "surface")).items() <= said.items()


def test_status_without_a_plan_has_the_same_fields(read: Callable[..., Any], tmp_path: Path) -> None:
    plant(tmp_path, "demo", objectives=("blend",), experts=(4,), seeds=2, embeddings=False)
    (tmp_path / "demo" / "study.yaml").write_text("name: [")
    said = read("status", "demo", "--out", tmp_path)
    assert set(said) == documented_fields("status")
    assert (said["total"], said["finished"], said["running"]) == (None, 2, 0)


def test_table(read: Callable[..., Any], planted: Path) -> None:
    rows = read("table", planted, "demo")
    assert documented_fields("table") <= set(rows[0])
    assert [row["status"] for row in rows] == ["failed", *["finished"] * 3]
    assert all(isinstance(row["test.reconstruction"], float) for row in rows)
    assert all(row["test.kl"] is None for row in rows)  # not measured
    assert all(len(row["experts.usage"]) == row["experts.configured"] for row in rows)
    assert rows == api.as_json(api.trial_summary(api.read_results(planted, "demo")))


def test_recommend(read: Callable[..., Any], planted: Path) -> None:
    said = read("recommend", planted, "surface", "--samples", 1000)
    assert set(said) == documented_fields("recommend")
    [arm] = said["arms"]
    listed = re.search(r"Each of `arms` has(.*?)\. Take", PAGE.read_text(), re.DOTALL)
    assert listed is not None
    values = {"answer", "edge", "images", "steps", "active", "configured", "experts", "amounts"}
    assert set(arm) == set(re.findall(r"`(\w+)`", listed[1])) - values
    assert arm["amount"] == 1000
    assert arm["interval"][0] <= arm["best"] <= arm["interval"][1]
    assert arm["best"] in [row["experts"] for row in arm["table"]]
    assert {"low", "high", "chance"} <= set(arm["table"][0])


def test_a_recommendation_that_cannot_tell_has_no_best(read: Callable[..., Any], planted: Path) -> None:
    said = read("recommend", planted, "demo")
    assert said == api.as_json(api.recommend(api.read_results(planted, "demo")))
    [arm] = said["arms"]
    assert (arm["kind"], arm["best"], arm["table"]) == ("cannot tell", None, [])
    assert arm["missing"]["runs"] > 0


def test_figure(read: Callable[..., Any], planted: Path, tmp_path: Path) -> None:
    kinds = ("--kind", "training_curves")
    said = read("figure", planted, "demo", "--to", tmp_path, *kinds)
    assert set(said) == documented_fields("figure")
    assert said["drawn"] == {"training_curves": [f"{tmp_path}/demo-training-curves.{end}" for end in ("svg", "png")]}


def test_verify_lists_damage_and_fails(read: Callable[..., Any], out: Path) -> None:
    shutil.copytree(ROOT / "tests" / "golden" / "results", out)
    said = read("verify", out)
    assert set(said) == documented_fields("verify")
    assert said["problems"] == []
    assert said["counts"]["files"] > said["counts"]["trials"] > 0
    next(out.glob("*/trials/*/model.safetensors")).write_bytes(b"?")
    assert len(read("verify", out, code=1)["problems"]) == 1


def test_jobs() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    [said] = api.as_json([ListedJob(api.Job("tiny-1", "http://head:8265", "tiny", "out"), "running", moment, None)])
    assert set(said) == documented_fields("jobs")
    assert (said["job"]["id"], said["state"], said["ended_at"]) == ("tiny-1", "running", None)
    assert said["submitted_at"] == "2026-01-02T03:04:05+00:00"


def test_data_info(read: Callable[..., Any], study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMOE_RAY_CACHE", str(tmp_path / "cache"))
    [said] = read("data", "info", study, "--to", tmp_path / "sheet.png")
    assert set(said) == documented_fields("data info")
    assert (said["shape"], set(said["train"]), len(said["classes"])) == ([1, 28, 28], {20}, len(said["train"]))
    assert said["contact_sheet"] == str(tmp_path / "sheet.png")


def test_every_object_shows_itself_in_a_notebook(planted: Path, study: Path) -> None:
    results = api.read_results(planted, "demo")
    shown = [
        api.load_study(study),
        api.study_status(str(planted), "surface"),
        api.read_trials(planted, "demo")[0],
        api.recommend(results),
    ]
    for each, expected in zip(shown, ("Does it run?", "1 finished", "failed", "cannot tell"), strict=True):
        assert expected in each._repr_html_()  # type: ignore[union-attr]
    assert api.draw(results, "training_curves")._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(api.SmoeRayError, match="none of training_curves"):
        api.draw(results, "pie")


def test_html_is_escaped() -> None:
    study = api.GridStudy(name="tiny", question="<script>alert(1)</script>")
    assert "<script>" not in study._repr_html_()
