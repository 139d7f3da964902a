"""The model in plain PyTorch, and what it costs."""

from smoe_ray.model.bank import ExpertBank
from smoe_ray.model.cost import Cost, model_cost
from smoe_ray.model.smoe_vae import Decoded, Encoded, SMoEVAE, build_model

__all__ = ["Cost", "Decoded", "Encoded", "ExpertBank", "SMoEVAE", "build_model", "model_cost"]
