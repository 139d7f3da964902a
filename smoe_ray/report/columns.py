"""Headings and number formats of the columns of the report's tables.

docs/metrics.md describes every column, as docs/check.py verifies.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Column(NamedTuple):
    """Heading of a column and the format of its numbers."""

    head: str
    form: str = "{}"


_LOSS, _SHARE, _COUNT, _SCORE = "{:.2f}", "{:.0%}", "{:,.0f}", "{:.3f}"

COLUMNS: dict[str, Column] = {
    # keys of a row
    "arm": Column("arm"),
    "reference": Column("reference"),
    "label": Column("cell"),
    "study": Column("study"),
    "trial_id": Column("trial"),
    "seed": Column("seed", _COUNT),
    "status": Column("status"),
    "epoch": Column("epoch", _COUNT),
    "why": Column("why"),
    "target": Column("against"),
    "condition": Column("condition"),
    # trials of an arm
    "finished": Column("finished", _COUNT),
    "failed": Column("failed", _COUNT),
    "pruned": Column("pruned", _COUNT),
    "running": Column("running", _COUNT),
    "images": Column("images", _COUNT),
    "configured": Column("experts", _COUNT),
    "loss": Column("test loss", _LOSS),
    "loss_soft": Column("soft", _LOSS),
    "gap": Column("gap", _LOSS),
    "active": Column("active", "{:.3g}"),
    "effective": Column("effective", _LOSS),
    # differences between arms
    "runs_compared": Column("runs"),
    "left_out": Column("left out", _COUNT),
    "mean_arm": Column("mean, arm", _LOSS),
    "mean_reference": Column("mean, reference", _LOSS),
    "estimate": Column("difference", "{:+.2f}"),
    "low": Column("low", _LOSS),
    "high": Column("high", _LOSS),
    "level": Column("level", "{:.4g}"),
    "interval": Column("interval by"),
    "effect": Column("Hedges' g", "{:+.2f}"),
    "p": Column("p", _SCORE),
    "p_holm": Column("p, Holm", _SCORE),
    "verdict": Column("verdict"),
    # recommended number of experts
    "experts": Column("experts", _COUNT),
    "above_best": Column("above best", _LOSS),
    "tied": Column("tied"),
    "chance": Column("best in", _SHARE),
    "gaussian_process": Column("Gaussian process", _LOSS),
    "runs": Column("runs near", _COUNT),
    "amount": Column("held out", _COUNT),
    "rmse": Column("RMSE", _LOSS),
    "noise": Column("noise floor", _LOSS),
    "r_squared": Column("R²", _SCORE),
    "floor": Column("L∞", _LOSS),
    "a": Column("a", _SCORE),
    "b": Column("b", _SCORE),
    "c": Column("c", _SCORE),
    "g": Column("g", _SCORE),
    "k0": Column("k0", _SCORE),
    "k1": Column("k1", _SCORE),
    "n": Column("n", _COUNT),
    # collapse
    "half_life": Column("half-life", "{:.3g}"),
    "half_life_least": Column("least of the runs", "{:.3g}"),
    "half_life_most": Column("most", "{:.3g}"),
    "collapsed": Column("collapsed", _COUNT),
    "share": Column("share", _SHARE),
    "share_low": Column("low", _SHARE),
    "share_high": Column("high", _SHARE),
    "mean_low": Column("lower mean", _LOSS),
    "mean_high": Column("upper mean", _LOSS),
    "upper_share": Column("share of the upper", _SHARE),
    "basin_sd": Column("s.d. of either", _LOSS),
    "delta_bic": Column("ΔBIC", "{:+.1f}"),
    # routing
    "nmi": Column("NMI", _SCORE),
    "ami": Column("AMI", _SCORE),
    "ari": Column("ARI", _SCORE),
    "cramers_v": Column("Cramer's V", _SCORE),
    "cramers_v_corrected": Column("corrected", _SCORE),
    "purity": Column("purity", _SCORE),
    "matched_accuracy": Column("matched accuracy", _SCORE),
    "matched_correlation": Column("matched correlation", _SCORE),
    "matched_share": Column("matched share", _SCORE),
    # separability
    "control": Column("control"),
    "groups": Column("groups", _COUNT),
    "accuracy": Column("probe, 5 folds", _SCORE),
    "holdout_accuracy": Column("probe, 80/20", _SCORE),
    "majority": Column("chance: largest", _SCORE),
    "permuted": Column("chance: permuted", _SCORE),
    "neighbour_accuracy": Column("15 neighbours", _SCORE),
    "silhouette": Column("silhouette", _SCORE),
    "silhouette_images": Column("its images", _COUNT),
    "left_out_images": Column("images left out", _COUNT),
    "left_out_groups": Column("groups left out", _COUNT),
    "trustworthiness": Column("trustworthiness", _SCORE),
    "perplexity": Column("perplexity", "{:.3g}"),
    # homogeneity
    "num_classes": Column("classes", _COUNT),
    "steps": Column("steps", _COUNT),
    "mean": Column("mean", _LOSS),
    # published
    "fraction": Column("fraction", "{:g}"),
    "active_experts": Column("active experts", _COUNT),
    # provenance
    "smoe_ray": Column("smoe-ray"),
    "torch": Column("torch"),
    "numpy": Column("numpy"),
    "python": Column("Python"),
    "numerics": Column("numerics", _COUNT),
    "trials": Column("trials", _COUNT),
    "first_started": Column("first started, UTC"),
    "last_ended": Column("last ended, UTC"),
}
"""A column ``<name>_sd`` (sample standard deviation) is shown in the cell of the mean, column ``<name>``."""


def is_text(name: str) -> bool:
    """Whether a column contains text."""
    return COLUMNS[name].form == "{}"


def format_cell(name: str, value: Any, sd: Any = None) -> str:
    """Text of a table cell, with the spread `sd` after the value; a dash for a missing value."""
    form = COLUMNS[name].form
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "\N{EN DASH}"
    if isinstance(value, float) and math.isinf(value):
        return "never"
    if name in ("p", "p_holm") and value < 0.001:
        return "< 0.001"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = form.format(value).replace("-", "\N{MINUS SIGN}").replace("%", " %") if form != "{}" else str(value)
    if sd is None:
        return text
    return f"{text} ± {form.format(sd)}" if not math.isnan(sd) else text
