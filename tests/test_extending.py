"""docs/extending.md and the example package: every block is executed, and the example keeps to its size."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from smoe_ray import plugins
from smoe_ray.results import TIMING_COLUMNS, read_results, read_trials
from smoe_ray.spec import DataSpec, PluginData, PluginDecoder, PluginEncoder, PluginObjective
from smoe_ray.testing.architectures import DecoderContract, EncoderContract
from smoe_ray.testing.objectives import ObjectiveContract
from smoe_ray.testing.sources import SourceContract
from support.plugin_packages import RINGS, importable, write_package
from support.ray_cluster import BIN, clean_environment, ray_head

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "plugin"


PAGE = ROOT / "docs" / "extending.md"
PLUGINS, CHANGES = PAGE.read_text().split("\n## A change to smoe-ray itself\n")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of the code blocks of a page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def follow(page: str, folder: Path, **environment: str) -> list[str]:
    """Write the files of a page, apply its diffs, run its commands in one shell; what each block of commands prints.

    `pip install` puts packages into a folder of the test's own, without dependencies, which are all there.
    """
    site = folder / "site-of-the-test"
    (folder / "bin-of-the-test").mkdir()
    pip = folder / "bin-of-the-test" / "pip"
    pip.write_text(
        "#!/bin/sh\nshift\n"
        f'exec {sys.executable} -m pip install --quiet --no-deps --no-build-isolation --target {site} "$@" 2> pip.log\n'
    )
    pip.chmod(0o755)
    script, printed = "set -e\n", []
    for language, text in blocks(page):
        name = re.match(r"# ([\w/.-]+)\n", text)
        if language == "bash":
            script += f"{text}\necho ---end-of-block---\n"
        elif language == "diff":
            script += f"git apply --recount - <<'END_OF_DIFF'\n{text}END_OF_DIFF\n"
        elif name:
            (folder / name[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / name[1]).write_text(text)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=clean_environment(
            PATH=f"{pip.parent}:{BIN}:{os.environ['PATH']}", PYTHONPATH=str(site), COLUMNS="200", **environment
        ),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    printed = done.stdout.split("---end-of-block---\n")
    return [*printed[:-1], done.stderr]


@pytest.mark.slow
def test_the_page_on_extending_tells_the_truth(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("")
    ran, installed, tested, errors = follow(PLUGINS, tmp_path)
    assert errors.count("plug-in my_routing.winner:Winner (objective) is not allowed here") == 1
    assert len(re.findall(r"runner_up=\S+ +0 +finished +2 ", ran)) == 2 * 2  # the run and the table
    assert "winner" in installed
    assert "passed" in tested
    assert {record.status for record in read_trials(tmp_path / "out", "winner")} == {"finished"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone of the repository as it is in the working tree, with smoe_ray installed from it as `follow` runs it."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "out"))
    git = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "as it is"]):
        subprocess.run([*git, *command], cwd=clone, check=True)
    (clone / ".git" / "info" / "exclude").write_text("*-of-the-test\n")
    site = clone / "site-of-the-test"
    site.mkdir()
    for name, source in {"smoe_ray": "smoe_ray", "smoe_ray_dashboard": "dashboard"}.items():
        (site / name).symlink_to(clone / source)
    return clone


@pytest.mark.slow
@pytest.mark.parametrize(
    ("addition", "files", "shown"),
    [
        ("A built-in objective", 2, r"1 +2 +[01][.]\d+ +winner"),
        ("A built-in architecture", 1, "finished"),
        ("A column of the results", 2, r"1 +2 +\[.*\] +0[.]\d+"),
        ("A page of the dashboard", 1, "Cost\n +seconds"),
    ],
)
def test_what_an_addition_to_smoe_ray_takes(addition: str, files: int, shown: str, checkout: Path) -> None:
    shared, *walks = CHANGES.split("\n### ")
    [walk] = [walk for walk in walks if walk.startswith(f"{addition}\n")]
    printed, _ = follow(shared + walk, checkout)
    assert re.search(r"^[1-9]\d* passed", printed, re.MULTILINE)
    assert re.search(shown, printed), printed
    [(_, said)] = [block for block in blocks(walk) if block[0] == "text"]
    assert printed.endswith(said)
    generated = {" M docs/metrics.md"}
    assert len(set(said.splitlines()) - generated) == files


@pytest.mark.slow
def test_the_readme_of_the_example_tells_the_truth(tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    subprocess.run(["cp", "-r", EXAMPLE, tmp_path / "examples" / "plugin"], check=True)
    with ray_head() as head:
        checked, table, _, _ = follow(
            (EXAMPLE / "README.md").read_text(),
            tmp_path,
            RAY_API_SERVER_ADDRESS=head.address,
            RAY_AUTH_TOKEN=head.token,
        )
    assert "2 = 2 configurations x 1 seed" in checked
    assert len(re.findall(r"temperature=\S+ +0 +finished +2 ", table)) == 3 * 2  # two runs and the table
    tables = [
        read_results(tmp_path / "out" / place, "rings").drop(columns=list(TIMING_COLUMNS))
        for place in ("local", "ray", "cluster")
    ]
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other)
    for place in ("local", "ray", "cluster"):
        for record in read_trials(tmp_path / "out" / place, "rings"):
            assert len(record.versions.plugins) == 3
            assert all(said.startswith("0.1.0, sha256 ") for said in record.versions.plugins.values())


@pytest.mark.parametrize("module", ["source", "encoder", "objective"])
def test_each_plug_in_of_the_example_is_short(module: str) -> None:
    assert len((EXAMPLE / "smoe_ray_example" / f"{module}.py").read_text().splitlines()) <= 30


# --- the contracts of plug-ins, on the example and a decoder ----------------------------------------------------------

DECODER = """
import math
from pydantic import BaseModel
from torch import nn


class Linear(nn.Sequential):
    class Spec(BaseModel):
        pass

    def __init__(self, spec, image_shape, latent_dim):
        super().__init__(nn.Linear(latent_dim, math.prod(image_shape)), nn.Sigmoid())
"""


@pytest.fixture(autouse=True)
def _example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(plugins.ALLOWED, "smoe_ray_example,layers,ring_data")
    write_package(tmp_path / "packages", "layers", {"of": DECODER})
    write_package(tmp_path / "packages", "ring_data", {"rings": RINGS})
    with importable(EXAMPLE, "smoe_ray_example"), importable(tmp_path / "packages", "layers", "ring_data"):
        yield


class TestRings(SourceContract):
    @pytest.fixture
    def data(self) -> DataSpec:
        return PluginData(source="smoe_ray_example.source:Rings", train_per_class=20, test_per_class=10)


class TestPerceptron(EncoderContract):
    @pytest.fixture
    def encoder(self) -> PluginEncoder:
        return PluginEncoder(name="smoe_ray_example.encoder:Perceptron", hidden=8)


class TestLinear(DecoderContract):
    @pytest.fixture
    def decoder(self) -> PluginDecoder:
        return PluginDecoder(name="layers.of:Linear")


class TestTempered(ObjectiveContract):
    @pytest.fixture(params=[1.0, 0.25])
    def objective(self, request: pytest.FixtureRequest) -> PluginObjective:
        return PluginObjective(name="smoe_ray_example.objective:Tempered", temperature=request.param)
