"""Results tables for tests: planted ones, and the published runs of arXiv:2509.10025 in the same shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from smoe_ray.published import read_published

PAPER_IMAGES = 350_000
"""Training images of arXiv:2509.10025 at fraction 1: 70,000 in each of five categories."""


def trial(
    name: str,
    losses: Sequence[float],
    *,
    active: int | Sequence[int] = 5,
    configured: int = 10,
    status: str = "finished",
    seed: int = 0,
    images: int = 1000,
    usage: Sequence[Sequence[float] | None] | None = None,
    **config: Any,
) -> list[dict[str, Any]]:
    """Rows of one trial, an epoch per loss (NaN: not evaluated). `config` keys are spec paths with __ for dots."""
    epochs = len(losses)
    active_T = [active] * epochs if isinstance(active, int) else list(active)
    paths = {f"config.{path.replace('__', '.')}": value for path, value in config.items()}
    return [
        {
            "study": "planted",
            "trial_id": name,
            "status": status,
            "seed": seed,
            "epoch": epoch + 1,
            "config.seed": seed,
            "config.model.num_experts": configured,
            **paths,
            "train.reconstruction": 2.0 * loss,
            "test.reconstruction": loss,
            "test.reconstruction_soft": loss - 1.0,
            "experts.configured": configured,
            "experts.active": active_T[epoch],
            "experts.effective": 0.9 * active_T[epoch],
            "experts.usage": usage[epoch] if usage is not None else None,
            "cost.steps": (epoch + 1) * images // 100,
            "data.train_images": images,
            "data.image_shape": "1x28x28",
        }
        for epoch, loss in enumerate(losses)
    ]


def table(*trials: Iterable[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([row for rows in trials for row in rows])


def dying(configured: int, survivors: int, epochs: int = 10, seed: int = 0) -> list[list[float]]:
    """Usage of `configured` experts over epochs, of which all but `survivors` fade to exactly zero."""
    rng = np.random.default_rng(seed)
    weight_E = rng.uniform(0.5, 1.5, configured)
    dies_E = rng.permutation(configured) >= survivors
    dies_at_E = np.where(dies_E, rng.uniform(1, epochs - 1, configured), np.inf)
    shares = []
    for epoch in range(epochs):
        share_E = weight_E * np.clip(1 - epoch / dies_at_E, 0, 1)
        shares.append((share_E / share_E.sum()).tolist())
    return shares


def learning(start: float, end: float, epochs: int = 10) -> list[float]:
    return (end + (start - end) * np.exp(-0.4 * np.arange(epochs))).tolist()


def many_arms(arms: int, configured: int, seeds: int = 3, epochs: int = 10) -> pd.DataFrame:
    """A study of `arms` objectives and weights of balance, each with `seeds` seeds."""
    objectives = ("blend", "likelihood") if arms > 1 else ("likelihood",)
    trials = []
    for arm in range(arms):
        for seed in range(seeds):
            usage = dying(configured, max(1, configured * (arm + 1) // (arms + 1)), epochs, seed)
            trials.append(
                trial(
                    f"{arm}-{seed}",
                    learning(90 + seed, 25 + 1.5 * arm + 0.4 * seed, epochs),
                    active=[sum(share > 0 for share in share_E) for share_E in usage],
                    configured=configured,
                    seed=seed,
                    usage=usage,
                    objective__name=objectives[arm % len(objectives)],
                    objective__lambda_balance=float(100 * (1 + arm // 2)),
                )
            )
    return table(*trials)


def published() -> pd.DataFrame:
    """The published runs, without the steps that they took, as a study that measured no other loss."""
    unmeasured = {"test.reconstruction_soft": np.nan, "train.reconstruction": np.nan}
    return read_published().drop(columns="cost.steps").assign(study="published", **unmeasured)
