"""Decoders with parameters of their own: those that are more than a row of the table of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from smoe_ray.spec.architectures import DECODERS
from smoe_ray.spec.base import Spec

if TYPE_CHECKING:
    RowName: TypeAlias = str
else:
    RowName = Literal[tuple(DECODERS)]


class CPDecoderSpec(Spec):
    """Decoders whose linear layers are one CP-factorised tensor, and whose convolutions are the same for all experts
    (muMoE, arXiv:2402.12550): a further expert costs `rank` parameters.
    """

    name: Literal["cp"] = "cp"
    layers: RowName = Field(default="lite", description="the layers that a decoder has")
    rank: int = Field(default=64, ge=1, le=4096, description="terms of the CP factorisation (R)")


class SharedDecoderSpec(Spec):
    """Decoders beside one more that is always on: an expert's image is the mean of its own and the shared one's
    (DeepSeekMoE, arXiv:2401.06066, section 3.2).
    """

    name: Literal["shared"] = "shared"
    layers: RowName = Field(default="lite", description="the layers that each decoder has, the shared one too")


DecoderWithFields: TypeAlias = CPDecoderSpec | SharedDecoderSpec

DECODERS_WITH_FIELDS: dict[str, type[DecoderWithFields]] = {"cp": CPDecoderSpec, "shared": SharedDecoderSpec}
"""By name."""
