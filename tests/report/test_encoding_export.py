"""Files of each expert of a probed trial: the numbers of the analyses, and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoe_ray.report.trial_encoding import TrialEncoding
from smoe_ray.results import read_trials
from smoe_ray.study.probe_run import ProbeTask, probe_trial
from support.planted_folder import plant
from support.quick_probe import few_steps


@pytest.fixture(params=[(1, 28, 28), (3, 16, 16)], ids=["grey", "colour"])
def probed(out: Path, request: pytest.FixtureRequest) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        few_steps(patch)
        [record] = plant(out, "images", objectives=["likelihood"], experts=[4], seeds=1, image_shape=request.param)
        assert probe_trial(ProbeTask(str(out), "images", record.trial_id)).error is None
    return out


def test_each_expert_has_its_numbers_and_its_images(
    probed: Path, tmp_path: Path, smoe_ray: Callable[..., tuple[int, str, str]]
) -> None:
    folder = tmp_path / "experts"
    code, printed, error = smoe_ray("probe", probed, "images", "--executor", "local", "--export", folder)
    assert (code, error) == (0, "")
    [place] = folder.iterdir()
    assert str(place) in printed
    assert {file.name for file in place.iterdir()} == {
        f"expert-{expert}.{ending}" for expert in range(4) for ending in ("json", "png")
    }
    [record] = read_trials(probed, "images")
    found = TrialEncoding(str(probed), record, "")
    for expert in range(4):
        said = json.loads((place / f"expert-{expert}.json").read_text())
        assert (said["trial_id"], said["expert"]) == (record.trial_id, expert)
        assert said["loss_without"] == pytest.approx(found.ablation.increase_E[expert])
        assert said["share"] == pytest.approx(np.mean(found.expert_B == expert))
        assert [each["name"] for each in said["classes"]] == list(found.class_names)
        assert [each["parameter"] for each in said["tuning"]] == [curves.parameter for curves in found.tuning.routing]
        curve = found.tuning.decoding[1].curves[expert]
        assert said["tuning"][1]["relative_precision"]["mean"] == pytest.approx(curve.mean_K)
        with Image.open(place / f"expert-{expert}.png") as picture:
            assert picture.mode == ("L" if record.data is not None and record.data.image_shape[0] == 1 else "RGB")
            assert np.asarray(picture).std() > 0


def test_what_is_no_folder_is_refused_before_anything_is_measured(
    out: Path, tmp_path: Path, smoe_ray: Callable[..., tuple[int, str, str]]
) -> None:
    plant(out, "images", objectives=["likelihood"], experts=[4], seeds=1)
    (tmp_path / "file").write_text("")
    for place, reason in (("file", "is a file; --export needs a folder"), ("s3://bucket", "a folder of this machine")):
        place = place if "://" in place else str(tmp_path / place)
        code, printed, error = smoe_ray("probe", out, "images", "--executor", "local", "--export", place)
        assert (code, printed, error.count("\n")) == (1, "", 1)
        assert reason in error
    assert not list(out.rglob("probe.npz"))


def test_a_folder_that_cannot_be_written_to_is_one_line(
    probed: Path, tmp_path: Path, smoe_ray: Callable[..., tuple[int, str, str]]
) -> None:
    [record] = read_trials(probed, "images")
    (tmp_path / record.trial_id).write_text("")
    code, _, error = smoe_ray("probe", probed, "images", "--executor", "local", "--export", tmp_path)
    assert code == 1
    assert error.count("\n") == 1
    assert "give another --export" in error
