"""Run a small grid as a program: ``python run_toy.py OUT JOBS|ray toy|real [fields of Toy or RealFit, as JSON]``."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from toy_training import RealFit, Toy

from smoe_ray.cluster.ray_executor import RayExecutor
from smoe_ray.errors import SmoeRayError
from smoe_ray.results import TIMING_COLUMNS, read_results
from smoe_ray.spec import GridStudy, SearchStudy, parse_study
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.study.events import Event, Notice

BASE = """
name: toy
question: does it survive?
base:
  data: {source: synthetic, classes: [eye, cat], train_per_class: 20, test_per_class: 10}
  model: {num_experts: 3, encoder: lite}
  training: {budget: 4 epochs, batch_size: 16}
"""
GRID = BASE + "seeds: [0, 1, 2, 3]\n"


def toy_grid(**changes: Any) -> GridStudy:
    study = parse_study(GRID, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
    assert isinstance(study, GridStudy)
    return study


def table(out: Path, study: GridStudy | SearchStudy) -> Any:
    """The results without the columns in which two runs may differ."""
    return read_results(out, study.name).drop(columns=list(TIMING_COLUMNS))


def _say(event: Event) -> None:
    if isinstance(event, Notice):
        sys.stderr.write(event.text + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell started the tests with "&"
    out, executor = Path(sys.argv[1]), sys.argv[2]
    training = {"toy": Toy, "real": RealFit}[sys.argv[3]]
    fit = training(log=out.parent / "log", **json.loads(sys.argv[4]))
    try:
        made = RayExecutor(fit=fit) if executor == "ray" else LocalExecutor(int(executor), fit=fit)
        run_study(toy_grid(), out, made, on_event=_say)
    except KeyboardInterrupt:
        sys.exit(130)
    except SmoeRayError as error:
        sys.exit(f"error: {error}")
