"""What the page of the loss surface shows, computed once per state of the study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import pandas as pd
import streamlit as st

from dashboard import load, overview
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
from smoe_ray.analysis.outcomes import test_gating, with_soft_loss
from smoe_ray.analysis.scaling import DATA_PATHS, Counted, Effort, fitted_grid
from smoe_ray.analysis.surface_fit import check_runs
from smoe_ray.errors import ResultsError
from smoe_ray.published import read_published

Loss = Literal["hard", "soft"]

_COARSE = ("routing", "objective.name", *DATA_PATHS)
_PUBLISHED_LABEL = "350,000 images"


class Asked(NamedTuple):
    """Switches of the page."""

    effort: Effort
    counted: Counted
    loss: Loss

    @property
    def comparable(self) -> bool:
        """Whether the published results count the same."""
        return self.counted == "active" and self.loss == "hard"


def table(study: str, asked: Asked) -> pd.DataFrame:
    """The study's results, with the wanted loss as the test loss."""
    results = load.results(study).table
    return with_soft_loss(results) if asked.loss == "soft" else results


@load.cached
def all_runs(study: str, asked: Asked) -> pd.DataFrame:
    """What `study_runs` gives, with column arm; the arms with the most cells first."""
    found = study_runs(table(study, asked), asked.effort, asked.counted)
    cells = {arm: len(of_arm[["amount", "experts"]].drop_duplicates()) for arm, of_arm in found.items()}
    return pd.concat(found[arm].assign(arm=arm) for arm in sorted(found, key=lambda arm: -cells[arm]))


def runs(study: str, arm: str, asked: Asked) -> pd.DataFrame:
    """The runs of one arm."""
    every = all_runs(study, asked)
    return every[every["arm"] == arm]


@load.cached
def surface(study: str, arm: str, asked: Asked) -> LossSurface:
    """Fig. 6 of one arm."""
    return loss_surface(_of_arm(study, arm, asked), asked.effort, experts=asked.counted)


@load.cached
def per_expert(study: str, arm: str, asked: Asked) -> LossAgainstSamplesPerExpert:
    """Fig. 7 of one arm."""
    return loss_against_samples_per_expert(_of_arm(study, arm, asked), effort=asked.effort, experts=asked.counted)


@load.cached
def against_experts(study: str, asked: Asked) -> LossAgainstExperts:
    """Fig. 2, a curve an arm; in a search, a curve for all trials of an objective and an amount of data."""
    results = table(study, asked)
    label_of = arms(results, ignore=(NUM_EXPERTS,))
    if len(label_of.cat.categories) > overview.MOST_ARMS:
        label_of = coarse_arms(results, _COARSE)
    return loss_against_experts(results, asked.counted, label_of)


@load.cached
def fit(study: str, arm: str, asked: Asked) -> SurfaceFit | None:
    """The fitted surface; None where the study is too small for one."""
    checked = check_runs(runs(study, arm, asked))
    try:
        return fit_surface(checked)
    except ResultsError:
        return None


@load.cached
def recommended(study: str, arm: str, amount: int, asked: Asked) -> Recommendation:
    """The best number of experts at `amount`."""
    return recommend_from_runs(
        runs(study, arm, asked), amount, asked.effort, asked.counted, arm, fit=fit(study, arm, asked)
    )


@load.cached
def fitted(study: str, arm: str, asked: Asked) -> tuple[Grid, BestCurve] | tuple[None, None]:
    """The fitted surface as a grid and the best count against the amount, where the study is large enough."""
    found = recommended(study, arm, most(study, arm, asked), asked)
    if found.surface is None:
        return None, None
    return fitted_grid(found.surface.fit, found.cells), found.surface.curve


def most(study: str, arm: str, asked: Asked) -> int:
    """The largest amount of training that the arm has."""
    return int(runs(study, arm, asked)["amount"].max())


def gating(study: str, asked: Asked) -> str:
    """What the test loss was measured with."""
    return "soft" if asked.loss == "soft" else test_gating(load.results(study).table)


def _of_arm(study: str, arm: str, asked: Asked) -> pd.DataFrame:
    results = table(study, asked)
    return results[results["trial_id"].isin(runs(study, arm, asked)["run"])]


class Published(NamedTuple):
    """The results of arXiv:2509.10025, to lay over a figure."""

    surface: Surface
    against_experts: LossAgainstExperts
    per_expert: Sequence[Curve]


@st.cache_data(show_spinner=False)
def published(effort: Effort) -> Published:
    """Published runs as the figures show them; Fig. 2 at all the data."""
    results = read_published()
    at_all_data = loss_against_experts(results[results["config.data.fraction"] == 1])
    (curve,) = at_all_data.curves
    (panel,) = loss_against_samples_per_expert(results, effort=effort).panels
    return Published(
        loss_surface(results, effort).surfaces[0],
        at_all_data._replace(curves=(curve._replace(label=_PUBLISHED_LABEL),)),
        panel.curves,
    )
