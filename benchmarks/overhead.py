"""What a study costs beside its training: near-empty trials against bare Ray Tune, and the tracking of an epoch.

    python benchmarks/overhead.py             # 200 trials each way, three rounds; a quarter of an hour
    python benchmarks/overhead.py --write     # also benchmarks/results/overhead.md

*Trials*: `smoe-ray run` of a grid of near-empty trials (two experts, 64 drawings, one step) against a program that
trains the same trials with the same `fit` through Ray Tune and nothing else: reused processes, the same CPUs, data in
the object store, no loggers, the row of each epoch reported, no file kept. Both are whole commands in turns, from their
start to their end: Ray's start, imports and data are in both. Also with the seconds of the same command for one trial
taken off, which leaves what each further trial costs.

*Tracking*: a quickstart trial through `RayExecutor`. What its process does between two epochs is timed apart from the
epochs (training and evaluation): rows and record to OUT, report to the driver and its answer; and the checkpoint.
Counting the usage of experts is part of an evaluation; it is timed by itself.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine
import yaml

RESULTS = Path(__file__).parent / "results"
QUICKSTART = Path(__file__).parents[1] / "studies" / "quickstart.yaml"


def empty_study(trials: int) -> dict[str, Any]:
    return {
        "kind": "grid",
        "name": "empty",
        "question": "What does a trial cost that trains next to nothing?",
        "base": {
            "data": {"source": "synthetic", "train_per_class": 32, "test_per_class": 32, "classes": ["face", "eye"]},
            "model": {"num_experts": 2, "encoder": "lite"},
            "training": {"budget": "1 steps"},
            "evaluation": {"save_embeddings": False},  # nor does the other side make any
        },
        "seeds": list(range(trials)),
    }


# --- trials -----------------------------------------------------------------------------------------------------------


def bare_tune(study: Path) -> None:
    """The same trials through Ray Tune alone; run as a program of its own."""
    import ray
    from ray import tune

    from smoe_ray.data import prepare, split
    from smoe_ray.spec import load_study
    from smoe_ray.study import plan_grid
    from smoe_ray.study.local import usable_cpus

    spec = load_study(study)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="b-", ignore_cleanup_errors=True) as folder:
        trials = plan_grid(spec)
        source = prepare(trials[0].data, Path(folder))
        ray.init(
            address="local", num_cpus=usable_cpus(), include_dashboard=False, log_to_driver=False, _temp_dir=folder
        )

        def train(config: dict[str, Any], source: Any) -> None:
            import torch

            from smoe_ray.training.loop import fit

            torch.set_num_threads(1)
            for epoch in fit(config["trial"], split(source, config["trial"].data)):
                tune.report(epoch.row)

        tune.Tuner(
            tune.with_resources(tune.with_parameters(train, source=source), {"CPU": 1}),
            param_space={"trial": tune.grid_search(trials)},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(storage_path=f"{folder}/tune", verbose=0),
        ).fit()
        ray.shutdown()


def seconds_of(way: str, trials: int) -> float:
    """Wall seconds of one whole command."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        study = Path(folder) / "empty.yaml"
        study.write_text(yaml.safe_dump(empty_study(trials)))
        commands = {
            "ours": [Path(sys.executable).with_name("smoe-ray"), "run", study, "--out", f"{folder}/out"],
            "bare": [sys.executable, __file__, "--bare", study],
        }
        silent = {
            "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
            "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
            "TUNE_MAX_PENDING_TRIALS_PG": str(os.cpu_count()),
            "RAY_AUTH_MODE": "disabled",
        }
        environment = os.environ | (silent if way == "bare" else {})
        started = time.perf_counter()
        done = subprocess.run(commands[way], env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if done.returncode:
            sys.exit(f"{way} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        if way == "ours":
            records = [json.loads(path.read_text()) for path in Path(folder).glob("out/empty/trials/*/trial.json")]
            assert [record["status"] for record in records] == trials * ["finished"]
        return seconds


def measure_trials(trials: int, rounds: int) -> dict[tuple[str, int], list[float]]:
    """Seconds by (way, number of trials), in turns."""
    seconds: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds):
        for count in (1, trials):
            for way in ("ours", "bare") if turn % 2 else ("bare", "ours"):
                seconds.setdefault((way, count), []).append(seconds_of(way, count))
                print(f"round {turn + 1}: {way}, {count} trials: {seconds[way, count][-1]:.1f} s", flush=True)
    return seconds


# --- tracking ---------------------------------------------------------------------------------------------------------


class TimedFit:
    """`training.fit` that notes how long each epoch took, and what the process did before it asked for the next."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __call__(self, trial: Any, data: Any, checkpoint: Any) -> Iterator[Any]:
        from smoe_ray.results import TrialFolder
        from smoe_ray.study.trial_run import fit_on

        parts: dict[str, float] = {}

        def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any) -> Any:
                began = time.perf_counter()
                result = call(*arguments)
                parts[part] = parts.get(part, 0.0) + time.perf_counter() - began
                return result

            return wrapped

        # The process trains this trial alone and ends with it.
        TrialFolder.write_epochs = timed("rows", TrialFolder.write_epochs)  # type: ignore[method-assign]
        TrialFolder.write_record = timed("record", TrialFolder.write_record)  # type: ignore[method-assign]
        TrialFolder.write_checkpoint = timed("checkpoint", TrialFolder.write_checkpoint)  # type: ignore[method-assign]
        training = fit_on("cpu")(trial, data, checkpoint)
        started = time.perf_counter()
        for epoch in training:
            ended = time.perf_counter()
            parts.clear()
            yield epoch._replace(checkpoint=timed("checkpoint", epoch.checkpoint))
            resumed = time.perf_counter()
            report = resumed - ended - sum(parts.values())
            note = {"epoch": ended - started, **parts, "report": report}
            with self.notes.open("a") as file:
                file.write(json.dumps(note) + "\n")
            started = time.perf_counter()


def measure_tracking() -> dict[str, float]:
    """Median milliseconds of an epoch of a quickstart trial, and of each thing that its process does after it."""
    from smoe_ray.cluster.ray_executor import RayExecutor
    from smoe_ray.spec import load_study
    from smoe_ray.study import run_study

    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        notes = Path(folder) / "notes"
        study = load_study(QUICKSTART, ["seeds=[0]", "axes={}"])
        # In its own process: what TimedFit replaces must not outlive it, nor what a Ray of ours sets.
        with RayExecutor(jobs=1, fit=TimedFit(notes)) as executor:
            records = run_study(study, Path(folder) / "out", executor)
        assert [record.status for record in records] == ["finished"], records
        lines = [json.loads(line) for line in notes.read_text().splitlines()]
        lines = lines[1:-1]  # the first warms up, and the last keeps other files
    return {part: 1e3 * statistics.median(line[part] for line in lines) for part in lines[0]} | {
        "usage": 1e3 * _seconds_of_usage()
    }


def _seconds_of_usage() -> float:
    """Of counting which expert each of a quickstart's 1,000 test images goes to, and the statistics of it."""
    import torch

    from smoe_ray.training.evaluate import Evaluation

    logit_BE = torch.randn(1000, 10)
    rounds = 1000
    started = time.perf_counter()
    for _ in range(rounds):
        usage_E = torch.bincount(logit_BE.argmax(dim=1), minlength=10).double() / len(logit_BE)
        Evaluation(0.0, 0.0, 0.0, tuple(usage_E.tolist())).usage()
    return (time.perf_counter() - started) / rounds


# --- report -----------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=("trials", "tracking"), help="only this one; nothing is written")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/overhead.md")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        bare_tune(arguments.bare)
        return
    lines = [
        "# What a study costs beside its training",
        "",
        f"{datetime.date.today()}, {machine.cpu()}, load {os.getloadavg()[1]:.1f} at the start, "
        f"commit {machine.commit()}.",
        f"Command: `python benchmarks/overhead.py --trials {arguments.trials} --rounds {arguments.rounds} --write`",
    ]
    if arguments.part != "trials":
        lines += ["", *tracking_table(measure_tracking())]
    if arguments.part != "tracking":
        lines += ["", *trials_table(measure_trials(arguments.trials, arguments.rounds), arguments)]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.write and not arguments.part:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "overhead.md").write_text(text)


def tracking_table(milliseconds: dict[str, float]) -> list[str]:
    epoch = milliseconds["epoch"]
    tracking = sum(milliseconds[part] for part in ("rows", "record", "report", "usage"))
    said = {
        "epoch": "epoch: training and evaluation",
        "usage": "usage of the experts (within the evaluation)",
        "rows": "rows to OUT",
        "record": "record to OUT",
        "report": "report to the driver, and its answer",
        "checkpoint": "checkpoint to OUT",
    }
    return [
        "## Tracking an epoch of studies/quickstart.yaml",
        "",
        "| part | ms | % of an epoch |",
        "|---|---|---|",
        *(
            f"| {text} | {milliseconds[part]:.2f} | {100 * milliseconds[part] / epoch:.2f} |"
            for part, text in said.items()
        ),
        f"| **tracking**: usage, rows, record, report | {tracking:.2f} | **{100 * tracking / epoch:.2f}** |",
    ]


def trials_table(seconds: dict[tuple[str, int], list[float]], arguments: argparse.Namespace) -> list[str]:
    median = {key: statistics.median(values) for key, values in seconds.items()}
    count = arguments.trials

    def a_trial(way: str) -> float:
        return 1e3 * (median[way, count] - median[way, 1]) / (count - 1)

    return [
        f"## {count} near-empty trials",
        "",
        f"Whole commands, medians of {arguments.rounds} rounds in turns.",
        "",
        "| | `smoe-ray run` | bare Ray Tune | ratio |",
        "|---|---|---|---|",
        *(
            f"| {what} | {ours:.{digits}f} | {bare:.{digits}f} | **{ours / bare:.2f}** |"
            for what, ours, bare, digits in (
                (f"{count} trials, s", median["ours", count], median["bare", count], 1),
                ("1 trial, s", median["ours", 1], median["bare", 1], 1),
                ("each further trial, ms", a_trial("ours"), a_trial("bare"), 0),
            )
        ),
    ]


if __name__ == "__main__":
    main()
