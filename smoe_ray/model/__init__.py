"""The model in plain PyTorch, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smoe_ray.model.cost import Cost, model_cost

if TYPE_CHECKING:
    from smoe_ray.model.bank import ExpertBank
    from smoe_ray.model.smoe_vae import Decoded, Encoded, SMoEVAE, build_model

__all__ = ["Cost", "Decoded", "Encoded", "ExpertBank", "SMoEVAE", "build_model", "model_cost"]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for: whoever counts costs need not wait for seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smoe_ray.model import bank, smoe_vae

    return getattr(bank if name == "ExpertBank" else smoe_vae, name)
