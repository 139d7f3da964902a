"""How each family of models is trained and measured; `base.Family` has what the loop asks."""

from __future__ import annotations

from smoe_ray.spec import ContrastiveModelSpec, TrialSpec
from smoe_ray.training.families.base import Family, Measured, Step

__all__ = ["Family", "Measured", "Step", "family_of"]


def family_of(trial: TrialSpec) -> Family:
    """The family of a trial's model.

    Raises:
        PluginError, StudyError: a plug-in of the trial cannot be imported, fails, or refuses its parameters.
    """
    # Each imports what it needs alone.
    if isinstance(trial.model, ContrastiveModelSpec):
        from smoe_ray.training.families.contrastive import ContrastiveFamily

        return ContrastiveFamily(trial)
    from smoe_ray.training.families.smoe_vae import SMoEVAEFamily

    return SMoEVAEFamily(trial)
