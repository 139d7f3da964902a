"""A tiny contrastive study, trained in a second: a model family that reconstructs nothing, and how to run it."""

from __future__ import annotations

from pathlib import Path

from smoe_ray.spec import GridStudy, parse_study
from smoe_ray.study import LocalExecutor, run_study

NAME = "views"
STUDY = f"""
kind: grid
name: {NAME}
question: Does a model without decoders go through everything?
base:
  data: {{source: synthetic, classes: [cat, eye], train_per_class: 24, test_per_class: 12}}
  model: {{family: contrastive, num_experts: 2, widths: [4, 4, 8], moe_stage: 2, projection: [8, 4]}}
  objective: {{name: contrastive}}
  training: {{budget: 2 epochs, batch_size: 16}}
axes:
  objective.temperature: [0.2, 0.5]
seeds: [0, 1, 2]
"""


def contrastive_study(*changes: str) -> GridStudy:
    """The study, with changes as ``--set`` takes them."""
    study = parse_study(STUDY, changes)
    assert isinstance(study, GridStudy)
    return study


def train(out: Path) -> None:
    """Run the study into `out`."""
    run_study(contrastive_study(), out, LocalExecutor(jobs=1, device="cpu"))
