"""Architecture of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, Tag, model_serializer, model_validator

from smoe_ray import plugins
from smoe_ray.spec.architectures import DECODERS, ENCODERS
from smoe_ray.spec.base import Spec
from smoe_ray.spec.decoders import (
    DECODERS_WITH_FIELDS,
    CPDecoderSpec,
    DecoderWithFields,
    SharedDecoderSpec,
)
from smoe_ray.spec.gates import AttentiveGateSpec, GateSpec, HierarchicalGateSpec, MLPGateSpec
from smoe_ray.spec.plugin import BUILT_IN, PLUGIN, PluginReference, choose


class _PluginArchitecture(PluginReference):
    """``package.module:name``, or a mapping of `name` and parameters; without parameters it is written as the name."""

    name: str = Field(description="package.module:name, or a short name that an installed package registers")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_serializer(mode="plain")
    def _to_name(self) -> str | dict[str, Any]:
        return {"name": self.name, **self.parameters} if self.parameters else self.name


class PluginEncoder(_PluginArchitecture):
    """An encoder that a plug-in brings."""

    kind: ClassVar[plugins.Kind] = "encoder"
    where: ClassVar[str] = "model.encoder"


class PluginDecoder(_PluginArchitecture):
    """An architecture of the experts that a plug-in brings."""

    kind: ClassVar[plugins.Kind] = "decoder"
    where: ClassVar[str] = "model.decoder"


if TYPE_CHECKING:
    EncoderName: TypeAlias = str
    DecoderName: TypeAlias = str
else:
    EncoderName, DecoderName = Literal[tuple(ENCODERS)], Literal[(*DECODERS, *DECODERS_WITH_FIELDS)]


def _with_parameters(name: str) -> str | DecoderWithFields:
    """A name alone: short for all of its parameters at their defaults, where it has some."""
    return DECODERS_WITH_FIELDS[name]() if name in DECODERS_WITH_FIELDS else name


class ModelSpec(Spec):
    """The SMoE-VAE (arXiv:2509.10025): encoder, gate and E decoders that read the same latent vector."""

    hashed_unless_default: ClassVar[frozenset[str]] = frozenset({"gate"})

    num_experts: int = Field(default=10, ge=1, le=1024, description="decoders configured (E)")
    latent_dim: int = Field(default=32, ge=1, le=4096, description="size of the latent vector (Z)")
    encoder: Annotated[
        Annotated[EncoderName, Tag(BUILT_IN)] | Annotated[PluginEncoder, Tag(PLUGIN)],
        choose(PluginEncoder, ENCODERS),
    ] = Field(default="medium", description="convolutional encoder; medium deepens with the size of the images")
    decoder: Annotated[
        Annotated[DecoderName, AfterValidator(_with_parameters), Tag(BUILT_IN)]
        | Annotated[CPDecoderSpec, Tag("cp")]
        | Annotated[SharedDecoderSpec, Tag("shared")]
        | Annotated[PluginDecoder, Tag(PLUGIN)],
        choose(PluginDecoder, DECODERS, with_fields=DECODERS_WITH_FIELDS),
    ] = Field(
        default="lite", description="architecture of each expert; medium and large deepen with the size of the images"
    )
    gate_hidden: tuple[Annotated[int, Field(strict=True, ge=1, le=65536)], ...] = Field(
        default=(64, 32), description="hidden units of the gate MLP, layer by layer"
    )
    gate: GateSpec = Field(default=MLPGateSpec(), description="how the hidden layers become logits of the experts")

    @model_validator(mode="after")
    def _experts_have_what_the_gate_reads(self) -> Self:
        if isinstance(self.gate, AttentiveGateSpec) and isinstance(self.decoder, PluginDecoder):
            raise ValueError(
                f"the gate 'attentive' reads the experts' hidden layers, which a plug-in ({self.decoder.plugin}) does "
                "not show; choose a built-in decoder or another gate"
            )
        return self

    @model_validator(mode="after")
    def _groups_are_equal(self) -> Self:
        if isinstance(self.gate, HierarchicalGateSpec) and self.num_experts % self.gate.groups:
            raise ValueError(
                f"the {self.gate.groups} groups of a hierarchical gate have equal numbers of experts: set num_experts "
                f"to a multiple of {self.gate.groups} (it is {self.num_experts}), or gate.groups to a divisor of it"
            )
        return self
