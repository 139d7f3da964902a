"""Locks between processes, which end with the process that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from smoe_ray.errors import StorageError
from smoe_ray.results.store import Store


@contextmanager
def locked(store: Store, name: str, timeout_s: float) -> Iterator[bool]:
    """Hold the lock file `name` below OUT. Yields False if another process still holds it after `timeout_s` (-1: wait
    forever).

    Behind a URI there are no locks: yields True.

    Raises:
        StorageError: the file cannot be made or locked.
    """
    import filelock

    root = store.folder
    if root is None:
        yield True
        return
    path = root / name
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout_s)
    except filelock.Timeout:
        yield False
        return
    except OSError as error:
        raise StorageError(f"{path}: cannot be locked: {error.strerror or error}") from error
    try:
        yield True
    finally:
        lock.release()
