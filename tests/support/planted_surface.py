"""Studies whose loss surface, and so whose best number of experts, is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from smoe_ray.analysis.surface_fit import Form
from support.planted_results import PAPER_IMAGES, published, table, trial

TRUE = Form(14.85, 1.157, 0.619, 0.375, 0.357, 2.146, 0.321)
"""The published runs' surface (SCIENCE.md 5): the best are 3.3, 4.1, 5.1, 6.4 and 8.5 experts at 5, ..., 100 %."""

AMOUNTS = tuple(PAPER_IMAGES * fraction for fraction in (0.05, 0.1, 0.2, 0.4, 1.0))
COUNTS = (1, 2, 3, 5, 7, 10, 15, 20)


def loss_of(amount: Any, experts: Any, form: Form = TRUE) -> Any:
    log_d = np.log(np.asarray(amount) / PAPER_IMAGES)
    off = np.log(experts) - form.k0 - form.k1 * log_d
    return form.floor + form.a * np.exp(-form.b * log_d) + form.c * np.exp(-form.g * log_d) * off**2


def best_of(amount: float, form: Form = TRUE) -> float:
    return float(np.exp(form.k0 + form.k1 * np.log(amount / PAPER_IMAGES)))


def planted_runs(
    seed: int = 0,
    form: Form = TRUE,
    amounts: Sequence[float] = AMOUNTS,
    counts: Sequence[int] = COUNTS,
    repeats: int = 3,
    noise: float = 0.3,
    stuck: float = 0.0,
) -> pd.DataFrame:
    """Runs around the surface. Noise grows as data get scarce, as in the published runs; a share of them gets stuck."""
    rng = np.random.default_rng(seed)
    cells = [(amount, count, repeat) for amount in amounts for count in counts for repeat in range(repeats)]
    runs = pd.DataFrame(cells, columns=["amount", "experts", "seed"])
    sd = noise * (runs["amount"] / PAPER_IMAGES) ** -0.4
    error = np.where(rng.random(len(runs)) < stuck, 1 + rng.exponential(3, len(runs)), rng.standard_normal(len(runs)))
    return runs.assign(
        loss=loss_of(runs["amount"], runs["experts"], form) + sd * error,
        run=[f"{amount:g}-{count}-{repeat}" for amount, count, repeat in cells],
    )


def planted_study(runs: pd.DataFrame, name: str = "run", epochs: int = 1, **config: Any) -> pd.DataFrame:
    """The table of `read_results` with these runs as trials; every epoch before the last one lies 5 higher."""
    return table(
        *(
            trial(
                f"{name}-{run.run}",
                [run.loss + 5.0] * (epochs - 1) + [run.loss],
                active=run.experts,
                configured=2 * run.experts,
                seed=run.seed,
                images=int(run.amount),
                data__fraction=run.amount / PAPER_IMAGES,
                **config,
            )
            for run in runs.itertuples()
        )
    )


def published_with_steps() -> pd.DataFrame:
    """The published runs with the steps that they took, at batch 128."""
    runs = published()
    return runs.assign(**{"cost.steps": np.ceil(runs["data.train_images"] / 128) * runs["epoch"]})
