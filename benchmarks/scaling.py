"""Weak scaling of data-parallel training: the same batch a worker, more workers; and where the time goes.

    python benchmarks/scaling.py                                          # 1 and 2 workers on CPUs, some minutes
    python benchmarks/scaling.py --device cuda --workers 1 2 4 8 --batch 1024 --write
    python benchmarks/scaling.py --write                                  # also benchmarks/results/scaling-<device>.*

Each number of workers runs twice through Ray Train. First a group takes training steps in three ways, in turns: cutting
batches alone (*data*), with a step on them but no word to the others (*compute*), and as in training (what is left is
*all-reduce*: what waiting for the others and their gradients adds). Then a whole trial runs through
`train_distributed`, whose epochs say how long a report takes (rows, checkpoint, and the way to the driver and back) and
what starting and ending the group costs. *Efficiency* is the time of a step of one worker over that of N.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
import ray
import torch

from smoe_ray.cluster.distributed import train_distributed
from smoe_ray.data import Dataset, Splits
from smoe_ray.model import build_model
from smoe_ray.spec import TrialSpec, trial_id, trial_with
from smoe_ray.study.trial_run import TrialTask
from smoe_ray.training.collectives import ALONE, WorkerGroup, Workers
from smoe_ray.training.families.smoe_vae import TrainingStep
from smoe_ray.training.images import DeviceImages

RESULTS = Path(__file__).parent / "results"
COLUMNS = {
    "workers": "workers",
    "step_ms": "step, ms",
    "compute_ms": "compute, ms",
    "all_reduce_ms": "all-reduce, ms",
    "data_ms": "data, ms",
    "images_per_s": "images/s",
    "efficiency": "efficiency",
    "report_ms": "report, ms an epoch",
    "start_s": "start, s",
    "end_s": "end, s",
}


class Silent(Workers):
    """The same shards, but every worker for itself."""

    def __init__(self, of: Workers) -> None:
        self.rank, self.count = of.rank, of.count


def trial(workers: int, arguments: argparse.Namespace) -> TrialSpec:
    return trial_with(
        TrialSpec(),
        {
            "model.num_experts": arguments.experts,
            "training.batch_size": arguments.batch * workers,
            "training.budget": f"{arguments.epochs} epochs",
            "evaluation.every": arguments.epochs,
            "resources.workers": {"min": workers, "max": workers},  # through Ray Train even where it is one
            "resources.gpus": int(arguments.device == "cuda"),
        },
    )


def images(count: int) -> Splits:
    """White noise: what is drawn takes no part in how long it takes."""
    rng = np.random.default_rng(0)

    def noise(n: int) -> Dataset:
        return Dataset(rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), np.arange(n) % 2)

    return Splits(noise(count), noise(256), ("a", "b"), "0" * 64)


def steps_of_a_group(config: dict[str, Any]) -> dict[str, float]:
    """In each worker: median seconds of a step, of one without the others, and of its data; in turns."""
    spec, arguments = config["spec"], config["arguments"]
    torch.set_num_threads(spec.resources.cpus)
    device = ray.train.torch.get_device() if arguments.device == "cuda" else torch.device("cpu")
    workers = WorkerGroup() if ray.train.get_context().get_world_size() > 1 else ALONE
    data = DeviceImages(images(arguments.steps * spec.training.batch_size).train, device)

    def step(of: Workers) -> TrainingStep:
        model = build_model(spec.model, (1, 28, 28), spec.seed).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        return TrainingStep(spec, model, optimizer, torch.Generator(device).manual_seed(0), of)

    ways = {"data": None, "compute": step(Silent(workers)), "whole": step(workers)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(arguments.rounds + 1):  # the first warms up
        for name, take in ways.items():
            workers.sum(torch.zeros(1, device=device))  # all begin together
            wait(device)
            started = time.perf_counter()
            generator = torch.Generator(device).manual_seed(turn)
            for batch in data.batches(spec.training.batch_size, arguments.steps, generator, workers):
                if take is not None:
                    take(batch.image_BHW, batch.label_B, 0.5, batch.shard)
            wait(device)
            if turn:
                seconds[name].append((time.perf_counter() - started) / arguments.steps)
    return {name: statistics.median(values) for name, values in seconds.items()}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_steps(workers: int, arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        steps_of_a_group,
        train_loop_config={"spec": trial(workers, arguments), "arguments": arguments},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=arguments.device == "cuda"),
        run_config=RunConfig(name="scaling", storage_path=str(folder)),
    )
    seconds = trainer.fit().return_value
    return {
        "step_ms": 1e3 * seconds["whole"],
        "compute_ms": 1e3 * (seconds["compute"] - seconds["data"]),
        "all_reduce_ms": 1e3 * (seconds["whole"] - seconds["compute"]),
        "data_ms": 1e3 * seconds["data"],
        "images_per_s": arguments.batch * workers / seconds["whole"],
    }


def measure_trial(workers: int, arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    spec = trial(workers, arguments)
    count = arguments.steps * spec.training.batch_size
    task = TrialTask("scaling", spec, trial_id(spec, "0" * 64), str(folder), folder)
    trained: list[tuple[float, float]] = []  # when each epoch was heard of, and how long it took
    started = time.perf_counter()
    record = train_distributed(
        task,
        lambda rows: trained.append((time.perf_counter(), rows[-1]["cost.wall_s"])),
        lambda _: images(count),
        arguments.device,
    )
    ended = time.perf_counter()
    assert record is not None
    assert record.status == "finished", record.error
    reports = [then - before - took for (before, _), (then, took) in itertools.pairwise(trained)]
    return {
        "report_ms": 1e3 * statistics.median(reports),
        "start_s": trained[0][0] - trained[0][1] - started,
        "end_s": ended - trained[-1][0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--batch", type=int, default=128, help="images a worker and step")
    parser.add_argument("--experts", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="in an epoch, and in each measurement")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each kind; their median counts")
    parser.add_argument("--epochs", type=int, default=6, help="of the trial; at least 2")
    parser.add_argument("--address", help="a Ray that is there; by default one of our own on this machine")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/scaling-<device>.*")
    arguments = parser.parse_args()
    os.environ |= {"RAY_AUTH_MODE": "disabled"} if arguments.address is None else {}
    os.environ |= {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1", "PYTHONPATH": str(Path(__file__).parent)}
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="s-", ignore_cleanup_errors=True) as name:
        own = {"num_cpus": max(arguments.workers), "_temp_dir": f"{name}/ray"} if arguments.address is None else {}
        ray.init(address=arguments.address or "local", log_to_driver=False, logging_level="ERROR", **own)
        for workers in arguments.workers:
            row = {"workers": workers, **measure_steps(workers, arguments, Path(name) / "steps")}
            row["efficiency"] = (rows[0] if rows else row)["step_ms"] / row["step_ms"]
            rows.append(row | measure_trial(workers, arguments, Path(name) / f"trial-{workers}"))
            print({key: round(value, 3) for key, value in rows[-1].items()}, flush=True)
        ray.shutdown()
    text = report(rows, arguments)
    print(text)
    if arguments.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"scaling-{arguments.device}.md").write_text(text)
        with (RESULTS / f"scaling-{arguments.device}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(COLUMNS))
            writer.writeheader()
            writer.writerows(rows)


def report(rows: list[dict[str, float]], arguments: argparse.Namespace) -> str:
    """The measurements as Markdown, with what they were made on."""
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else machine.cpu()
    options = f"--device {arguments.device} --workers {' '.join(map(str, arguments.workers))} --batch {arguments.batch}"
    lines = [
        "# Weak scaling of data-parallel training",
        "",
        f"{datetime.date.today()}, {device}, one thread a worker, torch {torch.__version__}, ray {ray.__version__}, "
        f"commit {machine.commit()}.",
        f"{arguments.batch} images a worker and step, {arguments.experts} experts, medium encoder, lite decoders, "
        f"float32; medians of {arguments.rounds} measurements of {arguments.steps} steps.",
        f"Load when measured (processes that want a CPU): {os.getloadavg()[1]:.1f}.",
        f"Command: `python benchmarks/scaling.py {options} --experts {arguments.experts} --write`",
        "",
        f"| {' | '.join(COLUMNS.values())} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for row in rows:
        digits = {"workers": 0, "efficiency": 2, "data_ms": 2, "images_per_s": 0}
        lines.append(f"| {' | '.join(f'{row[name]:.{digits.get(name, 1)}f}' for name in COLUMNS)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
