"""The probe of a trial: what its experts encode, as ``smoe-ray probe`` measured it. docs/probe.md describes the arrays.

    OUT/<study>/trials/<trial_id>/probe.npz    the arrays
    OUT/<study>/trials/<trial_id>/probe.json   written last: what they were measured on, their SHA-256, and its own

Nothing depends on these files: they can be deleted, and made again from the trial's weights and embeddings. The record
of a trial does not name them, so they are no damage where they are absent. A probe of other weights, or by another
version of the measurements, is refused: it is stale.

Shapes: B test images, E experts, H values of a hidden map, T targets, S starts, K best test images, Z latent, N
stimuli, I an image: (H, W), or (3, H, W) in colour.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from smoe_ray.errors import DamagedError, ResultsError
from smoe_ray.results.embeddings import load_arrays
from smoe_ray.results.read import trial_folder
from smoe_ray.results.record import FileDigest, TrialRecord
from smoe_ray.results.trial import WEIGHTS, Arrays, TrialFolder, is_sealed, sealed, to_npz
from smoe_ray.spec.messages import in_words

ARRAYS, RECORD = "probe.npz", "probe.json"

PROBE_VERSION = 1
"""Incremented whenever the same weights would give other arrays."""

MOST_HIDDEN = 256
"""Values of a hidden map that are kept at most, per expert and image."""

_MOST_BYTES_OF_RECORD = 1_000_000
_MOST = {"H": MOST_HIDDEN, "N": 20_000, "S": 256, "K": 256}
"""Of the sizes that a trial's record does not say."""

_SHAPES = {
    "label": "B", "expert": "B", "logit": "BE", "error": "BE", "hidden": "EBH",
    "stimulus_image": "NI", "stimulus_parameter": "N", "stimulus_value": "N", "stimulus_repeat": "N",
    "stimulus_logit": "NE", "stimulus_error": "NE",
    "data_image": "TEK", "data_value": "TEK",
    "exciting_image": "TESI", "exciting_value": "TES", "exciting_latent": "TEZ", "exciting_latent_value": "TE",
    "exciting_decoded": "TEI", "cross": "TEE",
}  # fmt: skip
_INDICES = {"label": "C", "expert": "E", "stimulus_parameter": "P", "data_image": "B"}
"""Integers, and the letter of what they count: classes, experts, parameters, test images."""

_ADVICE = "run 'smoe-ray probe' again, which makes it anew"


class StimulusParameter(BaseModel):
    """A parameter that the stimuli vary."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    unit: str


class ProbeRecord(BaseModel):
    """What a probe is of: ``probe.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    trial_id: str
    version: int
    """`PROBE_VERSION` of the program that measured."""
    smoe_ray: str
    """Version of that program."""
    weights_sha256: str
    """SHA-256 (hex) of the weights that were measured."""
    targets: tuple[str, ...]
    """What the exciting inputs maximise: names of the first axis of their arrays."""
    parameters: tuple[StimulusParameter, ...]
    """What ``stimulus_parameter`` counts."""
    hidden: str | None
    """What the hidden maps are, in words; None where the experts show none."""
    ink: str
    """Colours of the stimuli."""
    arrays: FileDigest
    """What ``probe.npz`` must be."""


class Probe(NamedTuple):
    """What was measured of a trial."""

    record: ProbeRecord
    arrays: Arrays


def write_probe(folder: TrialFolder, arrays: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, Any]) -> None:
    """Write a trial's probe: first the arrays, then the record, made of `facts`, that says what they must be.

    Raises:
        ResultsError: OUT cannot be written.
    """
    content = to_npz(arrays)
    record = ProbeRecord(trial_id=folder.trial_id, version=PROBE_VERSION, arrays=FileDigest.of(content), **facts)
    folder.store.write(f"{folder.name}/{ARRAYS}", content)
    folder.store.write(f"{folder.name}/{RECORD}", sealed(record.model_dump_json(indent=2).encode()))


def read_probe(out: str | Path, study: str, trial_id: str) -> Probe:
    """What ``smoe-ray probe`` measured of a trial.

    Raises:
        ResultsError: no such trial, it was not probed, or its probe is stale.
        DamagedError: a file of the probe was changed since it was written.
    """
    folder = trial_folder(out, study, trial_id)
    trial = folder.read_record()
    if trial is None:
        raise ResultsError(f"{folder.store.path(folder.name)}: no such trial in study '{study}'")
    return probe_of(folder, trial)


def probe_of(folder: TrialFolder, trial: TrialRecord) -> Probe:
    """`read_probe` of a trial whose record is known."""
    record = read_probe_record(folder)
    if record is None:
        raise ResultsError(
            f"{folder.store.path(folder.name)}/{RECORD}: no such file; 'smoe-ray probe' measures a finished trial"
        )
    if (reason := why_stale(record, folder, trial)) is not None:
        raise ResultsError(f"{folder.store.path(folder.name)}/{ARRAYS}: stale: {reason}; {_ADVICE}")
    content = folder.store.read(f"{folder.name}/{ARRAYS}", record.arrays.size)
    if content is None or FileDigest.of(content) != record.arrays:
        raise _broken(folder, ARRAYS, "missing" if content is None else "not what was written: its SHA-256 is another")
    try:
        arrays = load_arrays(content, 8 * _most_values(record, trial))
        _check(arrays, record, trial)
    except ValueError as error:
        raise _broken(folder, ARRAYS, str(error)) from None
    return Probe(record, arrays)


def read_probe_record(folder: TrialFolder) -> ProbeRecord | None:
    """``probe.json`` of a trial; None where it was not probed. Raises DamagedError."""
    limit = None if folder.store.folder is None else _MOST_BYTES_OF_RECORD  # behind a URI it costs a request
    content = folder.store.read(f"{folder.name}/{RECORD}", limit)
    if content is None:
        return None
    if not is_sealed(content):
        raise _broken(folder, RECORD, "not what was written: its last line is not its SHA-256")
    try:
        record = ProbeRecord.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise _broken(folder, RECORD, f"not a record of a probe: {where}: {in_words(problem)}") from None
    if record.trial_id != folder.trial_id:
        raise _broken(folder, RECORD, f"of trial {record.trial_id[:80]!r}")
    return record


def why_stale(record: ProbeRecord, folder: TrialFolder, trial: TrialRecord) -> str | None:
    """Why a probe is not of what the trial is now, in a few words; None if it is. Raises ResultsError."""
    if record.version != PROBE_VERSION:
        return f"smoe-ray {record.smoe_ray} measured otherwise"
    if record.weights_sha256 != weights_sha256(folder, trial):
        return "measured on other weights than the trial has now"
    return None


def is_current(folder: TrialFolder, trial: TrialRecord) -> bool:
    """Whether a trial has a whole probe of what it is now. Behind a URI, where reading is slow and the storage has
    checksums of its own, the arrays are known by their size. Raises ResultsError.
    """
    try:
        record = read_probe_record(folder)
    except DamagedError:
        return False
    if record is None or why_stale(record, folder, trial) is not None:
        return False
    if folder.store.folder is not None:
        return folder.digest(ARRAYS) == record.arrays
    listed = folder.store.files(folder.name).get(f"{folder.name}/{ARRAYS}")
    return listed is not None and listed.size == record.arrays.size


def weights_sha256(folder: TrialFolder, trial: TrialRecord) -> str | None:
    """SHA-256 (hex) of a trial's weights, of which records of earlier versions say nothing. Raises ResultsError."""
    recorded = trial.files.get(WEIGHTS) or folder.digest(WEIGHTS)
    return None if recorded is None else recorded.sha256


def _check(arrays: Arrays, record: ProbeRecord, trial: TrialRecord) -> None:
    """Raise ValueError for an array that is missing, or not of the type, shape and range that it must be of."""
    sizes = _sizes(record, trial)
    assert trial.data is not None
    for name, letters in _SHAPES.items():
        if name not in arrays:
            if name == "hidden" and record.hidden is None:
                continue
            raise ValueError(f"'{name}' is missing")
        array, axes = arrays[name], letters.removesuffix("I")
        image = () if letters == axes else _image(trial)
        for letter, size in zip(axes, array.shape, strict=False):
            if letter in _MOST and size <= _MOST[letter]:
                sizes.setdefault(letter, size)
        needed = (*(sizes.get(letter, -1) for letter in axes), *image)
        if array.shape != needed:
            raise ValueError(f"'{name}' has shape {array.shape}, not {_in_letters(letters, needed)}")
        kinds = "iu" if name in _INDICES or name in ("stimulus_repeat", "stimulus_image") else "f"
        if array.dtype.kind not in kinds:
            raise ValueError(f"'{name}' is of type {array.dtype}")
    counts = sizes | {"C": len(trial.data.class_names), "P": len(record.parameters)}
    for name, letter in _INDICES.items():
        array = arrays[name]
        if array.size and not 0 <= array.min() <= array.max() < counts[letter]:
            raise ValueError(f"'{name}' has {array.min()} to {array.max()}, not only 0 to {counts[letter] - 1}")


def _in_letters(letters: str, needed: tuple[int, ...]) -> str:
    return json.dumps([size if size >= 0 else letter for letter, size in zip(letters, needed, strict=False)])


def _sizes(record: ProbeRecord, trial: TrialRecord) -> dict[str, int]:
    """What the records say of the axes."""
    assert trial.data is not None
    model = trial.spec.model
    return {
        "B": trial.data.test_images,
        "E": model.num_experts,
        "Z": model.representation_dim,
        "T": len(record.targets),
    }


def _image(trial: TrialRecord) -> tuple[int, ...]:
    assert trial.data is not None
    channels, *size = trial.data.image_shape
    return (channels, *size) if channels > 1 else tuple(size)


def _most_values(record: ProbeRecord, trial: TrialRecord) -> int:
    """In all arrays together."""
    sizes = _sizes(record, trial) | _MOST | {"I": int(np.prod(_image(trial), dtype=object))}
    return sum(int(np.prod([sizes[letter] for letter in letters], dtype=object)) for letters in _SHAPES.values())


def _broken(folder: TrialFolder, file: str, problem: str) -> DamagedError:
    path = folder.store.path(f"{folder.name}/{file}")
    return DamagedError(f"{path}: damaged ({' '.join(problem.split())})", _ADVICE)
