"""Checkpoints of the paper's released code as trials: measured as ours are, and taken by all that reads results."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smoe_ray.analysis import summary
from smoe_ray.errors import ResultsError, StudyError
from smoe_ray.model.released import from_released, read_released
from smoe_ray.results import read_embeddings, read_results, read_trials
from smoe_ray.spec import GridStudy, ModelSpec, parse_study, trial_id
from smoe_ray.study.importing import import_checkpoint
from smoe_ray.training.inference import load_model
from support.released_checkpoint import plain_model, run_plainly, write_released

Run = Callable[..., tuple[int, str, str]]
STUDY = """
name: released
question: What do the released weights reach?
preset: released_code
base:
  data: {source: synthetic, classes: [face, cat, snowflake], train_per_class: 40, test_per_class: 12}
  model: {num_experts: 11, encoder: lite}
  training: {batch_size: 32}
  evaluation: {latent: mean}
seeds: [0, 1]
"""
SIZES = {"encoder": "lite"}


def study(*overrides: str) -> GridStudy:
    spec = parse_study(STUDY, overrides)
    assert isinstance(spec, GridStudy)
    return spec


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("released") / "vae_moe_model_final.pth"
    write_released(file, 11, **SIZES)
    return file


@pytest.fixture(scope="module")
def imported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with the checkpoint."""
    out = tmp_path_factory.mktemp("out")
    import_checkpoint(checkpoint, study(), out, device="cpu")
    return out


def test_the_trial_says_what_it_is(imported: Path, checkpoint: Path) -> None:
    [record] = read_trials(imported, "released")
    assert (record.status, record.spec.weights) == ("finished", "imported")
    assert record.imported is not None
    assert record.imported.file == "vae_moe_model_final.pth"
    assert record.imported.sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert record.data is not None
    trained = study().base.model_copy(update={"seed": 0})
    assert record.trial_id != trial_id(trained, record.data.fingerprint)  # it is never taken for a trained one


def test_its_numbers_are_those_of_the_plain_model(imported: Path) -> None:
    [record] = read_trials(imported, "released")
    embeddings = read_embeddings(imported, "released", record.trial_id)
    image_BHW = torch.from_numpy(embeddings["image"]).float() / 255
    mu_BZ, expert_B, decoded_BHW = run_plainly(plain_model(11, **SIZES), image_BHW, "lite", "lite")
    np.testing.assert_allclose(embeddings["mu"], mu_BZ, atol=1e-5)
    np.testing.assert_array_equal(embeddings["expert"], expert_B)
    [row] = summary.trial_summary(read_results(imported, "released")).to_dict("records")
    error = float((image_BHW - decoded_BHW).square().sum(dim=(1, 2)).mean())
    assert row["test.reconstruction"] == pytest.approx(error, rel=1e-5)
    assert row["experts.active"] == len(expert_B.unique())
    assert row["epoch"] == 20  # of the preset's budget, as are the steps
    assert row["cost.steps"] == 20 * 4
    assert np.isnan(row["train.loss"])


@pytest.mark.parametrize(("encoder", "decoder"), [("medium", "lite"), ("lite", "medium"), ("lite", "large")])
def test_every_size_is_mapped(tmp_path: Path, encoder: str, decoder: str) -> None:
    model = write_released(tmp_path / "it.pth", 2, encoder=encoder, decoder=decoder, latent_dim=4)
    spec = ModelSpec(num_experts=2, latent_dim=4, encoder=encoder, decoder=decoder)
    from smoe_ray.model import build_model

    ours = build_model(spec, (1, 28, 28), 0)
    ours.load_state_dict(from_released(read_released(tmp_path / "it.pth"), spec, (1, 28, 28)))
    image_BHW = torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(0))
    mu_BZ, expert_B, decoded_BHW = run_plainly(model, image_BHW, encoder, decoder)
    with torch.inference_mode():
        decoded = ours.eval()(image_BHW, None, "chosen")
    torch.testing.assert_close(decoded.encoded.mu_BZ, mu_BZ)
    assert decoded.expert_BK is not None
    assert decoded.expert_BK[:, 0].tolist() == expert_B.tolist()
    assert decoded.chosen_BP is not None
    torch.testing.assert_close(decoded.chosen_BP, decoded_BHW.flatten(1))


def test_what_reads_weights_and_files_takes_it(smoe_ray: Run, imported: Path, tmp_path: Path) -> None:
    [record] = read_trials(imported, "released")
    model = load_model(imported, "released", record.trial_id)
    assert model.encode(np.zeros((1, 28, 28), np.uint8)).gate_BE.shape == (1, 11)
    assert smoe_ray("verify", imported, "released")[0] == 0
    assert smoe_ray("export", imported, "released", "--model", record.trial_id, "--to", tmp_path / "model")[0] == 0
    assert "imported from vae_moe_model_final.pth (SHA-256 " in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.slow
def test_report_figures_and_exports_take_it(smoe_ray: Run, imported: Path, tmp_path: Path) -> None:
    for words in (
        ("report", imported, "released", "--to", tmp_path / "report"),
        ("figure", imported, "released", "--to", tmp_path / "figures"),
        ("export", imported, "released", "--to", "parquet", tmp_path / "exported"),
        ("export", imported, "released", "--to", "tensorboard", tmp_path / "exported"),
        ("recommend", imported, "released"),
    ):
        code, _, error = smoe_ray(*words)
        assert code == 0, (words, error)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Imported trials: weights that were trained elsewhere" in page
    assert f"smoe-ray import-checkpoint vae_moe_model_final.pth released.yaml --out {imported} --seed 0" in page
    drawn = {path.stem.removeprefix("released-") for path in (tmp_path / "figures").iterdir()}
    assert {"loss-against-experts", "expert-survival"} <= drawn


def test_a_second_import_is_the_first_or_another_seed(imported: Path, checkpoint: Path, tmp_path: Path) -> None:
    [before] = read_trials(imported, "released")
    assert import_checkpoint(checkpoint, study(), imported, device="cpu") == before
    other = tmp_path / "other.pth"
    torch.save(dict(torch.load(checkpoint)) | {"gating_network.fc3.bias": torch.ones(11)}, other)
    with pytest.raises(ResultsError, match=r"seed 0 was imported from vae_moe_model_final\.pth"):
        import_checkpoint(other, study(), imported, device="cpu")
    out = tmp_path / "out"
    records = [import_checkpoint(checkpoint, study(), out, seed=seed, device="cpu") for seed in (0, 1)]
    assert [record.spec.seed for record in records] == [0, 1]
    assert len(read_trials(out, "released")) == 2


def test_the_command_imports_and_a_run_does_not_train_it(smoe_ray: Run, checkpoint: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "released.yaml", tmp_path / "out"
    file.write_text(STUDY.replace("[0, 1]", "[3]"))
    code, printed, error = smoe_ray("import-checkpoint", checkpoint, file, "--out", out, "--device", "cpu")
    assert code == 0, error
    assert "finished" in printed
    code, printed, error = smoe_ray("run", out / "released" / "study.yaml", "--out", out, "--executor", "local")
    assert (code, "1 trial, 1 of them done before" in error) == (0, True)
    code, printed, error = smoe_ray(
        "run", file, "--out", tmp_path / "new", "--executor", "local", "--set", "weights=imported", "--device", "cpu"
    )
    assert code == 1
    assert "imported ones are not trained" in error


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"decoders.10.conv2.bias": None}, "weight 'decoders.10.conv2.bias' is missing, the study's model (11 experts"),
        ({"encoder.conv9.bias": torch.zeros(1)}, "weight 'encoder.conv9.bias' is none of the study's model"),
        ({"encoder.conv1.bias": torch.zeros(1)}, "weight 'encoder.conv1.bias' has shape (1,), the study's model"),
        ({"decoders.2.fc.bias": None, "decoders.10.fc.bias": None}, "weight 'decoders.2.fc.bias' is missing"),
        ({"gating_network.fc3.bias": torch.full((11,), torch.nan)}, "weight 'gating_network.fc3.bias' has values that"),
        ({"epoch": 3}, "'epoch' is no weight; save model.state_dict() alone"),
        ({"encoder.conv1.bias": torch.zeros(16, dtype=torch.int64)}, "'encoder.conv1.bias' is no weight"),
    ],
)  # fmt: skip
def test_the_first_weight_that_does_not_fit_is_named(
    smoe_ray: Run, checkpoint: Path, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    weights = dict(torch.load(checkpoint)) | change
    torch.save({name: value for name, value in weights.items() if value is not None}, tmp_path / "it.pth")
    (tmp_path / "study.yaml").write_text(STUDY)
    code, printed, error = smoe_ray(
        "import-checkpoint", tmp_path / "it.pth", tmp_path / "study.yaml", "--out", tmp_path / "out"
    )
    assert (code, printed, error.count("smoe-ray: ")) == (1, "", 1)
    assert expected in error
    assert not list(tmp_path.glob("out/released*"))


class Code:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("ran",))


def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "it.pth"
    torch.save({"encoder.conv1.bias": Code()}, file)
    with pytest.raises(ResultsError, match="not a state dict"):
        read_released(file)
    file.write_bytes(pickle.dumps({"weight": Code()}))
    with pytest.raises(ResultsError, match="not a state dict"):
        read_released(file)
    assert capsys.readouterr().out == ""


def test_a_file_is_bounded(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(checkpoint) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    with pytest.raises(ResultsError, match="compressed parts"):
        read_released(packed)
    monkeypatch.setattr("smoe_ray.model.released.MOST_BYTES", 1000)
    with pytest.raises(ResultsError, match=r"larger than 1,000 bytes"):
        read_released(checkpoint)
    with pytest.raises(ResultsError, match="No such file"):
        read_released(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["axes.model.num_experts=[2,11]"], "axes: 2 configurations, and a checkpoint is one"),
        (["model.gate=cosine"], "model: the released code has"),
    ],
)
def test_a_study_is_one_configuration_of_the_released_code(
    checkpoint: Path, tmp_path: Path, overrides: list[str], expected: str
) -> None:
    with pytest.raises(StudyError, match=expected):
        import_checkpoint(checkpoint, study(*overrides), tmp_path)
    with pytest.raises(StudyError, match="seeds: 7 is none of 0, 1"):
        import_checkpoint(checkpoint, study(), tmp_path, seed=7)
