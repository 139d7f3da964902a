"""The contract of objectives: what every objective must do, as tests that an author of one runs on it.

Subclass the contract in a test module and name the objective, or several::

    import pytest

    from my_package import MyObjective
    from smoe_ray.spec import ObjectiveSpec
    from smoe_ray.testing.objectives import ObjectiveContract


    class TestMyObjective(ObjectiveContract):
        @pytest.fixture(params=[MyObjective(), MyObjective(weight=3)], ids=str)
        def objective(self, request: pytest.FixtureRequest) -> ObjectiveSpec:
            return request.param

pytest collects every test of the contract from the subclass. ``pytest.register_assert_rewrite("smoe_ray.testing")`` in
``conftest.py`` makes failures show the values compared.

Shapes: B images, E experts, Z latent, P pixels.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from smoe_ray.data import Dataset, Splits
from smoe_ray.model import Decoded, Encoded
from smoe_ray.spec import DecoderLikelihood, DecoderLikelihoodSpec, ObjectiveSpec, TrialSpec, trial_with
from smoe_ray.training import Runtime, fit
from smoe_ray.training.objectives import Loss, LossInput, Terms, loss_for
from smoe_ray.training.objectives.base import GlobalMean, identity
from smoe_ray.training.objectives.terms import blend

B, E, Z, P = 12, 3, 2, 5

TINY: dict[str, Any] = {
    "model.encoder": "lite",
    "model.num_experts": E,
    "model.latent_dim": Z,
    "model.gate_hidden": [4],
    "training.batch_size": 8,
    "training.budget": "3 epochs",
}
"""Fields of a trial that trains on `noise_images` in a fraction of a second."""


class Leaves(NamedTuple):
    """What a model computes of a batch, as leaves of the graph of gradients."""

    mu_BZ: Tensor
    logvar_BZ: Tensor
    logit_BE: Tensor
    image_EBP: Tensor
    """Every expert's reconstruction, pixels in (0, 1)."""


class ObjectiveContract:
    """What every objective must do; subclass it and override `objective` (see the module)."""

    trains_gate: ClassVar[bool] = True
    """Whether the loss sends a gradient into the gate; False for a method whose gate is frozen."""

    @pytest.fixture
    def objective(self) -> ObjectiveSpec:
        """The objective under test."""
        raise NotImplementedError("override the fixture objective")

    @pytest.fixture
    def loss(self, objective: ObjectiveSpec) -> Loss[Any]:
        """A fresh loss of the objective."""
        return loss_for(objective)

    def test_terms_are_finite_scalars(self, objective: ObjectiveSpec, loss: Loss[Any]) -> None:
        terms = compute(loss, objective, leaves(), labels())
        for name, term in terms.by_name().items():
            assert term.shape == (), name
            assert torch.isfinite(term), name
        assert not set(terms.own or {}) & set(Terms._fields)

    def test_state_is_in_buffers(self, loss: Loss[Any]) -> None:
        assert not list(loss.parameters())  # the optimizer has the parameters of the model alone

    def test_gradients_reach_encoder_gate_and_experts(self, objective: ObjectiveSpec, loss: Loss[Any]) -> None:
        made = leaves()  # every expert is the gate's first choice for a third of the images
        compute(loss, objective, made, labels()).loss.backward()
        for name, leaf in made._asdict().items():
            if name != "logit_BE" or self.trains_gate:
                assert leaf.grad is not None, name
                assert torch.isfinite(leaf.grad).all(), name
                assert (leaf.grad != 0).any(), name
        assert made.image_EBP.grad is not None
        assert (made.image_EBP.grad != 0).any(dim=2).any(dim=1).all()

    def test_permuted_experts_have_permuted_gradients(self, objective: ObjectiveSpec, loss: Loss[Any]) -> None:
        order = torch.tensor([2, 0, 1])  # the new expert j is the old expert order[j]
        made, other = leaves(), leaves()
        other = other._replace(
            logit_BE=other.logit_BE[:, order].detach().requires_grad_(),
            image_EBP=other.image_EBP[order].detach().requires_grad_(),
        )
        plain, plain_grads = with_gradients(loss, objective, made, labels())
        permuted, grads = with_gradients(
            loss_for(objective), objective, other, order.argsort()[labels()], uniform_BE=uniform()[:, order]
        )
        assert values(permuted) == pytest.approx(values(plain), rel=1e-9)
        expected = plain_grads._replace(logit_BE=plain_grads.logit_BE[:, order], image_EBP=plain_grads.image_EBP[order])
        for name, grad in grads._asdict().items():
            torch.testing.assert_close(grad, getattr(expected, name), rtol=1e-9, atol=1e-12, msg=name)

    def test_the_loss_is_per_image(self, objective: ObjectiveSpec, loss: Loss[Any]) -> None:
        once = leaves()
        twice = Leaves._make([*(value.repeat(2, 1) for value in once[:3]), once.image_EBP.repeat(1, 2, 1)])
        doubled = compute(loss_for(objective), objective, twice, labels().repeat(2))
        assert values(doubled) == pytest.approx(values(compute(loss, objective, once, labels())), rel=1e-9)

    def test_what_the_spec_declares_is_what_the_loss_depends_on(self, objective: ObjectiveSpec) -> None:
        plain = values(compute(loss_for(objective), objective, leaves(), labels()))
        later = values(compute(loss_for(objective), objective, leaves(), labels(), progress=0.9))
        assert (later != plain) == objective.is_annealed
        relabelled = values(compute(loss_for(objective), objective, leaves(), (labels() + 1) % E))
        assert (relabelled != plain) == objective.needs_labels

    def test_the_reconstruction_term_is_of_the_specs_likelihood(
        self, objective: ObjectiveSpec, loss: Loss[Any]
    ) -> None:
        if not isinstance(loss.spec, DecoderLikelihoodSpec):
            return  # it offers no choice
        found = [
            values(compute(type(loss)(loss.spec.model_copy(update={"likelihood": one})), objective, leaves(), labels()))
            for one in get_args(DecoderLikelihood)
        ]
        assert len({terms["reconstruction"] for terms in found}) == len(found)  # a loss that ignores it has one value
        assert len({terms["kl"] for terms in found}) == 1

    @pytest.mark.parametrize("sizes", [(5, 7), (1, 3, 8)], ids=str)
    def test_shards_add_up_to_the_global_batch(
        self, objective: ObjectiveSpec, loss: Loss[Any], sizes: Sequence[int]
    ) -> None:
        whole, whole_grads = with_gradients(loss, objective, leaves(), labels())
        shards = on_shards(objective, sizes)
        for name, value in values(whole).items():
            total = sum(size / B * values(terms)[name] for size, (_, terms, _) in zip(sizes, shards, strict=True))
            assert total == pytest.approx(value, rel=1e-9), name
        for name, whole_grad in whole_grads._asdict().items():
            parts = [size / B * getattr(grads, name) for size, (_, _, grads) in zip(sizes, shards, strict=True)]
            joined = torch.cat(parts, dim=1 if name == "image_EBP" else 0)
            torch.testing.assert_close(joined, whole_grad, rtol=1e-9, atol=1e-12, msg=name)
        for name, state in loss.state_dict().items():
            for its_loss, _, _ in shards:
                torch.testing.assert_close(its_loss.state_dict()[name], state, msg=name)

    def test_a_resumed_trial_ends_in_the_same_bits(self, objective: ObjectiveSpec) -> None:
        trial, data = trial_with(TrialSpec(objective=objective), TINY), noise_images()
        *_, uninterrupted = fit(trial, data, Runtime("cpu"))
        checkpoint = next(fit(trial, data, Runtime("cpu"))).checkpoint()
        *_, resumed = fit(trial, data, Runtime("cpu", through_a_file(checkpoint)))
        for end, other in (
            (resumed.checkpoint(), uninterrupted.checkpoint()),
            (resumed.weights(), uninterrupted.weights()),
        ):
            assert end.keys() == other.keys()
            assert [name for name in end if not np.array_equal(end[name], other[name])] == []

    def test_every_term_is_a_column(self, objective: ObjectiveSpec, loss: Loss[Any]) -> None:
        names = compute(loss, objective, leaves(), labels()).by_name()
        epoch = next(fit(trial_with(TrialSpec(objective=objective), TINY), noise_images(), Runtime("cpu")))
        assert [name for name in epoch.row if name.startswith("train.")] == [f"train.{name}" for name in names]


def leaves() -> Leaves:
    """Random values of a batch, always the same; image b has expert b mod E as the gate's first choice."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=torch.float64, generator=generator)

    first_choice_BE = torch.eye(E, dtype=torch.float64)[torch.arange(B) % E]
    made = Leaves(random(B, Z), random(B, Z), random(B, E) + first_choice_BE, random(E, B, P))
    return Leaves(*(value.requires_grad_() for value in made))


def labels() -> Tensor:
    """Labels that agree with the gate's first choice on three quarters of the images; each occurs."""
    label_B = torch.arange(B) % E
    label_B[::4] = (label_B[::4] + 1) % E
    return label_B


def images() -> Tensor:
    """The images that are reconstructed: image_BP."""
    return torch.rand(B, P, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def uniform() -> Tensor:
    """Random numbers for what draws some: uniform_BE."""
    return torch.rand(B, E, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def compute(
    loss: Loss[Any],
    objective: ObjectiveSpec,
    made: Leaves,
    label_B: Tensor,
    progress: float = 0.25,
    image_BP: Tensor | None = None,
    global_mean: GlobalMean = identity,
    uniform_BE: Tensor | None = None,
    first_row: int = 0,
) -> Terms:
    """Terms of a batch, decoded as the objective says; by default of `images()`, repeated as often as they fit."""
    repeats = len(label_B) // B
    image_BP = images().repeat(repeats, 1) if image_BP is None else image_BP
    uniform_BE = uniform().repeat(repeats, 1) if uniform_BE is None else uniform_BE
    encoded = Encoded(made.mu_BZ, made.logvar_BZ)
    if objective.decodes == "all":
        decoded = Decoded(encoded, made.logit_BE, made.image_EBP, None)
    elif objective.decodes == "merged":
        # As of experts whose images are linear in their parameters: the mean of these makes the mean of the images.
        blended_BP = blend(torch.softmax(made.logit_BE, dim=1), made.image_EBP)
        decoded = Decoded(encoded, made.logit_BE, None, None, merged_BP=blended_BP)
    else:
        expert_BK = loss.choose(made.logit_BE, global_mean, uniform_BE)
        assert expert_BK.shape == (len(label_B), objective.experts_per_image)
        chosen_KBP = made.image_EBP[expert_BK.t(), torch.arange(len(label_B))]
        decoded = Decoded(encoded, made.logit_BE, None, chosen_KBP, expert_BK)
    drawn_BE = uniform_BE if objective.draws_noise else None
    terms: Terms = loss(LossInput(image_BP, label_B, decoded, 0.5, progress, global_mean, drawn_BE, first_row))
    return terms


def values(terms: Terms) -> dict[str, float]:
    """The terms as numbers."""
    return {name: term.item() for name, term in terms.by_name().items()}


def with_gradients(
    loss: Loss[Any], objective: ObjectiveSpec, made: Leaves, label_B: Tensor, **options: Any
) -> tuple[Terms, Leaves]:
    """Terms, and the gradient of the loss by each of the leaves (zeros where there is none)."""
    terms = compute(loss, objective, made, label_B, **options)
    grads = torch.autograd.grad(terms.loss, made, allow_unused=True, materialize_grads=True)
    return terms, Leaves(*grads)


def on_shards(objective: ObjectiveSpec, sizes: Sequence[int]) -> list[tuple[Loss[Any], Terms, Leaves]]:
    """Loss, terms and gradients of each of the data-parallel workers, here threads, that share one batch."""
    together = threading.Barrier(len(sizes))
    means: list[Tensor] = [torch.empty(0)] * len(sizes)

    def work(rank: int) -> tuple[Loss[Any], Terms, Leaves]:
        def global_mean(value: Tensor) -> Tensor:  # as `collectives.WorkerGroup.mean`
            means[rank] = value.detach() * sizes[rank] / B
            together.wait()
            total = torch.stack(means).sum(dim=0)
            together.wait()
            return value + (total - value.detach())

        rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        whole, loss = leaves(), loss_for(objective)
        shard = [*(value[rows] for value in whole[:3]), whole.image_EBP[:, rows]]
        made = Leaves._make(value.detach().requires_grad_() for value in shard)
        options: dict[str, Any] = {
            "image_BP": images()[rows],
            "global_mean": global_mean,
            "uniform_BE": uniform()[rows],
        }
        options["first_row"] = rows.start
        try:
            return loss, *with_gradients(loss, objective, made, labels()[rows], **options)
        except BaseException:
            together.abort()
            raise

    with ThreadPoolExecutor(len(sizes)) as threads:
        return list(threads.map(work, range(len(sizes))))


def noise_images() -> Splits:
    """20 images to train on and 6 to test on, of as many classes as there are experts, each of one style."""
    rng = np.random.default_rng(0)

    def noise(count: int) -> Dataset:
        label_B = np.arange(count) % E
        return Dataset(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), label_B, style_B=label_B)

    return Splits(noise(20), noise(6), ("a", "b", "c"), "0" * 64, ("a/1", "b/1", "c/1"))


def through_a_file(checkpoint: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """A checkpoint as another process would read it: written and read without pickles."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **checkpoint)
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))
