"""The model in plain PyTorch, and what it costs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from smoe_ray.model.architectures import Encoded
from smoe_ray.model.cost import Cost, model_cost

if TYPE_CHECKING:
    from smoe_ray.model.bank import ExpertBank
    from smoe_ray.model.build import build_model
    from smoe_ray.model.families.contrastive_conv import ContrastiveMoE
    from smoe_ray.model.families.smoe_vae import Decoded, SMoEVAE

__all__ = ["ContrastiveMoE", "Cost", "Decoded", "Encoded", "ExpertBank", "SMoEVAE", "build_model", "model_cost"]

_NEED_TORCH = {
    "ContrastiveMoE": "smoe_ray.model.families.contrastive_conv",
    "Decoded": "smoe_ray.model.families.smoe_vae",
    "ExpertBank": "smoe_ray.model.bank",
    "SMoEVAE": "smoe_ray.model.families.smoe_vae",
    "build_model": "smoe_ray.model.build",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch at first use: counting costs does without, and so need not wait for seconds."""
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NEED_TORCH[name]), name)
