"""A trained model as a folder: it loads by itself and decodes as the trial's model does."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from smoe_ray.errors import ResultsError
from smoe_ray.export import export_model
from smoe_ray.model import SMoEVAE
from smoe_ray.training.inference import load_model
from support.planted_folder import plant

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("out")
    [record] = plant(out, "demo", objectives=("likelihood",), experts=(4,), seeds=1, embeddings=False)
    return out, record.trial_id


@pytest.fixture(scope="module")
def exported(planted: tuple[Path, str]) -> Path:
    out, trial = planted
    return export_model(out, "demo", trial, out.parent / "exported")


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "model"))


def test_the_command_writes_the_same(smoe_ray: Run, planted: tuple[Path, str], exported: Path, tmp_path: Path) -> None:
    out, trial = planted
    to = tmp_path / "new"
    assert smoe_ray("export", out, "demo", "--model", trial, "--to", to) == (0, f"{to}\n", "")
    assert {file.name: file.read_bytes() for file in to.iterdir()} == {
        file.name: file.read_bytes() for file in exported.iterdir()
    }


def test_it_decodes_as_the_model_of_the_trial(planted: tuple[Path, str], folder: Path) -> None:
    out, trial = planted
    model = SMoEVAE.from_pretrained(folder)
    assert not model.training
    image_BHW = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    with torch.inference_mode():
        decoded = model(torch.from_numpy(image_BHW).float() / 255, None)
    of_trial = load_model(out, "demo", trial)
    codes = of_trial.encode(image_BHW)
    np.testing.assert_array_equal(decoded.encoded.mu_BZ.numpy(), codes.mu_BZ)
    assert decoded.image_EBP is not None
    expected = of_trial.decode_all(codes.mu_BZ).reshape(3, 4, -1).swapaxes(0, 1)
    np.testing.assert_array_equal(decoded.image_EBP.numpy(), expected)


def test_the_card_tells_metrics_configuration_and_figures(folder: Path, planted: tuple[Path, str]) -> None:
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: smoe-ray\n")
    assert f"trial {planted[1]} of the study demo" in card
    assert "| test loss |" in card
    assert "| `model.num_experts` | 4 |" in card
    for picture in ("training_curves.png", "usage_over_epochs.png"):
        assert f"]({picture})" in card
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    config = json.loads((folder / "config.json").read_text())
    assert (config["model"]["num_experts"], config["image_shape"]) == (4, [1, 28, 28])
    assert config["trial"]["trial_id"] == planted[1]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("config.json", b"{", "config.json: not of a model"),
        ("config.json", b"{}", "config.json: not of a model (model: "),
        ("model.safetensors", b"?", "model.safetensors: damaged"),
        ("model.safetensors", None, "model.safetensors: No such file"),
    ],
)
def test_what_is_no_model_is_refused(folder: Path, file: str, content: bytes | None, expected: str) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(ResultsError, match=re.escape(expected)):
        SMoEVAE.from_pretrained(folder)


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["num_experts"] = 1000  # of which no memory is taken
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ResultsError, match=r"model\.safetensors: weight .* has shape"):
        SMoEVAE.from_pretrained(folder)
