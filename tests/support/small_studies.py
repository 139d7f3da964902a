"""Real small studies, trained in seconds, for what looks at results: every kind of page has something to show.

As a program: ``python -m support.small_studies OUT``.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from smoe_ray.results import Store, TrialFolder, TrialRecord, read_trials
from smoe_ray.results.record import now
from smoe_ray.spec import parse_study
from smoe_ray.study import LocalExecutor, run_study

_BASE = """
preset: recommended
base:
  data: {source: synthetic, classes: [eye, cat, pencil], train_per_class: 60, test_per_class: 20}
  model: {num_experts: 3, encoder: lite, latent_dim: 4}
  training: {budget: 3 epochs, batch_size: 32}
"""

ARMS = f"""
name: arms
question: Which routing keeps its experts alive?
{_BASE}
axes:
  routing: [unsupervised, supervised]
  objective.name: [likelihood, blend]
seeds: [0, 1, 2]
"""

SURFACE = f"""
name: surface
question: How does the loss depend on the number of experts and the amount of data?
{_BASE}
axes:
  model.num_experts: [1, 2, 4]
  data.train_per_class: [20, 40, 80]
seeds: [0, 1]
"""

SEARCH = f"""
kind: search
name: search
question: Which weights are best?
{_BASE}
space:
  objective.name: {{type: categorical, choices: [blend]}}
  objective.lambda_balance: {{type: float, low: 10, high: 2000, log: true}}
  objective.lambda_entropy: {{type: float, low: 10, high: 2000, log: true}}
objectives:
  - {{metric: test.reconstruction, direction: minimize}}
  - {{metric: experts.active_fraction, direction: maximize}}
num_trials: 10
sampler: {{name: random}}
"""


def make(out: Path) -> None:
    """Three studies: `arms` (one trial of it failed, one runs), `surface`, `search`."""
    for text in (ARMS, SURFACE, SEARCH):
        run_study(parse_study(text), out, LocalExecutor(device="cpu"))
    by_arm = {(record.spec.routing, record.spec.seed): record for record in read_trials(out, "arms")}
    failed, unfinished = by_arm["supervised", 2], by_arm["unsupervised", 2]
    _rewrite(
        out,
        failed,
        status="failed",
        error="the loss became NaN in epoch 2 (reconstruction nan, kl 1.3); lower training.learning_rate",
        error_kind="DivergedError",
        traceback='Traceback (most recent call last):\n  File "fit.py", line 1, in fit\nDivergedError: NaN',
    )
    _rewrite(out, unfinished, status="running")


def _rewrite(out: Path, record: TrialRecord, **changes: str) -> None:
    """What the files of a trial would be, had it not come to its end: one epoch less and nothing of its end."""
    store = Store(out)
    folder = TrialFolder(store, record.study, record.trial_id)
    folder.write_epochs(folder.read_rows()[:-1])
    for name in ("model.safetensors", "embeddings.npz"):
        (out / folder.name / name).unlink()
    started = now() - timedelta(seconds=20)
    timings = record.timings.model_copy(
        update={"finished_at": now() if changes["status"] == "failed" else None, "started_at": started}
    )
    folder.write_record(record.model_copy(update={**changes, "timings": timings, "files": {}}))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
