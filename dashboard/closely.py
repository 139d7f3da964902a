"""One trial looked at closely: what its embeddings say, computed once.

Shapes: B test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import load, overview, selection
from smoe_ray.analysis import (
    ArmComparison,
    LatentMap,
    Routing,
    Separability,
    arms,
    compare_arms,
    latent_map,
    routing,
    separability,
)
from smoe_ray.columns import COLUMNS, format_cell
from smoe_ray.errors import ResultsError
from smoe_ray.report.verdicts import verdict_sentence
from smoe_ray.results import DataFacts, TrialRecord
from smoe_ray.results.trial import Arrays

if TYPE_CHECKING:
    import numpy.typing as npt

    from smoe_ray.analysis.curves import IntArray

Trials = Mapping[str, Mapping[int, "Trial"]]
"""Finished trials by arm, then by seed."""

MAP_IMAGES = 1000
"""Test images of a map: a map of 1,000 takes some seconds, one of 12,500 twenty."""


class Trial:
    """A finished trial. Whatever needs its embeddings may raise ResultsError: then it kept none."""

    def __init__(self, record: TrialRecord, arm: str) -> None:
        self.record = record
        self.arm = arm
        self.title = f"{arm}, seed {record.spec.seed}"

    @cached_property
    def embeddings(self) -> Arrays:
        """Arrays over the fixed test set, read-only."""
        return load.embeddings(self.record.study, self.record.trial_id)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self._data.class_names

    @property
    def test_set(self) -> str:
        """Equal for trials that look at the same test images, in the same order."""
        return self._data.fingerprint

    @property
    def _data(self) -> DataFacts:
        if self.record.data is None:
            raise ResultsError(f"trial {self.record.trial_id}: its record names no data; run it again")
        return self.record.data

    def routing(self) -> Routing:
        """Experts against classes."""
        kept = self.embeddings
        return routing(kept["expert"], kept["label"], kept["gate"].shape[1], self.class_names)

    def separability(self) -> tuple[Separability, ...]:
        """Probes and controls."""
        kept = self.embeddings
        return _separability(kept["mu"], kept["label"], kept["expert"], self.record.spec.model.gate_hidden)

    def map(self) -> LatentMap:
        """Map of the images that `mapped_images` chooses."""
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
    """Places of at most `MAP_IMAGES` of `count` test images, the same for all trials; ascending."""
    if count <= MAP_IMAGES:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MAP_IMAGES, replace=False))


def _arm_of(study: str) -> dict[str, str]:
    """Label of each trial by its id, in the order of arms."""
    return {str(trial): str(label) for trial, label in overview.arm_of(study).sort_values(kind="stable").items()}


def finished_trials(study: str) -> Trials:
    """Arms in their order; seeds rising. Of trials that share arm and seed, the first."""
    records = load.results(study).records
    by_arm: dict[str, dict[int, Trial]] = {}
    for trial_id, arm in _arm_of(study).items():
        record = records[trial_id]
        if record.status == "finished":
            by_arm.setdefault(arm, {}).setdefault(record.spec.seed, Trial(record, arm))
    return {arm: dict(sorted(of_seed.items())) for arm, of_seed in by_arm.items()}


def pick(trials: Trials) -> Trial:
    """The trial that a reader chooses."""
    trial_of = {trial.record.trial_id: trial for of_seed in trials.values() for trial in of_seed.values()}
    words = {trial_id: trial.title for trial_id, trial in trial_of.items()}
    return trial_of[selection.one("Trial", list(trial_of), "trial", words=words)]


def baseline(trials: Trials, chosen: Sequence[str]) -> str:
    """What arms are compared with unless a reader says otherwise: the supervised one, else the first."""
    routing_of = {arm: next(iter(trials[arm].values())).record.spec.routing for arm in chosen}
    return next((arm for arm in chosen if routing_of[arm] == "supervised"), chosen[0])


@load.cached
def compare(study: str, chosen: tuple[str, ...], reference: str) -> ArmComparison:
    """Compare some of a study's arms with one of them, under the names that they have in the whole study.

    Args:
        study: its name.
        chosen: labels of arms, `reference` among them.
        reference: one of them.

    Raises:
        ResultsError: as `compare_arms`.
    """
    results, label_of = load.results(study).table, _arm_of(study)
    some = results[results["trial_id"].map(label_of).isin(chosen)]
    # Among fewer arms less tells them apart, so `compare_arms` has shorter names for them.
    long_of = {short: label_of[str(trial)] for trial, short in arms(some).astype(str).items()}
    short = next(short for short, long in long_of.items() if long == reference)
    found = compare_arms(some, reference=short, cells=())
    return found._replace(
        reference=reference,
        arms=tuple(long_of[arm] for arm in found.arms),
        differences=tuple(one._replace(arm=long_of[one.arm], reference=reference) for one in found.differences),
    )


def verdict(compared: ArmComparison) -> list[str]:
    """The report's sentences, one a difference."""
    return [verdict_sentence(difference, "test loss", compared) for difference in compared.differences]


def agreements(trials: Sequence[Trial]) -> pd.DataFrame:
    """How well experts agree with classes, a row a trial; columns as the report names them."""
    found = [trial.routing() for trial in trials]
    return pd.DataFrame(
        [
            {"arm": trial.title, "active": one.active, "effective": one.effective, **one.agreement._asdict()}
            for trial, one in zip(trials, found, strict=True)
        ]
    ).drop(columns=["cramers_v_corrected", "matched_correlation"])


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of the report as it is read: heads and numbers in words, a mean and its spread in one cell."""
    names = [name for name in frame.columns if name.removesuffix("_sd") == name]
    return pd.DataFrame(
        [
            {COLUMNS[name].heading: format_cell(name, row[name], row.get(f"{name}_sd")) for name in names}
            for row in frame.to_dict("records")
        ]
    )


def with_embeddings(trials: Sequence[Trial]) -> list[Trial]:
    """Those that kept theirs; raises the last one's ResultsError where none did."""
    found = []
    for place, trial in enumerate(trials, start=1):
        try:
            _ = trial.embeddings
            found.append(trial)
        except ResultsError:
            if place == len(trials) and not found:
                raise
    return found
