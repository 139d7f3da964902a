"""Files of the data room: the cache folder, content hashes, folders that are created atomically, and copies of URIs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from smoe_ray.atomic_write import write_whole
from smoe_ray.bounded_read import RefusedReadError, open_regular, read_bounded
from smoe_ray.errors import DataError, StorageError

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the total (0: not known)."""

Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
"""As the built-in `map`, results in order; may run in parallel, for instance on a cluster."""

_FILES_PER_STEP = 500  # between two reports of progress
_MOST_BYTES_OF_SUM = 65_536
_MOST_BYTES_OF_RECORDS = 1_000_000_000  # of this package's own making: some 200 bytes per file of a folder
_CLOCK_TICK_NS = 20_000_000
"""A file changed this recently may change again without another change time (kernels count in ticks of up to 10 ms)."""


def cache_folder() -> Path:
    """``$SMOE_RAY_CACHE``, or ``~/.cache/smoe-ray``."""
    configured = os.environ.get("SMOE_RAY_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "smoe-ray"


def one_line(error: BaseException) -> str:
    """Type and text of another library's exception on one line, to end a message with."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def is_uri(root: str) -> bool:
    """Whether fsspec, not the operating system, has to open `root`."""
    return "://" in root


def build_once(target: Path, build: Callable[[Path], None], is_whole: Callable[[Path], bool] = lambda _: True) -> None:
    """Create the folder `target` with `build(folder)`: atomically, and once even when several processes want it.

    A folder that is there but not `is_whole` is built again.
    """
    from filelock import FileLock

    if target.is_dir() and is_whole(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if target.is_dir() and is_whole(target):
            return
        if target.is_dir():  # a process that has mapped its files keeps them
            target.rename(target.parent / f".{target.name}-{uuid.uuid4().hex}")
        for left_by_a_killed_process in target.parent.glob(f".{target.name}-*"):
            shutil.rmtree(left_by_a_killed_process, ignore_errors=True)
        aside = target.parent / f".{target.name}-{uuid.uuid4().hex}"
        aside.mkdir()
        try:
            build(aside)
            aside.rename(target)
        except OSError:
            # Some network file systems have no locks: then the first process to rename wins, with the same content.
            if not target.is_dir():
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a regular file's content. Raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(path: Path, records: Path) -> str:
    """As `content_hashes` for one file, which must also agree with ``<file>.sha256`` if that exists.

    Raises:
        DataError: the file was downloaded and has changed since, or changed while it was read.
    """
    [digest] = content_hashes([path], records)
    path = path.resolve()
    expected = path.with_name(f"{path.name}.sha256")
    if expected.is_file() and _recorded(expected) != [digest.encode()]:
        raise DataError(f"{path}: its content changed since it was downloaded; delete it and {expected.name}")
    return digest


def _recorded(sha256_file: Path) -> list[bytes]:
    try:
        return read_bounded(sha256_file, _MOST_BYTES_OF_SUM).split()[:1]
    except RefusedReadError as error:
        raise DataError(f"{sha256_file}: {error.strerror}; a checksum was expected, remove it") from None


def content_hashes(paths: Sequence[Path], records: Path, progress: Progress | None = None) -> list[str]:
    """SHA-256 (hex) of the content of each file.

    A file is read again only if its device, inode, size, modification time or change time differ from the record.

    Args:
        paths: the files.
        records: folder that remembers hashes between runs, one file per folder of `paths`.
        progress: called with (what, done, total) while files are read.

    Raises:
        DataError: a file changed while it was read.
    """
    digests: dict[Path, str] = {}
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.absolute().parent, []).append(path)
    for folder, files in folders.items():
        record = records / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.json"
        known = _read_json(record) or {}
        added: dict[str, Any] = {}
        for file in files:
            state = _state(file)
            entry = known.get(file.name)
            if isinstance(entry, dict) and entry.get("state") == state and isinstance(entry.get("sha256"), str):
                digests[file] = entry["sha256"]
                continue
            digests[file] = sha256_of(file)
            if _state(file) != state:
                raise DataError(f"{file}: changed while it was read; run again when nothing writes to it")
            if time.time_ns() - max(state[-2:]) > _CLOCK_TICK_NS:
                added[file.name] = {"state": state, "sha256": digests[file]}
            if progress and len(digests) % _FILES_PER_STEP == 0:
                progress("checking files", len(digests), len(paths))
        if added:
            with suppress(OSError):  # nothing depends on it: a cache may be read-only
                records.mkdir(parents=True, exist_ok=True)
                write_whole(record, json.dumps(known | added).encode())
    return [digests[path] for path in paths]


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(read_bounded(path, _MOST_BYTES_OF_RECORDS))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def fetch_uri(uri: str, progress: Progress | None = None) -> Path | None:
    """A local copy of the file or folder at a URI (``s3://``, ``gs://``, ``file://`` …), refreshed when it changes.

    Returns:
        The copy in the download cache (for ``file://`` the original), or None if nothing exists there.

    Raises:
        DataError: the URI cannot be reached, or no library for its protocol is installed.
    """
    try:
        return _fetch_uri(uri, progress)
    except FileNotFoundError:
        return None
    except DataError:
        raise
    except Exception as error:  # every file system behind fsspec has exceptions of its own
        raise DataError(f"{uri}: cannot be read ({one_line(error)}); check data.root and your credentials") from None


def _fetch_uri(uri: str, progress: Progress | None) -> Path | None:
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    file_system, place = url_to_fs(uri)
    if isinstance(file_system, LocalFileSystem):
        return Path(place) if Path(place).exists() else None
    if file_system.isfile(place):
        parent = str(PurePosixPath(place).parent)
        found = {place: file_system.info(place)}
    else:
        parent = place
        found = file_system.find(place, detail=True)
    if not found:
        return None
    name_of = {remote: str(PurePosixPath(remote).relative_to(PurePosixPath(parent))) for remote in found}
    if any(".." in PurePosixPath(name).parts for name in name_of.values()):
        raise DataError(f"{uri}: holds a file name with '..'; rename it")

    # Keyed by what the file system reports of each file (size, time, ETag): changed files are fetched again.
    state = sorted(
        (name, sorted((str(key), str(value)) for key, value in found[r].items())) for r, name in name_of.items()
    )
    key = hashlib.sha256(json.dumps([uri, state]).encode()).hexdigest()[:32]
    copy = cache_folder() / "remote" / key

    def build(folder: Path) -> None:
        for done, (remote, name) in enumerate(name_of.items()):
            if progress:
                progress(f"fetching {uri}", done, len(name_of))
            local = folder / name
            local.parent.mkdir(parents=True, exist_ok=True)
            file_system.get_file(remote, str(local))
            size = found[remote].get("size")
            if size is not None and local.stat().st_size != size:
                raise DataError(f"{remote}: {local.stat().st_size:,} bytes arrived of {size:,}; try again")

    build_once(copy, build)
    return copy / name_of[place] if place in name_of else copy


def copy_from(uri: str, folder: Path, last: str) -> bool:
    """Copy the files of the folder at `uri` into `folder` and return True, or return False if it is not complete there.

    `last` is the file that `copy_to` writes last.

    Raises:
        StorageError: the URI cannot be reached.
    """
    from fsspec.core import url_to_fs

    try:
        file_system, place = url_to_fs(uri)
        if not file_system.exists(f"{place}/{last}"):
            return False
        for name in file_system.ls(place, detail=False):
            file_system.get_file(name, str(folder / PurePosixPath(name).name))
    except Exception as error:  # every file system behind fsspec has exceptions of its own
        raise StorageError(f"{uri}: prepared data cannot be read ({one_line(error)})") from None
    return True


def copy_to(uri: str, folder: Path, last: str, *, replace: bool = False) -> None:
    """Copy the files of `folder` to the folder at `uri`, the file `last` last: its presence marks a complete copy.

    Args:
        uri: the folder; one that is complete is left as it is.
        folder: the files.
        last: name of the last file.
        replace: copy them even so.

    Raises:
        StorageError: the URI cannot be reached.
    """
    from fsspec.core import url_to_fs

    try:
        file_system, place = url_to_fs(uri)
        if not replace and file_system.exists(f"{place}/{last}"):
            return
        for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
            file_system.put_file(str(path), f"{place}/{path.name}")
    except Exception as error:
        raise StorageError(f"{uri}: prepared data cannot be written ({one_line(error)})") from None
