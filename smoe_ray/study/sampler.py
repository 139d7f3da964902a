"""Optuna's sampler and pruner of a search study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoe_ray.spec import SearchStudy

if TYPE_CHECKING:
    import optuna


def make_sampler(study: SearchStudy, trials_before: int) -> optuna.samplers.BaseSampler:
    """The study's sampler, seeded by spec and `trials_before`, so that a resumed search does not repeat proposals."""
    import numpy as np
    import optuna

    spec = study.sampler
    seed = int(np.random.SeedSequence((spec.seed, trials_before)).generate_state(1)[0])
    if spec.name == "tpe":
        # Running trials count as bad ones, so that parallel proposals keep away from each other.
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    if spec.name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if spec.name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    if spec.name == "gp":
        return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def make_pruner(study: SearchStudy) -> optuna.pruners.BasePruner:
    """The study's pruner; steps are epochs, counted from 1."""
    import optuna

    spec = study.pruner
    if spec.name == "median":
        return optuna.pruners.MedianPruner(n_warmup_steps=spec.grace_epochs)
    if spec.name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=spec.grace_epochs, reduction_factor=spec.reduction_factor
        )
    return optuna.pruners.NopPruner()
