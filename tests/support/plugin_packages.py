"""Plug-in packages written by tests, as if they were installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from smoe_ray import plugins

RINGS = """
import numpy as np
from smoe_ray.data import Content, Dataset
from smoe_ray.spec import DataSpecBase


class Rings:
    class Spec(DataSpecBase):
        classes: tuple[str, ...] = ("small", "large")
        train_per_class: int = 40
        test_per_class: int = 10
        width: int = 2

    def read(self, spec, found, context):
        return Content(draw(spec, spec.train_per_class), draw(spec, spec.test_per_class), spec.classes)


def draw(spec, count):
    label_B = np.repeat(np.arange(len(spec.classes)), count)
    y, x = np.mgrid[:28, :28] - 13.5
    radius_B = 4 + 4 * label_B + np.arange(len(label_B)) % 3
    image_BHW = 255 * (np.abs(np.hypot(x, y) - radius_B[:, None, None]) < spec.width)
    return Dataset(image_BHW.astype(np.uint8), label_B)
"""
"""A module with a data source: `Rings`."""


def write_package(
    folder: Path, name: str, modules: Mapping[str, str], version: str = "", entry_points: str = ""
) -> Path:
    """A package with these modules (name without suffix -> source) in `folder`; with a version it is a distribution."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for module, source in {"__init__": "", **modules}.items():
        (folder / name / f"{module}.py").write_text(source)
    if version:
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "top_level.txt").write_text(f"{name}\n")
        (info / "entry_points.txt").write_text(entry_points)
    return folder / name


@contextmanager
def importable(folder: Path, *packages: str) -> Iterator[None]:
    """Packages of `folder` can be imported inside, and are forgotten afterwards."""
    before = dict(plugins._loaded)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        try:
            yield
        finally:
            plugins._loaded.clear()
            plugins._loaded.update(before)
            for module in [name for name in sys.modules if name.partition(".")[0] in packages]:
                del sys.modules[module]
