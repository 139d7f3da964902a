"""A user's packages in a job payload: ``smoe-ray submit --with DIR``.

They travel in the job's working directory, next to the study. Ray unpacks that on each node and puts it first on the
PYTHONPATH of the driver and of all workers, which is what ``py_modules`` would do, with one archive instead of several.
Metadata travels with them as with an installed distribution, so that version, entry points and hence trial ids are the
same on a cluster as where the package is installed.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from smoe_ray.bounded_read import read_bounded
from smoe_ray.errors import PluginError

MAX_BYTES = 20_000_000
"""Packages above this size are refused: code is small, and data have places of their own."""

_SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "*.egg-info")


def stage_packages(places: Iterable[str | Path], folder: Path) -> list[str]:
    """Copy the packages of some folders into `folder`, with the metadata of their projects.

    Args:
        places: each a package (a folder with ``__init__.py``), or a folder with packages in it or in its ``src``. Name,
            version and entry points are read from a ``pyproject.toml`` there.
        folder: where to, an existing folder.

    Returns:
        Names of the packages.

    Raises:
        PluginError: there is no package, its name would hide another module, or all are too large together.
    """
    names: list[str] = []
    for place in map(Path, places):
        packages = _packages_in(place)
        for package in packages:
            if package.name in sys.stdlib_module_names or package.name == "smoe_ray" or package.name in names:
                raise PluginError(f"--with {place}: package '{package.name}' would hide another module of that name")
            shutil.copytree(package, folder / package.name, ignore=_SKIPPED)
        names += [package.name for package in packages]
        if (place / "pyproject.toml").is_file():
            _write_metadata(place / "pyproject.toml", [package.name for package in packages], folder)
    size = sum(file.stat().st_size for file in _files(folder, names))
    if size > MAX_BYTES:
        raise PluginError(f"--with: packages of {size:,} bytes; {MAX_BYTES:,} may be sent, put data elsewhere")
    return names


@contextmanager
def short_names_of(folder: str | Path) -> Iterator[None]:
    """Inside, a study may use the short names that staged packages register; nothing is imported for that."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def digest_of(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 (hex) over names and content of the files of staged packages; empty where there are none."""
    digest = hashlib.sha256()
    files = _files(folder, names)
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest() if files else ""


def _files(folder: Path, names: Iterable[str]) -> list[Path]:
    return sorted(file for name in names for file in (folder / name).rglob("*") if file.is_file())


def _packages_in(place: Path) -> list[Path]:
    place = place.expanduser().absolute()
    if (place / "__init__.py").is_file():
        return [place]
    for folder in (place / "src", place):
        found = [file.parent for file in sorted(folder.glob("*/__init__.py")) if file.parent.name != "tests"]
        if found:
            return found
    raise PluginError(f"--with {place}: no package there (a folder with __init__.py)")


def _write_metadata(pyproject: Path, packages: list[str], folder: Path) -> None:
    """What an installed distribution says of itself."""
    try:
        project: dict[str, Any] = tomllib.loads(read_bounded(pyproject, MAX_BYTES).decode()).get("project", {})
    except (OSError, ValueError) as error:
        raise PluginError(f"--with: {pyproject}: not readable ({' '.join(str(error).split())})") from None
    name = project.get("name")
    version = project.get("version") or (_installed_version(name) if name else None)
    if not name or not version:
        raise PluginError(f"--with: {pyproject}: [project] needs a name and a version")
    info = folder / f"{str(name).replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "top_level.txt").write_text("".join(f"{package}\n" for package in packages), encoding="utf-8")
    groups: dict[str, dict[str, str]] = project.get("entry-points", {})
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{short} = {value}" for short, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
