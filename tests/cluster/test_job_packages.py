"""Packages of plug-ins that travel with a job: what is sent, and that it is on a cluster what it is where installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import yaml

from smoe_ray import plugins
from smoe_ray.cluster import jobs
from smoe_ray.cluster.job_packages import digest_of, stage_packages
from smoe_ray.errors import PluginError
from smoe_ray.results import TIMING_COLUMNS, read_results, read_trials
from smoe_ray.spec import parse_study, trial_id
from smoe_ray.study import LocalExecutor, run_study
from support.plugin_packages import RINGS, importable, write_package
from support.ray_cluster import Head, ray_head

SOURCE = "ring_data.rings:Rings"
PROJECT = f"""
[project]
name = "ring-data"
version = "1.2"
[project.entry-points."smoe_ray.sources"]
rings = "{SOURCE}"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one package, and what should not travel."""
    folder = tmp_path / "project"
    package = write_package(folder, "ring_data", {"rings": RINGS})
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "rings.cpython-311.pyc").write_bytes(b"\0")
    (package / ".secret").write_text("password")
    write_package(folder, "tests", {"test_rings": ""})
    (folder / "pyproject.toml").write_text(PROJECT)
    return folder


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    (tmp_path / "staged").mkdir()
    return tmp_path / "staged"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_project_travels_with_its_metadata(project: Path, staged: Path) -> None:
    assert stage_packages([project], staged) == ["ring_data"]
    info = {f"ring_data-1.2.dist-info/{name}" for name in ("METADATA", "top_level.txt", "entry_points.txt")}
    assert files(staged) == {"ring_data/__init__.py", "ring_data/rings.py"} | info
    with importable(staged, "ring_data"):
        assert metadata.version("ring-data") == "1.2"
        assert plugins.full_name("source", "rings") == SOURCE
        assert plugins.is_allowed("source", SOURCE)


def test_it_is_the_same_plug_in_as_where_it_is_installed(project: Path, staged: Path, tmp_path: Path) -> None:
    write_package(tmp_path / "site", "ring_data", {"rings": RINGS}, "1.2", f"[smoe_ray.sources]\nrings = {SOURCE}\n")
    stage_packages([project], staged)
    trial = parse_study(study(SOURCE)).base
    ids = []
    for folder in (staged, tmp_path / "site"):
        with importable(folder, "ring_data"):
            ids.append(trial_id(trial, "0" * 64))
    assert ids[0] == ids[1]


def test_a_package_and_a_src_folder_travel_too(tmp_path: Path, staged: Path) -> None:
    package = write_package(tmp_path / "plain", "ring_data", {"rings": RINGS})
    write_package(tmp_path / "project" / "src", "other_data", {})
    assert stage_packages([package, tmp_path / "project"], staged) == ["ring_data", "other_data"]
    assert files(staged) == {"ring_data/__init__.py", "ring_data/rings.py", "other_data/__init__.py"}


def test_the_digest_follows_the_code(project: Path, tmp_path: Path) -> None:
    def digest(place: str) -> str:
        (tmp_path / place).mkdir()
        return digest_of(tmp_path / place, stage_packages([project], tmp_path / place))

    before = digest("a")
    assert digest("b") == before
    (project / "ring_data" / "rings.py").write_text(RINGS + "# edited\n")
    assert digest("c") != before
    assert digest_of(tmp_path, []) == ""


@pytest.mark.parametrize(
    ("name", "pyproject", "expected"),
    [
        ("json", "", "package 'json' would hide another module of that name"),
        ("smoe_ray", "", "package 'smoe_ray' would hide another module of that name"),
        ("tests", "", "no package there (a folder with __init__.py)"),
        ("ring_data", "[project]\nname = 'absent-anywhere'", "[project] needs a name and a version"),
        ("ring_data", "[project", "pyproject.toml: not readable ("),
    ],
)
def test_what_cannot_travel(tmp_path: Path, staged: Path, name: str, pyproject: str, expected: str) -> None:
    write_package(tmp_path / "project", name, {})
    if pyproject:
        (tmp_path / "project" / "pyproject.toml").write_text(pyproject)
    with pytest.raises(PluginError) as raised:
        stage_packages([tmp_path / "project"], staged)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_large_packages_are_refused(project: Path, staged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smoe_ray.cluster.job_packages.MAX_BYTES", 100)
    with pytest.raises(PluginError, match="100 may be sent, put data elsewhere"):
        stage_packages([project], staged)


# --- on a cluster -----------------------------------------------------------------------------------------------------


def study(source: str, name: str = "rings") -> str:
    base = {
        "data": {"source": source, "width": 3},
        "model": {"num_experts": 2, "encoder": "lite", "latent_dim": 4},
        "training": {"budget": "2 epochs", "batch_size": 16},
    }
    return yaml.safe_dump({"name": name, "question": "Does it travel?", "base": base})


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as started:
        yield started


@pytest.fixture
def cluster(head: Head, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    return head.address


@pytest.mark.slow
def test_a_study_runs_with_the_packages_that_were_sent(smoe_ray, cluster: str, project: Path, tmp_path: Path) -> None:
    path = tmp_path / "rings.yaml"
    path.write_text(study("rings"))  # the short name that the project registers
    out = tmp_path / "out"
    submit = ["submit", path, "--address", cluster, "--out", out, "--wait"]
    code, _, error = smoe_ray(*submit, "--with", project)
    assert code == 0, error
    assert "ring_data" not in sys.modules  # it was not imported here
    with importable(project, "ring_data"), plugins.allowing(["ring_data"]):
        here = parse_study(study(SOURCE))
        run_study(here, tmp_path / "here", LocalExecutor(device="cpu"))
    drop = [*TIMING_COLUMNS, "trial_id"]  # here it has no version
    pd.testing.assert_frame_equal(
        read_results(out, "rings").drop(columns=drop), read_results(tmp_path / "here", "rings").drop(columns=drop)
    )
    [record] = read_trials(out, "rings")
    assert record.versions.plugins[SOURCE].startswith("1.2, sha256 ")


@pytest.mark.slow
def test_without_its_package_or_permission_the_job_says_so(smoe_ray, cluster: str, tmp_path: Path) -> None:
    path = tmp_path / "rings.yaml"
    for source, expected in (
        (SOURCE, "is not allowed here: no installed package registers it in the entry points 'smoe_ray.sources'"),
        ("antigravity:Source", "plug-in antigravity:Source (source) is not allowed here"),
    ):
        path.write_text(study(source))
        code, _, error = smoe_ray("submit", path, "--address", cluster, "--out", tmp_path / "out", "--wait")
        assert code == 1
        assert expected in error.splitlines()[-1]
    assert jobs.list_jobs(cluster)
