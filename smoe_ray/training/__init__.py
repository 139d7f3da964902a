"""Training one trial: `fit` yields epochs, `evaluate` measures, `checkpoint` keeps the state."""

from smoe_ray.training.checkpoint import epochs_done
from smoe_ray.training.loop import Epoch, Runtime, fit

__all__ = ["Epoch", "Runtime", "epochs_done", "fit"]
