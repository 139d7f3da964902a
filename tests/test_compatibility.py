"""What earlier versions wrote stays valid: trial ids, folders of results, and the numbers that a spec trains to.

`tests/golden/` was written by the version before the rooms of the package were rearranged.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from smoe_ray.planning import corners, plan_grid
from smoe_ray.results import TIMING_COLUMNS, read_results
from smoe_ray.spec import GridStudy, load_study, trial_id
from smoe_ray.study import LocalExecutor, run_study

GOLDEN = Path(__file__).parent / "golden"
REPOSITORY = Path(__file__).parents[1]
STUDIES = ["grid", "supervised", "search"]

CHANGED: set[str] = {
    "studies/paper/supervised.yaml",  # preset released_code: the authors' code weighs the cross-entropy with 200, not 1
}
"""Studies whose trial ids had to change, with the reason beside each."""

LATER = ["latent.configured", "latent.active", "latent.kl"]
"""Columns of the results that the stored version did not measure."""


def _ids(path: str) -> list[str]:
    study = load_study(REPOSITORY / path)
    trials = plan_grid(study) if isinstance(study, GridStudy) else [study.base, *corners(study)]
    return list(dict.fromkeys(trial_id(trial, "0" * 64) for trial in trials))


@pytest.mark.parametrize("path", json.loads((GOLDEN / "trial_ids.json").read_text()))
def test_trial_ids_stay(path: str) -> None:
    before = json.loads((GOLDEN / "trial_ids.json").read_text())[path]
    if path in CHANGED:
        assert len(_ids(path)) == len(before)
        assert not set(_ids(path)) & set(before)
    else:
        assert _ids(path) == before


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the stored folder; the studies' data root is relative to the working directory."""
    shutil.copytree(GOLDEN, tmp_path / "golden")
    monkeypatch.chdir(tmp_path / "golden")
    return tmp_path / "golden"


@pytest.mark.parametrize("name", STUDIES)
def test_a_stored_study_is_complete(stored: Path, name: str) -> None:
    study = load_study(stored / f"{name}.yaml")
    files = {path: path.read_bytes() for path in (stored / "results").rglob("*.safetensors")}
    records = run_study(study, stored / "results", LocalExecutor())
    assert {record.trial_id for record in records} == {
        path.name for path in (stored / "results" / study.name / "trials").iterdir()
    }
    assert all(path.read_bytes() == content for path, content in files.items())  # nothing was trained again


@pytest.mark.parametrize("name", STUDIES)
def test_a_spec_trains_to_the_stored_numbers(stored: Path, name: str) -> None:
    study = load_study(stored / f"{name}.yaml")
    before = read_results(stored / "results", study.name)
    run_study(study, stored / "again", LocalExecutor())
    again = read_results(stored / "again", study.name)
    assert before[LATER].isna().all(axis=None)
    assert again[LATER].notna().all(axis=None)
    columns = [column for column in before if column not in (*TIMING_COLUMNS, *LATER)]
    order = ["trial_id", "epoch"]
    pd.testing.assert_frame_equal(
        before[columns].sort_values(order, ignore_index=True),
        again[columns].sort_values(order, ignore_index=True),
        rtol=1e-4,
    )


@pytest.mark.parametrize("name", STUDIES)
def test_a_stored_study_can_be_read(smoe_ray, stored: Path, tmp_path: Path, name: str) -> None:
    study = load_study(stored / f"{name}.yaml").name
    code, out, _ = smoe_ray("table", "results", study)
    assert code == 0
    assert len(out.splitlines()) == 1 + len(list((stored / "results" / study / "trials").iterdir()))
    code, out, _ = smoe_ray("status", study, "--out", "results")
    assert (code, "finished" in out) == (0, True)
    code, _, err = smoe_ray("report", "results", study, "--to", tmp_path / "report")
    assert code == 0, err
