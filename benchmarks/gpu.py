"""Known answers on a GPU, then the speed of a training step and of the paper's largest cell; writes a table.

    python benchmarks/gpu.py                 # or `make gpu`: all of it on the first CUDA device, under 8 minutes
    python benchmarks/gpu.py --device cpu    # the same program, small, where there is no GPU
    python benchmarks/gpu.py --image 3x32x32 # speed of the training step on other images, channels x height x width

A bare machine is enough: a checkout, Python, torch, numpy, pydantic and pyarrow. Known answers come from ordinary torch
modules in double precision on the CPU (tests/support/textbook_model.py). Exit code 1 if a check fails, or without GPU.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import machine  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import train_step  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from smoe_ray.data.dataset import Dataset, Splits  # noqa: E402
from smoe_ray.model import ExpertBank, build_model  # noqa: E402
from smoe_ray.spec import TrialSpec, trial_with  # noqa: E402
from smoe_ray.spec.architectures import DECODERS  # noqa: E402
from smoe_ray.training import Epoch, Runtime, fit  # noqa: E402
from smoe_ray.training.evaluate import evaluate  # noqa: E402
from smoe_ray.training.families.smoe_vae import TrainingStep  # noqa: E402
from smoe_ray.training.images import DeviceImages  # noqa: E402
from support.textbook_model import copy_to_bank, make_decoder  # noqa: E402

VALUES, GRADIENTS = 1e-5, 1e-4
"""Largest deviation of single precision from the known answers: absolute of pixels, relative of gradients."""

GREY, COLOUR = train_step.GREY, (3, 32, 32)
OBJECTIVES: tuple[dict[str, Any], ...] = (
    {"name": "blend"},
    {"name": "blend", "gating": "hard"},
    {"name": "expected"},
    {"name": "likelihood"},
    {"name": "likelihood", "error_scale": 30},
    {"name": "hard_em"},
    {"name": "mutual_information"},
    {"name": "gumbel"},
    {"name": "switch"},
    {"name": "gshard"},
    {"name": "v_moe"},
    {"name": "sinkhorn"},
    {"name": "loss_free"},
    {"name": "expert_choice"},
    {"name": "relu"},
    {"name": "smear"},
    {"name": "oracle_router"},
)


def trial(seed: int = 0, **changes: Any) -> TrialSpec:
    """A small trial; keywords with ``__`` for the dot."""
    small = {"model.num_experts": 4, "training.budget": "3 epochs", "training.batch_size": 64}
    return trial_with(TrialSpec(seed=seed), small | {key.replace("__", "."): value for key, value in changes.items()})


def images(train: int, test: int) -> Splits:
    """Noise, brighter in one half than in the other: that can be learned, and needs no files."""
    rng = np.random.default_rng(0)

    def half_bright(count: int) -> Dataset:
        label_B = np.arange(count) % 2
        image_BHW = rng.integers(0, 100, (count, 28, 28), dtype=np.uint8)
        image_BHW[label_B == 0, :14] += 120
        image_BHW[label_B == 1, 14:] += 120
        return Dataset(image_BHW, label_B)

    return Splits(half_bright(train), half_bright(test), ("upper", "lower"), "0" * 64)


def relative(actual: Tensor, expected: Tensor) -> float:
    """Size of the difference over that of what is expected."""
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    return float((actual - expected).norm() / expected.norm().clamp_min(1e-12))


def expect(deviation: float, limit: float, what: str) -> str:
    """`deviation` in words. Raises AssertionError where it exceeds the limit (or is no number)."""
    if not deviation <= limit:
        raise AssertionError(f"{what}: off by {deviation:.2g}, at most {limit:g} expected")
    return f"{what} {deviation:.1e}"


def check_bank(device: torch.device) -> str:
    """Every decoder's bank against a loop of modules: values, gradients, and the chosen expert alone."""
    worst_value = worst_gradient = 0.0
    for (name, layers), image_shape in product(DECODERS.items(), (GREY, COLOUR)):
        torch.manual_seed(0)
        decoders = nn.ModuleList(make_decoder(name, 8, image_shape) for _ in range(3))
        bank = ExpertBank(layers, image_shape, 3, 8)
        copy_to_bank(decoders, bank)
        bank.to(device)
        decoders.double()
        z_BZ = torch.randn(9, 8)
        expected = torch.stack([decoder(z_BZ.double()) for decoder in decoders])
        weight = torch.randn(expected.shape)
        (expected * weight).sum().backward()
        actual = bank(z_BZ.to(device))
        (actual * weight.to(device)).sum().backward()
        expert_B = torch.arange(9) % 3
        chosen = bank.chosen(z_BZ.to(device), expert_B.to(device)).detach().cpu()
        worst_value = max(
            worst_value,
            float((actual.detach().cpu() - expected.detach()).abs().max()),
            float((chosen - expected.detach()[expert_B, torch.arange(9)]).abs().max()),
        )
        first = next(iter(decoders[0].parameters())).grad
        assert first is not None
        assert bank.linear_weight.grad is not None
        worst_gradient = max(worst_gradient, relative(bank.linear_weight.grad[0], first))
    return ", ".join((expect(worst_value, VALUES, "values"), expect(worst_gradient, GRADIENTS, "gradients")))


def check_objectives(device: torch.device) -> str:
    """Loss and gradients of a training step for each objective against double precision on the CPU."""
    image_BHW, label_B, uniform_BE = torch.rand(16, 28, 28), torch.arange(16) % 4, torch.rand(16, 4).clamp_min(1e-6)
    worst_loss = worst_gradient = 0.0
    supervised = trial(routing="supervised", objective=None)
    for spec in (*(trial(objective=objective) for objective in OBJECTIVES), supervised):
        results = []
        for place, dtype in ((torch.device("cpu"), torch.float64), (device, torch.float32)):
            model = build_model(spec.model, GREY, seed=0).to(place, dtype)
            step = TrainingStep(spec, model, torch.optim.SGD(model.parameters(), lr=0.0), torch.Generator(place))
            noise_BZ = torch.linspace(-1, 1, 16 * spec.model.latent_dim).view(16, -1).to(place, dtype)
            progress, share = torch.tensor(0.5), torch.tensor(1.0)
            batch = image_BHW.to(place, dtype), label_B.to(place), noise_BZ, progress, share
            terms = step.terms(*batch, uniform_BE.to(place, dtype))
            terms.loss.backward()
            results.append((terms.loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]))
        (loss, grads), (on_device, device_grads) = results
        worst_loss = max(worst_loss, relative(on_device, loss))
        expected = torch.cat([grad.flatten() for grad in grads])
        worst_gradient = max(worst_gradient, relative(torch.cat([g.flatten() for g in device_grads]), expected))
    return ", ".join((expect(worst_loss, VALUES, "loss"), expect(worst_gradient, GRADIENTS, "gradients")))


def check_evaluation(device: torch.device) -> str:
    """All numbers of an evaluation with hard gating against those on the CPU, in double precision."""
    spec, data = trial(), images(64, 300)
    measured = []
    for place in (torch.device("cpu"), device):
        model = build_model(spec.model, GREY, seed=0).to(place)
        nn.init.zeros_(model.gate[-1].bias)  # not all images to one expert
        test = DeviceImages(data.test, place)
        measured.append(evaluate(model, test, spec.evaluation.model_copy(update={"latent": "mean"}), seed=0, epoch=1))
    expected, actual = measured
    off = max(
        abs(actual.losses()[name] - value) / abs(expected.reconstruction if name == "regret" else value)
        for name, value in expected.losses().items()  # a regret is a difference, near 0
    )
    moved = max(abs(a - b) for a, b in zip(actual.usage_E, expected.usage_E, strict=True))
    return ", ".join((expect(off, GRADIENTS, "losses"), expect(moved, 0.01, "usage of experts")))


def check_resume(device: torch.device) -> str:
    """A trial that is interrupted between two epochs ends with the same bits as one that is not."""
    spec, data = trial(model__encoder="lite"), images(128, 32)
    arrays: Mapping[str, Any] = {}
    for epoch in fit(spec, data, Runtime(str(device))):
        if epoch.epoch == 2:
            arrays = epoch.checkpoint()
    whole = epoch.weights()
    resumed = last_of(fit(spec, data, Runtime(str(device), arrays))).weights()
    different = [name for name, value in whole.items() if not np.array_equal(value, resumed[name])]
    if different:
        raise AssertionError(f"{len(different)} of {len(whole)} weights differ after a resume, {different[0]} first")
    return f"{len(whole)} weights bit-identical"


def check_bfloat16(device: torch.device) -> str:
    """Training in bfloat16 reaches the loss of single precision within five percent."""
    data = images(128, 32)
    losses = [
        last_of(fit(trial(model__encoder="lite", training__precision=precision), data, Runtime(str(device)))).row[
            "train.loss"
        ]
        for precision in ("fp32", "bf16")
    ]
    return expect(abs(losses[1] / losses[0] - 1), 0.05, "loss")


def check_sharing(device: torch.device) -> str:
    """Two trials at once on one device, in a process each, give what each of them gives alone."""
    alone = [train_alone(str(device), seed) for seed in (0, 1)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
        together = list(processes.map(train_alone, [str(device)] * 2, (0, 1)))
    off = max(abs(a / b - 1) for a, b in zip(together, alone, strict=True))
    return expect(off, GRADIENTS, "test loss")


def train_alone(device: str, seed: int) -> float:
    """Test loss of a small trial."""
    reproducibly()
    return float(
        last_of(fit(trial(seed, model__encoder="lite"), images(128, 32), Runtime(device))).row["test.reconstruction"]
    )


def last_of(epochs: Any) -> Epoch:
    """The last epoch of a trial."""
    *_, last = epochs
    assert isinstance(last, Epoch)
    return last


def reproducibly() -> None:
    """Full single precision and deterministic kernels: known answers are not to drown in rounding."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


CHECKS: dict[str, Callable[[torch.device], str]] = {
    "bank of experts": check_bank,
    "objectives": check_objectives,
    "hard evaluation": check_evaluation,
    "resume": check_resume,
    "bfloat16": check_bfloat16,
    "two trials at once": check_sharing,
}


def run_checks(device: torch.device) -> list[tuple[str, bool, str, float]]:
    """Name, whether it holds, what was found, and seconds, of each check. One that fails does not end the others."""
    results = []
    for name, check in CHECKS.items():
        started = time.perf_counter()
        try:
            holds, found = True, check(device)
        except Exception as error:
            holds, found = False, str(error).splitlines()[0] if str(error) else type(error).__name__
            if not isinstance(error, AssertionError):
                traceback.print_exc()
        results.append((name, holds, found, time.perf_counter() - started))
        print(f"{name}: {'holds' if holds else 'FAILS'}: {found}", flush=True)
    return results


def largest_cell(device: torch.device) -> str:
    """An epoch of the paper's largest cell (studies/paper/loss_surface.yaml), on noise of the same size.

    50 experts, 350,000 training and 12,500 test images; on a CPU a thousandth of the images and 2 experts.
    """
    small = device.type == "cpu"
    num_experts, train, test = (2, 350, 50) if small else (50, 350_000, 12_500)
    spec = trial_with(TrialSpec(), {"model.num_experts": num_experts, "training.budget": "1 epochs"})
    data = images(train, test)
    started = time.perf_counter()
    row = last_of(fit(spec, data, Runtime(str(device)))).row
    seconds = time.perf_counter() - started
    memory = "" if small else f", {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB of GPU memory"
    return (
        f"{num_experts} experts, {train:,} training and {test:,} test images: {seconds:.1f} s with evaluation, "
        f"{row['cost.images_per_s']:,.0f} training images/s{memory}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--image", type=train_step.image_shape_of, default=GREY, metavar="CxHxW", help="of the training steps timed"
    )
    parser.add_argument("--to", type=Path, default=train_step.RESULTS, help="folder of the table gpu-<device>.md")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device here; `--device cpu` runs the same program, small")
    reproducibly()
    checks = run_checks(device)
    torch.backends.cudnn.deterministic = False  # what follows is measured as it trains: torch's defaults
    torch.backends.cudnn.allow_tf32 = True
    small = device.type == "cpu"
    timing = argparse.Namespace(
        device=arguments.device,
        image=arguments.image,
        threads=2,
        processes=1,
        rounds=1 if small else 5,
        experts=[2] if small else list(train_step.EXPERTS),
        evaluated=50 if small else train_step.EVALUATED,
    )
    steps = train_step.report(train_step.in_processes(timing, device), device, timing)
    lines = [
        "# Known answers and speed on one device",
        "",
        f"{datetime.date.today()}, {train_step.name_of(device)}, torch {torch.__version__}, commit {machine.commit()}.",
        f"Command: `python benchmarks/gpu.py --device {arguments.device} "
        f"--image {train_step.in_words(arguments.image)}`. Deviations are the largest of a check.",
        "",
        "| check | holds | found | s |",
        "|---|---|---|---|",
        *(f"| {name} | {'yes' if holds else '**no**'} | {found} | {s:.1f} |" for name, holds, found, s in checks),
        "",
        f"An epoch of the paper's largest cell, on noise: {largest_cell(device)}.",
        "",
        steps.replace("# Training", "## Training", 1),
    ]
    text = "\n".join(lines)
    print(text)
    arguments.to.mkdir(parents=True, exist_ok=True)
    (arguments.to / f"gpu-{device.type}{train_step.suffix(arguments.image)}.md").write_text(text)
    if not all(holds for _, holds, _, _ in checks):
        sys.exit("a known answer was missed: see the table")


if __name__ == "__main__":
    main()
