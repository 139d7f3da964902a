"""Probing a study's trials: what is measured, stored, read, resumed and refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smoe_ray.errors import DamagedError, ResultsError
from smoe_ray.inspect.integrity import scrub
from smoe_ray.results import Store, TrialFolder, TrialRecord, read_embeddings, read_probe, read_trials
from smoe_ray.results import probe as probe_files
from smoe_ray.results.trial import WEIGHTS, sealed, to_npz
from smoe_ray.study import LocalExecutor, probe_run
from smoe_ray.study.probe_run import ProbeTask, plan_probes, probe_trial
from smoe_ray.training.inference import load_model
from smoe_ray.training.probe import exciting
from support.planted_folder import plant
from support.quick_probe import few_steps

STUDY = "probed"


_few_steps = pytest.fixture(autouse=True)(lambda monkeypatch: few_steps(monkeypatch))


def planted(out: Path | str, **changes: Any) -> list[TrialRecord]:
    return plant(out, STUDY, objectives=["likelihood"], **{"experts": [3], "seeds": 1, **changes})


def probe(out: Path | str, trial_id: str) -> None:
    outcome = probe_trial(ProbeTask(str(out), STUDY, trial_id))
    assert outcome.error is None, outcome.error


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one trial, probed."""
    out = tmp_path_factory.mktemp("probed")
    with pytest.MonkeyPatch.context() as patch:
        few_steps(patch)
        probe(out, planted(out)[0].trial_id)
    return out


@pytest.fixture
def trial(done: Path, out: Path) -> TrialFolder:
    """A copy of it, to spoil."""
    store, [record] = Store(out), read_trials(done, STUDY)
    for name in Store(done).files(STUDY):
        store.write(name, Store(done).read(name) or b"")
    return TrialFolder(store, STUDY, record.trial_id)


def read(trial: TrialFolder) -> probe_files.Probe:
    return read_probe(trial.store.out, STUDY, trial.trial_id)


def rewrite(trial: TrialFolder, arrays: dict[str, Any] | None = None, **changes: Any) -> None:
    """The probe as a program would write it that measured something else."""
    before = read(trial)
    facts = before.record.model_dump(exclude={"trial_id", "version", "arrays"}) | changes
    probe_files.write_probe(trial, before.arrays | (arrays or {}), facts)


def test_responses_are_those_of_the_model(done: Path) -> None:
    [record] = read_trials(done, STUDY)
    found, kept = read_probe(done, STUDY, record.trial_id), read_embeddings(done, STUDY, record.trial_id)
    model = load_model(done, STUDY, record.trial_id)
    codes = model.encode(kept["image"])
    logit_BE = found.arrays["logit"]
    np.testing.assert_allclose(np.exp(logit_BE) / np.exp(logit_BE).sum(axis=1, keepdims=True), codes.gate_BE, atol=1e-5)
    assert np.array_equal(found.arrays["expert"], codes.expert_B)
    assert np.array_equal(found.arrays["label"], kept["label"])
    decoded_BEHW = model.decode_all(codes.mu_BZ)
    error_BE = ((decoded_BEHW - kept["image"][:, None] / 255) ** 2).sum(axis=(2, 3))
    np.testing.assert_allclose(found.arrays["error"], error_BE, rtol=1e-4)
    assert found.arrays["hidden"].shape == (3, 60, 256)


def test_best_images_and_the_cross_matrix_are_of_the_stored_values(done: Path) -> None:
    [record] = read_trials(done, STUDY)
    arrays = read_probe(done, STUDY, record.trial_id).arrays
    logit_BE, error_BE = arrays["logit"].astype(float), arrays["error"]
    for expert in range(3):
        others = [other for other in range(3) if other != expert]
        of_logit = logit_BE[:, expert] - np.log(np.exp(logit_BE[:, others]).sum(axis=1))
        of_advantage = error_BE[:, others].min(axis=1) - error_BE[:, expert]
        for target, value_B in enumerate((of_logit, of_advantage)):
            best = arrays["data_image"][target, expert]
            np.testing.assert_allclose(value_B[best], np.sort(value_B)[::-1][: len(best)], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(arrays["data_value"][target, expert], value_B[best], rtol=1e-3, atol=1e-4)
            highest = arrays["exciting_value"][target, expert].max()
            assert arrays["cross"][target, expert, expert] == pytest.approx(highest, rel=1e-4, abs=1e-3)


def test_what_is_measured_depends_on_the_seed_alone(trial: TrialFolder) -> None:
    before = read(trial)
    torch.manual_seed(1)
    np.random.seed(1)  # whatever a program has drawn before
    probe(trial.store.out, trial.trial_id)
    after = read(trial)
    assert after.record == before.record
    assert len({*before.arrays["exciting_value"][0, 0].tolist()}) == exciting.STARTS


def test_a_probe_is_resumed(out: Path, smoe_ray: Callable[..., tuple[int, str, str]]) -> None:
    records = planted(out, experts=[1, 3], seeds=2, ends=[{"status": "finished"}] * 2 + [{"status": "running"}])
    measured = records[3].trial_id
    command = ("probe", out, STUDY, "--executor", "local", "--jobs", 1)
    code, printed, error = smoe_ray(*command)
    assert (code, error.count("\n")) == (0, 3)
    assert f"left out: {records[0].trial_id} has a single expert" in error
    assert f"left out: {records[2].trial_id} has not finished (it is running)" in error
    assert printed.startswith(f"{measured} probed in ")
    assert smoe_ray(*command)[:2] == (0, "1 trial probed before; --force measures them again\n")
    assert [task.trial_id for task in plan_probes(str(out), STUDY, force=True).tasks] == [measured]


def test_other_weights_make_a_probe_stale(trial: TrialFolder) -> None:
    weights = trial.read_weights()
    trial.write_weights({name: array + 1 for name, array in weights.items()})
    with pytest.raises(ResultsError, match="stale: measured on other weights than the trial has now; run 'smoe-ray"):
        read(trial)
    assert scrub(trial.store.out).problems == []  # it is no damage
    assert len(plan_probes(trial.store.out, STUDY).tasks) == 1
    trial.write_weights(weights)
    assert plan_probes(trial.store.out, STUDY).tasks == []


def test_a_probe_of_another_version_is_stale(trial: TrialFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_files, "PROBE_VERSION", 2)
    with pytest.raises(ResultsError, match=r"stale: smoe-ray .* measured otherwise"):
        read(trial)
    assert len(plan_probes(trial.store.out, STUDY).tasks) == 1


@pytest.mark.parametrize("file", ["probe.npz", "probe.json"])
def test_a_changed_bit_is_found_and_measured_again(trial: TrialFolder, file: str) -> None:
    name = f"{trial.name}/{file}"
    content = bytearray(trial.store.read(name) or b"")
    content[len(content) // 2] ^= 4
    trial.store.write(name, bytes(content))
    with pytest.raises(DamagedError, match=rf"{file}: damaged \(.*\); run 'smoe-ray probe' again"):
        read(trial)
    found = scrub(trial.store.out, repair=True)
    assert len(found.problems) == 1
    assert found.repaired == []  # the trial is whole, and stays where it is
    assert len(plan_probes(trial.store.out, STUDY).tasks) == 1
    probe(trial.store.out, trial.trial_id)
    read(trial)
    assert scrub(trial.store.out).problems == []


@pytest.mark.parametrize(
    ("array", "change", "problem"),
    [
        ("logit", lambda array: array[:, :2], r"'logit' has shape \(60, 2\), not \[60, 3\]"),
        ("hidden", lambda array: array[:, :, 0], r"'hidden' has shape \(3, 60\), not \[3, 60, \"H\"\]"),
        ("hidden", lambda array: np.zeros((3, 60, 257), np.float16), r"not \[3, 60, \"H\"\]"),
        ("exciting_value", lambda array: array[:, :, :3], r"'exciting_value' has shape \(2, 3, 3\), not \[2, 3, 8\]"),
        ("stimulus_image", lambda array: array[:, :9], r"'stimulus_image' has shape"),
        ("cross", lambda array: array.astype(np.int64), "'cross' is of type int64"),
        ("expert", lambda array: array + 3, r"'expert' has \d to \d, not only 0 to 2"),
        ("data_image", lambda array: array - 60, "'data_image' has -60 to -"),
        ("label", lambda array: array.astype(str), "'label' is of type"),
    ],
)
def test_arrays_that_do_not_fit_the_trial_are_refused(
    trial: TrialFolder, array: str, change: Callable[[Any], Any], problem: str
) -> None:
    rewrite(trial, {array: change(read(trial).arrays[array])})
    with pytest.raises(DamagedError, match=problem):
        read(trial)


def test_a_missing_array_and_one_too_many_bytes_are_refused(
    trial: TrialFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(trial)
    facts = whole.record.model_dump(exclude={"trial_id", "version", "arrays"})
    probe_files.write_probe(trial, {n: a for n, a in whole.arrays.items() if n != "hidden"}, facts)
    with pytest.raises(DamagedError, match="'hidden' is missing"):
        read(trial)
    probe_files.write_probe(trial, {n: a for n, a in whole.arrays.items() if n != "hidden"}, facts | {"hidden": None})
    assert "hidden" not in read(trial).arrays
    monkeypatch.setitem(probe_files._MOST, "N", 1_000)
    monkeypatch.setitem(probe_files._MOST, "S", 8)
    probe_files.write_probe(trial, {**whole.arrays, "more": np.zeros(10**7, np.uint8)}, facts)
    with pytest.raises(DamagedError, match="bytes unpacked"):
        read(trial)


def test_the_record_is_read_strictly(trial: TrialFolder) -> None:
    name = f"{trial.name}/probe.json"
    record = json.loads(trial.store.read(name) or b"")
    record.pop("sha256")
    for change, problem in (
        ({"trial_id": "b" * 12}, "of trial 'bbbbbbbbbbbb'"),
        ({"arrays": None}, "not a record of a probe: arrays"),
    ):
        trial.store.write(name, sealed(json.dumps(record | change, indent=2).encode()))
        with pytest.raises(DamagedError, match=problem):
            read(trial)
    trial.store.write(name, json.dumps(record, indent=2).encode())
    with pytest.raises(DamagedError, match="its last line is not its SHA-256"):
        read(trial)
    (Path(trial.store.out) / name).unlink()
    with pytest.raises(ResultsError, match="no such file; 'smoe-ray probe' measures a finished trial"):
        read(trial)
    with pytest.raises(ResultsError, match="no such trial"):
        read_probe(trial.store.out, STUDY, "c" * 12)
    assert scrub(trial.store.out).problems == []  # arrays without a record: a probe that was killed


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ends": [{"status": "failed", "error": "no"}]}, "has not finished (it is failed)"),
        ({"experts": [1]}, "has a single expert"),
    ],
)
def test_a_study_without_a_trial_to_probe_is_one_line(
    out: Path, smoe_ray: Callable[..., tuple[int, str, str]], changes: dict[str, Any], problem: str
) -> None:
    [record] = planted(out, **changes)
    for chosen in ((), ("--trial", record.trial_id)):
        code, printed, error = smoe_ray("probe", out, STUDY, *chosen, "--executor", "local")
        assert (code, printed, error.count("\n")) == (1, "", 1)
        assert f"{record.trial_id} {problem}" in error


def test_what_cannot_be_probed_is_told_and_the_rest_is_done(
    out: Path, smoe_ray: Callable[..., tuple[int, str, str]]
) -> None:
    first, second, third = planted(out, seeds=3)
    folder = TrialFolder(Store(out), STUDY, first.trial_id)
    (out / folder.name / WEIGHTS).unlink()
    (out / STUDY / "trials" / third.trial_id / "trial.json").write_bytes(b"{")
    code, printed, error = smoe_ray("probe", out, STUDY, "--executor", "local", "--jobs", 1)
    assert (code, error.count("\n")) == (1, 3)
    assert error.splitlines()[0].startswith(f"left out: {third.trial_id} has no trial.json that can be read: ")
    assert error.splitlines()[1].startswith(f"not probed: {first.trial_id}: ")
    assert error.splitlines()[2] == "smoe-ray: 1 trial of 2 could not be probed; see above"
    assert printed.startswith(f"{second.trial_id} probed in ")
    code, _, error = smoe_ray("probe", out, STUDY, "--trial", "0" * 12, "--executor", "local")
    assert (code, error.count("\n")) == (1, 1)
    assert "no trial '000000000000'" in error
    assert smoe_ray("probe", out, STUDY, "--executor", "local", "--address", "auto", "--force")[0] == 1


def test_ctrl_c_keeps_what_is_done(
    out: Path, smoe_ray: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = planted(out, seeds=2)
    probe_first = probe_run._probe

    def interrupted(task: ProbeTask) -> str | None:
        if task.trial_id == second.trial_id:
            raise KeyboardInterrupt
        return probe_first(task)

    monkeypatch.setattr(probe_run, "_probe", interrupted)
    code, printed, error = smoe_ray("probe", out, STUDY, "--executor", "local", "--jobs", 1)
    assert (code, error.splitlines()[0]) == (
        130,
        "Interrupted. What was probed is kept: run the same command again to go on.",
    )
    assert printed.startswith(f"{first.trial_id} probed in ")
    assert [task.trial_id for task in plan_probes(str(out), STUDY).tasks] == [second.trial_id]


def test_a_probe_goes_to_where_the_results_are() -> None:
    out = "memory://probes/results"
    [record] = planted(out)
    probe(out, record.trial_id)
    assert read_probe(out, STUDY, record.trial_id).record.trial_id == record.trial_id
    assert plan_probes(out, STUDY).tasks == []


def test_images_in_colour_are_probed(out: Path) -> None:
    [record] = planted(out, image_shape=(3, 24, 24))
    probe(out, record.trial_id)
    found = read_probe(out, STUDY, record.trial_id)
    assert found.arrays["exciting_image"].shape == (2, 3, exciting.STARTS, 3, 24, 24)
    assert found.arrays["stimulus_image"].shape[1:] == (3, 24, 24)


def test_arrays_are_written_without_pickles() -> None:
    with pytest.raises(AssertionError, match="pickled"):
        to_npz({"x": np.array([object()])})


# --- several at a time ------------------------------------------------------------------------------------------------


def test_a_local_map_keeps_the_order_and_raises_what_the_function_raises() -> None:
    found = LocalExecutor(jobs=2).map(math.sqrt, [9.0, 4.0, -1.0])
    assert [next(found), next(found)] == [3, 2]
    with pytest.raises(ValueError, match="domain"):
        next(found)
