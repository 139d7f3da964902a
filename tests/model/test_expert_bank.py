"""The bank of experts is a plain loop of decoders: values, gradients, and the identity that makes it fast.

Shapes: B images, E experts, Z latent, C channels, H W pixels, P = C * H * W.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own idiom
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from smoe_ray.model import ExpertBank, SMoEVAE, build_model, lite_decoders
from smoe_ray.model.lite_decoders import corner_kernel
from smoe_ray.spec import ImageShape, ModelSpec
from smoe_ray.spec.architectures import DECODERS
from support.textbook_model import GREY, Textbook, bank_parameters, copy_to_bank, make_decoder, merged_decoder

Z = 5


def pair(
    name: str, num_experts: int, dtype: torch.dtype, image_shape: ImageShape = GREY
) -> tuple[nn.ModuleList, ExpertBank]:
    """Textbook decoders and a bank with the same parameters, twice as large as fresh ones."""
    torch.manual_seed(0)
    decoders = nn.ModuleList(make_decoder(name, Z, image_shape) for _ in range(num_experts)).to(dtype)
    with torch.no_grad():
        for parameter in decoders.parameters():
            parameter *= 2
    bank = ExpertBank(DECODERS[name], image_shape, num_experts, Z).to(dtype)
    copy_to_bank(decoders, bank)
    return decoders, bank


def gradients(image: Tensor, weight: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad((image * weight).sum(), inputs, retain_graph=True))


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


SIDES = [(channels, side, side) for side in (16, 28, 32, 64) for channels in (1, 3)]
OBLONG = [(2, 12, 20), (3, 24, 40)]


@pytest.mark.parametrize(("batch", "num_experts"), [(1, 3), (7, 1), (7, 3)])
@pytest.mark.parametrize("image_shape", [*SIDES, *OBLONG], ids=str)
def test_the_lite_bank_is_a_plain_loop_of_decoders(image_shape: ImageShape, batch: int, num_experts: int) -> None:
    check_against_a_plain_loop("lite", torch.float32, image_shape, batch, num_experts)


@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 16, 16), *OBLONG, (3, 40, 48)], ids=str)
@pytest.mark.parametrize("name", DECODERS)
def test_every_bank_is_a_plain_loop_of_decoders(name: str, image_shape: ImageShape) -> None:
    check_against_a_plain_loop(name, torch.float64, image_shape, batch=3, num_experts=2)


def check_against_a_plain_loop(
    name: str, dtype: torch.dtype, image_shape: ImageShape, batch: int, num_experts: int
) -> None:
    """Values and gradients of all experts, then of a chosen expert for each image."""
    decoders, bank = pair(name, num_experts, dtype, image_shape)
    z_BZ = torch.randn(batch, Z, dtype=dtype, requires_grad=True)
    expected_EBP = torch.stack([decoder(z_BZ) for decoder in decoders])
    assert expected_EBP.std() > 0.05  # no flat images
    expert_B, image_B = torch.arange(batch).flip(0) % num_experts, torch.arange(batch)
    value, gradient = (1e-5, 1e-4) if dtype == torch.float32 else (1e-12, 1e-10)
    for actual, expected in (
        (bank(z_BZ), expected_EBP),
        (bank.chosen(z_BZ, expert_B), expected_EBP[expert_B, image_B]),
    ):
        assert (actual - expected).abs().max() < value
        weight = torch.randn(expected.shape, dtype=dtype)
        grad_z, *grads = gradients(actual, weight, z_BZ, *bank_parameters(bank))
        expected_z, *parts = gradients(expected, weight, z_BZ, *decoders.parameters())
        assert relative(grad_z, expected_z) < gradient
        for number, grad in enumerate(grads):
            for expert, part in enumerate(parts[number :: len(grads)]):
                # Not relative: an expert that no image chose learns nothing.
                assert (grad[expert] - part).norm() <= gradient * part.norm()


@pytest.mark.parametrize("name", DECODERS)
def test_values_agree_in_single_precision(name: str) -> None:
    decoders, bank = pair(name, 2, torch.float32)
    z_BZ = torch.randn(16, Z)
    with torch.no_grad():
        assert (bank(z_BZ) - torch.stack([decoder(z_BZ) for decoder in decoders])).abs().max() < 1e-5


@pytest.mark.parametrize(
    "chosen", [[0], [2, 0, 2, 2, 0, 3, 2], [3, 3, 3], [0, 1, 2, 3, 0, 1, 2, 3]], ids=["one", "odd", "same", "all"]
)
@pytest.mark.parametrize("name", DECODERS)
def test_chosen_is_each_images_own_expert(name: str, chosen: list[int]) -> None:
    decoders, bank = pair(name, 4, torch.float64)
    expert_B = torch.tensor(chosen)
    z_BZ = torch.randn(len(chosen), Z, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(len(chosen), 784, dtype=torch.float64)
    actual = bank.chosen(z_BZ, expert_B)
    one_by_one = torch.cat([decoders[e](z_BZ[i : i + 1]) for i, e in enumerate(chosen)])
    assert (actual - one_by_one).abs().max() < 1e-12
    from_all = bank(z_BZ)[expert_B, torch.arange(len(chosen))]
    assert (actual - from_all).abs().max() < 1e-12
    grads = gradients(actual, weight, z_BZ, *bank_parameters(bank))
    assert relative(grads[0], gradients(one_by_one, weight, z_BZ)[0]) < 1e-10
    for grad, of_all in zip(grads, gradients(from_all, weight, z_BZ, *bank_parameters(bank)), strict=True):
        assert relative(grad, of_all) < 1e-10
    for grad in grads[1:]:  # an expert without an image learns nothing
        idle = [e for e in range(4) if e not in chosen]
        assert not grad[idle].any()


@pytest.mark.parametrize("name", DECODERS)
def test_merged_is_the_decoder_of_the_mean_parameters(name: str) -> None:
    decoders, bank = pair(name, 3, torch.float64, (2, 12, 20))
    z_BZ = torch.randn(4, Z, dtype=torch.float64, requires_grad=True)
    score_BE = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weight_BE = score_BE.softmax(dim=1)
    pairs = zip(weight_BE, z_BZ, strict=True)
    expected_BP = torch.cat([merged_decoder(decoders, weight_E, z[None]) for weight_E, z in pairs])
    actual_BP = bank.merged(z_BZ, weight_BE)
    assert (actual_BP - expected_BP).abs().max() < 1e-12
    weight_BP = torch.randn_like(expected_BP)
    grads = gradients(actual_BP, weight_BP, z_BZ, score_BE, *bank_parameters(bank))
    expected_z, expected_score, *parts = gradients(expected_BP, weight_BP, z_BZ, score_BE, *decoders.parameters())
    count = len(bank_parameters(bank))
    stacked = [torch.stack(parts[number::count]) for number in range(count)]
    for grad, expected in zip(grads, [expected_z, expected_score, *stacked], strict=True):
        assert relative(grad, expected) < 1e-10


def test_the_batch_size_may_change_between_calls() -> None:
    decoders, bank = pair("lite", 2, torch.float64)
    for batch in (3, 1, 8):
        z_BZ = torch.randn(batch, Z, dtype=torch.float64)
        assert torch.allclose(bank(z_BZ), torch.stack([decoder(z_BZ) for decoder in decoders]), atol=1e-12)


def test_graphs_that_live_at_once_do_not_share_a_buffer() -> None:
    decoders, bank = pair("lite", 2, torch.float64)
    z_nBZ = torch.randn(3, 4, Z, dtype=torch.float64)
    weight = torch.randn(2, 4, 784, dtype=torch.float64)
    lite_decoders._free.clear()
    with torch.inference_mode():  # leaves a buffer behind, which training must be able to use
        bank(z_nBZ.flatten(0, 1))
    actual = [bank(z_BZ) for z_BZ in z_nBZ]
    for z_BZ, image_EBP in zip(z_nBZ, actual, strict=True):
        expected = torch.stack([decoder(z_BZ) for decoder in decoders])
        for _ in range(2):  # a second backward pass finds what the first one found
            grads = gradients(image_EBP, weight, *bank_parameters(bank))
            for e, decoder in enumerate(decoders):
                for grad, part in zip(grads, gradients(expected, weight, *decoder.parameters()), strict=True):
                    assert relative(grad[e], part) < 1e-10


def test_a_buffer_keeps_what_was_written_to_it() -> None:
    lite_decoders._free.clear()
    buffers = lite_decoders._Buffers(torch.empty(0))
    buffers("hidden", 2, 3).copy_(torch.arange(6).view(2, 3))
    assert buffers("hidden", 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert buffers("hidden", 2, 2).tolist() == [[0, 1], [2, 3]]
    buffers("hidden", 9).fill_(7)  # too large for what was there
    assert buffers("hidden", 2, 3).tolist() == [[7, 7, 7], [7, 7, 7]]


def test_a_buffer_goes_from_one_step_to_the_next() -> None:
    _, bank = pair("lite", 2, torch.float32)
    lite_decoders._free.clear()
    places = []
    for batch in (4, 4, 3):
        bank(torch.randn(batch, Z)).sum().backward()
        places.append({purpose: buffer.data_ptr() for purpose, buffer in lite_decoders._free.items()})
    assert {"patches", "hidden", "map"} <= places[0].keys()
    assert places[0] == places[1] == places[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_elu_in_passes_is_elu(dtype: torch.dtype) -> None:
    x = torch.cat([-torch.logspace(-8, 2, 200), torch.zeros(1), torch.logspace(-8, 2, 200)]).double()
    y = (x * lite_decoders.LOG2_E).to(dtype)
    expected = F.elu(y.double() / lite_decoders.LOG2_E) * lite_decoders.LOG2_E
    lite_decoders._elu_(y, lite_decoders._Buffers(y))
    eps = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    rtol = torch.finfo(dtype if dtype.itemsize < 4 else torch.float64).eps  # half precision rounds
    assert torch.allclose(y.double(), expected, rtol=rtol, atol=2 * lite_decoders.LOG2_E * eps)


@pytest.mark.parametrize("together", [2, 3])
def test_experts_computed_together_give_the_same(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _, bank = pair("lite", 3, torch.float64)
    z_BZ = torch.randn(4, Z, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, 784, dtype=torch.float64)

    def images_and_gradients(together: int) -> list[Tensor]:  # a thread each on a CPU, all of them on a GPU
        groups = [slice(start, min(start + together, 3)) for start in range(0, 3, together)]
        monkeypatch.setattr(lite_decoders, "_groups", lambda *_: groups)
        image_EBP = bank(z_BZ)
        return [image_EBP.detach(), *gradients(image_EBP, weight, z_BZ, *bank_parameters(bank))]

    for actual, one_by_one in zip(images_and_gradients(together), images_and_gradients(1), strict=True):
        assert relative(actual, one_by_one) < 1e-12


def test_a_cpu_computes_one_expert_per_thread() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert lite_decoders._groups(5, torch.device("cpu")) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    finally:
        torch.set_num_threads(threads)
    assert lite_decoders._groups(5, torch.device("cuda")) == [slice(0, 5)]


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99)
)
@settings(deadline=None)
def test_a_corner_kernel_does_upsampling_and_convolution(
    batch: int, c_in: int, c_out: int, height: int, width: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, c_in, height, width, dtype=torch.float64, generator=generator)
    weight = torch.randn(c_out, c_in, 3, 3, dtype=torch.float64, generator=generator)
    expected = F.conv2d(F.interpolate(image, scale_factor=2, mode="nearest"), weight, padding=1)
    kernel = corner_kernel(weight)
    assert kernel.shape == (c_out, 2, 2, c_in, 2, 2)
    bordered = F.pad(image, (1, 1, 1, 1))
    actual = torch.full_like(expected, torch.nan)
    for i in range(height + 1):  # the corner above and left of small pixel (i, j)
        for j in range(width + 1):
            pixels = torch.einsum("oabiuv,niuv->noab", kernel, bordered[:, :, i : i + 2, j : j + 2])
            for a in range(2):
                for b in range(2):
                    row, column = 2 * i - 1 + a, 2 * j - 1 + b
                    if 0 <= row < 2 * height and 0 <= column < 2 * width:
                        actual[:, :, row, column] = pixels[:, :, a, b]
    assert torch.allclose(actual, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", DECODERS)
def test_fresh_weights_have_the_spread_of_torchs_own_modules(name: str) -> None:
    torch.manual_seed(0)
    bank = ExpertBank(DECODERS[name], GREY, 8, Z)
    decoders = [make_decoder(name, Z) for _ in range(8)]
    for stacked, parts in zip(
        bank_parameters(bank), zip(*(d.parameters() for d in decoders), strict=True), strict=True
    ):
        stacked, torchs = stacked.detach(), torch.stack(parts).detach()
        assert stacked.shape == torchs.shape
        if stacked.numel() >= 250:  # enough draws for a maximum and a spread
            assert float(stacked.abs().max() / torchs.abs().max()) == pytest.approx(1, rel=0.05)
            assert float(stacked.std() / torchs.std()) == pytest.approx(1, rel=0.1)


SPECS = [
    ModelSpec(num_experts=3, latent_dim=Z, gate_hidden=hidden, encoder=encoder, decoder=decoder)
    for encoder, decoder, hidden in [("lite", "lite", (32, 16)), ("medium", "large", (6,)), ("lite", "medium", ())]
]


def textbook_twin(spec: ModelSpec, image_shape: ImageShape) -> tuple[Textbook, SMoEVAE]:
    torch.manual_seed(1)
    textbook, model = Textbook(spec, image_shape).double(), build_model(spec, image_shape, seed=0).double()
    with torch.no_grad():
        ours = [*model.encoder.parameters(), *model.gate.parameters()]
        theirs = [p for name, p in textbook.named_parameters() if not name.startswith("decoders")]
        for to, source in zip(ours, theirs, strict=True):
            to.copy_(source)
        for gate in (model.gate, textbook.gate):  # not all images to one expert
            gate[-1].bias.zero_()
    copy_to_bank(textbook.decoders, model.experts)
    return textbook, model


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.encoder}-{spec.decoder}")
@pytest.mark.parametrize("shape", [(28, 28), (3, 40, 48)], ids=["grey", "colour"])
def test_the_model_is_the_textbooks(spec: ModelSpec, shape: tuple[int, ...]) -> None:
    image_BHW = torch.rand(9, *shape, dtype=torch.float64)
    textbook, model = textbook_twin(spec, (shape[0] if len(shape) == 3 else 1, *shape[-2:]))
    noise_BZ = 5 * torch.randn(9, Z, dtype=torch.float64)
    decoded = model(image_BHW, noise_BZ)
    assert torch.allclose(decoded.encoded.mu_BZ, textbook.encode(image_BHW)[0], atol=1e-12)
    assert torch.allclose(decoded.encoded.logvar_BZ, textbook.encode(image_BHW)[1], atol=1e-12)
    assert decoded.chosen_BP is None
    blended = torch.einsum("be,ebp->bp", decoded.logit_BE.softmax(dim=1), decoded.image_EBP)
    assert torch.allclose(blended, textbook.soft(image_BHW, noise_BZ), atol=1e-12)
    hard = model(image_BHW, noise_BZ, decodes="chosen")
    assert hard.image_EBP is None
    assert len(hard.logit_BE.argmax(dim=1).unique()) > 1
    assert torch.allclose(hard.chosen_BP, textbook.hard(image_BHW, noise_BZ), atol=1e-12)


def test_without_noise_z_is_mu() -> None:
    model = build_model(SPECS[0], GREY, seed=0)
    image_BHW = torch.rand(2, 28, 28)
    quiet = model(image_BHW, None)
    silent = model(image_BHW, torch.zeros(2, Z))
    assert torch.equal(quiet.image_EBP, silent.image_EBP)
    assert torch.equal(quiet.image_EBP, model.experts(quiet.encoded.mu_BZ))
    assert not torch.equal(quiet.image_EBP, model(image_BHW, torch.ones(2, Z)).image_EBP)


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = build_model(SPECS[0], GREY, seed=1).state_dict()
    assert torch.equal(torch.rand(3), expected)
    second, other = build_model(SPECS[0], GREY, seed=1).state_dict(), build_model(SPECS[0], GREY, seed=2).state_dict()
    for name, value in first.items():
        assert torch.equal(second[name], value)
        assert not torch.equal(other[name], value)
