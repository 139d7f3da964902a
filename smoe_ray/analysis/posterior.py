"""Posterior collapse: trials whose latent vector carries next to no information about the image."""

from __future__ import annotations

import pandas as pd

from smoe_ray.analysis.outcomes import require
from smoe_ray.analysis.summary import trial_summary

LEAST_ACTIVE_SHARE = 0.1
"""Below this share of active latent dimensions (`latent.active`) a posterior counts as collapsed."""

LEAST_KL = 0.01
"""So it does below this mean KL per latent dimension, nats."""

LEAST_STEPS = 500
"""Trials with fewer optimizer steps are not judged: the encoder starts with a posterior near the prior, so that an
untrained latent vector looks like a collapsed one. Steps, because an epoch may be eight of them or thousands."""

_MOST_NAMED = 3


def collapsed_posteriors(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of `trial_summary` with a collapsed posterior at their last epoch.

    Left out are trials that still run, those with fewer than `LEAST_STEPS` optimizer steps, and those that did not
    measure it (those of earlier versions, and those before their first evaluation).

    Raises:
        ResultsError: `results` is not a table of `read_results`.
    """
    collapsed = _collapsed_trials(results)
    trials = trial_summary(results)
    return trials[trials["trial_id"].isin(collapsed)].reset_index(drop=True)


def _collapsed_trials(results: pd.DataFrame) -> set[str]:
    """Their ids, found without labels of arms, which take most of the time of `trial_summary`."""
    require(results, ("trial_id", "epoch"))
    if not {"latent.active", "latent.configured", "latent.kl"} <= set(results.columns):
        return set()
    require(results, ("status", "cost.steps"))
    trials = results.sort_values("epoch", kind="stable", na_position="first").drop_duplicates("trial_id", keep="last")
    trials = trials[(trials["status"] != "running") & (trials["cost.steps"] >= LEAST_STEPS)]
    active, configured, kl = (trials[f"latent.{name}"].astype(float) for name in ("active", "configured", "kl"))
    return set(trials.loc[(active < LEAST_ACTIVE_SHARE * configured) | (kl < LEAST_KL), "trial_id"])


def posterior_warning(results: pd.DataFrame) -> str | None:
    """One sentence about the trials with a collapsed posterior; None if there is none. Raises as that does."""
    if not _collapsed_trials(results):
        return None
    found = collapsed_posteriors(results)
    named = [f"{trial.arm}, seed {trial.seed} ({trial.trial_id})" for trial in found[:_MOST_NAMED].itertuples()]
    more = f" and {len(found) - _MOST_NAMED:,} more" if len(found) > _MOST_NAMED else ""
    active = int(found["latent.active"].max())
    dimensions = int(found["latent.configured"].max())
    number = results["trial_id"].nunique()
    return (
        f"posterior collapse in {len(found):,} of {number:,} trials: at most {active} of {dimensions} latent "
        f"dimensions are active, mean KL at most {found['latent.kl'].max():.2g} nats per dimension; lower "
        f"training.beta: {'; '.join(named)}{more}"
    )
