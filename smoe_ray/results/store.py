"""Atomic reads and writes of files below OUT, a local folder or a URI."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from smoe_ray.atomic_write import write_whole
from smoe_ray.bounded_read import RefusedReadError, open_regular, read_up_to
from smoe_ray.errors import DamagedError, ResultsError, StorageError
from smoe_ray.results.places import check_place

_MAX_DEPTH = 4  # OUT/<study>/trials/<trial_id>/checkpoint; also ends cycles of symbolic links
_MOST_BYTES = 64_000_000
"""Size limit of a file for which the caller gives none: a year of epochs."""
_CHUNK = 1 << 20


class FileVersion(NamedTuple):
    """Version of a file, from a listing."""

    tag: str
    """Changes whenever the file is written."""
    size: int
    """Bytes."""
    modified: datetime | None
    """UTC; None if the storage does not tell."""


class Store:
    """Whole files and folders below `out`; names are relative, with ``/`` between folders.

    `out` is a local path or any URI that fsspec knows (``file://``, ``s3://``, ``gs://``, ``memory://``). A local file
    is written to a temporary file, synced and renamed; an object is put in one request, which object stores apply
    atomically. Creating a Store accesses nothing.

    Raises:
        ResultsError: `out` is no path and no URI (`check_place`), or of a protocol that is not installed.
        StorageError: from every method: the storage cannot be read or written.
    """

    def __init__(self, out: str | Path) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.out = str(out)
        check_place(self.out)
        try:
            self._fs, root = url_to_fs(self.out)
        except (ImportError, ValueError) as error:  # no such protocol, or its package is not installed
            raise ResultsError(f"{self.out}: not a place for results: {_protocol_problem(self.out, error)}") from None
        self._root = str(root).rstrip("/")
        self.folder: Path | None = Path(root) if isinstance(self._fs, LocalFileSystem) else None
        """The local folder; None for any URI other than ``file://``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.out,)

    def path(self, name: str = "") -> str:
        """`name` with OUT before it, for messages."""
        return f"{self.out.rstrip('/')}/{name}" if name else self.out

    def refuse_file(self, advice: str) -> None:
        """Raise ResultsError, ending with `advice`, if the local folder, or one above it, is a file."""
        for place in (self.folder, *self.folder.parents) if self.folder is not None else ():
            if place.is_file():
                raise ResultsError(f"{self.out if place == self.folder else place}: is a file; {advice}")

    def write(self, name: str, content: bytes) -> None:
        """Write file `name`, replacing it atomically."""
        try:
            if self.folder is not None:
                write_whole(self.folder / name, content)
            else:
                self._fs.pipe_file(f"{self._root}/{name}", content)
        except Exception as error:  # fsspec backends raise errors of their own kinds
            raise StorageError(f"{self.path(name)}: cannot be written: {_reason(error)}") from error

    def read(self, name: str, most_bytes: int | None = None) -> bytes | None:
        """Content of file `name`; None if there is no such file.

        Args:
            name: a regular file: a FIFO would be waited for, a device has no end.
            most_bytes: size limit. By default 64 MB in a local folder and none behind a URI, where it costs a request.

        Raises:
            DamagedError: it is no regular file, or larger than `most_bytes`.
        """
        try:
            if self.folder is not None:
                return self._read_local(name, most_bytes or _MOST_BYTES)
            if most_bytes is not None:
                self._refuse_larger(name, int(self._fs.size(f"{self._root}/{name}") or 0), most_bytes)
            content: bytes = self._fs.cat_file(f"{self._root}/{name}")
            return content
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ResultsError:
            raise
        except Exception as error:
            raise StorageError(f"{self.path(name)}: cannot be read: {_reason(error)}") from error

    def digest(self, name: str) -> tuple[int, str] | None:
        """Size (bytes) and SHA-256 (hex) of file `name`, read in pieces; None if there is no such file."""
        total, digest = 0, hashlib.sha256()
        try:
            with self._open(name) as file:
                while piece := file.read(_CHUNK):
                    total += len(piece)
                    digest.update(piece)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ResultsError:
            raise
        except Exception as error:
            raise StorageError(f"{self.path(name)}: cannot be read: {_reason(error)}") from error
        return total, digest.hexdigest()

    def _open(self, name: str) -> Any:
        if self.folder is None:
            return self._fs.open(f"{self._root}/{name}", "rb")
        try:
            return open_regular(self.folder / name)
        except RefusedReadError as error:
            raise DamagedError(f"{self.path(name)}: is {error.strerror}") from None

    def _read_local(self, name: str, most_bytes: int) -> bytes:
        with self._open(name) as file:
            self._refuse_larger(name, os.fstat(file.fileno()).st_size, most_bytes)
            content = read_up_to(file, most_bytes)
        self._refuse_larger(name, len(content), most_bytes)  # it may grow
        return content

    def _refuse_larger(self, name: str, size: int, most_bytes: int) -> None:
        if size > most_bytes:
            raise DamagedError(f"{self.path(name)}: {size:,} bytes; files of more than {most_bytes:,} are not read")

    def folders(self, name: str = "") -> list[str]:
        """Names of the folders directly below `name`, sorted; none where there is no such folder."""
        try:
            if self.folder is not None:
                with os.scandir(self.folder / name) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir())
            entries = self._fs.ls(f"{self._root}/{name}".rstrip("/"), detail=True, refresh=True)
            return sorted(
                entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory"
            )
        except (FileNotFoundError, NotADirectoryError):
            return []
        except Exception as error:
            raise StorageError(f"{self.path(name)}: cannot be listed: {_reason(error)}") from error

    def read_many(self, names: Sequence[str]) -> dict[str, bytes | ResultsError]:
        """Contents of those of the files that are there, fetched together where the place is a remote one.

        A file that cannot be read has the error as its content.
        """
        if self.folder is not None:
            fetched: dict[str, Any] = {name: _outcome(self.read, name) for name in names}
        else:
            path_of = {name: f"{self._root}/{name}" for name in names}
            try:
                contents = self._fs.cat(list(path_of.values()), on_error="return") if names else {}
            except Exception as error:
                raise StorageError(f"{self.out}: cannot be read: {_reason(error)}") from error
            fetched = {name: contents.get(path) for name, path in path_of.items()}
        found: dict[str, bytes | ResultsError] = {}
        for name, content in fetched.items():
            if isinstance(content, bytes | ResultsError):
                found[name] = content
            elif isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                found[name] = StorageError(f"{self.path(name)}: cannot be read: {_reason(content)}")
        return found

    def files(self, name: str = "") -> dict[str, FileVersion]:
        """All files below folder `name`, in one listing; empty if there is no such folder."""
        try:
            if self.folder is not None:
                return dict(_local_files(self.folder / name, name, _MAX_DEPTH))
            below = self._fs.find(f"{self._root}/{name}".rstrip("/"), detail=True, refresh=True)
            return {path[len(self._root) + 1 :]: _remote_version(info) for path, info in below.items()}
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise StorageError(f"{self.path(name)}: cannot be listed: {_reason(error)}") from error

    def modified(self, name: str) -> datetime | None:
        """When file `name` was last written, UTC; None if there is no such file."""
        try:
            if self.folder is not None:
                return datetime.fromtimestamp((self.folder / name).stat().st_mtime, UTC)
            moment: datetime = self._fs.modified(f"{self._root}/{name}")
            return moment.astimezone(UTC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:
            raise StorageError(f"{self.path(name)}: cannot be read: {_reason(error)}") from error

    def rename(self, name: str, to: str) -> None:
        """Give folder `name` the name `to`. Behind a URI its files are copied, then deleted."""
        try:
            if self.folder is not None:
                (self.folder / name).rename(self.folder / to)
            else:
                source = f"{self._root}/{name}"
                below = list(self._fs.find(source, refresh=True))  # `mv` would trust a listing of before
                for path in below:
                    self._fs.cp_file(path, f"{self._root}/{to}{path[len(source) :]}")
                self._fs.rm(below)
        except Exception as error:
            raise StorageError(f"{self.path(name)}: cannot be renamed: {_reason(error)}") from error

    def remove(self, name: str) -> None:
        """Delete folder `name` and its content, if it exists."""
        try:
            if self.folder is not None:
                shutil.rmtree(self.folder / name)
            else:
                self._fs.rm(f"{self._root}/{name}", recursive=True)
        except FileNotFoundError:
            return
        except Exception as error:
            raise StorageError(f"{self.path(name)}: cannot be deleted: {_reason(error)}") from error


def _outcome(read: Callable[[str], bytes | None], name: str) -> bytes | ResultsError | None:
    try:
        return read(name)
    except ResultsError as error:
        return error


def _local_files(folder: Path | str, name: str, depth: int) -> Iterator[tuple[str, FileVersion]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                below = f"{name}/{entry.name}" if name else entry.name
                if entry.is_dir():
                    if depth:
                        yield from _local_files(entry.path, below, depth - 1)
                    continue
                with suppress(FileNotFoundError):  # replaced or removed meanwhile
                    state = entry.stat()
                    tag = f"{state.st_mtime_ns:x}-{state.st_size:x}-{state.st_ino:x}"
                    yield below, FileVersion(tag, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))
    except (FileNotFoundError, NotADirectoryError):
        return


def _remote_version(info: Mapping[str, Any]) -> FileVersion:
    """Version of a file from fsspec's info, whose keys, except name and size, differ between backends."""
    from fsspec.utils import tokenize

    modified = info.get("LastModified") or info.get("mtime") or info.get("updated") or info.get("created")
    if isinstance(modified, float):
        modified = datetime.fromtimestamp(modified, UTC)
    if isinstance(modified, str):
        modified = datetime.fromisoformat(modified)
    if isinstance(modified, datetime):
        modified = modified.astimezone(UTC) if modified.tzinfo else modified.replace(tzinfo=UTC)
    else:
        modified = None
    return FileVersion(tokenize(info), int(info["size"] or 0), modified)


def _protocol_problem(out: str, error: Exception) -> str:
    protocol = out.partition("://")[0]
    if isinstance(error, ImportError):
        return f"the package for {protocol}:// is not installed ({' '.join(str(error).split())})"
    return f"{protocol}:// is no protocol that is known here; use s3://, gs://, file:// or a folder"


def _reason(error: Exception) -> str:
    """Why storage refused, in a few words: of S3 the status, the code and the request, e.g. 403 AccessDenied for
    PutObject.
    """
    refused = error if hasattr(error, "response") else error.__cause__  # s3fs translates what botocore raised
    response = getattr(refused, "response", None)
    if isinstance(response, Mapping) and "Error" in response:
        status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        problem = response["Error"]
        code = str(problem.get("Code", ""))
        request = getattr(refused, "operation_name", "a request")
        # Without a body, the code is the status, and the message its name.
        return f"{status} {problem.get('Message', '') if code == status else code} for {request}".strip()
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
