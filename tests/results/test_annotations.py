"""What is noted beside results: strict and bounded reading, writers that do not lose each other's words."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from smoe_ray.errors import DamagedError, ResultsError
from smoe_ray.results import Store
from smoe_ray.results.annotations import (
    MOST_BYTES,
    Annotation,
    Annotations,
    annotations_file,
    change_annotations,
    read_annotations,
)

NOTED = Annotations(
    study=Annotation(note="the paper's numbers"),
    trials={"0a1b2c3d4e5f": Annotation(tags=("keep", "ünïcode <b>"), star=True)},
    views={"small": {"filter": ("seed",), "is.seed": ("0", "1")}},
)


@pytest.fixture
def store(out: Path) -> Store:
    (out / "demo").mkdir(parents=True)
    return Store(out)


def test_what_is_written_is_read_and_nothing_is_no_file(store: Store) -> None:
    assert read_annotations(store, "demo") == Annotations()
    assert change_annotations(store, "demo", lambda _: NOTED) == NOTED
    assert read_annotations(store, "demo") == NOTED
    bare = change_annotations(store, "demo", lambda noted: noted.with_trials({"0a1b2c3d4e5f": Annotation()}))
    assert bare == NOTED.model_copy(update={"trials": {}})


def test_writers_at_the_same_time_lose_nothing(store: Store) -> None:
    def note(number: int) -> None:
        change_annotations(
            store, "demo", lambda noted: noted.with_trials({f"{number:012x}": Annotation(note=str(number))})
        )

    writers = [threading.Thread(target=note, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {int(noted.note) for noted in read_annotations(store, "demo").trials.values()} == set(range(8))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"studies": {}}',
        b'{"trials": {"a": {"star": 1}}}',
        b'{"trials": {"a": {"tags": ["' + 41 * b"x" + b'"]}}}',
        b" " * (MOST_BYTES + 1),
        b"{}" + b" " * MOST_BYTES,  # a mapping, and too long
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_one_line_and_is_not_written_over(store: Store, content: bytes) -> None:
    store.write(annotations_file("demo"), content)
    for act in (lambda: read_annotations(store, "demo"), lambda: change_annotations(store, "demo", lambda _: NOTED)):
        with pytest.raises(DamagedError) as caught:
            act()
        assert str(caught.value).count("\n") == 0
        assert "annotations.json" in str(caught.value)
    assert store.read(annotations_file("demo")) == content


def test_what_is_too_long_is_refused_and_what_was_there_stays(store: Store) -> None:
    change_annotations(store, "demo", lambda _: NOTED)
    long = {"0a1b2c3d4e5f": Annotation.model_construct(note=2001 * "x")}
    with pytest.raises(ResultsError, match=r"not saved: trials.*at most 2000 characters"):
        change_annotations(store, "demo", lambda noted: noted.with_trials(long))
    assert read_annotations(store, "demo") == NOTED


def test_where_files_cannot_be_locked_or_there_is_no_study_nothing_is_written(out: Path) -> None:
    with pytest.raises(ResultsError, match="leave out --annotate"):
        change_annotations(Store("memory://annotated"), "demo", lambda _: NOTED)
    with pytest.raises(ResultsError, match="no such study"):
        change_annotations(Store(out), "demo", lambda _: NOTED)
    assert not out.exists()
