"""Estimated against measured memory: what `smoe-ray check` says, and how far a process grows that trains the trial.

    python benchmarks/memory.py             # six configurations, a process each; a minute
    python benchmarks/memory.py --write     # also benchmarks/results/memory.md

Each process first trains a tiny trial of the same kind, which loads all code: what it has then is the process. Then it
trains the trial (two epochs, so that a checkpoint is written) and reports by how much its peak was above that: resident
memory at most (VmHWM), which the kernel counts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import machine

RESULTS = Path(__file__).parent / "results"


class Configuration(NamedTuple):
    shape: tuple[int, int, int]
    """(C, H, W) of its images."""
    images: int
    """Training images; there are 512 test images."""
    spec: dict[str, Any]
    """Changes to the default trial, by path."""


CONFIGURATIONS = [
    Configuration((1, 28, 28), 1024, {"model.num_experts": 50, "training.batch_size": 512, "objective.name": "blend"}),
    Configuration((1, 28, 28), 256, {"model.num_experts": 10, "model.encoder": "lite", "model.decoder": "large"}),
    Configuration((1, 28, 28), 256, {"model.num_experts": 5, "model.decoder": "medium", "training.batch_size": 256}),
    Configuration((3, 32, 32), 512, {"training.batch_size": 256, "training.precision": "bf16"}),
    Configuration((3, 32, 32), 512, {"model.num_experts": 20, "training.batch_size": 256, "objective.name": "gshard"}),
    Configuration((3, 64, 64), 256, {"model.num_experts": 5}),
]

_TEST_IMAGES = 512
_TINY = {"model.num_experts": 2, "training.batch_size": 2}


class Measured(NamedTuple):
    """Bytes."""

    process: int
    """Resident memory of the process before the trial."""
    growth: int
    """Peak above that."""


def measure(configuration: Configuration) -> Measured:
    """Train a configuration in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(configuration)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{configuration} failed:\n{done.stderr[-4000:]}")
    return Measured(*json.loads(done.stdout))


def estimate(configuration: Configuration) -> int:
    """What the process is estimated to grow by, bytes."""
    from smoe_ray.model.memory import trial_memory
    from smoe_ray.spec import TrialSpec, trial_with

    trial = trial_with(TrialSpec(), _spec(configuration.spec))
    return trial_memory(trial, configuration.shape, configuration.images, _TEST_IMAGES).trial


def _spec(changes: dict[str, Any]) -> dict[str, Any]:
    objective = {"objective": {"name": changes["objective.name"]}} if "objective.name" in changes else {}
    plain = {key: value for key, value in changes.items() if key != "objective.name"}
    return {"training.budget": "2 epochs", **objective, **plain}


def child(configuration: Configuration) -> None:
    """Print `Measured` of this process."""
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        tiny = configuration._replace(images=4, spec=configuration.spec | _TINY)
        _train(tiny, folder, test_images=4)
        process = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        _train(configuration, folder, _TEST_IMAGES)
        print(json.dumps(Measured(process, _status("VmHWM") - process)))


def _train(configuration: Configuration, out: str, test_images: int) -> None:
    import numpy as np

    from smoe_ray.data import Dataset, Splits
    from smoe_ray.spec import TrialSpec, trial_id, trial_with
    from smoe_ray.study.trial_run import TrialTask, fit_on, train_trial

    random = np.random.default_rng(0)

    def images(number: int) -> Dataset:
        shape = configuration.shape if configuration.shape[0] > 1 else configuration.shape[1:]
        return Dataset(random.integers(0, 256, (number, *shape), dtype=np.uint8), random.integers(0, 3, number))

    data = Splits(images(configuration.images), images(test_images), ("a", "b", "c"), "0" * 64)
    trial = trial_with(TrialSpec(), _spec(configuration.spec))
    task = TrialTask("memory", trial, trial_id(trial, data.fingerprint), out, Path(out) / "cache")
    record = train_trial(task, lambda _: None, fit_on("cpu"), lambda _: data)
    assert record is not None
    assert record.status == "finished", record.error


def _status(name: str) -> int:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    [kilobytes] = [int(words[1]) for words in lines if words[0] == f"{name}:"]
    return 1024 * kilobytes


def table() -> str:
    """The measurements as a Markdown table."""
    lines = ["| images | experts | encoder, decoder | batch | | process | estimated | measured | ratio |"]
    lines.append("|" + " --- |" * 9)
    for configuration in CONFIGURATIONS:
        (channels, height, width), _, changes = configuration
        measured, estimated = measure(configuration), estimate(configuration)
        options = ", ".join(str(changes[key]) for key in ("objective.name", "training.precision") if key in changes)
        cells = (
            f"{channels} x {height} x {width}",
            changes.get("model.num_experts", 10),
            f"{changes.get('model.encoder', 'medium')}, {changes.get('model.decoder', 'lite')}",
            changes.get("training.batch_size", 128),
            options,
            *(f"{size / 1e6:.0f}" for size in (measured.process, estimated, measured.growth)),
            f"{estimated / measured.growth:.2f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(Configuration(*json.loads(arguments.child)))
        sys.exit()
    text = f"""# Memory of a trial: estimated and measured

{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, commit {machine.commit()}, {machine.cpu()}, one thread. Megabytes.
*Process*: Python, torch and what they load, before the trial. *Estimated* and *measured*: what the trial adds to that
at its peak. `smoe-ray check` shows the sum of process and trial. Made by `python benchmarks/memory.py --write`.

{table()}
"""
    if arguments.write:
        (RESULTS / "memory.md").write_text(text)
