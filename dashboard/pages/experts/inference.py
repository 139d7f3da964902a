"""Runs trained models. torch is imported at the first call, which only the Experts page makes.

Shapes: B images, E experts, N nearest images, H W pixels; images are (H, W) where they are grey, else
(C, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import streamlit as st

from smoe_ray.errors import ResultsError
from smoe_ray.results import TrialRecord
from smoe_ray.spec import plugin_references

from ... import load

if TYPE_CHECKING:
    from smoe_ray.training.inference import TrainedModel

NEAREST = 8


def model(record: TrialRecord) -> TrainedModel:
    """The model of a finished trial.

    Raises:
        ResultsError: there is none, it is too large for the dashboard, or it has a plug-in: the dashboard imports none.
    """
    for reference in plugin_references(record.spec.model):
        raise ResultsError(
            f"trial {record.trial_id}: its {reference.kind} is the plug-in {reference.plugin}, and the dashboard "
            "imports none; smoe_ray.training.inference.load_model loads the model in Python"
        )
    tag = load.tag(record.study, record.trial_id, "model.safetensors")
    return _model(load.out(), record.study, record.trial_id, tag)


@st.cache_resource(max_entries=4, show_spinner="Loading the model of this trial ...")
def _model(out: str, study: str, trial_id: str, tag: str) -> TrainedModel:  # noqa: ARG001  # part of the cache key
    from smoe_ray.training.inference import load_model

    return load_model(out, study, trial_id)


class Output(NamedTuple):
    """Output of a model for one image."""

    image_HW: npt.NDArray[np.uint8]
    gate_E: npt.NDArray[np.float32]
    expert: int
    """The chosen expert: argmax of the gate."""
    decoded_EHW: npt.NDArray[np.float32]
    error_E: npt.NDArray[np.float64]
    """Squared error of each expert's reconstruction, summed over all values of the image."""
    nearest_N: npt.NDArray[np.int64]
    """Indices in the test set of the images with the nearest latent vectors (Euclidean), nearest first."""


def route(model: TrainedModel, image_HW: npt.NDArray[np.uint8], embeddings: Mapping[str, npt.NDArray[Any]]) -> Output:
    """Encode an image, decode it with every expert, and find the nearest test images.

    Args:
        model: of the trial.
        image_HW: uint8, of the shape and in the ink of the trial's data.
        embeddings: of the same trial: mu (B, Z).

    Raises:
        ResultsError: the embeddings belong to another model.
    """
    codes = model.encode(image_HW[None])
    mu_BZ = embeddings["mu"]
    if mu_BZ.shape[1:] != codes.mu_BZ.shape[1:]:
        raise ResultsError("embeddings: their latent vectors do not have this model's size; run the trial again")
    decoded_EHW = model.decode_all(codes.mu_BZ)[0]
    distance_B = np.linalg.norm(mu_BZ - codes.mu_BZ, axis=1)
    return Output(
        image_HW,
        codes.gate_BE[0],
        int(codes.expert_B[0]),
        decoded_EHW,
        np.square(decoded_EHW - image_HW / 255).sum(axis=tuple(range(1, decoded_EHW.ndim))),
        np.argsort(distance_B, kind="stable")[:NEAREST],
    )
