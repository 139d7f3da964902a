"""The one place where a trained model runs: torch is loaded at the first call, which only the Experts page makes.

Shapes: B images, E experts, N nearest images, H W pixels (28 x 28).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import streamlit as st

from dashboard import load
from smoe_ray.errors import ResultsError
from smoe_ray.results import TrialRecord
from smoe_ray.spec import plugin_references

if TYPE_CHECKING:
    from smoe_ray.training.inference import TrainedModel

NEAREST = 8


def model(record: TrialRecord) -> TrainedModel:
    """The model of a finished trial.

    Raises:
        ResultsError: there is none, it is too large to load here, or it has a plug-in: the dashboard imports none.
    """
    for reference in plugin_references(record.spec.model):
        raise ResultsError(
            f"trial {record.trial_id}: its {reference.kind} is the plug-in {reference.plugin}, and the dashboard "
            "imports none; smoe_ray.training.inference.load_model loads the model in Python"
        )
    tag = load.tag(record.study, record.trial_id, "model.safetensors")
    return _model(load.out(), record.study, record.trial_id, tag)


@st.cache_resource(max_entries=4, show_spinner="Loading the model of this trial ...")
def _model(out: str, study: str, trial_id: str, tag: str) -> TrainedModel:  # noqa: ARG001  # for the key
    from smoe_ray.training.inference import load_model

    return load_model(out, study, trial_id)


class Look(NamedTuple):
    """What a model makes of one image."""

    image_HW: npt.NDArray[np.uint8]
    gate_E: npt.NDArray[np.float32]
    expert: int
    """The chosen one: argmax of the gate."""
    decoded_EHW: npt.NDArray[np.float32]
    error_E: npt.NDArray[np.float64]
    """Squared error of each expert's attempt, summed over the pixels."""
    nearest_N: npt.NDArray[np.int64]
    """Places in the test set of the images whose latent vectors are the nearest (Euclidean), nearest first."""


def look(model: TrainedModel, image_HW: npt.NDArray[np.uint8], embeddings: Mapping[str, npt.NDArray[Any]]) -> Look:
    """Encode an image that is inked as the trial's, let every expert decode it, and find test images like it.

    Args:
        model: of the trial.
        image_HW: uint8 (28, 28).
        embeddings: of the same trial: mu (B, Z).

    Raises:
        ResultsError: the embeddings are another trial's.
    """
    codes = model.encode(image_HW[None])
    mu_BZ = embeddings["mu"]
    if mu_BZ.shape[1:] != codes.mu_BZ.shape[1:]:
        raise ResultsError("embeddings: their latent vectors are not of this model's size; run the trial again")
    decoded_EHW = model.decode_all(codes.mu_BZ)[0]
    distance_B = np.linalg.norm(mu_BZ - codes.mu_BZ, axis=1)
    return Look(
        image_HW,
        codes.gate_BE[0],
        int(codes.expert_B[0]),
        decoded_EHW,
        np.square(decoded_EHW - image_HW / 255).sum(axis=(1, 2)),
        np.argsort(distance_B, kind="stable")[:NEAREST],
    )
