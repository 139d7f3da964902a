"""How much memory a trial needs at its peak, counted from its spec: no model is built, no data are read.

A trial always holds weights, gradients, Adam's two moments and images. On top come, in turn, the activations of a
training step, those of an evaluation, and copies on their way to a file. It is counted for training on a CPU;
benchmarks/results/memory.md compares it with measured peaks.

Shapes: B images, E experts, K of them for each image, P values of an image (C * H * W).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from smoe_ray.model.architectures import Activations, decoder_architecture, encoder_architecture, hidden_size
from smoe_ray.model.cost import model_cost
from smoe_ray.spec import ContrastiveModelSpec, ImageShape, ModelSpec, TrialSpec
from smoe_ray.spec.decoders import SharedDecoderSpec
from smoe_ray.spec.gates import AttentiveGateSpec

PROCESS_BYTES = 450 * 2**20
"""Resident memory of a process that has trained something tiny: Python, torch, and what they load as they run."""

IMAGES_AT_ONCE = 256
"""Images that pass through the model at once in an evaluation: more, and activations outgrow a CPU's cache."""

_FLOAT = 4
_STATES = 4
"""Copies of the parameters in training: weights, gradients, and Adam's two moments."""
_FRAGMENTED = 0.6
"""Part of an evaluation's memory that does not fit into what the training step before it freed: its tensors have other
sizes, and the allocator gives back little. Measured on a dozen configurations: 0.2 to 1."""
_IN_CHECKPOINT = 6
"""Copies while a checkpoint is written: three of them on their way to the host, and the file's content."""
_IN_EMBEDDINGS = 8
"""Bytes per value of a test image while embeddings.npz is written: reconstructions in float16 twice, compressed."""


class Memory(NamedTuple):
    """Bytes that one process of a trial needs at its peak."""

    process: int
    """The process itself: `PROCESS_BYTES`."""
    data: int
    """Training and test images, as far as the spec determines how many."""
    states: int
    """Weights, gradients and the optimizer's state."""
    training: int
    """Activations of a training step, and their gradients."""
    pooled: int
    """The part of it that stays allocated after the step."""
    evaluation: int
    """Activations of an evaluation, and reconstructions of the test images."""
    writing: int
    """Copies of the state, or of the test images, on their way to a file."""

    @property
    def trial(self) -> int:
        """The trial alone: what the process grows by."""
        others = self.pooled + max(self.evaluation, self.writing)
        return self.data + self.states + max(self.training + int(_FRAGMENTED * self.evaluation), others)

    @property
    def peak(self) -> int:
        """Process and trial."""
        return self.process + self.trial


def trial_memory(trial: TrialSpec, image_shape: ImageShape, train_images: int = 0, test_images: int = 0) -> Memory:
    """Estimate the peak memory of each process that trains a trial.

    Args:
        trial: the trial; of its data only the shape and number of images count.
        image_shape: (C, H, W) of its images.
        train_images: training images; 0 if unknown.
        test_images: test images; 0 if unknown.

    Raises:
        StudyError: the decoder cannot make images of this shape.
        PluginError: a plug-in fails.
    """
    model = trial.model
    if isinstance(model, ContrastiveModelSpec):
        return _of_contrastive(trial, model, image_shape, train_images, test_images)
    encoder = encoder_architecture(model.encoder).activations(image_shape, model.latent_dim)
    expert = decoder_architecture(model.decoder).activations(image_shape, model.latent_dim)
    B = _images_per_step(trial, train_images)
    weights = _FLOAT * model_cost(model, image_shape).params_total
    P = math.prod(image_shape)
    return Memory(
        process=PROCESS_BYTES,
        data=P * (train_images + test_images),
        states=_STATES * weights,
        training=_training(trial, model, B, image_shape, encoder, expert, weights),
        pooled=_number_size(trial) * B * _pooled_experts(trial) * expert.pooled,
        evaluation=_evaluation(trial, model, image_shape, encoder, expert, test_images),
        writing=max(_IN_CHECKPOINT * weights, _IN_EMBEDDINGS * P * test_images * trial.evaluation.save_embeddings),
    )


def _of_contrastive(
    trial: TrialSpec, model: ContrastiveModelSpec, image_shape: ImageShape, train_images: int, test_images: int
) -> Memory:
    """Two views of each image; a layer keeps what its convolution, its normalisation and its activation make."""
    P = math.prod(image_shape)
    stem, *stages = (
        channels * math.prod(size) for channels, size in zip(model.widths, model.sizes(image_shape), strict=True)
    )
    layers = [stem]
    for number, numbers in enumerate(stages, start=1):
        runs = model.experts_per_image if number == model.moe_stage else 1
        layers += [numbers] * 2 * runs
    V = 2 * _images_per_step(trial, train_images)
    weights = _FLOAT * model_cost(model, image_shape).params_total
    return Memory(
        process=PROCESS_BYTES,
        data=P * (train_images + test_images),
        states=_STATES * weights,
        training=V * (_number_size(trial) * (3 * sum(layers) + 2 * max(layers)) + 3 * _FLOAT * P) + 3 * _FLOAT * V**2,
        pooled=0,
        evaluation=_FLOAT * (IMAGES_AT_ONCE * 3 * max(layers) + 6 * model.widths[-1] * (train_images + test_images)),
        writing=max(_IN_CHECKPOINT * weights, 2 * P * test_images * trial.evaluation.save_embeddings),
    )


def _training(
    trial: TrialSpec,
    model: ModelSpec,
    B: int,
    image_shape: ImageShape,
    encoder: Activations,
    expert: Activations,
    weights: int,
) -> int:
    """Bytes of a training step beside the parameters and their gradients."""
    E, P = trial.model.num_experts + _shared(trial), math.prod(image_shape)
    size = _number_size(trial)
    decodes = trial.objective.decodes
    if decodes == "all":
        decoded, gradients = E * expert.kept + E * P * (not expert.pooled), E * P
    elif decodes == "chosen":
        K = trial.objective.experts_per_image + _shared(trial)
        decoded, gradients = K * (expert.kept + 3 * P), K * P
    else:  # merged: parameters of its own for each image, and their gradients
        decoded, gradients = expert.kept + 2 * weights // _FLOAT // E, P
    widest = max(encoder.widest, expert.widest * _at_once(trial, expert))
    per_image = encoder.kept + decoded + _gate(model, image_shape) + max(gradients, widest)
    casts = weights if size < _FLOAT else 0  # bfloat16 copies of the weights, and of their gradients
    return B * (size * per_image + 3 * _FLOAT * P) + size * E * expert.fixed + casts


def _evaluation(
    trial: TrialSpec,
    model: ModelSpec,
    image_shape: ImageShape,
    encoder: Activations,
    expert: Activations,
    test_images: int,
) -> int:
    """Bytes of an evaluation: all experts on some images, then the chosen ones on all, which may be a single one."""
    E, P = trial.model.num_experts + _shared(trial), math.prod(image_shape)
    images = min(IMAGES_AT_ONCE, test_images) if test_images else IMAGES_AT_ONCE
    per_image = E * P + _gate(model, image_shape) + max(encoder.widest, expert.widest * _at_once(trial, expert)) + 3 * P
    everything = images * per_image + E * expert.fixed
    group = images if expert.pooled else test_images
    chosen = group * expert.widest + 2 * P * test_images + E * expert.fixed
    return _FLOAT * max(everything, chosen)


def _gate(model: ModelSpec, image_shape: ImageShape) -> int:
    """Numbers per image of the gate: its layers, and of an attentive one the hidden layers of all experts."""
    layers = 2 * (model.latent_dim + sum(model.gate_hidden) + model.num_experts)
    if not isinstance(model.gate, AttentiveGateSpec):
        return layers
    return layers + 2 * model.num_experts * hidden_size(model, image_shape)


def _images_per_step(trial: TrialSpec, train_images: int) -> int:
    """Images of a step in one process: of data-parallel workers, where there are fewest."""
    workers = trial.resources.workers
    batch = min(trial.training.batch_size, train_images or math.inf)
    return math.ceil(batch / (workers if isinstance(workers, int) else workers.min))


def _shared(trial: TrialSpec) -> int:
    """Decoders beside those of the experts."""
    return int(isinstance(trial.model, ModelSpec) and isinstance(trial.model.decoder, SharedDecoderSpec))


def _number_size(trial: TrialSpec) -> int:
    return 2 if trial.training.precision == "bf16" else _FLOAT


def _at_once(trial: TrialSpec, expert: Activations) -> int:
    """Experts that are computed at once: those of `lite_decoders` one per thread, others in turn."""
    return min(trial.resources.cpus, trial.model.num_experts) if expert.pooled else 1


def _pooled_experts(trial: TrialSpec) -> int:
    return {"all": trial.model.num_experts, "chosen": 1, "merged": 0}[trial.objective.decodes]
