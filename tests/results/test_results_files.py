"""The results contract: what a trial's files hold, and the table made of them."""

from __future__ import annotations

import io
import math
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoe_ray.errors import ResultsError
from smoe_ray.results import (
    EPOCH_COLUMNS,
    DataFacts,
    Store,
    Timings,
    TrialFolder,
    TrialRecord,
    Versions,
    list_studies,
    read_embeddings,
    read_results,
    read_together,
    read_trials,
    read_weights,
)
from smoe_ray.results.record import now
from smoe_ray.spec import TrialSpec, trial_with
from support.planted_folder import plant


def record(trial_id: str, spec: TrialSpec | None = None, **changes: Any) -> TrialRecord:
    facts = DataFacts(fingerprint="f" * 64, train_images=70, test_images=30, class_names=("cat", "eye"))
    fields: dict[str, Any] = {
        "study": "demo",
        "trial_id": trial_id,
        "status": "finished",
        "spec": spec or TrialSpec(),
        "host": "here",
        "versions": Versions.here(),
        "timings": Timings(started_at=now()),
        "data": facts,
    }
    return TrialRecord(**(fields | changes))


def row(epoch: int, **measured: Any) -> dict[str, Any]:
    return {"epoch": epoch, "train.loss": 10.0 / epoch, "experts.configured": 2} | measured


def folder(out: Path | str, trial_id: str) -> TrialFolder:
    return TrialFolder(Store(out), "demo", trial_id)


def test_a_record_survives_writing_and_reading(tmp_path: Path) -> None:
    spec = trial_with(TrialSpec(), {"objective": {"name": "blend"}, "data.imbalance": {"weights": {"cat": 0.5}}})
    written = record("aaa", spec, status="failed", error="why", error_kind="DivergedError", traceback="a\nb")
    folder(tmp_path, "aaa").write_record(written)
    assert folder(tmp_path, "aaa").read_record() == written
    assert read_trials(tmp_path, "demo") == [written]


def test_a_record_with_keys_of_a_later_version_is_read(tmp_path: Path) -> None:
    text = record("aaa").model_dump_json().replace('"host":', '"colour":"red","host":')
    Store(tmp_path).write("demo/trials/aaa/trial.json", text.encode())
    assert read_trials(tmp_path, "demo") == [record("aaa", timings=read_trials(tmp_path, "demo")[0].timings)]


def test_the_table_has_the_columns_of_the_contract_in_its_order(tmp_path: Path) -> None:
    usage = [0.25, 0.75]
    folder(tmp_path, "aaa").write_record(record("aaa", TrialSpec(seed=7)))
    folder(tmp_path, "aaa").write_epochs([row(1), row(2, **{"experts.usage": usage, "experts.active": 2})])
    table = read_results(tmp_path, "demo")
    config = [name for name in table.columns if name.startswith("config.")]
    assert list(table.columns) == [
        *("study", "trial_id", "status", "seed", "epoch"),
        *config,
        *("data.train_images", "data.image_shape", "data.fingerprint"),
        *EPOCH_COLUMNS[1:],
    ]
    assert {"config.model.num_experts", "config.objective.name", "config.training.budget"} <= set(config)
    assert "config.seed" not in config
    assert list(table["epoch"]) == [1, 2]
    assert set(table["seed"]) == {7}
    assert set(table["data.train_images"]) == {70}
    assert set(table["data.fingerprint"]) == {"f" * 64}
    assert list(table["train.loss"]) == [10.0, 5.0]
    assert math.isnan(table["experts.active"][0])
    assert table["experts.active"][1] == 2
    assert list(table["experts.usage"][1]) == usage
    assert table["config.model.gate_hidden"][0] == (64, 32)
    assert table["config.training.budget"][0] == "20 epochs"


def test_a_trial_without_epochs_keeps_one_row(tmp_path: Path) -> None:
    folder(tmp_path, "aaa").write_record(record("aaa", status="failed", data=None))
    folder(tmp_path, "bbb").write_record(record("bbb"))
    folder(tmp_path, "bbb").write_epochs([row(1)])
    table = read_results(tmp_path, "demo")
    assert list(table["trial_id"]) == ["aaa", "bbb"]
    assert math.isnan(table["epoch"][0])
    assert math.isnan(table["data.train_images"][0])
    assert pd.isna(table["data.fingerprint"][0])
    assert table["epoch"][1] == 1
    assert set(EPOCH_COLUMNS) <= set(table.columns)


def test_trials_of_different_shape_share_one_table(tmp_path: Path) -> None:
    supervised = trial_with(TrialSpec(), {"routing": "supervised", "model.decoder": {"name": "cp", "rank": 8}})
    blend = trial_with(TrialSpec(), {"objective": {"name": "blend", "lambda_entropy": 3.0}})
    for name, spec in (("aaa", supervised), ("bbb", blend)):
        folder(tmp_path, name).write_record(record(name, spec))
        folder(tmp_path, name).write_epochs([row(1)])
    table = read_results(tmp_path, "demo").set_index("trial_id")
    assert "config.objective" not in table.columns
    assert table.loc["aaa", "config.objective.name"] == "supervised"
    assert pd.isna(table.loc["aaa", "config.objective.lambda_entropy"])
    assert table.loc["bbb", "config.objective.lambda_entropy"] == 3.0
    assert table.loc["bbb", "config.model.decoder"] == "lite"
    assert pd.isna(table.loc["aaa", "config.model.decoder"])
    assert table.loc["aaa", "config.model.decoder.rank"] == 8


def test_a_study_without_trials_is_an_empty_table(tmp_path: Path) -> None:
    Store(tmp_path).write("demo/study.yaml", b"name: demo\n")
    table = read_results(tmp_path, "demo")
    assert len(table) == 0
    assert "data.fingerprint" in table.columns
    assert set(EPOCH_COLUMNS) <= set(table.columns)


def test_results_behind_a_uri_read_the_same(tmp_path: Path) -> None:
    for out in (str(tmp_path), f"memory://{tmp_path.name}"):
        folder(out, "aaa").write_record(record("aaa", timings=Timings(started_at=now())))
        folder(out, "aaa").write_epochs([row(1)])
        folder(out, "aaa").write_weights({"w": np.arange(3.0)})
        folder(out, "aaa").write_checkpoint({"w": np.arange(3.0)}, [row(1)])
    pd.testing.assert_frame_equal(
        read_results(tmp_path, "demo"), read_results(f"memory://{tmp_path.name}", "demo"), check_exact=True
    )
    assert list_studies(f"memory://{tmp_path.name}") == ["demo"]
    assert np.array_equal(read_weights(f"memory://{tmp_path.name}", "demo", "aaa")["w"], np.arange(3.0))


def test_studies_are_listed_without_other_folders(tmp_path: Path) -> None:
    for name in ("b-study/trials", "a-study", ".cache/trials", "Not_A_Study/trials", "figures"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a-study" / "study.yaml").touch()
    (tmp_path / "file").touch()
    assert list_studies(tmp_path) == ["a-study", "b-study"]
    assert list_studies(tmp_path / "absent") == []


def test_an_unknown_study_is_one_line_that_lists_the_known(tmp_path: Path) -> None:
    folder(tmp_path, "aaa").write_record(record("aaa"))
    with pytest.raises(ResultsError, match=r"nope: no such study \(studies there: demo\)"):
        read_results(tmp_path, "nope")
    with pytest.raises(ResultsError, match="no such study"):
        read_trials(tmp_path, "nope")
    (tmp_path / "demo" / "study.yaml").touch()
    with pytest.raises(ResultsError, match=f"a study's own folder; pass {tmp_path}$"):
        read_trials(tmp_path / "demo", "demo")


@pytest.mark.parametrize("name", ["../other", "..", "", "demo/trials", "/demo", "Demo", "de\nmo"])
def test_no_name_leads_out_of_the_results(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    for place in (out, tmp_path / "other"):
        folder(place, "aaa").write_record(record("aaa"))
        folder(place, "aaa").write_weights({"w": np.arange(3.0)})
    (tmp_path / "other/trials").symlink_to(tmp_path / "other/demo/trials")
    for read in (
        lambda: read_results(out, name),
        lambda: read_trials(out, name, skip_broken=True),
        lambda: read_weights(out, name, "aaa"),
        lambda: read_embeddings(out, name, "aaa"),
        lambda: read_weights(out, "demo", name),
    ):
        with pytest.raises(ResultsError, match="names nothing there") as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written_by", "named"),
    [('{"smoe_ray": "9.1"}', "smoe-ray 9.1 wrote it"), ("3", "another version wrote it")],
)
def test_a_record_of_another_version_is_to_be_read_not_deleted(tmp_path: Path, written_by: str, named: str) -> None:
    text = f'{{"study": "demo", "trial_id": "aaa", "status": "asleep", "versions": {written_by}}}'
    Store(tmp_path).write("demo/trials/aaa/trial.json", text.encode())
    with pytest.raises(ResultsError, match=named) as caught:
        read_trials(tmp_path, "demo")
    assert "aaa/trial.json: not a record of this version of smoe-ray (status: " in str(caught.value)
    assert "delete" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cut_record_is_named(tmp_path: Path) -> None:
    Store(tmp_path).write("demo/trials/aaa/trial.json", record("aaa").model_dump_json().encode()[:-1])
    with pytest.raises(ResultsError, match=r"aaa/trial\.json: damaged .* run the study again"):
        read_trials(tmp_path, "demo")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_cut_file_is_one_line_that_names_it(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    out = tmp_path_factory.mktemp("out")
    trial = folder(out, "aaa")
    trial.write_record(record("aaa"))
    trial.write_epochs([row(1), row(2)])
    trial.write_weights({"w": np.arange(5.0)})
    trial.write_embeddings({"mu": np.arange(5.0)})
    file = data.draw(st.sampled_from(["trial.json", "epochs.parquet", "model.safetensors", "embeddings.npz"]))
    path = out / trial.name / file
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    read = {
        "trial.json": lambda: read_trials(out, "demo"),
        "epochs.parquet": lambda: read_results(out, "demo"),
        "model.safetensors": lambda: read_weights(out, "demo", "aaa"),
        "embeddings.npz": lambda: read_embeddings(out, "demo", "aaa"),
    }[file]
    with pytest.raises(ResultsError) as caught:
        read()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_trials_can_be_left_out_of_the_table(tmp_path: Path) -> None:
    for name in ("aaa", "bbb"):
        folder(tmp_path, name).write_record(record(name))
        folder(tmp_path, name).write_epochs([row(1)])
    broken = tmp_path / "demo/trials/aaa/epochs.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(ResultsError, match=r"aaa/epochs\.parquet"):
        read_results(tmp_path, "demo")
    table = read_results(tmp_path, "demo", skip_broken=True)
    assert list(table["trial_id"]) == ["bbb"]
    assert len(table.attrs["problems"]) == 1
    assert str(broken) in table.attrs["problems"][0]


def test_embeddings_and_weights_come_back_exactly(tmp_path: Path) -> None:
    arrays = {
        "mu": np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32),
        "label": np.arange(4),
        "image": np.zeros((4, 28, 28), np.uint8),
        "reconstruction": np.full((4, 28, 28), 0.1, np.float16),
    }
    trial = folder(tmp_path, "aaa")
    trial.write_embeddings(arrays)
    trial.write_weights({"turned": np.arange(6.0).reshape(2, 3).T, "scalar": np.array(3)})
    for name, array in read_embeddings(tmp_path, "demo", "aaa").items():
        assert array.dtype == arrays[name].dtype
        assert np.array_equal(array, arrays[name])
    weights = read_weights(tmp_path, "demo", "aaa")
    assert np.array_equal(weights["turned"], np.arange(6.0).reshape(2, 3).T)
    assert weights["scalar"].shape == ()


def test_absent_embeddings_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="save_embeddings"):
        read_embeddings(tmp_path, "demo", "aaa")
    with pytest.raises(ResultsError, match=r"model\.safetensors: no such file"):
        read_weights(tmp_path, "demo", "aaa")


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_a_pickle_in_embeddings_is_refused_and_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        archive.writestr("mu.npy", header.getvalue() + pickle.dumps(_Bomb()))
    Store(tmp_path).write("demo/trials/aaa/embeddings.npz", buffer.getvalue())
    with pytest.raises(ResultsError, match=r"embeddings\.npz: damaged"):
        read_embeddings(tmp_path, "demo", "aaa")
    assert not Path("exploded").exists()
    with pytest.raises(AssertionError):
        folder(tmp_path, "bbb").write_embeddings({"mu": np.array([_Bomb()], dtype=object)})


def test_reading_results_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys, smoe_ray.results, smoe_ray.results.read; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'pandas', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_studies_that_share_trials_are_read_with_each_trial_once(out: Path) -> None:
    shared, *_ = plant(out, "first", embeddings=False)
    plant(out, "second", embeddings=False)
    copy = shared.model_copy(update={"study": "second", "status": "failed", "error": "x", "error_kind": "OSError"})
    TrialFolder(Store(out), "second", shared.trial_id).write_record(copy)
    one, two = read_results(out, "first"), read_results(out, "second")
    pd.testing.assert_frame_equal(read_together(out, ["first"]), one)
    for studies in (["first", "second"], ["second", "first"]):
        both = read_together(out, studies)
        assert len(both) == len(one) + len(two) - 1
        assert set(both[both.trial_id == shared.trial_id].status) == {"finished"}
