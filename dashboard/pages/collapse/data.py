"""Results of the collapse page, cached until the study changes."""

from __future__ import annotations

from typing import Literal, NamedTuple

import pandas as pd

from smoe_ray.analysis import (
    BimodalityTest,
    CollapseRate,
    ExpertSurvival,
    PhaseDiagram,
    TrialUsage,
    bimodality_tests,
    collapse_rates,
    expert_deaths,
    expert_survival,
    phase_diagram,
    usage_over_epochs,
)
from smoe_ray.analysis.arm_labels import coarse_arms
from smoe_ray.analysis.experts import NUM_EXPERTS, InUse, experts_in_use
from smoe_ray.columns import count
from smoe_ray.errors import ResultsError

from ... import load, study_tables

Grouping = Literal["arm", "objective and size"]


_COARSE = ("routing", "objective.name", NUM_EXPERTS)


@load.cached
def _coarse_labels(study: str) -> pd.Series[str]:
    return coarse_arms(load.results(study).table, _COARSE)


def labels(study: str, grouping: Grouping) -> pd.Series[str]:
    """Label per trial: its arm, or its objective and number of experts."""
    return study_tables.arm_of(study) if grouping == "arm" else _coarse_labels(study)


@load.cached
def ids(study: str, grouping: Grouping) -> dict[str, str]:
    """Label of each group by its id."""
    return study_tables.arm_ids(study, labels(study, grouping), only=None if grouping == "arm" else _COARSE)


def default_grouping(study: str) -> Grouping:
    """By arm, unless nearly every trial is its own arm."""
    return "arm" if len(labels(study, "arm").cat.categories) <= study_tables.MAX_ARMS else "objective and size"


@load.cached
def titles(study: str) -> dict[str, str]:
    """Title by trial id, for trials that have not failed, sorted by arm and seed."""
    trials = load.results(study).table.drop_duplicates("trial_id")
    trials = trials[trials["status"] != "failed"]
    trials = trials.assign(arm=trials["trial_id"].map(labels(study, "arm"))).sort_values(["arm", "seed"], kind="stable")
    rows = zip(trials["arm"], trials["seed"], trials["trial_id"], strict=True)
    return {trial: f"{arm}, seed {seed} ({trial})" for arm, seed, trial in rows}


@load.cached
def in_use(study: str, trials: tuple[str, ...]) -> tuple[InUse, ...]:
    """Active and effective experts over epochs: quantiles over all trials, and curves of the given ones."""
    return experts_in_use(load.results(study).table, trials)


@load.cached
def usage(study: str, trial: str) -> TrialUsage:
    """Share of the test images of each expert of one trial over epochs."""
    results = load.results(study).table
    (shown,) = usage_over_epochs(results[results["trial_id"] == trial], each="trial").trials
    return shown


@load.cached
def rates(study: str, grouping: Grouping) -> tuple[CollapseRate, ...]:
    """How often trials collapse."""
    return collapse_rates(load.results(study).table, label_of=labels(study, grouping))


@load.cached
def survival(study: str, grouping: Grouping) -> ExpertSurvival:
    """Share of the experts alive over epochs."""
    return expert_survival(load.results(study).table, label_of=labels(study, grouping))


@load.cached
def answer(study: str) -> str:
    """How many runs collapsed, and how many experts are in which state, as sentences."""
    found = unused(study)
    alive = found.experts - found.dead - found.never_used
    states = (
        f"Of {found.experts:,} experts in {count(found.trials, 'trial')}, {alive:,} are alive at the end, "
        f"{found.dead:,} are dead and {found.never_used:,} were never used."
    )
    try:
        found_rates = rates(study, "arm")
    except ResultsError:  # none has finished, or all are routed by label
        return states
    collapsed, runs = sum(rate.collapsed for rate in found_rates), sum(rate.n for rate in found_rates)
    return (
        f"{collapsed:,} of {runs:,} finished runs collapsed: fewer than half of their experts are active at the end. "
        f"{states}"
    )


@load.cached
def bimodality(study: str, grouping: Grouping) -> tuple[BimodalityTest, ...]:
    """Whether the final losses of each group are bimodal."""
    return bimodality_tests(load.results(study).table, label_of=labels(study, grouping))


@load.cached
def phase(study: str) -> PhaseDiagram:
    """Share of the experts in use against rho."""
    return phase_diagram(load.results(study).table)


class Unused(NamedTuple):
    """Experts that are not alive at the end of their run."""

    table: pd.DataFrame
    """One row per expert: the dead, earliest death first, then those never used."""
    dead: int
    never_used: int
    experts: int
    """Number of experts, in any of the three states."""
    trials: int


@load.cached
def unused(study: str) -> Unused:
    """The experts of all trials that died, with the time, and those that were never used."""
    experts = expert_deaths(load.results(study).table, labels(study, "arm"))
    shown = experts[experts["state"] != "alive"].sort_values("died", kind="stable", ignore_index=True)
    shown = shown.assign(arm=shown["arm"].astype(str))
    shown = shown[["arm", "seed", "trial_id", "expert", "state", "died", "last_used", "revivals", "last_epoch"]]
    dead, never_used = (int((shown["state"] == state).sum()) for state in ("dead", "never used"))
    return Unused(shown, dead, never_used, len(experts), experts["trial_id"].nunique())
