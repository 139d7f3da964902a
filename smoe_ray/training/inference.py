"""Inference with a finished trial's model on numpy arrays: encode images, gate and decode latent vectors.

>>> from smoe_ray.training.inference import load_model
>>> model = load_model("results", "quickstart", "47b42ec71012")  # doctest: +SKIP
>>> codes = model.encode(image_BHW)  # doctest: +SKIP
>>> image_BEHW = model.decode_all(codes.mu_BZ)  # doctest: +SKIP

Shapes: B images, E experts, Z latent, H W pixels (C H W where an image has channels).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoe_ray.errors import DataError, ResultsError
from smoe_ray.model import SMoEVAE, build_model
from smoe_ray.model.pretrained import misfit
from smoe_ray.results import Store, TrialFolder, TrialRecord, read_weights
from smoe_ray.spec import DrawingColours, ImageShape, ModelSpec, drawing_ink
from smoe_ray.training.evaluate import IMAGES_AT_ONCE

FloatArray = npt.NDArray[np.float32]


class Codes(NamedTuple):
    """Output of the encoder and the gate for each image."""

    mu_BZ: FloatArray
    gate_BE: FloatArray
    """Gate probability of each expert at z = mu; rows sum to 1."""
    expert_B: npt.NDArray[np.int64]
    """The chosen expert: argmax of the gate."""


class TrainedModel:
    """The model of a finished trial, on the CPU. Nothing changes it: one object may serve many threads.

    It takes z = mu, so with ``evaluation.latent: sample`` a gate differs from the one in the trial's embeddings.
    """

    def __init__(self, record: TrialRecord, model: SMoEVAE) -> None:
        self.record = record
        self._model = model.eval().requires_grad_(False)
        channels, *size = _image_shape(record)
        self._shape = (channels, *size) if channels > 1 else tuple(size)
        """Shape of an image's array."""

    @property
    def network(self) -> SMoEVAE:
        """Encoder, gate and experts, in evaluation mode; not to be changed."""
        return self._model

    @property
    def ink(self) -> DrawingColours | None:
        """How the trial's drawings are inked; None where its spec does not say (images without `ink`, mixed parts)."""
        return drawing_ink(self.record.spec.data)

    @torch.inference_mode()
    def encode(self, image_BHW: npt.NDArray[np.uint8], ink: DrawingColours | None = None) -> Codes:
        """Latent mean, gate and chosen expert of each image.

        Args:
            image_BHW: images of the shape that the trial was trained on, uint8.
            ink: how they are inked; where the trial's drawings are the other way round, they are inverted.
                None: as the trial's.

        Raises:
            DataError: no such images, or the trial does not say how its drawings are inked while `ink` does.
        """
        if image_BHW.dtype != np.uint8 or image_BHW.shape[1:] != self._shape:
            needed = f"uint8, (B, {', '.join(map(str, self._shape))})"
            raise DataError(f"images are {image_BHW.dtype} of shape {image_BHW.shape}; needed: {needed}")
        if self._is_inverse(ink):
            image_BHW = 255 - image_BHW
        chunks = [self._model.encoder(chunk.float() / 255).mu_BZ for chunk in _tensor(image_BHW).split(IMAGES_AT_ONCE)]
        mu_BZ = torch.cat(chunks).numpy()
        gate_BE = self.gate(mu_BZ)
        return Codes(mu_BZ, gate_BE, gate_BE.argmax(axis=1))

    @torch.inference_mode()
    def gate(self, z_BZ: FloatArray) -> FloatArray:
        """Gate probability of each expert at each latent vector: (B, E). Raises ResultsError for a wrong shape."""
        gate_BE: FloatArray = torch.softmax(self._model.logits(self._latent(z_BZ)), dim=1).numpy()
        return gate_BE

    @torch.inference_mode()
    def decode_all(self, z_BZ: FloatArray) -> FloatArray:
        """Every expert's decoding of every latent vector: (B, E, H, W) or (B, E, C, H, W) in [0, 1], float32.

        Raises:
            ResultsError: the latent vectors have another size than the trial's.
        """
        chunks = [self._model.experts(chunk).transpose(0, 1) for chunk in self._latent(z_BZ).split(IMAGES_AT_ONCE)]
        image_BEHW: FloatArray = torch.cat(chunks).unflatten(2, self._shape).numpy()
        return image_BEHW

    def _latent(self, z_BZ: FloatArray) -> Tensor:
        latent_dim = self.record.spec.model.representation_dim
        if z_BZ.ndim != 2 or z_BZ.shape[1] != latent_dim:
            raise ResultsError(
                f"latent vectors are of shape {z_BZ.shape}, trial {self.record.trial_id} needs (B, {latent_dim}); "
                "pass those of the same trial"
            )
        return _tensor(z_BZ).float()

    def _is_inverse(self, ink: DrawingColours | None) -> bool:
        if ink is None:
            return False
        if self.ink is None:
            raise DataError(f"trial {self.record.trial_id}: its data do not say how they are inked; leave 'ink' out")
        return ink != self.ink


def load_model(out: str | Path, study: str, trial_id: str) -> TrainedModel:
    """The model of a finished trial.

    Args:
        out: folder or URI of the results.
        study: name of the study.
        trial_id: the trial.

    Raises:
        ResultsError: no such trial, it is not finished, it is no SMoE-VAE, or its weights are not those of a model of
            its spec.
    """
    weights = read_weights(out, study, trial_id)
    folder = TrialFolder(Store(out), study, trial_id)
    record = folder.read_record()
    if record is None:
        raise ResultsError(f"{folder.store.path(folder.name)}/trial.json: no such file; run the study again")
    spec = record.spec.model
    if not isinstance(spec, ModelSpec):
        raise ResultsError(
            f"trial {trial_id} is of the model family {spec.family}, which has no decoders: nothing is reconstructed"
        )
    with torch.device("meta"):  # without memory: the spec may mean a model of any size
        problem = misfit(build_model(spec, _image_shape(record), record.spec.seed), weights)
    if problem is not None:
        raise folder.broken("model.safetensors", problem)
    model = build_model(spec, _image_shape(record), record.spec.seed)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return TrainedModel(record, model)


def _image_shape(record: TrialRecord) -> ImageShape:
    assert record.data is not None, "a finished trial knows its data"
    return record.data.image_shape


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    # A copy: torch shares neither read-only memory nor one walked through backwards.
    return torch.from_numpy(np.array(array, order="C"))
