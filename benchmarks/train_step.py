"""Our training step and hard decoding against a textbook loop, interleaved in one run: medians and ratios.

    python benchmarks/train_step.py                    # two CPU threads, a quarter of an hour
    python benchmarks/train_step.py --device cuda      # one GPU
    python benchmarks/train_step.py --image 3x32x32    # images of another size, channels x height x width
    python benchmarks/train_step.py --write            # also benchmarks/results/train_step-<device>[-<image>].{csv,md}

The textbook loop is written out below as research code usually has it: one module per decoder, all called in a Python
loop and stacked for training; in evaluation, image by image, the decoder of its argmax expert. Both sides have the
same layers and sizes, the same objective (`blend`), Adam, batch 128 and float32. *Hard decoding* is what evaluation
does after the encoder and the gate, which both sides run alike and which take most of an evaluation's time.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import machine
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from smoe_ray.model import SMoEVAE, build_model
from smoe_ray.spec import Blend, ImageShape, ModelSpec, TrainingSpec, TrialSpec
from smoe_ray.training.families.smoe_vae import TrainingStep

EXPERTS = (1, 5, 10, 25, 50)
BATCH = 128
EVALUATED = 2500
GREY: ImageShape = (1, 28, 28)
PARTS = ("step", "decoders", "hard decoding", "evaluation")
RESULTS = Path(__file__).parent / "results"


class TextbookModel(nn.Module):
    """The same model as ordinary modules."""

    def __init__(self, image_shape: ImageShape, num_experts: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        channels, height, width = image_shape
        halvings = 2 + sum(min(height, width) > side for side in (32, 64))
        features = 128 * (height // 2**halvings) * (width // 2**halvings)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(64, 128, 3, 2, 1), nn.ReLU(),
            *(layer for _ in range(halvings - 2) for layer in (nn.Conv2d(128, 128, 3, 2, 1), nn.ReLU())),
            nn.Flatten(),
        )  # fmt: skip
        self.mu, self.logvar = nn.Linear(features, 32), nn.Linear(features, 32)
        self.gate = nn.Sequential(
            nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, num_experts)
        )
        self.decoders = nn.ModuleList(textbook_decoder(image_shape) for _ in range(num_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        h = self.features(x)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        p = F.softmax(self.gate(z), dim=1)
        outputs = torch.stack([decoder(z) for decoder in self.decoders], dim=1)
        return (p[:, :, None, None, None] * outputs).sum(dim=1), mu, logvar, p

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        mu = self.mu(self.features(x))
        return ((x - self.decode_hard(mu, self.gate(mu).argmax(dim=1))) ** 2).sum() / len(x)

    @torch.no_grad()
    def decode_hard(self, z: Tensor, expert: Tensor) -> Tensor:
        out = torch.zeros(len(z), *self.image_shape, device=z.device)
        for i in range(len(z)):
            out[i] = self.decoders[int(expert[i])](z[i : i + 1])[0]
        return out


def textbook_decoder(image_shape: ImageShape) -> nn.Module:
    channels, height, width = image_shape[0], image_shape[1] // 4, image_shape[2] // 4
    return nn.Sequential(
        nn.Linear(32, 8 * height * width), nn.Unflatten(1, (8, height, width)),
        nn.Upsample(scale_factor=2), nn.Conv2d(8, 16, 3, 1, 1), nn.ELU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(16, channels, 3, 1, 1), nn.Sigmoid(),
    )  # fmt: skip


def textbook_step(model: TextbookModel, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    output, mu, logvar, p = model(x)
    reconstruction = ((x - output) ** 2).sum() / len(x)
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum() / len(x)
    entropy = -(p * torch.log(p + 1e-8)).sum(dim=1).mean()
    balance = p.shape[1] * ((p.mean(dim=0) - 1 / p.shape[1]) ** 2).sum()
    loss = reconstruction + 0.01 * kl + (200 * balance + 400 * entropy) / 128
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.inference_mode()
def our_hard_decoding(model: SMoEVAE, z_BZ: Tensor, expert_B: Tensor) -> Tensor:
    return model.experts.chosen(z_BZ, expert_B)


@torch.inference_mode()
def our_evaluation(model: SMoEVAE, image_BCHW: Tensor) -> Tensor:
    decoded = model(image_BCHW, None, decodes="chosen")
    assert decoded.chosen_BP is not None
    return (image_BCHW.flatten(1) - decoded.chosen_BP).square().sum(dim=1).mean()


def measure(tasks: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each task; the tasks take turns, so that a busy moment of the machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 2):
        for name, task in tasks.items():
            _wait(device)
            started = time.perf_counter()
            task()
            _wait(device)
            if turn >= 2:  # two rounds of warm-up
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(
    num_experts: int,
    rounds: int,
    threads: int,
    device: torch.device,
    image_shape: ImageShape,
    evaluated: int = EVALUATED,
) -> dict[str, float]:
    """Median seconds of each task at one number of experts."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    spec = TrialSpec(
        model=ModelSpec(num_experts=num_experts, encoder="medium"), objective=Blend(), training=TrainingSpec()
    )
    ours = build_model(spec.model, image_shape, seed=0).to(device)
    noise = torch.Generator(device).manual_seed(0)
    our_step = TrainingStep(spec, ours, torch.optim.Adam(ours.parameters(), lr=1e-3, fused=True), noise)
    textbook = TextbookModel(image_shape, num_experts).to(device)
    optimizer = torch.optim.Adam(textbook.parameters(), lr=1e-3)
    image_BCHW = torch.rand(BATCH, *image_shape, device=device)
    label_B = torch.zeros(BATCH, dtype=torch.long, device=device)
    z_BZ = torch.randn(BATCH, 32, device=device, requires_grad=True)
    test_BCHW = torch.rand(evaluated, *image_shape, device=device)
    test_z_BZ = torch.randn(evaluated, 32, device=device)
    test_expert_B = torch.randint(num_experts, (evaluated,), device=device)

    def our_decoders() -> None:
        images = ours.experts(z_BZ)
        images.backward(torch.ones_like(images))

    def textbook_decoders() -> None:
        images = torch.stack([decoder(z_BZ) for decoder in textbook.decoders], dim=1)
        images.backward(torch.ones_like(images))

    return measure(
        {
            "step, textbook": lambda: textbook_step(textbook, optimizer, image_BCHW),
            "step, ours": lambda: our_step(image_BCHW, label_B, 0.5),
            "decoders, textbook": textbook_decoders,
            "decoders, ours": our_decoders,
            "hard decoding, textbook": lambda: textbook.decode_hard(test_z_BZ, test_expert_B),
            "hard decoding, ours": lambda: our_hard_decoding(ours, test_z_BZ, test_expert_B),
            "evaluation, textbook": lambda: textbook.evaluate(test_BCHW),
            "evaluation, ours": lambda: our_evaluation(ours, test_BCHW),
        },
        rounds,
        device,
    )


def in_processes(arguments: argparse.Namespace, device: torch.device) -> list[dict[str, float]]:
    """Milliseconds and ratios, one row per number of experts: medians over processes.

    By chance two threads meet faster in one process than in another, from its start to its end: convolutions take up to
    three times as long then, whatever else is the same. One process can say little.
    """
    seconds: dict[int, list[dict[str, float]]] = {num_experts: [] for num_experts in arguments.experts}
    for _ in range(arguments.processes):
        for num_experts, measured in seconds.items():
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                run = process.submit(
                    compare,
                    num_experts,
                    arguments.rounds,
                    arguments.threads,
                    device,
                    arguments.image,
                    arguments.evaluated,
                )
                measured.append(run.result())
            print(num_experts, {name: round(1e3 * value, 2) for name, value in measured[-1].items()}, flush=True)
    rows = []
    for num_experts, measured in seconds.items():
        row: dict[str, float] = {"experts": num_experts}
        for part in PARTS:
            pairs = [(one[f"{part}, textbook"], one[f"{part}, ours"]) for one in measured]
            row[f"{part} textbook ms"] = 1e3 * statistics.median(textbook for textbook, _ in pairs)
            row[f"{part} ours ms"] = 1e3 * statistics.median(ours for _, ours in pairs)
            ratios = [textbook / ours for textbook, ours in pairs]
            row[f"{part} ratio"] = statistics.median(ratios)
            row[f"{part} lowest ratio"], row[f"{part} highest ratio"] = min(ratios), max(ratios)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--image", type=image_shape_of, default=GREY, metavar="CxHxW", help="1x28x28 by default")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7, help="of each process")
    parser.add_argument("--experts", type=int, nargs="+", default=EXPERTS)
    parser.add_argument("--evaluated", type=int, default=EVALUATED, help="images decoded and evaluated")
    parser.add_argument("--write", action="store_true", help="write the table to benchmarks/results")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    rows = in_processes(arguments, device)
    text = report(rows, device, arguments)
    print(text)
    if arguments.write:
        RESULTS.mkdir(exist_ok=True)
        name = f"train_step-{device.type}{suffix(arguments.image)}"
        (RESULTS / f"{name}.md").write_text(text)
        with (RESULTS / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def image_shape_of(text: str) -> ImageShape:
    """(C, H, W) of text such as ``3x32x32``."""
    try:
        channels, height, width = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no CxHxW such as 3x32x32") from None
    multiple = 4 if min(height, width) <= 32 else 16
    if height % multiple or width % multiple:
        raise argparse.ArgumentTypeError(f"'{text}': the textbook model needs sides that are multiples of {multiple}")
    return channels, height, width


def in_words(image_shape: ImageShape) -> str:
    """The inverse of `image_shape_of`."""
    return "x".join(map(str, image_shape))


def suffix(image_shape: ImageShape) -> str:
    """What the names of result files end with: nothing for the images of the paper."""
    return "" if image_shape == GREY else f"-{in_words(image_shape)}"


def name_of(device: torch.device) -> str:
    """What the measurements were made on."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else machine.cpu()


def report(rows: list[dict[str, float]], device: torch.device, arguments: argparse.Namespace) -> str:
    """The measurements as Markdown, with what they were made on."""
    lines = [
        "# Training step and hard decoding against a textbook loop",
        "",
        f"{datetime.date.today()}, {name_of(device)}, torch {torch.__version__}, commit {machine.commit()}.",
        f"Images of {in_words(arguments.image)}, batch {BATCH}, medium encoder, lite decoders, float32; hard decoding "
        "and whole evaluation of "
        f"{arguments.evaluated} images; decoders: forward and backward. Milliseconds and their ratio, each the median "
        f"of {arguments.processes} processes (the ratio with its lowest and highest), in each of them the median of "
        f"{arguments.rounds} interleaved rounds.",
        f"Command: `python benchmarks/train_step.py --device {device.type} --image {in_words(arguments.image)} "
        f"--threads {arguments.threads} "
        f"--processes {arguments.processes} --rounds {arguments.rounds} --write`",
        "",
        "| experts | " + " | ".join(f"{part}: textbook | ours | ratio" for part in PARTS) + " |",
        "|---" * (1 + 3 * len(PARTS)) + "|",
    ]
    for row in rows:
        cells = [f"{row['experts']}"]
        for part in PARTS:
            cells += [f"{row[f'{part} textbook ms']:.1f}", f"{row[f'{part} ours ms']:.1f}"]
            low, high = row[f"{part} lowest ratio"], row[f"{part} highest ratio"]
            cells += [f"**{row[f'{part} ratio']:.1f}** ({low:.1f} to {high:.1f})"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
