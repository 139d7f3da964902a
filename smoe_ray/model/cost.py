"""What a model costs, counted from its architecture: parameters and floating-point operations.

FLOPs follow torch's own counter: a multiplication and an addition count as two, only convolutions and matrix products
count, and a convolution counts as it is defined (not as `ExpertBank` computes it), so that costs compare across
implementations.
"""

from __future__ import annotations

from typing import NamedTuple

from smoe_ray.model.architectures import decoder_architecture, encoder_architecture, gate_architecture
from smoe_ray.spec import ImageShape, ModelSpec, ObjectiveSpec, PluginObjective
from smoe_ray.spec.gates import AttentiveGateSpec


class Cost(NamedTuple):
    """Cost of one model. FLOPs are for one image."""

    params_total: int
    params_active: int
    """Parameters that one image meets under hard gating: encoder, gate, one expert, and what all experts share or the
    gate reads of them."""
    flops_hard: int
    """Forward pass with the chosen expert alone."""
    flops_soft: int
    """Forward pass with all experts."""
    flops_train: int
    """Forward and backward pass of a training step with all experts."""
    flops_train_hard: int
    """Forward and backward pass of a training step that runs the chosen expert alone (supervised routing)."""
    flops_train_expert: int
    """The part of it that each further expert of an image would add."""
    flops_train_merged: int
    """Forward and backward pass of a training step with one expert whose parameters are the mean of all experts'."""


def model_cost(spec: ModelSpec, image_shape: ImageShape) -> Cost:
    """Count the parameters and FLOPs of a model without building it.

    Args:
        spec: the model.
        image_shape: (C, H, W) of its images.

    Raises:
        StudyError: the decoder cannot make images of this shape.
    """
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


def flops_of_training(cost: Cost, objective: ObjectiveSpec | PluginObjective) -> int:
    """FLOPs of one image in a training step, with the experts that `ObjectiveSpec.decodes` says."""
    if objective.decodes == "all":
        return cost.flops_train
    if objective.decodes == "merged":
        return cost.flops_train_merged
    return cost.flops_train_hard + (objective.experts_per_image - 1) * cost.flops_train_expert
