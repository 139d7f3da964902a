"""A model from a folder that ``smoe-ray export --model`` wrote: weights and configuration, no pickled code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from smoe_ray.errors import ResultsError
from smoe_ray.model.build import build_model
from smoe_ray.spec import ImageShape
from smoe_ray.spec.messages import in_words
from smoe_ray.spec.model import ModelField

Model = TypeVar("Model", bound=nn.Module)


class _Config(BaseModel):
    """Those parts of ``config.json`` that make the model."""

    model: ModelField
    image_shape: ImageShape


def load_pretrained(folder: str | Path, kind: type[Model]) -> Model:
    """The model in `folder`, on the CPU, in evaluation mode.

    Args:
        folder: its files.
        kind: `SMoEVAE` or `ContrastiveMoE`: what the model must be.

    Raises:
        ResultsError: no such folder, or its files are not those of such a model.
        PluginError: it has a plug-in that is not allowed or not installed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    place = Path(folder)
    try:
        config = _Config.model_validate_json((place / "config.json").read_bytes())
        weights = load((place / "model.safetensors").read_bytes())
    except OSError as error:
        raise ResultsError(f"{error.filename}: {error.strerror}; give a folder of 'smoe-ray export --model'") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise ResultsError(f"{place}/config.json: not of a model ({where}: {in_words(problem)})") from None
    except (SafetensorError, ValueError) as error:
        raise ResultsError(f"{place}/model.safetensors: damaged ({error}); export the model again") from None
    with torch.device("meta"):  # without memory: the file may mean a model of any size
        problem_of_weights = misfit(build_model(config.model, config.image_shape, 0), weights)
    if problem_of_weights is not None:
        raise ResultsError(f"{place}/model.safetensors: {problem_of_weights}; export the model again")
    model = build_model(config.model, config.image_shape, 0)
    if not isinstance(model, kind):
        raise ResultsError(f"{place}: a model of the family {config.model.family}: load it by {type(model).__name__}")
    model.load_state_dict(weights)
    return model.eval()


def misfit(model: nn.Module, weights: Mapping[str, Any]) -> str | None:
    """The first weight that is not what the model needs, or None."""
    needed = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name in sorted(needed.keys() | weights.keys()):
        if name not in weights:
            return f"weight '{name}' is missing"
        if name not in needed:
            return f"weight '{name}' is none of the model's"
        if tuple(weights[name].shape) != needed[name]:
            return f"weight '{name}' has shape {tuple(weights[name].shape)}, the trial's spec needs {needed[name]}"
    return None
