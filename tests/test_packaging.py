"""The wheel: only names that begin with smoe_ray, and all files; and the version that the program prints."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INSTALLED_AS = {
    "smoe_ray": "smoe_ray",
    "dashboard": "smoe_ray_dashboard",
    "k8s": "smoe_ray_k8s",
    "studies": "smoe_ray_studies",
}
"""Folder of the repository -> package of the wheel."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel, built in a copy of the repository: the build leaves files behind."""
    copy, built = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("wheel")
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, copy)
    for folder in INSTALLED_AS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, built], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [path] = built.iterdir()
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_top_level_names_of_the_wheel_all_begin_with_smoe_ray(wheel: set[str]) -> None:
    top = {name.partition("/")[0] for name in wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == set(INSTALLED_AS.values())


@pytest.mark.parametrize(("folder", "package"), INSTALLED_AS.items())
def test_every_file_of_the_folder_is_in_the_wheel(wheel: set[str], folder: str, package: str) -> None:
    files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    expected = {f"{package}/{path.relative_to(ROOT / folder).as_posix()}" for path in files}
    assert len(expected) >= 8
    assert {name for name in wheel if name.startswith(f"{package}/")} == expected


def test_the_version_is_that_of_the_project(smoe_ray: Callable[..., tuple[int, str, str]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert smoe_ray("--version") == (0, f"smoe-ray {project['version']}\n", "")
