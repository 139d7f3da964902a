"""Checkpoints of the code that the authors of arXiv:2509.10025 released (https://github.com/strajdzsha/smoe-vae).

That code saves the state dict of its model by `torch.save`, as ``vae_moe_model_final.pth``. Its names, and ours:

==================================  ============================================
``encoder.conv<n>``                 ``encoder.features.<2n - 2>``
``encoder.fc_mu``, ``fc_logvar``    ``encoder.mu``, ``encoder.logvar``
``gating_network.fc<n>``            ``gate.<2n - 2>``
``decoders.<e>.fc``                 row e of ``experts.linear_weight``, ``linear_bias``
``decoders.<e>.conv<n>``            row e of ``experts.conv_weights.<n - 1>``, ``conv_biases.<n - 1>``
``decoders.<e>.conv_transpose<n>``  the same, of the decoder ``large``
==================================  ============================================

Its layers are those of our encoders and decoders of the same size, which are written down in `spec.architectures`.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smoe_ray.bounded_read import read_bounded
from smoe_ray.errors import ResultsError, StudyError
from smoe_ray.model.bank import ExpertBank
from smoe_ray.model.build import build_model
from smoe_ray.model.encoder import ConvEncoder
from smoe_ray.model.gate import MLPGate
from smoe_ray.spec import ImageShape, ModelSpec

MOST_BYTES = 2**31
"""Size limit of a checkpoint; fifty experts of the largest kind have 80 million parameters."""

_KINDS = {"weight": ("linear_weight", "conv_weights"), "bias": ("linear_bias", "conv_biases")}


class ReleasedCheckpoint(NamedTuple):
    """A checkpoint as it was read."""

    name: str
    """Of the file."""
    sha256: str
    """Of its content, hex."""
    tensors: dict[str, Tensor]


def read_released(file: str | Path) -> ReleasedCheckpoint:
    """Read a checkpoint of the released code. No code in it is run: it is unpickled to tensors and plain containers.

    Raises:
        ResultsError: it cannot be read, is larger than `MOST_BYTES`, or is no state dict.
    """
    path = Path(file)
    try:
        content = read_bounded(path, MOST_BYTES)
    except OSError as error:
        raise ResultsError(
            f"{path}: {error.strerror or error}; give a checkpoint (.pth) of the released code"
        ) from None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ResultsError(f"{path}: has compressed parts, which torch.save does not write; save it by that")
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError) as error:
        # torch's message goes on for lines about how to run the code in a file.
        first = " ".join(str(error).split())[:120]
        raise ResultsError(f"{path}: not a state dict that torch.save wrote ({first}); give one of those") from None
    if not isinstance(loaded, Mapping) or not loaded:
        raise ResultsError(f"{path}: holds {type(loaded).__name__}, not a state dict; save model.state_dict()")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            raise ResultsError(f"{path}: '{str(name)[:80]}' is no weight; save model.state_dict() alone")
    return ReleasedCheckpoint(path.name, hashlib.sha256(content).hexdigest(), dict(loaded))


def from_released(checkpoint: ReleasedCheckpoint, spec: ModelSpec, image_shape: ImageShape) -> dict[str, Tensor]:
    """Weights of a checkpoint as a state dict of `spec`'s model, float32.

    Args:
        checkpoint: from `read_released`.
        spec: the model that it is said to be.
        image_shape: (C, H, W) of its images.

    Raises:
        ResultsError: a weight is absent, is none of the model's, or has another shape; the first of them by name.
        StudyError: the released code has no such model, or it cannot make images of this shape.
    """
    with torch.device("meta"):  # without memory: the spec may mean a model of any size
        model = build_model(spec, image_shape, 0)
    if not (
        isinstance(model.encoder, ConvEncoder) and isinstance(model.gate, MLPGate) and type(model.experts) is ExpertBank
    ):
        raise StudyError("model: the released code has the encoders, decoders and the gate mlp of our tables alone")
    needed = model.state_dict()
    parts = dict(_parts(model.experts, needed))
    found = checkpoint.tensors
    said = f"the study's model ({spec.num_experts} experts, encoder {spec.encoder}, decoder {spec.decoder})"
    for name in sorted(parts.keys() | found.keys(), key=_by_number):
        problem = None
        if name not in found:
            problem = f"is missing, {said} needs it"
        elif name not in parts:
            problem = f"is none of {said}"
        elif found[name].shape != parts[name].shape:
            shapes = tuple(found[name].shape), tuple(parts[name].shape)
            problem = f"has shape {shapes[0]}, {said} needs {shapes[1]}"
        elif not bool(torch.isfinite(found[name]).all()):
            problem = "has values that are not finite"
        if problem is not None:
            raise ResultsError(
                f"{checkpoint.name}: weight '{name}' {problem}; name the checkpoint's model in the study"
            )
    weights = {name: torch.empty(value.shape) for name, value in needed.items()}
    for name, part in parts.items():
        place = weights[part.ours] if part.expert is None else weights[part.ours][part.expert]
        place.copy_(found[name])
    return weights


class _Part(NamedTuple):
    """A weight of ours, or one expert's row of it."""

    ours: str
    expert: int | None
    shape: torch.Size


def _parts(experts: ExpertBank, needed: Mapping[str, Tensor]) -> Iterator[tuple[str, _Part]]:
    """Released name and place of every weight of a model."""
    for name, value in needed.items():
        module, *path, kind = name.split(".")
        if module == "encoder":
            theirs = f"conv{int(path[1]) // 2 + 1}" if path[0] == "features" else f"fc_{path[0]}"
            yield f"encoder.{theirs}.{kind}", _Part(name, None, value.shape)
        elif module == "gate":
            yield f"gating_network.fc{int(path[0]) // 2 + 1}.{kind}", _Part(name, None, value.shape)
    for kind, (linear, convolutions) in _KINDS.items():
        layers = {"fc": f"experts.{linear}"}
        for number, convolution in enumerate(experts.layers.layers):
            theirs = "conv_transpose" if convolution.kind == "transposed" else "conv"
            layers[f"{theirs}{number + 1}"] = f"experts.{convolutions}.{number}"
        for layer, ours in layers.items():
            for expert in range(experts.num_experts):
                yield f"decoders.{expert}.{layer}.{kind}", _Part(ours, expert, needed[ours].shape[1:])


def _by_number(name: str) -> list[Any]:
    """Sort key: expert 10 comes after expert 9."""
    return [(part.isdigit(), int(part) if part.isdigit() else part) for part in name.split(".")]
