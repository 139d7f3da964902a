"""Single bits flipped in every kind of file of an OUT and its cache: each is found and mended, or changes nothing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from smoe_ray.data.prepared import SUMS, parse_sums
from smoe_ray.errors import StudyError
from smoe_ray.inspect.integrity import scrub
from smoe_ray.results import Store, TrialFolder, read_embeddings, read_trials, read_weights
from smoe_ray.spec import parse_study
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.study.events import Notice
from smoe_ray.testing.toy_training import Toy, table, toy_grid

STUDY = toy_grid()
FILES = ("trial.json", "epochs.parquet", "model.safetensors", "embeddings.npz")
HARMLESS = ("hashes/*.json", "*.lock")
"""What was hashed before, of which an entry that does not fit is not used; locks are empty files."""


def flip(file: Path, chance: random.Random) -> str:
    """Flip one bit; returns which."""
    content = bytearray(file.read_bytes())
    position, bit = chance.randrange(len(content)), chance.randrange(8)
    content[position] ^= 1 << bit
    file.write_bytes(content)
    return f"{file}: bit {bit} of byte {position}"


def run(out: Path) -> list[str]:
    """Run the study; its notices."""
    events: list[Any] = []
    run_study(STUDY, out, LocalExecutor(fit=Toy()), on_event=events.append)
    return [event.text for event in events if isinstance(event, Notice)]


def content(out: Path) -> dict[str, Any]:
    """All numbers of the study."""
    arrays = {
        (record.trial_id, kind, name): array
        for record in read_trials(out, "toy")
        for kind, read in (("weights", read_weights), ("embeddings", read_embeddings))
        for name, array in read(out, "toy", record.trial_id).items()
    }
    return {"table": table(out, STUDY), **arrays}  # type: ignore[dict-item]


def assert_same(found: dict[str, Any], expected: dict[str, Any], what: object) -> None:
    pd.testing.assert_frame_equal(found["table"], expected["table"], check_exact=True, obj=str(what))
    assert found.keys() == expected.keys(), what
    assert all(np.array_equal(found[name], expected[name]) for name in expected if name != "table"), what


def flip_everywhere(out: Path, batch: int, chance: random.Random) -> tuple[list[str], list[str], list[str]]:
    """Flip a bit of one file per trial, of study.yaml, of the prepared data and of the hashes.

    Returns:
        What was flipped; parts of what `verify` must say; parts of what `run` must say.
    """
    trials = [record.trial_id for record in read_trials(out, "toy")]
    damaged = [out / "toy/trials" / trial / FILES[(batch + number) % 4] for number, trial in enumerate(trials)]
    prepared = sorted(file for file in (out / ".cache/data/prepared").glob("*/*") if file.stat().st_size)
    damaged.append(prepared[batch % len(prepared)])
    unused = sorted((out / ".cache/data").glob(HARMLESS[0]))
    flipped = [flip(file, chance) for file in (*damaged, chance.choice(unused), out / "toy/study.yaml")]
    found = [*(str(Path(*file.parts[-2:])) for file in damaged[:-1]), "damaged prepared data"]
    said = [*trials, "prepared data were damaged"]
    if not is_the_study(out / "toy/study.yaml"):  # else its checksum's own comment was hit
        found.append("toy/study.yaml")
        said.append("toy/study.yaml")
    return flipped, found, said


def is_the_study(file: Path) -> bool:
    try:
        return parse_study(file.read_text(errors="replace")) == STUDY
    except StudyError:
        return False


def check(out: Path, batches: range) -> int:
    """Flip, verify, run, verify; returns the number of flips."""
    assert not run(out)
    expected, chance, flips = content(out), random.Random(batches.start), 0
    for batch in batches:
        flipped, found, said = flip_everywhere(out, batch, chance)
        flips += len(flipped)
        problems = scrub(out).problems
        assert all(any(part in line for line in problems) for part in found), (flipped, problems)
        notices = run(out)
        assert all(any(part in line for line in notices) for part in said), (flipped, notices)
        assert_same(content(out), expected, flipped)
        assert not scrub(out).problems, flipped
    return flips


def test_flipped_bits_are_found_and_mended(out: Path) -> None:
    assert check(out, range(1, 6)) >= 30


def test_no_bit_of_the_sums_of_prepared_data_can_flip_unseen(out: Path) -> None:
    run(out)
    [file] = (out / ".cache/data/prepared").glob(f"*/{SUMS}")
    written = file.read_bytes()
    expected = parse_sums(written)
    for position in range(8 * len(written)):
        content = bytearray(written)
        content[position // 8] ^= 1 << position % 8
        try:
            found = parse_sums(bytes(content))
        except ValueError:
            continue
        assert found != expected, divmod(position, 8)  # another sum, or the sum of another file


@pytest.mark.slow
def test_500_flipped_bits_are_found_and_mended(out: Path) -> None:
    assert check(out, range(10, 82)) >= 500


def test_a_flipped_checkpoint_begins_again_and_ends_with_the_same_numbers(out: Path) -> None:
    run(out)
    expected, chance = content(out), random.Random(0)
    record = read_trials(out, "toy")[0]
    folder = TrialFolder(Store(out), "toy", record.trial_id)
    rows = folder.read_rows()[:2]
    for _ in range(10):  # as a kill after the second epoch leaves the trial
        folder.store.remove(folder.name)
        folder.write_epochs(rows)
        folder.write_checkpoint({"epoch": np.array(2), "weight": np.zeros(8)}, rows)
        folder.write_record(record.model_copy(update={"status": "running", "files": {}}))
        flipped = flip(out / folder.name / "checkpoint/state.safetensors", chance)
        assert any("state.safetensors: damaged" in line for line in scrub(out).problems), flipped
        notices = run(out)
        assert any("it is trained from the start" in line for line in notices), (flipped, notices)
        assert_same(content(out), expected, flipped)
        assert "trained from the start" in (folder.read_record() or record).notes[0]


def test_a_checkpoint_of_another_trial_is_refused_and_epochs_come_from_the_checkpoint(out: Path) -> None:
    run(out)
    expected = content(out)
    victim, other = (TrialFolder(Store(out), "toy", record.trial_id) for record in read_trials(out, "toy")[:2])
    record = victim.read_record()
    assert record is not None
    rows = other.read_rows()[:2]
    victim.store.remove(victim.name)
    other.write_checkpoint({"epoch": np.array(2), "weight": other.read_weights()["weight"]}, rows)
    (out / other.name / "checkpoint").rename(out / victim.name)
    (out / victim.name).rename(out / "moved")
    (out / victim.name).mkdir()
    (out / "moved").rename(out / victim.name / "checkpoint")
    victim.write_record(record.model_copy(update={"status": "running", "files": {}}))
    assert any("of another trial" in line for line in run(out))
    assert_same(content(out), expected, "swapped checkpoint")
