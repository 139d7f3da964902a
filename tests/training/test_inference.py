"""A finished trial's model on arrays: what it says of the stored test images is what the trial stored."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from smoe_ray.analysis.gallery import expert_gallery, interpolation, swap_matrix
from smoe_ray.errors import DataError, ResultsError
from smoe_ray.model import build_model
from smoe_ray.results import Store, TrialFolder, TrialRecord, read_embeddings, read_weights
from smoe_ray.spec import trial_with
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.testing.toy_training import toy_grid
from smoe_ray.training import inference
from smoe_ray.training.inference import TrainedModel, load_model

FLOAT16 = 3e-4
"""Half a step of float16 below 1: as exactly as reconstructions are stored."""


class Trial(NamedTuple):
    out: Path
    record: TrialRecord
    kept: dict[str, np.ndarray[Any, Any]]
    model: TrainedModel

    def folder(self) -> TrialFolder:
        return TrialFolder(Store(self.out), self.record.study, self.record.trial_id)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """Trained so far that several experts are in use."""
    out = tmp_path_factory.mktemp("inference")
    study = toy_grid(
        seeds=[0],
        **{
            "model.num_experts": 4,
            "data.train_per_class": 60,
            "data.test_per_class": 30,
            "training.budget": "15 epochs",
            "training.learning_rate": 0.005,
        },
    )
    (record,) = run_study(study, out, LocalExecutor(device="cpu"))
    kept = read_embeddings(out, study.name, record.trial_id)
    return Trial(out, record, kept, load_model(out, study.name, record.trial_id))


def test_the_stored_images_give_the_stored_embeddings(trial: Trial) -> None:
    kept = trial.kept
    assert len(np.unique(kept["expert"])) > 1  # else a wrong expert would not show
    codes = trial.model.encode(kept["image"])
    np.testing.assert_allclose(codes.mu_BZ, kept["mu"], atol=1e-5)
    np.testing.assert_allclose(codes.gate_BE, kept["gate"], atol=1e-5)
    assert np.array_equal(codes.expert_B, kept["expert"])
    decoded_BEHW = trial.model.decode_all(codes.mu_BZ)
    assert decoded_BEHW.shape == (60, 4, 28, 28)
    own_BHW = decoded_BEHW[np.arange(60), codes.expert_B]
    np.testing.assert_allclose(own_BHW, kept["reconstruction"].astype(np.float32), atol=FLOAT16)
    others_BHW = decoded_BEHW[np.arange(60), (codes.expert_B + 1) % 4]
    assert np.abs(others_BHW - kept["reconstruction"]).max() > 100 * FLOAT16


def test_the_swap_matrix_holds_the_stored_reconstruction_in_the_column_of_its_own_expert(trial: Trial) -> None:
    info = swap_matrix(trial.kept, trial.model)
    assert len(info.index_R) == len(np.unique(trial.kept["expert"])) > 1
    for row, place in enumerate(info.index_R):
        column = info.expert_E.tolist().index(trial.kept["expert"][place])
        stored = trial.kept["reconstruction"][place].astype(np.float32)
        np.testing.assert_allclose(info.decoded_REHW[row, column], stored, atol=FLOAT16)
        error = ((stored - trial.kept["image"][place] / 255) ** 2).sum()
        assert info.error_RE[row, column] == pytest.approx(error, rel=2e-3)
        assert column == row


def test_a_path_agrees_with_the_models_own_gate(trial: Trial) -> None:
    path = interpolation(trial.kept, trial.model, steps=5).paths[0]
    np.testing.assert_allclose(path.gate_SE.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(path.expert_S, trial.model.gate(path.z_SZ).argmax(axis=1))
    assert path.chosen_SHW.min() >= 0
    assert path.blend_SHW.max() <= 1


def test_a_gallery_takes_the_names_of_the_record(trial: Trial) -> None:
    assert trial.record.data is not None
    info = expert_gallery(trial.kept, trial.record.data.class_names)
    assert {name for block in info.blocks for name, _ in block.class_mix} == {"eye", "cat"}
    assert sum(block.num_images for block in info.blocks) == 60


def test_chunks_do_not_matter(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trial.model.encode(trial.kept["image"])
    decoded = trial.model.decode_all(whole.mu_BZ)
    monkeypatch.setattr(inference, "IMAGES_AT_ONCE", 7)
    parts = trial.model.encode(trial.kept["image"])
    np.testing.assert_allclose(parts.mu_BZ, whole.mu_BZ, atol=1e-5)
    np.testing.assert_allclose(trial.model.decode_all(whole.mu_BZ), decoded, atol=1e-5)


def test_any_memory_will_do(trial: Trial) -> None:
    image_BHW = trial.kept["image"]
    image_BHW.setflags(write=False)
    np.testing.assert_array_equal(
        trial.model.encode(image_BHW[::-1]).mu_BZ, trial.model.encode(image_BHW[::-1].copy()).mu_BZ
    )


def test_one_model_serves_many_threads(trial: Trial) -> None:
    alone = trial.model.encode(trial.kept["image"])
    found = []
    threads = [threading.Thread(target=lambda: found.append(trial.model.encode(trial.kept["image"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(codes.gate_BE, alone.gate_BE) for codes in found)


def test_colour_images_are_encoded_and_decoded_with_their_channels(trial: Trial) -> None:
    shape = (3, 16, 24)
    assert trial.record.data is not None
    record = trial.record.model_copy(update={"data": trial.record.data.model_copy(update={"image_shape": shape})})
    plain = build_model(record.spec.model, shape, seed=0)
    model = TrainedModel(record, plain)
    image_BCHW = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    codes = model.encode(image_BCHW)
    np.testing.assert_allclose(codes.mu_BZ, plain.encoder(torch.from_numpy(image_BCHW / 255).float()).mu_BZ, atol=1e-5)
    decoded_BECHW = model.decode_all(codes.mu_BZ)
    assert decoded_BECHW.shape == (5, 4, *shape)
    image_EBP = plain.experts(torch.from_numpy(codes.mu_BZ)).numpy()
    np.testing.assert_allclose(decoded_BECHW, image_EBP.swapaxes(0, 1).reshape(5, 4, *shape), atol=1e-5)
    with pytest.raises(DataError, match=r"needed: uint8, \(B, 3, 16, 24\)"):
        model.encode(image_BCHW.transpose(0, 2, 3, 1))


# --- ink --------------------------------------------------------------------------------------------------------------


def with_data(model: TrainedModel, data: dict[str, Any]) -> TrainedModel:
    spec = trial_with(model.record.spec, {"data": data})
    return TrainedModel(model.record.model_copy(update={"spec": spec}), model._model)


def test_a_drawing_in_the_other_ink_is_inverted(trial: Trial) -> None:
    image_BHW = trial.kept["image"]
    assert trial.model.ink == "black_on_white"
    plain = trial.model.encode(image_BHW)
    for same in (
        trial.model.encode(image_BHW, "black_on_white"),
        trial.model.encode(255 - image_BHW, "white_on_black"),
    ):
        assert np.array_equal(same.mu_BZ, plain.mu_BZ)
    assert not np.allclose(trial.model.encode(255 - image_BHW).mu_BZ, plain.mu_BZ, atol=0.1)


@pytest.mark.parametrize(
    ("data", "ink"),
    [
        ({"source": "quickdraw", "ink": "white_on_black"}, "white_on_black"),
        ({"source": "quickdraw"}, "black_on_white"),
        ({"source": "images", "root": "here"}, None),
        (
            {"source": "combined", "parts": {"a": {"source": "synthetic"}, "b": {"source": "quickdraw"}}},
            "black_on_white",
        ),
        (
            {
                "source": "combined",
                "parts": {"a": {"source": "synthetic"}, "b": {"source": "quickdraw", "ink": "white_on_black"}},
            },
            None,
        ),
        (
            {"source": "combined", "parts": {"a": {"source": "synthetic"}, "b": {"source": "images", "root": "here"}}},
            None,
        ),
    ],
)
def test_ink_is_what_the_data_of_the_trial_say(trial: Trial, data: dict[str, Any], ink: str | None) -> None:
    model = with_data(trial.model, data)
    assert model.ink == ink
    if ink is None:
        model.encode(trial.kept["image"])
        with pytest.raises(DataError, match=f"trial {trial.record.trial_id}: its data do not say how they are inked"):
            model.encode(trial.kept["image"], "black_on_white")


# --- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(28, 28), (2, 28, 27), (2, 784), (2, 28, 28, 1)])
def test_other_images_are_refused(trial: Trial, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"images are uint8 of shape .*; needed: uint8, \(B, 28, 28\)"):
        trial.model.encode(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(DataError, match="images are float64"):
        trial.model.encode(np.zeros((1, 28, 28)))  # type: ignore[arg-type]


def test_latent_vectors_of_another_size_are_refused(trial: Trial) -> None:
    for function in (trial.model.gate, trial.model.decode_all):
        for shape in ((3, 31), (32,)):
            with pytest.raises(
                ResultsError, match=rf"trial {trial.record.trial_id} needs \(B, 32\); pass those of the"
            ):
                function(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"gate.0.bias": None}, r"weight 'gate\.0\.bias' is missing"),
        (
            {"experts.linear_weight": np.zeros((3, 392, 32), dtype=np.float32)},
            r"weight 'experts\.linear_weight' has shape \(3, 392, 32\), the trial's spec needs \(4, 392, 32\)",
        ),
        ({"gate.9.bias": np.zeros(2, dtype=np.float32)}, r"weight 'gate\.9\.bias' is none of the model's"),
    ],
)
def test_weights_of_another_model_are_one_line(trial: Trial, tmp_path: Path, change: Any, problem: str) -> None:
    weights = read_weights(trial.out, trial.record.study, trial.record.trial_id) | change
    folder = TrialFolder(Store(tmp_path), "toy", "aaa")
    folder.write_weights({name: array for name, array in weights.items() if array is not None})
    folder.write_record(trial.record.model_copy(update={"trial_id": "aaa", "files": {}}))
    with pytest.raises(ResultsError, match=rf"toy/trials/aaa/model\.safetensors: damaged \({problem}\)"):
        load_model(tmp_path, "toy", "aaa")


def test_a_trial_that_is_not_there_or_not_finished_is_one_line(trial: Trial, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"model\.safetensors: no such file; it is written when a trial finishes"):
        load_model(trial.out, "toy", "bbb")
    with pytest.raises(ResultsError, match="names nothing there"):
        load_model(trial.out, "toy", "../toy")
    TrialFolder(Store(tmp_path), "toy", "aaa").write_weights(
        read_weights(trial.out, trial.record.study, trial.record.trial_id)
    )
    with pytest.raises(ResultsError, match=r"trial\.json: no such file"):
        load_model(tmp_path, "toy", "aaa")


# --- colour -----------------------------------------------------------------------------------------------------------


def test_colour_images_go_in_and_come_out_in_their_shape(trial: Trial) -> None:
    shape = (3, 16, 20)
    assert trial.record.data is not None
    data = trial.record.data.model_copy(update={"image_shape": shape})
    network = build_model(trial.record.spec.model, shape, seed=0)
    model = TrainedModel(trial.record.model_copy(update={"data": data}), network)
    image_BCHW = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    codes = model.encode(image_BCHW)
    decoded = model.decode_all(codes.mu_BZ)
    assert decoded.shape == (5, 4, *shape)
    by_hand_EBP = network.experts(torch.from_numpy(codes.mu_BZ))
    np.testing.assert_allclose(decoded[2, 3].ravel(), by_hand_EBP[3, 2].detach(), atol=1e-6)
    assert not np.allclose(model.encode(image_BCHW[:, ::-1]).mu_BZ, codes.mu_BZ)  # blue is not red
    with pytest.raises(DataError, match=r"needed: uint8, \(B, 3, 16, 20\)"):
        model.encode(image_BCHW.transpose(0, 2, 3, 1))
