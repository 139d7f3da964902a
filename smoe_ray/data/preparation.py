"""From a data spec to arrays: find the input, read it once, keep the result in the cache."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from smoe_ray.data.dataset import Splits
from smoe_ray.data.files import Map, Progress, build_once, copy_from, copy_to, one_line
from smoe_ray.data.prepared import META, Source, damaged_file, open_source, write_source
from smoe_ray.data.source import ReadContext, SourceReader
from smoe_ray.data.sources import source_reader
from smoe_ray.data.splits import split
from smoe_ray.errors import DataError
from smoe_ray.spec import DataSpec


def load_splits(spec: DataSpec, cache: Path, jobs: int | Map = 1, progress: Progress | None = None) -> Splits:
    """`prepare`, then `split`."""
    return split(prepare(spec, cache, jobs, progress), spec)


def prepare(
    spec: DataSpec,
    cache: Path,
    jobs: int | Map = 1,
    progress: Progress | None = None,
    mirror: str | None = None,
    reader: SourceReader[Any, Any] | None = None,
) -> Source:
    """Make sure that the whole source is in `cache`, and memory-map it.

    Its folder is named by a hash of everything that determines the arrays: the spec without `fraction` and `imbalance`,
    the content of the input files, and the code that reads them. The folder appears complete or not at all, and is
    built once even when several processes prepare the same source at the same time. One that is there already is
    compared with its checksums, once per machine as long as nothing writes to it; if it is damaged it is built again,
    and a note of the source says so.

    Args:
        spec: which data.
        cache: folder for prepared sources, created if absent. (Downloads are kept in `files.cache_folder()`.)
        jobs: number of processes, or a function that maps another over pieces of the work.
        progress: called with (what, done, total).
        mirror: URI of a folder shared between machines: a source that is there is copied instead of built, and one
            that is built here is copied there.
        reader: what finds and reads the data; None: the one that `spec.source` names.

    Raises:
        DataError: files are absent, damaged or not what the spec says.
        StorageError: the mirror cannot be reached.
    """
    reader = reader or source_reader(spec)
    context = ReadContext(cache / "hashes", jobs, progress, lambda part: load_splits(part, cache, jobs, progress))
    try:
        found = reader.find(spec, context)
        key = list(reader.key(spec, found, context))
        if not key:
            raise DataError(
                f"data.source '{spec.source}': nothing to read, so these data have no identity; set data.root"
            )
        name = f"prepared/{_cache_key(spec, reader, key)}"

        damaged: list[str] = []

        def is_whole(folder: Path, hashes: Path | None = cache / "hashes") -> bool:
            file = damaged_file(folder, hashes)
            if file is not None:
                damaged.append(file)
            return file is None

        def build(folder: Path) -> None:
            if mirror is not None and copy_from(f"{mirror}/{name}", folder, last=META):
                if is_whole(folder, hashes=None):
                    return
                for file in folder.iterdir():
                    file.unlink()
            content = reader.read(spec, found, context)
            if list(reader.key(spec, found, context)) != key:
                raise DataError(f"data.source '{spec.source}': files changed while they were read; run again")
            write_source(content, folder)

        folder = cache / name
        build_once(folder, build, is_whole)
        if mirror is not None:
            copy_to(f"{mirror}/{name}", folder, last=META, replace=bool(damaged))
    except OSError as error:
        problem = f"cannot be used: {error.strerror or one_line(error)}; check disk space and permissions"
        raise DataError(f"{error.filename or cache}: {problem}") from None
    source = open_source(folder)
    if not damaged:
        return source
    note = f"prepared data were damaged ({damaged[0]}) and have been made again"
    return replace(source, notes=(*source.notes, note))


def _cache_key(spec: DataSpec, reader: SourceReader[Any, Any], content: Sequence[str]) -> str:
    key = {
        "spec": {name: value for name, value in spec.identity().items() if name not in ("fraction", "imbalance")},
        "content": list(content),
        "code": _code_hashes(reader),
        # Another Pillow may draw, decode and resample differently.
        "pillow": version("pillow"),
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _code_hashes(reader: object) -> list[str]:
    # All code that may take part: a changed reader must not be answered with what the old one left in the cache.
    defined_in = inspect.getsourcefile(reader if inspect.ismodule(reader) or inspect.isclass(reader) else type(reader))
    own = {_file_hash(Path(defined_in))} if defined_in else set()
    return sorted(_hashes_of_readers() | own)


@cache  # the code of a process stays as it was imported, and a process may prepare thousands of times
def _hashes_of_readers() -> frozenset[str]:
    return frozenset(map(_file_hash, Path(__file__).parent.rglob("*.py")))


def _file_hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
