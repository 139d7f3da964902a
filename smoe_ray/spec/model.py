"""Architecture of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from smoe_ray.spec.architectures import DECODERS, ENCODERS
from smoe_ray.spec.base import Spec

if TYPE_CHECKING:
    EncoderName: TypeAlias = str
    DecoderName: TypeAlias = str
else:
    EncoderName, DecoderName = Literal[tuple(ENCODERS)], Literal[tuple(DECODERS)]


class ModelSpec(Spec):
    """The SMoE-VAE (arXiv:2509.10025): encoder, gate and E decoders that read the same latent vector."""

    num_experts: int = Field(default=10, ge=1, le=1024, description="decoders configured (E)")
    latent_dim: int = Field(default=32, ge=1, le=4096, description="size of the latent vector (Z)")
    encoder: EncoderName = Field(default="medium", description="convolutional encoder")
    decoder: DecoderName = Field(default="lite", description="architecture of each expert")
    gate_hidden: tuple[Annotated[int, Field(strict=True, ge=1, le=65536)], ...] = Field(
        default=(64, 32), description="hidden units of the gate MLP, layer by layer"
    )
