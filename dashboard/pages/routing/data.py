"""Results of the routing-comparisons page."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from smoe_ray.analysis import ArmComparison, arms, compare_arms
from smoe_ray.errors import ResultsError
from smoe_ray.report.findings import verdict_sentence

from ... import load, study_tables, trial_analysis
from ...trial_analysis import CachedTrialAnalysis, Trials


def baseline(trials: Trials, chosen: Sequence[str]) -> str:
    """Default reference arm: the supervised one if there is one, else the first."""
    routing_of = {arm: next(iter(trials[arm].values())).record.spec.routing for arm in chosen}
    return next((arm for arm in chosen if routing_of[arm] == "supervised"), chosen[0])


@load.cached
def arm_ids(study: str) -> dict[str, str]:
    """Label of each arm by its id."""
    return study_tables.arm_ids(study, study_tables.arm_of(study))


@load.cached
def compare(study: str, chosen: tuple[str, ...], reference: str) -> ArmComparison:
    """Compare some of a study's arms with one of them, under their labels in the whole study.

    Args:
        study: its name.
        chosen: labels of arms, `reference` among them.
        reference: one of them.

    Raises:
        ResultsError: as `compare_arms`; or the study has grown since the labels were read, which changes them.
    """
    results, label_of = load.results(study).table, trial_analysis.arm_labels(study)
    some = results[results["trial_id"].map(label_of).isin(chosen)]
    # A label names only what distinguishes arms, so `compare_arms` has shorter ones for a subset of the arms.
    long_of = {short: label_of[str(trial)] for trial, short in arms(some).astype(str).items()}
    short = next((short for short, long in long_of.items() if long == reference), None)
    if short is None:
        raise ResultsError(f"{study} has grown while this page was drawn; reload it")
    found = compare_arms(some, reference=short, cells=())
    return found._replace(
        reference=reference,
        arms=tuple(long_of[arm] for arm in found.arms),
        differences=tuple(one._replace(arm=long_of[one.arm], reference=reference) for one in found.differences),
    )


def verdict(compared: ArmComparison) -> list[str]:
    """The report's sentences, one per difference."""
    return [verdict_sentence(difference, compared.measure, compared) for difference in compared.differences]


def agreements(trials: Sequence[CachedTrialAnalysis]) -> pd.DataFrame:
    """Agreement of experts and classes, one row per trial, under the report's column names."""
    found = [trial.routing for trial in trials]
    return pd.DataFrame(
        [
            {"arm": trial.title, "active": one.active, "effective": one.effective, **one.agreement._asdict()}
            for trial, one in zip(trials, found, strict=True)
        ]
    ).drop(columns=["cramers_v_corrected", "matched_correlation"])


def with_embeddings(trials: Sequence[CachedTrialAnalysis]) -> list[CachedTrialAnalysis]:
    """Trials that have stored their embeddings. Raises ResultsError if none has."""
    found = []
    for place, trial in enumerate(trials, start=1):
        try:
            _ = trial.embeddings
            found.append(trial)
        except ResultsError:
            if place == len(trials) and not found:
                raise
    return found
