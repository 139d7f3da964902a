"""What a model costs, counted from its architecture: parameters and floating-point operations.

FLOPs follow torch's own counter: a multiplication and an addition count as two, only convolutions and matrix products
count, and a convolution counts as it is defined (not as `ExpertBank` computes it), so that costs compare across
implementations.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from smoe_ray.model.architectures import (
    ComponentCost,
    convolution,
    decoder_architecture,
    encoder_architecture,
    gate_architecture,
    linear_layer,
)
from smoe_ray.spec import AnyModelSpec, Contrastive, ContrastiveModelSpec, ImageShape, ObjectiveSpec, PluginObjective
from smoe_ray.spec.gates import AttentiveGateSpec


class Cost(NamedTuple):
    """Cost of one model. FLOPs are for one image."""

    params_total: int
    params_active: int
    """Parameters that one image meets under hard gating: encoder, gate, one expert, and what all experts share or the
    gate reads of them. Of a contrastive model: stem, stages, gate, K experts and the projection head."""
    flops_hard: int
    """Forward pass with the chosen expert alone (contrastive: the K experts of an image, without noise or projection).
    """
    flops_soft: int
    """Forward pass with all experts."""
    flops_train: int
    """Forward and backward pass of a training step with all experts."""
    flops_train_hard: int
    """Forward and backward pass of a training step that runs the chosen expert alone (supervised routing; contrastive:
    two views of an image, each through its K experts)."""
    flops_train_expert: int
    """The part of it that each further expert of an image would add."""
    flops_train_merged: int
    """Forward and backward pass of a training step with one expert whose parameters are the mean of all experts'."""


def model_cost(spec: AnyModelSpec, image_shape: ImageShape) -> Cost:
    """Count the parameters and FLOPs of a model without building it.

    Args:
        spec: the model.
        image_shape: (C, H, W) of its images.

    Raises:
        StudyError: the decoder cannot make images of this shape.
    """
    if isinstance(spec, ContrastiveModelSpec):
        return _contrastive_cost(spec, image_shape)
    encoder = encoder_architecture(spec.encoder).cost(image_shape, spec.latent_dim)
    decoders = decoder_architecture(spec.decoder).cost(image_shape, spec.latent_dim)
    reads_all = isinstance(spec.gate, AttentiveGateSpec)
    experts = decoders.with_hidden_layers_of(spec.num_experts) if reads_all else decoders
    shared = encoder + gate_architecture(spec, image_shape).cost()
    hard, soft = shared + experts.of(1), shared + experts.of(spec.num_experts)
    merged = shared + experts.shared + decoders.each
    # The gradients, by weights and by parameters, cost it again each.
    averaging = 2 * spec.num_experts * decoders.each.params
    return Cost(
        params_total=soft.params,
        params_active=hard.params,
        flops_hard=hard.flops,
        flops_soft=soft.flops,
        flops_train=soft.flops + soft.flops_backward,
        flops_train_hard=hard.flops + hard.flops_backward,
        flops_train_expert=experts.each.flops + experts.each.flops_backward,
        flops_train_merged=merged.flops + merged.flops_backward + 3 * averaging,
    )


def _contrastive_cost(spec: ContrastiveModelSpec, image_shape: ImageShape) -> Cost:
    """Of `families.contrastive_conv.ContrastiveMoE`, layer by layer; normalisation has parameters and no FLOPs."""
    at_stem, *at_stages = spec.sizes(image_shape)
    shared = _normalised(image_shape[0], spec.widths[0], at_stem, reads_image=True)
    expert = ComponentCost(0, 0, 0)
    for number, ((c_in, c_out), size) in enumerate(zip(pairwise(spec.widths), at_stages, strict=True), start=1):
        stage = _normalised(c_in, c_out, size) + _normalised(c_out, c_out, size)
        if number == spec.moe_stage:
            expert = stage
        else:
            shared += stage
    logits = linear_layer(spec.widths[spec.moe_stage - 1], spec.num_experts)
    hidden, projected = spec.projection
    shared += logits
    head = linear_layer(spec.widths[-1], hidden) + linear_layer(hidden, projected)
    head = head._replace(params=head.params + hidden)  # a scale and a bias of the normalisation, instead of one bias
    in_training = logits + head  # the noise has as many weights as the logits
    active, everything = (shared + expert.times(count) for count in (spec.experts_per_image, spec.num_experts))
    trained, trained_all = (2 * (each.training + in_training.training) for each in (active, everything))
    return Cost(
        params_total=everything.params + in_training.params,
        params_active=active.params + in_training.params,
        flops_hard=active.flops,
        flops_soft=everything.flops,
        flops_train=trained_all,
        flops_train_hard=trained,
        flops_train_expert=2 * expert.training,
        flops_train_merged=trained,  # no objective merges them
    )


def _normalised(c_in: int, c_out: int, size: tuple[int, int], reads_image: bool = False) -> ComponentCost:
    """A 3 x 3 convolution without bias to maps of `size`, and a batch normalisation with a scale and a bias."""
    layer = convolution(c_in, c_out, 3, size, needs_input_gradient=not reads_image)
    return layer._replace(params=layer.params + 2 * c_out)


def flops_of_training(cost: Cost, objective: ObjectiveSpec | PluginObjective | Contrastive) -> int:
    """FLOPs of one image in a training step, with the experts that `ObjectiveSpec.decodes` says."""
    if objective.decodes == "all":
        return cost.flops_train
    if objective.decodes == "merged":
        return cost.flops_train_merged
    return cost.flops_train_hard + (objective.experts_per_image - 1) * cost.flops_train_expert
