"""From a data spec to arrays: find the files, read them once, keep the result in the cache."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from smoe_ray.data.dataset import Splits
from smoe_ray.data.files import Map, Progress, build_once, content_hash, copy_from, copy_to, one_line
from smoe_ray.data.source import META, Content, Source, open_source, write_source
from smoe_ray.data.splits import split
from smoe_ray.errors import DataError
from smoe_ray.spec import CombinedData, DataSpec, QuickDrawData, SyntheticData

Read = Callable[[], Content]


def load_splits(spec: DataSpec, cache: Path, jobs: int | Map = 1, progress: Progress | None = None) -> Splits:
    """`prepare`, then `split`."""
    return split(prepare(spec, cache, jobs, progress), spec)


def prepare(
    spec: DataSpec, cache: Path, jobs: int | Map = 1, progress: Progress | None = None, mirror: str | None = None
) -> Source:
    """Make sure that the whole source lies in `cache`, and memory-map it.

    Its folder is named by a hash of all that determines the arrays: the spec without `fraction` and `imbalance`, the
    content of the input files and the code that reads them. It appears whole or not at all, and is made once when
    several processes ask for it together.

    Args:
        spec: which data.
        cache: folder for prepared sources, made if absent. (Downloads lie in `files.cache_folder()`.)
        jobs: processes that may work on it, or what maps a function over pieces of the work.
        progress: called with (what, done, total).
        mirror: URI of a folder that other machines see: a source that is there is fetched, not made, and what is made
            is left there for them.

    Raises:
        DataError: files are absent, damaged or not what the spec asks for.
        StorageError: the mirror cannot be reached.
    """
    try:
        key, read = _reader(spec, cache, jobs, progress)
        name = f"prepared/{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]}"

        def build(aside: Path) -> None:
            if mirror is None or not copy_from(f"{mirror}/{name}", aside, last=META):
                write_source(read(), aside)

        folder = cache / name
        build_once(folder, build)
        if mirror is not None:
            copy_to(f"{mirror}/{name}", folder, last=META)
    except OSError as error:
        raise DataError(f"{error.filename or cache}: {one_line(error)}; check disk space and permissions") from None
    return open_source(folder)


def _reader(spec: DataSpec, cache: Path, jobs: int | Map, progress: Progress | None) -> tuple[dict[str, Any], Read]:
    """All that determines the arrays of a source, and the function that reads them."""
    identity = {name: value for name, value in spec.identity().items() if name not in ("fraction", "imbalance")}
    records = cache / "hashes"

    if isinstance(spec, SyntheticData):
        from smoe_ray.data import synthetic

        def draw() -> Content:
            train, test, style_names, parameter_names = synthetic.draw(spec)
            return Content(train, test, spec.classes, style_names, parameter_names)

        return {"spec": identity, "code": _code(synthetic)}, draw

    if isinstance(spec, QuickDrawData):
        from smoe_ray.data import quickdraw

        files = quickdraw.find_files(spec, progress)
        key = {"spec": identity, "code": _code(quickdraw), "files": [content_hash(file, records) for file in files]}
        return key, lambda: quickdraw.read(spec, files, jobs, progress)

    if isinstance(spec, CombinedData):
        from smoe_ray.data import combined

        parts = {name: load_splits(part, cache, jobs, progress) for name, part in spec.parts.items()}
        key = {"spec": identity, "code": _code(combined), "parts": [part.fingerprint for part in parts.values()]}
        return key, lambda: combined.concatenate(spec, parts)

    from smoe_ray.data import images

    root = images.find_root(spec, progress)
    key = {"spec": identity, "code": _code(images), "files": images.content_key(spec, root, records)}
    return key, lambda: images.read(spec, root, progress)


def _code(module: ModuleType) -> str:
    # A reader that changes must not be answered by what its predecessor left in the cache; nor must a new Pillow,
    # which may draw and resample differently.
    return f"{hashlib.sha256(inspect.getsource(module).encode()).hexdigest()} pillow {version('pillow')}"
