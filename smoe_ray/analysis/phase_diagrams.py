"""Phase diagram: experts in use at the end of training against the ratio of the two penalties."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from smoe_ray.analysis.arm_labels import coarse_arms
from smoe_ray.analysis.curves import Curve, FloatArray, n_range, summarise
from smoe_ray.analysis.experts import IN_USE_MEASURES, NUM_EXPERTS, unsupervised_outcomes
from smoe_ray.analysis.outcomes import require

THEORY_SLOPE = 0.60
"""Active share of the experts per unit of rho, until all are active: a fit to simulations of the gate alone, in which
a dormant expert of probability eps revives only if eps > exp(-rho E / K)."""

_OBJECTIVE, _BALANCE, _ENTROPY = (f"config.objective.{name}" for name in ("name", "lambda_balance", "lambda_entropy"))
_BALANCE_FORM = "config.objective.balance_form"


class PhasePanel(NamedTuple):
    """One measure of the number of experts in use, as a fraction of E."""

    title: str
    curves: tuple[Curve, ...]
    """Against rho, one per objective and E. Labels are those of the diagram."""
    margin: tuple[Curve, ...]
    """Runs without an entropy term, hence without rho: one point per objective and E, at x = 0, 1, ..."""


class PhaseDiagram(NamedTuple):
    """Share of the experts in use against rho = 2 lambda_balance / lambda_entropy."""

    labels: tuple[str, ...]
    """Objectives and E, in the order of colours."""
    panels: tuple[PhasePanel, ...]
    theory_rho: FloatArray
    theory_share: FloatArray
    """min(1, 0.60 rho), a prediction for active experts (first panel), not a measurement: linear between the values of
    `theory_rho`, the last of which is the axis limit. Empty if no run has a rho."""
    n_range: tuple[int, int]


def phase_diagram(results: pd.DataFrame) -> PhaseDiagram:
    """Experts in use at the end of finished unsupervised trials against rho.

    Trials are pooled over all settings except objective, E and rho.

    rho is the ratio of the load-balancing penalty to the entropy penalty, which sharpens the gate. Only `blend` has
    both; runs without an entropy term (other objectives, lambda_entropy 0) are shown separately. With
    ``balance_form: paper_text`` the balance term is 1/E of the released code's, so lambda_balance is divided by E.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).

    Raises:
        ResultsError: there is no finished trial, all are supervised, or a column is absent.
    """
    require(results, ("experts.active", "experts.effective", "experts.configured", _OBJECTIVE))
    outcomes = unsupervised_outcomes(results, "phase diagram", None)
    outcomes = outcomes.assign(rho=_rho(outcomes))
    label_of = coarse_arms(outcomes, ("objective.name", NUM_EXPERTS))
    outcomes["label"] = outcomes["trial_id"].map(label_of)
    panels = tuple(_phase_panel(outcomes, title, column) for title, column in IN_USE_MEASURES.items())
    drawn = [curve for panel in panels for curve in (*panel.curves, *panel.margin)]
    full = 1 / THEORY_SLOPE
    rho = np.array([0, full, 1.3 * max(full, outcomes["rho"].max())]) if panels[0].curves else np.empty(0)
    return PhaseDiagram(
        tuple(label_of.cat.categories),
        panels,
        rho,
        np.minimum(1, THEORY_SLOPE * rho),
        n_range(curve.n for curve in drawn),
    )


def _rho(outcomes: pd.DataFrame) -> pd.Series[float]:
    """2 lambda_balance / lambda_entropy; NaN without an entropy term."""
    if not (outcomes[_OBJECTIVE] == "blend").any():
        return pd.Series(np.nan, outcomes.index)
    require(outcomes, (_BALANCE, _ENTROPY))
    balance = outcomes[_BALANCE].astype(float)
    if _BALANCE_FORM in outcomes:
        balance = balance.mask(outcomes[_BALANCE_FORM] == "paper_text", balance / outcomes["experts.configured"])
    return 2 * balance / outcomes[_ENTROPY].astype(float).where(outcomes[_ENTROPY] > 0)


def _phase_panel(outcomes: pd.DataFrame, title: str, column: str) -> PhasePanel:
    shares = outcomes.assign(share=outcomes[column] / outcomes["experts.configured"])
    has_rho = shares["rho"].notna()
    curves = [
        summarise(runs, str(label), "rho", "share") for label, runs in shares[has_rho].groupby("label", observed=True)
    ]
    apart = shares[~has_rho].groupby("label", observed=True)
    margin = [
        summarise(runs.assign(place=place), str(label), "place", "share") for place, (label, runs) in enumerate(apart)
    ]
    return PhasePanel(title, tuple(curves), tuple(margin))
