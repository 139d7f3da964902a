"""A contrastive convolutional mixture of experts: the second family of models, and the one objective that trains it.

It is for the questions of arXiv:2605.20610, whose abstract says what this has: convolutional experts, sparse gating and
a contrastive objective on natural images. What the abstract leaves open is our choice, and all of it is a field here.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from smoe_ray.spec.architectures import ImageShape
from smoe_ray.spec.base import Spec

_Width = Annotated[int, Field(strict=True, ge=1, le=4096)]


class ContrastiveModelSpec(Spec):
    """Stem and stages of convolutions, of which one stage is E convolutional experts behind a noisy top-k gate.

    A stage halves the side of its input. The representation is the last stage's output, averaged over its pixels; a
    projection head, which only the loss sees, follows (arXiv:2002.05709).
    """

    reconstructs: ClassVar[bool] = False
    """Whether it makes images: reconstructions, and what needs them, are to be had."""
    gate: ClassVar[None] = None
    """Its gate is none of those of an SMoE-VAE: it is linear, on what the experts read."""
    gate_hidden: ClassVar[tuple[int, ...]] = ()

    family: Literal["contrastive"] = "contrastive"
    num_experts: int = Field(default=8, ge=1, le=1024, description="convolutional experts configured (E)")
    experts_per_image: int = Field(default=1, ge=1, description="experts that run for an image (K)")
    widths: tuple[_Width, ...] = Field(
        default=(16, 32, 64, 128, 128),
        min_length=2,
        max_length=6,
        description="channels of the stem, then of each stage; the last is the size of the representation (Z)",
    )
    moe_stage: int = Field(default=3, ge=1, description="number of the stage that is the mixture of experts, from 1")
    projection: tuple[_Width, _Width] = Field(
        default=(128, 64), description="hidden and output units of the projection head"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.moe_stage >= len(self.widths):
            raise ValueError(
                f"moe_stage is {self.moe_stage}, and the {len(self.widths)} widths make {len(self.widths) - 1} stages "
                "after the stem: name one of them"
            )
        if self.experts_per_image > self.num_experts:
            raise ValueError(
                f"experts_per_image is {self.experts_per_image}, more than num_experts, which is {self.num_experts}"
            )
        return self

    def sizes(self, image_shape: ImageShape) -> list[tuple[int, int]]:
        """Height and width of the stem's map, then of each stage's, which are half of the one before, rounded up."""
        sizes = [image_shape[1:]]
        for _ in self.widths[1:]:
            height, width = sizes[-1]
            sizes.append(((height + 1) // 2, (width + 1) // 2))
        return sizes

    @property
    def representation_dim(self) -> int:
        """Z: size of what `embeddings.npz` has of each image as ``mu``."""
        return self.widths[-1]


class Contrastive(Spec):
    """SimCLR (arXiv:2002.05709): of all views in a batch, a view's partner is the one of the same image; plus balance.

    The augmentations' strengths are ours, smaller than those for ImageNet, as small images ask for.
    """

    decodes: ClassVar[Literal["chosen"]] = "chosen"
    """As `ObjectiveSpec.decodes`: `ContrastiveModelSpec.experts_per_image` experts run."""
    is_annealed: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    label_kind: ClassVar[Literal["class"]] = "class"
    experts_per_image: ClassVar[int] = 1
    """Of an image beyond those that `model_cost` counts: none."""

    name: Literal["contrastive"] = "contrastive"
    temperature: float = Field(default=0.5, gt=0, description="what cosines of projections are divided by (NT-Xent)")
    balance_weight: float = Field(
        default=0.1, ge=0, description="weight of CV(importance)^2 + CV(load)^2 (arXiv:1701.06538), nats"
    )
    crop_area: float = Field(
        default=0.2, gt=0, le=1, description="least share of an image that a random crop keeps; 1: no crops"
    )
    flip: float = Field(default=0.5, ge=0, le=1, description="chance of a view to be mirrored left to right")
    jitter: float = Field(
        default=0.4,
        ge=0,
        lt=1,
        description="strength of brightness, contrast, saturation (factors 1 - jitter to 1 + jitter) and hue (a turn "
        "of up to jitter / 4); views are jittered with a chance of 0.8",
    )
    grayscale: float = Field(default=0.2, ge=0, le=1, description="chance of a view in colour to become grey")
