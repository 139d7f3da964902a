"""Modifiers of training: what each does by hand, and what all keep: resuming, sharding, cost.

Shapes: B images, E experts, Z latent, D a gate's last hidden layer, P pixels.
"""

from __future__ import annotations

import math
import re
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from smoe_ray.errors import StudyError
from smoe_ray.model import Decoded, Encoded, SMoEVAE, build_model
from smoe_ray.model.plugin_architectures import ModuleExperts
from smoe_ray.spec import ModelSpec, TrialSpec, trial_with
from smoe_ray.spec.gates import BuiltInGate
from smoe_ray.spec.modifiers import MODIFIERS_OF_THE_GATE, ModifiersSpec
from smoe_ray.testing.objectives import TINY, B, E, compute, images, labels, leaves, noise_images, through_a_file
from smoe_ray.training import Epoch, Runtime, fit
from smoe_ray.training.collectives import ALONE
from smoe_ray.training.images import DeviceImages
from smoe_ray.training.modifiers import Modifiers, Moment
from smoe_ray.training.modifiers.coupling import mismatch, perturbed
from smoe_ray.training.modifiers.kmeans_gate import fit_gate, kmeans
from smoe_ray.training.modifiers.orthogonal import overlap
from smoe_ray.training.modifiers.similarity import dissimilarity
from smoe_ray.training.objectives import LossInput, Terms, loss_for
from smoe_ray.training.objectives.base import identity

BLEND = {"name": "blend", "lambda_balance": 200, "lambda_entropy": 400}
ON: dict[str, dict[str, Any]] = {
    "gate_temperature": {"share": 0.7},
    "warm_up": {"share": 0.7},
    "kmeans_gate": {"after": 0.2},
    "revival": {"every": 2, "below": 0.9, "noise": 0.1},
    "orthogonal": {},
    "similarity": {"weight": 0.1},
    "coupling": {"margin": 0.9},
}
"""Each modifier, so that it acts in the nine steps of a trial of `TINY`; those of `revival` cross its epochs."""


def trial_of(modifiers: dict[str, Any], **changes: Any) -> TrialSpec:
    linear = {"model.gate_hidden": ()} if "coupling" in modifiers else {}
    return trial_with(TrialSpec(), TINY | linear | {"objective": BLEND, "modifiers": modifiers} | changes)


def at(progress: float, **modifier: Any) -> tuple[Terms, Terms]:
    """Terms of the contract's batch under `blend` at this share of the budget, without the modifier and with it."""
    changes = modifier.pop("changes", {})
    trial = trial_of(modifier, **changes)
    loss, made = loss_for(trial.objective), leaves()
    terms = compute(loss, trial.objective, made, labels(), progress)  # type: ignore[arg-type]
    decoded = Decoded(Encoded(made.mu_BZ, made.logvar_BZ), made.logit_BE, made.image_EBP, None)
    batch = LossInput(images(), labels(), decoded, 0.5, progress)
    return terms, Modifiers(trial).terms(terms, batch, build_model(trial.model, (1, 28, 28), 0))


def moment(step: int, trial: TrialSpec, model: SMoEVAE, optimizer: torch.optim.Optimizer) -> Moment:
    data = DeviceImages(noise_images().train, torch.device("cpu"))
    return Moment(step, 100, trial.seed, model, optimizer, data, ALONE)


# --- what each does ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("progress", "temperature"), [(0, 4), (0.25, 2), (0.5, 1), (1, 1)])
def test_the_temperature_falls_geometrically_and_stays(progress: float, temperature: float) -> None:
    modifiers = Modifiers(trial_of({"gate_temperature": {"start": 4, "end": 1, "share": 0.5}}))
    logit_BE = torch.tensor([[4.0, -8.0]])
    torch.testing.assert_close(modifiers.logits(logit_BE, torch.tensor(progress)), logit_BE / temperature)


@pytest.mark.parametrize(("progress", "share"), [(0, 0), (0.1, 0.2), (0.5, 1), (1, 1)])
def test_regularisers_rise_from_the_error_and_the_kl(progress: float, share: float) -> None:
    plain, warm = at(progress, warm_up={"share": 0.5})
    without = plain.reconstruction + 0.5 * plain.kl
    assert plain.loss > without + 1
    assert warm.loss.item() == pytest.approx((without + share * (plain.loss - without)).item())
    assert warm._replace(loss=plain.loss) == plain  # the terms are reported unweighted


@pytest.mark.parametrize("scaled", [{}, {"objective.error_scale": 0.5}], ids=str)
def test_the_entropy_term_alone_rises(scaled: dict[str, Any]) -> None:
    _, without = at(0.25, changes=scaled | {"objective.lambda_entropy": 0})
    whole, half = at(0.25, warm_up={"share": 0.5, "terms": "entropy"}, changes=scaled)
    assert half.loss.item() == pytest.approx((without.loss + whole.loss).item() / 2)


def test_what_has_no_entropy_term_cannot_warm_it_up() -> None:
    with pytest.raises(StudyError, match=r"objective expected has no lambda_entropy .*: set modifiers\.warm_up"):
        trial_with(TrialSpec(), {"objective.name": "expected", "modifiers.warm_up.terms": "entropy"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective.name": "loss_free", "modifiers.gate_temperature": {}}, "gate_temperature divides: set it to null"),
        *(
            ({"objective.name": "frozen_router", f"modifiers.{name}": {}}, f"which modifiers.{name} changes: leave it")
            for name in MODIFIERS_OF_THE_GATE
            if name != "coupling"  # needs another gate besides
        ),
        (
            {"modifiers.coupling": {}},
            "set model.gate to mlp and model.gate_hidden to [], or modifiers.coupling to null",
        ),
        ({"objective.name": "frozen_router", "model.gate": "attentive"}, "which the gate attentive changes: leave it"),
    ],
    ids=str,
)
def test_a_modifier_that_contradicts_the_objective_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=re.escape(message)) as raised:
        trial_with(TrialSpec(), values)
    assert "\n" not in str(raised.value)


def test_a_frozen_gate_is_where_it_was_under_every_other_modifier() -> None:
    trial = trial_of({"gate_temperature": {}, "warm_up": {}}, objective={"name": "frozen_router"})
    data = noise_images()
    before = build_model(trial.model, data.train.image_shape, trial.seed).gate.state_dict()
    weights = list(fit(trial, data, Runtime("cpu")))[-1].weights()
    assert all(np.array_equal(weights[f"gate.{name}"], value.numpy()) for name, value in before.items())


def test_kmeans_finds_clusters_that_are_apart_and_the_gate_learns_them() -> None:
    generator = torch.Generator().manual_seed(0)
    truth_N = torch.arange(200) % 4
    mu_NZ = 10 * torch.randn(4, 4, generator=generator)[truth_N] + torch.randn(200, 4, generator=generator)
    cluster_N = kmeans(mu_NZ, 4, generator)
    assert len(torch.unique(torch.stack([truth_N, cluster_N]), dim=1).t()) == 4
    for gate in get_args(BuiltInGate):
        spec = ModelSpec(num_experts=4, latent_dim=4, gate_hidden=(16,), encoder="lite", gate=gate())
        model = build_model(spec, (1, 8, 8), 0)
        fit_gate(model, Encoded(mu_NZ, torch.full_like(mu_NZ, -4.0)), cluster_N, generator)
        assert (model.logits(mu_NZ).argmax(dim=1) == cluster_N).double().mean() > 0.95, spec.gate.name


def test_kmeans_of_fewer_images_than_clusters_leaves_clusters_empty() -> None:
    x_NZ = torch.tensor([[0.0], [0.0], [1.0]])
    cluster_N = kmeans(x_NZ, 4, torch.Generator().manual_seed(0))
    assert cluster_N[0] == cluster_N[1] != cluster_N[2]


def test_the_gate_is_fitted_once_and_its_optimizer_forgets() -> None:
    trial = trial_of({"kmeans_gate": {"after": 0.3}})
    model = build_model(trial.model, (1, 28, 28), 0)
    optimizer = stepped(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for step in (0, 29, 31):
        Modifiers(trial).before_step(moment(step, trial, model, optimizer))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    Modifiers(trial).before_step(moment(30, trial, model, optimizer))
    changed = {name.partition(".")[0] for name, value in model.state_dict().items() if not value.equal(before[name])}
    forgotten = {name.partition(".")[0] for name, value in model.named_parameters() if value not in optimizer.state}
    assert changed == forgotten == {"gate"}


def stepped(model: SMoEVAE) -> torch.optim.Optimizer:
    """An optimizer whose state differs between the experts."""
    optimizer = torch.optim.Adam(model.parameters())
    for value in model.parameters():
        value.grad = torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()))
    optimizer.step()
    return optimizer


class PlainDecoder(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize(
    ("gate", "bank"), [("mlp", "stacked"), ("cosine", "modules"), ("batch_norm", "modules"), ("attentive", "cp")]
)
def test_a_dead_expert_becomes_the_busiest_one(gate: str, bank: str) -> None:
    paths = {"model.gate": gate, "model.decoder": "cp" if bank == "cp" else "lite"}
    trial = trial_of({"revival": {"every": 10, "below": 0.2, "noise": 0}}, **paths)
    model = build_model(trial.model, (1, 28, 28), 0)
    if bank == "modules":
        model.experts = ModuleExperts([PlainDecoder() for _ in range(E)])
    optimizer, modifiers = stepped(model), Modifiers(trial)
    before = [states_of(model, expert, optimizer) for expert in range(E)]
    assert not same(before[0], before[2])
    dispatch(modifiers, model, [2, 2, 2, 2, 2, 1, 1, 2, 2, 2, 2, 2])  # loads 0, 0.5 and 2.5
    modifiers.before_step(moment(9, trial, model, optimizer))
    assert same(states_of(model, 0, optimizer), before[0])  # not yet
    modifiers.before_step(moment(10, trial, model, optimizer))
    after = [states_of(model, expert, optimizer) for expert in range(E)]
    assert same(after[0], before[2])
    assert same(after[1], before[1])
    assert same(after[2], before[2])
    assert modifiers.state_dict()["revival.revived"] == 1
    dispatch(modifiers, model, [0, 1, 2] * 4)  # it counts anew
    modifiers.before_step(moment(20, trial, model, optimizer))
    assert modifiers.state_dict()["revival.revived"] == 1


def dispatch(modifiers: Modifiers, model: SMoEVAE, expert_B: list[int]) -> None:
    made = leaves()
    decoded = Decoded(Encoded(made.mu_BZ, made.logvar_BZ), torch.eye(E)[expert_B], made.image_EBP, None)
    zero = torch.zeros(())
    modifiers.terms(Terms(*[zero] * 6), LossInput(images(), labels(), decoded, 0.5, 0.0), model)


def states_of(model: SMoEVAE, expert: int, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """An expert's parts, with both moments of each."""
    parts = model.parts_of(expert)
    moments = [
        optimizer.state[part.tensor][name][part.row]
        for part in parts
        for name in ("exp_avg", "exp_avg_sq")
        if part.tensor in optimizer.state
    ]
    return [value.clone() for value in [*(part.value for part in parts), *moments]]


def same(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def test_a_copy_is_perturbed_and_one_expert_is_never_dead() -> None:
    trial = trial_of({"revival": {"every": 1, "noise": 0.1}})
    model = build_model(trial.model, (1, 28, 28), 0)
    modifiers = Modifiers(trial)
    dispatch(modifiers, model, [2] * B)
    modifiers.before_step(moment(1, trial, model, torch.optim.Adam(model.parameters())))
    first, second, busiest = (torch.cat([part.value.flatten() for part in model.parts_of(e)]) for e in range(E))
    for copy in (first, second):
        assert (copy / busiest - 1).std().item() == pytest.approx(0.1, rel=0.05)
    assert not torch.equal(first, second)
    alone = [epoch.weights() for epoch in fit(trial_of({}, **{"model.num_experts": 1}), noise_images(), Runtime("cpu"))]
    other = fit(trial_of({"revival": {"every": 1}}, **{"model.num_experts": 1}), noise_images(), Runtime("cpu"))
    assert all(np.array_equal(value, alone[-1][name]) for name, value in [*other][-1].weights().items())


@pytest.mark.parametrize(
    ("vectors", "value"),
    [([[1, 0, 0, 0], [1, 1, 0, 0]], 0.25), ([[0, 3], [2, 0]], 0), ([[1, 2]] * 4, 0.75), ([[5.0]], 0)],
)
def test_the_orthogonal_term_by_hand(vectors: list[list[float]], value: float) -> None:
    assert overlap(torch.tensor(vectors, dtype=torch.float32)).item() == pytest.approx(value)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**31 - 1))
def test_the_similarity_term_is_the_sum_over_pairs(num_experts: int, num_images: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gate_BE = torch.randn(num_images, num_experts, dtype=torch.float64, generator=generator).softmax(dim=1)
    image_BP = torch.rand(num_images, 3, dtype=torch.float64, generator=generator)
    total = 0.0
    for gate_E, image_P in zip(gate_BE, image_BP, strict=True):
        for other_E, other_P in zip(gate_BE, image_BP, strict=True):
            distance = (image_P - other_P).square().sum()
            both_EE = torch.outer(gate_E, other_E) * distance
            total += both_EE.trace().item() / num_experts
            total -= (both_EE.sum() - both_EE.trace()).item() / max(num_experts**2 - num_experts, 1)
    found = dissimilarity(gate_BE, image_BP, identity).item()
    assert found == pytest.approx(total / num_images**2, abs=1e-12)


def test_the_similarity_term_is_least_where_clusters_have_experts() -> None:
    image_BP = torch.tensor([[0.0], [0.0], [1.0], [1.0]])  # mean D is 1/2
    gates = {"own": [0, 0, 1, 1], "mixed": [0, 1, 0, 1], "one": [0, 0, 0, 0]}
    found = {name: dissimilarity(torch.eye(2)[expert], image_BP, identity).item() for name, expert in gates.items()}
    assert found == pytest.approx({"own": -0.25, "mixed": 0.0, "one": 0.25})


def test_the_coupling_term_by_hand() -> None:
    norm_EE = torch.tensor([[2.0, 3.0], [0.5, 1.0]])
    # 0's answers: 3 - 2 to the row, none to the column; 1's: none to the row, 3 - 1 to the column; over 2^2.
    assert mismatch(norm_EE, margin=1).item() == pytest.approx((1 + 2) / 4)
    assert mismatch(norm_EE, margin=0.5).item() == pytest.approx((2 + 2.5) / 4)
    assert mismatch(torch.tensor([[3.0]]), margin=1).item() == 0
    assert mismatch(torch.diag(torch.tensor([3.0, 1.0])), margin=0.1).item() == 0


@given(st.integers(2, 5), st.integers(0, 2**31 - 1))
def test_a_perturbed_vector_is_nearest_to_its_own(num_experts: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vector_EZ = torch.randn(num_experts, 3, dtype=torch.float64, generator=generator)
    draw_EZ = 2 * torch.rand(num_experts, 3, dtype=torch.float64, generator=generator) - 1
    found_EZ = perturbed(vector_EZ, draw_EZ)
    assert torch.equal(torch.cdist(found_EZ, vector_EZ).argmin(dim=1), torch.arange(num_experts))
    assert not torch.equal(found_EZ, vector_EZ)


def test_vectors_are_perturbed_anew_at_every_step_and_by_the_seed() -> None:
    def drawn(step: int, seed: int) -> Tensor:
        trial = trial_of({"coupling": {}}).model_copy(update={"seed": seed})
        model = build_model(trial.model, (1, 28, 28), 0)
        modifiers = Modifiers(trial)
        modifiers.before_step(moment(step, trial, model, torch.optim.Adam(model.parameters())))
        draw_EZ: Tensor = modifiers["coupling"].draw_EZ
        assert draw_EZ.abs().max() <= 1
        return draw_EZ.clone()

    first = drawn(3, seed=1)
    assert torch.equal(first, drawn(3, seed=1))
    assert not torch.equal(first, drawn(4, seed=1))
    assert not torch.equal(first, drawn(3, seed=2))


def test_coupling_makes_experts_answer_to_their_own_vectors() -> None:
    trial = trial_of({"coupling": {"weight": 10.0, "margin": 0.9}}, **{"training.learning_rate": 0.01})
    rows = [epoch.row["train.coupling"] for epoch in fit(trial, noise_images(), Runtime("cpu"))]
    assert rows[-1] < 0.7 * rows[0]


# --- what all keep ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "precision"), [("blend", "fp32"), ("likelihood", "bf16"), ("switch", "fp32")])
def test_a_modified_trial_resumes_in_the_same_bits(objective: str, precision: str) -> None:
    trial = trial_of(ON, objective={"name": objective}, **{"training.precision": precision})
    (_, checkpoint, _), *_, last = (
        (epoch.row, epoch.checkpoint(), epoch.weights()) for epoch in fit(trial, noise_images(), Runtime("cpu"))
    )
    resumed = list(fit(trial, noise_images(), Runtime("cpu", through_a_file(checkpoint))))[-1]
    for end, other in ((resumed.checkpoint(), last[1]), (resumed.weights(), last[2])):
        assert end.keys() == other.keys()
        assert [name for name in end if not np.array_equal(end[name], other[name])] == []
    assert checkpoint["modifiers/revival.dispatched_E"].sum() > 0  # counted since its last check, and part of the state
    assert all(math.isfinite(value) for name, value in last[0].items() if name.startswith("train."))


@pytest.fixture(scope="module")
def plain() -> Epoch:
    return first_epoch({})


def first_epoch(modifiers: dict[str, Any], **changes: Any) -> Epoch:
    return next(fit(trial_of(modifiers, **changes), noise_images(), Runtime("cpu")))


@pytest.mark.parametrize("name", ON)
def test_a_modifier_acts_at_no_cost(name: str, plain: Epoch) -> None:
    modified = first_epoch({name: ON[name]})
    if name == "coupling":
        plain = first_epoch({}, **{"model.gate_hidden": ()})
    assert any(not np.array_equal(value, modified.weights()[name]) for name, value in plain.weights().items())
    assert [modified.row[f"cost.{name}"] for name in COUNTED] == [plain.row[f"cost.{name}"] for name in COUNTED]


COUNTED = ("params_total", "params_active", "flops", "images", "steps")


def test_modifiers_do_not_change_what_is_tested() -> None:
    """With learning rate 0 (nearly), the argmax that test images go to is that of the unmodified gate."""
    rows = [
        next(fit(trial_of(modifiers, **{"training.learning_rate": 1e-12}), noise_images(), Runtime("cpu"))).row
        for modifiers in ({}, {"gate_temperature": {}, "warm_up": {}, "similarity": {}})
    ]
    names = [name for name in rows[0] if name.startswith(("test.", "experts."))]
    assert [rows[0][name] for name in names] == [rows[1][name] for name in names]
    assert rows[0]["train.entropy"] < rows[1]["train.entropy"]  # flatter in training alone


def test_permuted_experts_have_the_same_terms() -> None:
    trial, order = trial_of(ON), [2, 0, 1]
    model, swapped = (build_model(trial.model, (1, 28, 28), 0) for _ in range(2))
    with torch.no_grad():
        for expert, old in enumerate(order):
            for part, source in zip(swapped.parts_of(expert), model.parts_of(old), strict=True):
                part.value.copy_(source.value)
    made, found = leaves(), []
    for its_model, raw_BE in ((model, made.logit_BE), (swapped, made.logit_BE[:, order])):
        modifiers = Modifiers(trial)
        logit_BE = modifiers.logits(raw_BE, torch.tensor(0.3))
        decoded = Decoded(Encoded(made.mu_BZ, made.logvar_BZ), logit_BE, None, None)
        zero = torch.zeros((), dtype=torch.float64)
        terms = modifiers.terms(Terms(*[zero] * 6), LossInput(images(), labels(), decoded, 0.5, 0.3), its_model)
        found.append((terms.loss.item(), modifiers.state_dict()["revival.dispatched_E"]))
    assert found[0][0] == pytest.approx(found[1][0])
    assert torch.equal(found[0][1][order], found[1][1])


def test_every_modifier_is_tested_here() -> None:
    assert list(ON) == list(ModifiersSpec.model_fields)
