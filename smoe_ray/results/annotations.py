"""What people note on a study and its trials: ``OUT/<study>/annotations.json``, beside the results and no part of them.

Nothing that trains or analyses reads it, so a note never changes a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smoe_ray.errors import DamagedError, ResultsError, StorageError
from smoe_ray.results.locks import locked
from smoe_ray.results.store import Store

MOST_BYTES = 4_000_000
"""Size limit of the file."""
_LOCK_S = 10.0

Tag = Annotated[str, Field(min_length=1, max_length=40)]
ViewName = Annotated[str, Field(min_length=1, max_length=60)]
Values = Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=60)]
View = dict[Annotated[str, Field(max_length=100)], Values]
"""Selections of the page of trials, as its URL carries them."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Annotation(_Strict):
    """What is noted on one trial, or on the study."""

    tags: Annotated[tuple[Tag, ...], Field(max_length=20)] = ()
    note: str = Field(default="", max_length=2000)
    star: bool = False
    archived: bool = False


class Annotations(_Strict):
    """All that is noted on a study."""

    study: Annotation = Annotation()
    trials: dict[Annotated[str, Field(max_length=64)], Annotation] = {}
    """By trial_id; trials of which nothing is noted are not listed."""
    views: Annotated[dict[ViewName, View], Field(max_length=100)] = {}
    """Saved views, by name."""

    def of(self, trial_id: str) -> Annotation:
        """What is noted on a trial."""
        return self.trials.get(trial_id, Annotation())

    def with_trials(self, changed: Mapping[str, Annotation]) -> Annotations:
        """These with other annotations of some trials."""
        trials = {trial: noted for trial, noted in {**self.trials, **changed}.items() if noted != Annotation()}
        return self.model_copy(update={"trials": trials})


def annotations_file(study: str) -> str:
    """Name of the file below OUT."""
    return f"{study}/annotations.json"


def read_annotations(store: Store, study: str) -> Annotations:
    """What is noted on a study; nothing where there is no such file.

    Raises:
        DamagedError: the file is not what `change_annotations` writes, or too large.
        StorageError: it cannot be read.
    """
    name = annotations_file(study)
    content = store.read(name, MOST_BYTES)
    if content is None:
        return Annotations()
    try:
        return Annotations.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DamagedError(
            f"{store.path(name)}: damaged ({f'{where}: ' if where else ''}{first['msg']}); mend it, or delete it to "
            "begin anew"
        ) from None


def change_annotations(store: Store, study: str, change: Callable[[Annotations], Annotations]) -> Annotations:
    """Replace the annotations by what `change` makes of those in the file, while no other process does.

    Raises:
        ResultsError: OUT cannot be locked (`refuse_annotating`); there is no such study; what is noted is too long.
        DamagedError: what is in the file cannot be read; it is left as it is.
        StorageError: it cannot be written, or another process has held the lock for ten seconds.
    """
    refuse_annotating(store)
    if study not in store.folders():
        raise ResultsError(f"{store.path(study)}: no such study")
    with locked(store, f"{study}/.locks/annotations.lock", _LOCK_S) as held:
        if not held:
            raise StorageError(f"{store.path(annotations_file(study))}: another process is writing it; try again")
        changed = change(read_annotations(store, study))
        try:
            Annotations.model_validate(changed.model_dump())
        except ValidationError as error:
            first = error.errors()[0]
            raise ResultsError(f"not saved: {' '.join(map(str, first['loc']))}: {first['msg']}") from None
        content = changed.model_dump_json(indent=1, exclude_defaults=True).encode()
        if len(content) > MOST_BYTES:
            raise ResultsError(f"not saved: annotations of more than {MOST_BYTES:,} bytes; shorten notes")
        store.write(annotations_file(study), content)
    return changed


def refuse_annotating(store: Store) -> None:
    """Raise ResultsError where files cannot be locked: behind a URI."""
    if store.folder is None:
        raise ResultsError(
            f"{store.out}: cannot be annotated, as files behind a URI cannot be locked against a second writer; "
            "leave out --annotate"
        )
