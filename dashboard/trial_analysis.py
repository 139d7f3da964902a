"""Cached analyses of one trial's embeddings: routing, linear probes, t-SNE map.

Shapes: B test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from smoe_ray.analysis import LatentMap, Separability, latent_map, separability
from smoe_ray.report.trial_analysis import TrialAnalysis
from smoe_ray.results.trial import Arrays

from . import load, study_tables, url_state

if TYPE_CHECKING:
    import numpy.typing as npt

    from smoe_ray.analysis.curves import IntArray

Trials = Mapping[str, Mapping[int, "CachedTrialAnalysis"]]
"""Finished trials by arm, then by seed."""

MAP_IMAGES = 1000
"""Test images per map: t-SNE of 1,000 takes a few seconds, of 12,500 twenty."""


class CachedTrialAnalysis(TrialAnalysis):
    """The analyses of a trial behind Streamlit's caches, which outlive a rerun and are shared between sessions."""

    @cached_property
    def embeddings(self) -> Arrays:
        """Arrays over the fixed test set, read-only."""
        return load.embeddings(self.record.study, self.record.trial_id)

    @cached_property
    def separability(self) -> tuple[Separability, ...]:
        """Linear probes of the latent space and their controls."""
        stored = self.embeddings
        return _separability(stored["mu"], stored["label"], stored["expert"], self.record.spec.model.gate_hidden)

    @cached_property
    def sampled_map(self) -> LatentMap:
        """t-SNE map of the test images that `mapped_images` selects."""
        mu_BZ = self.embeddings["mu"]
        return _map(mu_BZ[mapped_images(len(mu_BZ))])


@st.cache_data(max_entries=64, show_spinner="Fitting probes and controls ...")
def _separability(
    mu_BZ: npt.NDArray[Any], label_B: IntArray, expert_B: IntArray, gate_hidden: Sequence[int]
) -> tuple[Separability, ...]:
    return separability(mu_BZ, label_B, expert_B, gate_hidden=gate_hidden)


@st.cache_data(max_entries=64, show_spinner="Computing a t-SNE map ...")
def _map(mu_BZ: npt.NDArray[Any]) -> LatentMap:
    return latent_map(mu_BZ)


def mapped_images(count: int) -> IntArray:
    """Indices of at most `MAP_IMAGES` of `count` test images, ascending; the same for all trials."""
    if count <= MAP_IMAGES:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MAP_IMAGES, replace=False))


def arm_labels(study: str) -> dict[str, str]:
    """Arm label of each trial by its id, sorted by arm."""
    return {str(trial): str(label) for trial, label in study_tables.arm_of(study).sort_values(kind="stable").items()}


def finished_trials(study: str) -> Trials:
    """Finished trials by arm and ascending seed; of trials that share both, the first."""
    out, records = load.out(), load.results(study).records
    by_arm: dict[str, dict[int, CachedTrialAnalysis]] = {}
    for trial_id, arm in arm_labels(study).items():
        record = records[trial_id]
        if record.status == "finished":
            by_arm.setdefault(arm, {}).setdefault(record.spec.seed, CachedTrialAnalysis(out, record, arm))
    return {arm: dict(sorted(of_seed.items())) for arm, of_seed in by_arm.items()}


def pick(trials: Trials) -> CachedTrialAnalysis:
    """Select box for one trial."""
    trial_of = {trial.record.trial_id: trial for of_seed in trials.values() for trial in of_seed.values()}
    words = {trial_id: trial.title for trial_id, trial in trial_of.items()}
    gone = "is not among the finished trials of this study (any more)"
    return trial_of[url_state.one("Trial", list(trial_of), "trial", words=words, stays=True, gone=gone)]
