"""The command as a user types it: what it prints, what it leaves, and one line for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from smoe_ray.errors import ResultsError
from support.planted_folder import plant

STUDY = """
kind: grid
name: tiny
question: Does the command work?
base:
  data: {source: synthetic, classes: [eye, pencil], train_per_class: 40, test_per_class: 10}
  model: {num_experts: 2, encoder: lite}
  training: {budget: 2 epochs, batch_size: 16}
axes:
  objective.name: [blend, likelihood]
seeds: [0]
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(STUDY)
    return path


def test_a_study_from_check_to_figure(smoe_ray, study: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "out", tmp_path / "figures"
    code, printed, _ = smoe_ray("check", study)
    assert code == 0
    assert "2 = 2 configurations x 1 seed" in printed
    assert "1 seeds" not in printed
    assert "data              100 synthetic sketches: generated, no files needed" in printed
    assert not out.exists()

    code, printed, progress = smoe_ray(
        "run", study, "--out", out, "--executor", "local", "--jobs", 1, "--device", "cpu"
    )
    assert code == 0, progress
    assert "blend" in printed
    assert "likelihood" in printed

    assert "  best       test loss " in smoe_ray("status", "tiny", "--out", out)[1]

    code, printed, _ = smoe_ray("table", out, "tiny", "--json")
    trials = json.loads(printed)
    assert [trial["epoch"] for trial in trials] == [2, 2]
    assert {trial["config.objective.name"] for trial in trials} == {"blend", "likelihood"}

    code, printed, _ = smoe_ray("table", out, "tiny", "--epochs")
    heading, *rows = printed.splitlines()
    assert heading.split()[:4] == ["arm", "seed", "status", "epoch"]
    assert " gap " in heading
    assert [(row.split()[0], row.split()[3]) for row in rows] == [
        (arm, epoch) for arm in ("blend", "likelihood") for epoch in ("1", "2")
    ]

    (tmp_path / "tiny.csv").write_text(smoe_ray("table", out, study, "--csv", "--epochs")[1])
    assert len(pd.read_csv(tmp_path / "tiny.csv")) == 4

    code, printed, _ = smoe_ray("figure", out, "tiny", "--kind", "training_curves", "--to", figures)
    assert code == 0
    assert printed.split() == [str(figures / f"tiny-training-curves.{ending}") for ending in ("svg", "png")]
    assert all(Path(path).stat().st_size > 5000 for path in printed.split())


def test_running_again_trains_nothing(smoe_ray, study: Path, tmp_path: Path) -> None:
    arguments = ("run", study, "--out", tmp_path / "out", "--executor", "local", "--jobs", 0, "--device", "cpu")
    first = smoe_ray(*arguments)
    second = smoe_ray(*arguments)
    assert first[0] == second[0] == 0
    assert first[1] == second[1]
    assert "2 trials, 2 of them done before" in second[2]


def test_a_trial_that_diverges_is_reported_and_the_others_stand(smoe_ray, study: Path, tmp_path: Path) -> None:
    code, printed, error = smoe_ray(
        "run", study, "--out", tmp_path / "out", "--executor", "local", "--jobs", 0, "--device", "cpu",
        "--set", "axes.training.learning_rate=[1e-3, 1e+30]", "--set", "axes.objective.name=[blend]",
    )  # fmt: skip
    assert code == 1
    assert "finished" in printed
    assert "failed" in printed
    assert error.splitlines()[-1].startswith("smoe-ray: 1 of 2 trials failed, the first (")
    assert "the loss diverged in epoch" in error.splitlines()[-1]

    code, printed, _ = smoe_ray(
        "run", study, "--out", tmp_path / "out", "--executor", "local", "--jobs", 0, "--device", "cpu", "--no-strict",
        "--set", "axes.training.learning_rate=[1e-3, 1e+30]", "--set", "axes.objective.name=[blend]",
    )  # fmt: skip
    assert code == 0
    assert printed.splitlines()[-1].startswith("1 of 2 trials diverged, the first (")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("check", "absent.yaml"), "absent.yaml: no such study file"),
        (("check", "{study}", "--set", "model.num_expert=3"), "base.model.num_expert: unknown key (value 3); did you"),
        (("check", "{study}", "--set", "model.num_experts=0"), "base.model.num_experts: must be at least 1 (value 0)"),
        (("check", "{study}", "--set", "sdeeds=[1]"), "unknown key 'sdeeds'; did you mean 'seeds'?"),
        (("check", "{study}", "--set", "routing=supervised", "--set", "model.num_experts=3"), "set model.num_experts"),
        (("check", "{study}", "--set", "data={source: quickdraw, root: /absent}"), "/absent/face.npz: absent (5 of 5"),
        (("run", "{study}", "--out", "/proc/absent", "--jobs", "1"), "/proc/absent: cannot be used: No such file"),
        (("run", "{study}", "--out", "{study}", "--executor", "local"), ".yaml: is a file; --out needs a folder"),
        (("run", "{study}", "--out", "{study}/a", "--executor", "local"), ".yaml: is a file; --out needs a folder"),
        (("run", "{study}", "--out", "{out}", "--executor", "local", "--device", "tpu9"), "'tpu9'"),
        (
            ("run", "{study}", "--out", "{out}", "--device", "cuda:1"),
            "--device cuda:1: is for --executor local; on ray",
        ),
        (("run", "{study}", "--out", "{out}", "--executor", "local", "--address", "auto"), "is for --executor ray"),
        (("table", "{out}", "tiny"), "out: no such folder; pass the folder given to 'smoe-ray run --out'"),
        (("status", "tiny", "--out", "{study}"), ".yaml: a file, not a folder of results"),
        (("table", "{out}", "tiny", "--csv", "--json"), "--csv and --json exclude one another"),
        (("report", "{out}", "--to", "{out}/report"), "no study found"),
        (("report", "{out}", "tiny", "--to", "{out}/report"), "no such folder"),
        (("recommend", "{out}", "tiny"), "no such folder"),
        (("figure", "{out}", "tiny", "--kind", "pie", "--to", "{out}"), "--kind pie: none of training_curves"),
        (("data", "info", "{study}", "--set", "data={source: images, root: /absent}"), "/absent"),
        (("check", "{study}", "--set", "data={source: images, root: /absent}"), "the folder that has them\n"),
        (("check", "{study}", "--set", "data={source: quickdraw, root: /absent}"), "run 'smoe-ray data fetch'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    smoe_ray, study: Path, tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    out = tmp_path / "out"
    filled = [argument.replace("{study}", str(study)).replace("{out}", str(out)) for argument in arguments]
    code, _, error = smoe_ray(*filled)
    assert code == 1
    assert error.count("\n") == 1, error
    assert error.startswith("smoe-ray: ")
    assert expected in error
    assert not out.exists()


def test_debug_shows_where_an_error_came_from(smoe_ray, study: Path) -> None:
    code, _, error = smoe_ray("check", study, "--set", "model.num_expert=3", "--debug")
    assert code == 1
    assert "Traceback (most recent call last)" in error


@pytest.mark.parametrize("verb", ["check", "run", "table", "figure", "report", "recommend", "data fetch", "data info"])
def test_help_shows_an_example(smoe_ray, verb: str) -> None:
    code, printed, _ = smoe_ray(*verb.split(), "--help")
    assert code == 0
    assert f"Example: smoe-ray {verb}" in " ".join(printed.split())


def test_a_closed_pipe_is_no_error(study: Path) -> None:
    command = f"{sys.executable} -m smoe_ray.cli check {study} | head -c 1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})
    assert ended.stderr == ""


def test_a_baseline_of_another_study_is_drawn_beside(smoe_ray, study: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "out", tmp_path / "figures"
    run = ("run", study, "--out", out, "--executor", "local", "--jobs", 0, "--device", "cpu", "--set", "axes={}")
    assert smoe_ray(*run)[0] == 0
    assert smoe_ray(*run, "--set", "name=baseline", "--set", "routing=supervised")[0] == 0
    drawn = {}
    for label, extra in (("alone", ()), ("beside", ("--with", "baseline"))):
        to = figures / label
        assert smoe_ray("figure", out, "tiny", "--kind", "loss_against_experts", "--to", to, *extra)[0] == 0
        drawn[label] = (to / "tiny-loss-against-experts.svg").read_text()
    assert len(drawn["beside"]) > len(drawn["alone"])
    assert smoe_ray("figure", out, "tiny", "--to", figures, "--with", "absent")[0] == 1


def test_a_study_file_names_its_results_even_when_it_needs_overrides(smoe_ray, study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace("source: synthetic, ", "source: images, "))  # no root: given by --set
    code, _, error = smoe_ray("table", tmp_path, study)
    assert code == 1
    assert "/tiny: no such study" in error


def test_a_run_has_a_report_and_a_recommendation(smoe_ray, study: Path, tmp_path: Path) -> None:
    out, to = tmp_path / "out", tmp_path / "report"
    run = ("run", study, "--out", out, "--executor", "local", "--jobs", 0, "--device", "cpu", "--set", "axes={}")
    assert smoe_ray(*run, "--set", "data.test_per_class=30")[0] == 0
    code, printed, progress = smoe_ray("report", out, study, "--to", to)
    assert code == 0, progress
    assert printed.strip() == str(to / "index.html")
    page = (to / "index.html").read_text()
    assert "Does the command work?" in page
    assert page.rstrip().endswith("</html>")
    for name in ("routing-styles", "map", "gallery", "swap-matrix"):
        assert len(list((to / "figures").glob(f"{name}-*.svg"))) == 1, name
    assert len(pd.read_csv(to / "tables" / "agreements.csv")) > 1  # against classes and against styles

    code, printed, _ = smoe_ray("recommend", out, "tiny", "--samples", 100)
    assert code == 0
    assert printed.startswith("At 100 training images the study cannot tell the best number of active experts")
    assert "optimizer steps" in smoe_ray("recommend", out, "tiny", "--steps", 50)[1]
    assert smoe_ray("recommend", out, "tiny", "--steps", 50, "--samples", 100)[0] == 1


def test_a_recommendation_is_a_sentence_and_a_table(smoe_ray, tmp_path: Path) -> None:
    plant(
        tmp_path, "surface", objectives=("likelihood",), experts=(2, 4, 8, 16), per_class=(50, 200, 800), seeds=2,
        embeddings=False,
    )  # fmt: skip
    code, printed, _ = smoe_ray("recommend", tmp_path, "surface", "--samples", 1000, "--experts", "configured")
    assert code == 0
    sentence, _, head, *rows = printed.splitlines()
    assert sentence.startswith("At 1,000 training images: ")
    assert "configured experts (95 %" in sentence
    assert head.split()[:3] == ["experts", "fitted", "loss"]
    assert any(row.split()[0].isdigit() for row in rows)
    assert any(row.startswith("fit: R²") for row in rows)


def test_help_lists_the_kinds_of_figures(smoe_ray) -> None:
    from smoe_ray.figures import FIGURES

    printed = smoe_ray("figure", "--help")[1]
    assert all(kind in printed for kind in FIGURES)


LEAVES = """
import atexit, sys
import {module}
from smoe_ray.cli import program
atexit.register(print, "as any other program")
sys.argv = ["smoe-ray", {arguments}]
program()
"""


@pytest.mark.parametrize(
    ("arguments", "code"), [("'--help'", 0), ("'table', '/nowhere', 'demo'", 1), ("'nonsense'", 2)]
)
def test_a_command_that_used_ray_leaves_at_once_with_its_code_and_all_it_said(arguments: str, code: int) -> None:
    ended = {}
    for module in ("json", "ray"):
        program = LEAVES.format(module=module, arguments=arguments)
        ended[module] = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended["ray"].returncode == ended["json"].returncode == code
    assert ended["json"].stdout == ended["ray"].stdout + "as any other program\n"
    assert ended["json"].stderr == ended["ray"].stderr != "" or code == 0


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda out: None, "no such folder"),
        (lambda out: (out / "trials").mkdir(parents=True), "is a study itself"),
        (lambda out: (out / "photos").mkdir(parents=True), "no study there"),
    ],
)
def test_a_place_that_is_none_of_results_gets_no_dashboard(smoe_ray, out: Path, make, problem: str) -> None:
    make(out)
    code, printed, error = smoe_ray("dashboard", out)
    assert (code, printed) == (1, "")
    assert error.startswith(f"smoe-ray: {out}: {problem}")
    assert error.count("\n") == 1


def test_a_dashboard_that_submits_may_start_before_there_are_results(out: Path) -> None:
    from smoe_ray_dashboard.serve import refuse

    refuse(str(out), may_be_absent=True)
    with pytest.raises(ResultsError, match="no such folder"):
        refuse(str(out))
    out.write_text("a file")
    with pytest.raises(ResultsError, match="no such folder"):
        refuse(str(out), may_be_absent=True)
