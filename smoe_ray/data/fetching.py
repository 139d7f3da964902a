"""Downloads the published files that data need, into the download cache or another folder."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Literal

from smoe_ray.data.download import CATEGORIES, fetch, fetch_files
from smoe_ray.data.files import Progress
from smoe_ray.data.published_files import fetch_names, published_files
from smoe_ray.data.sources import named, quickdraw, requirements
from smoe_ray.errors import DataError
from smoe_ray.spec import (
    CLASS_PATTERN,
    Cifar100Data,
    CombinedData,
    DataSpec,
    EmnistData,
    MedMnistData,
    NamedData,
    NamedDataBase,
    QuickDrawData,
)
from smoe_ray.spec.named_data import EMNIST_CLASSES


def data_to_fetch(name: str, layout: Literal["sketchrnn", "bitmap", "ndjson"]) -> DataSpec:
    """The set or the Quick, Draw! category of this name.

    Args:
        name: ``mnist``, ``emnist/letters`` (whose archive has all splits), ``medmnist/pathmnist_64``, ``cat`` …
        layout: of a category.

    Raises:
        DataError: it is neither, as far as can be told without asking the server.
    """
    source, _, rest = name.partition("/")
    if name in fetch_names() and source == "medmnist":
        title, _, size = rest.partition("_")
        return MedMnistData.model_validate({"name": title, "size": int(size or 28)})
    if source == "emnist" and (not rest or rest in EMNIST_CLASSES):
        return EmnistData()
    if name in fetch_names():
        return Cifar100Data() if name == "cifar100" else NamedData.model_validate({"source": name})
    if source == "medmnist":
        small = [each.partition("/")[2] for each in fetch_names() if each.startswith("medmnist/") and "_" not in each]
        raise DataError(f"{name}: no such set; there are medmnist/{', '.join(small)}, each also as _64 and _128")
    near = difflib.get_close_matches(name.lower().replace("-", "_"), fetch_names(), n=1, cutoff=0.8)
    if near:
        raise DataError(f"{name}: no such set; did you mean '{near[0]}'?")
    if not re.fullmatch(CLASS_PATTERN, name):
        raise DataError(
            f"'{name}' is neither a set ({', '.join(fetch_names()[:7])}, medmnist/...) nor a category of "
            f"Quick, Draw!; {CATEGORIES}"
        )
    return QuickDrawData(classes=(name,), layout=layout)


def fetch_data(spec: DataSpec, to: Path | None, progress: Progress | None = None) -> tuple[Path, ...]:
    """Download the files of `spec` that are not there yet, whether or not it allows that.

    Args:
        spec: which data. Nothing is done for data that nobody publishes, that are where `root` says, or that would not
            be looked for in the download cache.
        to: folder; a set gets a folder of its own in it. None: the download cache.
        progress: called with (what, bytes done, total bytes).

    Returns:
        the files.

    Raises:
        DataError: a file cannot be downloaded, or is not the one that is documented.
    """
    if isinstance(spec, CombinedData):
        return tuple(file for part in spec.parts.values() for file in fetch_data(part, to, progress))
    if isinstance(spec, (QuickDrawData, NamedDataBase)) and spec.root is not None:
        is_there = all(need.state in ("present", "remote") for need in requirements(spec))
        if is_there or (to is None and not spec.download):
            return ()
    if isinstance(spec, QuickDrawData):
        return fetch(spec.classes, spec.layout, to or quickdraw.download_folder(), progress=progress)
    if isinstance(spec, NamedDataBase):
        folder = named.download_folder(spec) if to is None else to / spec.source
        return fetch_files(published_files(spec), folder, progress)
    return ()
