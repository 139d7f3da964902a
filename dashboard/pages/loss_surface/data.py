"""Results of the loss-surface page, cached until the study changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import pandas as pd
import streamlit as st

from smoe_ray.analysis import (
    BestCurve,
    Curve,
    Grid,
    LossAgainstExperts,
    LossAgainstSamplesPerExpert,
    LossSurface,
    Recommendation,
    Surface,
    SurfaceFit,
    arms,
    fit_surface,
    loss_against_experts,
    loss_against_samples_per_expert,
    loss_surface,
    recommend_from_runs,
    study_runs,
)
from smoe_ray.analysis.arm_labels import coarse_arms
from smoe_ray.analysis.experts import NUM_EXPERTS
from smoe_ray.analysis.outcomes import loss_unit, test_gating, with_soft_loss
from smoe_ray.analysis.scaling import DATA_PATHS, Counted, Effort, fitted_grid
from smoe_ray.analysis.surface_fit import check_runs
from smoe_ray.errors import ResultsError
from smoe_ray.published import read_published

from ... import load, study_tables

Loss = Literal["hard", "soft"]

_COARSE = (
    "routing",
    "objective.name",
    "objective.likelihood",
    "data.source",
    "data.image.size",
    "data.image.channels",
    *DATA_PATHS,
)
"""Settings that separate the curves of a search; a curve has one unit."""
_PUBLISHED_LABEL = "350,000 images"


class Options(NamedTuple):
    """Options that the user sets on the page."""

    effort: Effort
    counted: Counted
    loss: Loss

    @property
    def comparable(self) -> bool:
        """Whether the published results use the same definitions."""
        return self.counted == "active" and self.loss == "hard"


def table(study: str, options: Options) -> pd.DataFrame:
    """The study's results, with the selected loss as the test loss."""
    results = load.results(study).table
    return with_soft_loss(results) if options.loss == "soft" else results


@load.cached
def all_runs(study: str, options: Options) -> pd.DataFrame:
    """Rows of `study_runs` with a column `arm`, arms with the most cells first."""
    found = study_runs(table(study, options), options.effort, options.counted)
    cells = {arm: len(of_arm[["amount", "experts"]].drop_duplicates()) for arm, of_arm in found.items()}
    return pd.concat(found[arm].assign(arm=arm) for arm in sorted(found, key=lambda arm: -cells[arm]))


def runs(study: str, arm: str, options: Options) -> pd.DataFrame:
    """The runs of one arm."""
    every = all_runs(study, options)
    return every[every["arm"] == arm]


@load.cached
def surface(study: str, arm: str, options: Options) -> LossSurface:
    """Fig. 6 of one arm."""
    return loss_surface(_of_arm(study, arm, options), options.effort, experts=options.counted)


@load.cached
def per_expert(study: str, arm: str, options: Options) -> LossAgainstSamplesPerExpert:
    """Fig. 7 of one arm."""
    return loss_against_samples_per_expert(_of_arm(study, arm, options), effort=options.effort, experts=options.counted)


@load.cached
def against_experts(study: str, options: Options) -> LossAgainstExperts:
    """Fig. 2, one curve per arm; for a search, one curve per objective and amount of data."""
    results = table(study, options)
    label_of = arms(results, ignore=(NUM_EXPERTS,))
    if len(label_of.cat.categories) > study_tables.MAX_ARMS:
        label_of = coarse_arms(results, _COARSE)
    return loss_against_experts(results, options.counted, label_of)


@load.cached
def fit(study: str, arm: str, options: Options) -> SurfaceFit | None:
    """The fitted surface; None if the study is too small for one."""
    checked = check_runs(runs(study, arm, options))
    try:
        return fit_surface(checked)
    except ResultsError:
        return None


@load.cached
def recommended(study: str, arm: str, amount: int, options: Options) -> Recommendation:
    """The best number of experts at `amount`."""
    return recommend_from_runs(
        runs(study, arm, options), amount, options.effort, options.counted, arm, fit=fit(study, arm, options)
    )


@load.cached
def fitted(study: str, arm: str, options: Options) -> tuple[Grid, BestCurve] | tuple[None, None]:
    """Fitted surface on a grid and optimal number of experts against the amount, if the study is large enough."""
    found = recommended(study, arm, largest_amount(study, arm, options), options)
    if found.surface is None:
        return None, None
    return fitted_grid(found.surface.fit, found.cells), found.surface.curve


def largest_amount(study: str, arm: str, options: Options) -> int:
    """The largest amount of training that the arm has."""
    return int(runs(study, arm, options)["amount"].max())


def gating(study: str, options: Options) -> str:
    """Gating with which the test loss was measured."""
    return "soft" if options.loss == "soft" else test_gating(load.results(study).table)


def unit(study: str) -> str:
    """Unit of the study's losses."""
    return loss_unit(load.results(study).table)


def why_not_published(study: str, options: Options) -> str | None:
    """Why the published results cannot be overlaid; None if they can."""
    if not options.comparable:
        return "Published results are for active experts and hard loss; select both to overlay them."
    ours, theirs = unit(study), loss_unit(read_published())
    return None if ours == theirs else f"Published results have another unit, {theirs}; the losses here: {ours}."


def _of_arm(study: str, arm: str, options: Options) -> pd.DataFrame:
    results = table(study, options)
    return results[results["trial_id"].isin(runs(study, arm, options)["run"])]


class Published(NamedTuple):
    """The results of arXiv:2509.10025 that can be overlaid on a figure."""

    surface: Surface
    against_experts: LossAgainstExperts
    per_expert: Sequence[Curve]


@st.cache_data(show_spinner=False)
def published(effort: Effort) -> Published:
    """Published results in the form of the figures; Fig. 2 on the full data."""
    results = read_published()
    at_all_data = loss_against_experts(results[results["config.data.fraction"] == 1])
    (curve,) = at_all_data.curves
    (panel,) = loss_against_samples_per_expert(results, effort=effort).panels
    return Published(
        loss_surface(results, effort).surfaces[0],
        at_all_data._replace(curves=(curve._replace(label=_PUBLISHED_LABEL),)),
        panel.curves,
    )
