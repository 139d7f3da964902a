"""What data a spec needs and whether it is there, without reading or fetching anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from smoe_ray.data.files import is_uri
from smoe_ray.spec import CombinedData, DataSpec, ImageData, QuickDrawData, SyntheticData


@dataclass(frozen=True)
class Need:
    """One file, folder or set of drawings that a spec needs."""

    what: str
    where: str
    state: Literal["present", "drawn", "remote", "download", "absent"]
    """present: on this machine; drawn: by this package; remote: at a URI, not looked at; download: absent, and will be
    fetched from Google's bucket; absent: absent, and nothing will fetch it."""
    size_bytes: int | None = None
    """None where not known."""


def describe(spec: DataSpec) -> tuple[Need, ...]:
    """What `spec` needs, in label order."""
    if isinstance(spec, SyntheticData):
        drawings = len(spec.classes) * (spec.train_per_class + spec.test_per_class)
        return (Need(f"{drawings:,} synthetic sketches", "drawn here", "drawn"),)
    if isinstance(spec, QuickDrawData):
        return tuple(_quickdraw_file(spec, name) for name in spec.classes)
    if isinstance(spec, CombinedData):
        return tuple(
            replace(need, what=f"{name}: {need.what}") for name, part in spec.parts.items() for need in describe(part)
        )
    return (_images(spec),)


def _quickdraw_file(spec: QuickDrawData, name: str) -> Need:
    from smoe_ray.data.quickdraw import SUFFIXES, download_folder

    file_name = f"{name}{SUFFIXES[spec.layout]}"
    if spec.root is not None and is_uri(spec.root):
        return Need(name, f"{spec.root.rstrip('/')}/{file_name}", "remote")
    place = (Path(spec.root).expanduser() if spec.root else download_folder()) / file_name
    downloaded = download_folder() / file_name
    for file in (place, downloaded) if spec.download else (place,):
        if file.is_file():
            return Need(name, str(file), "present", file.stat().st_size)
    return Need(name, str(downloaded), "download") if spec.download else Need(name, str(place), "absent")


def _images(spec: ImageData) -> Need:
    if is_uri(spec.root):
        return Need("images", spec.root, "remote")
    root = Path(spec.root).expanduser()
    if root.is_file():
        return Need("images", str(root), "present", root.stat().st_size)
    return Need("images", str(root), "present" if root.is_dir() else "absent")
