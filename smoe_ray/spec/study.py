"""Grid studies, and the presets that fill in what a study does not say."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from smoe_ray.notebook import html_table
from smoe_ray.spec.base import NAME_PATTERN, Spec
from smoe_ray.spec.objectives import Supervised
from smoe_ray.spec.trial import TrialSpec, check_trial_path, merge_trial, plugin_paths, trial_with

_PAPER = {"model": {"encoder": "medium", "decoder": "lite", "latent_dim": 32, "gate_hidden": [64, 32]}}

PRESETS: dict[str, dict[str, Any]] = {
    "paper_text": _PAPER
    | {
        "objective": {"name": "blend", "lambda_balance": 200, "lambda_entropy": 400, "balance_form": "paper_text"},
        "training": {"learning_rate": 1e-4, "beta": 0.1, "batch_size": 128, "budget": "20 epochs"},
        "evaluation": {"gating": "hard", "latent": "sample"},
    },
    "released_code": _PAPER
    | {
        "objective": {"name": "blend", "lambda_balance": 200, "lambda_entropy": 400, "balance_form": "released_code"},
        "training": {"learning_rate": 1e-3, "beta": 0.01, "batch_size": 128, "budget": "20 epochs"},
        "evaluation": {"gating": "hard", "latent": "sample"},
    },
    "recommended": _PAPER
    | {
        "objective": {"name": "likelihood", "lambda_balance": 400, "variance_start": 8, "variance_end": 1},
        "training": {"learning_rate": 1e-3, "beta": 0.01, "batch_size": 128, "budget": "20 epochs"},
        "evaluation": {"gating": "hard", "latent": "mean"},
    },
}
"""What each preset fills in under a study's own `base`: the text of arXiv:2509.10025, its released code (which made the
published numbers), and what we recommend."""

SUPERVISED = {
    "paper_text": Supervised(cross_entropy_weight=1),  # the text names no weight
    "released_code": Supervised(cross_entropy_weight=200),  # load_balancing_coeff of its configuration
    "recommended": Supervised(cross_entropy_weight=1),
}
"""What each preset fills in where routing is supervised, in place of its objective."""

PresetName = Literal["paper_text", "released_code", "recommended"]


class CollapseSpec(Spec):
    """Stops (prunes) a trial whose experts have died: at least one of the two limits."""

    min_active_fraction: float | None = Field(
        default=None, gt=0, le=1, description="stop below this share of active experts (experts.active_fraction)"
    )
    min_effective: float | None = Field(
        default=None, ge=1, description="stop below this number of effective experts (experts.effective)"
    )
    grace_epochs: int = Field(default=3, ge=0, description="epochs before a trial may be stopped")

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if self.min_active_fraction is None and self.min_effective is None:
            raise ValueError("give 'min_active_fraction', 'min_effective' or both")
        return self


class StudyBase(Spec):
    """What grid and search studies have in common."""

    name: str = Field(pattern=NAME_PATTERN, description="folder of the results below OUT")
    question: str = Field(min_length=1, max_length=500, description="the one question that this study answers")
    preset: PresetName = Field(default="recommended", description="fills in what base does not say")
    base: TrialSpec = Field(default=TrialSpec(), description="what all trials share")
    collapse: CollapseSpec | None = Field(default=None, description="stop trials whose experts die; null: let them run")
    max_concurrent_trials: int | None = Field(
        default=None, ge=1, description="most trials at once; null: as many as there is room for"
    )
    equivalence_margin: float | None = Field(
        default=None,
        gt=0,
        description="arms whose test losses differ by less, tested, are called equivalent; units of the error of an "
        "image. Fix it before the study runs: a later change is told in the report. null: nothing is called so",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_base_from_preset(cls, study: Any) -> Any:
        if isinstance(study, dict):
            preset, base = study.get("preset", "recommended"), study.get("base", {})
            if isinstance(preset, str) and preset in PRESETS and isinstance(base, dict):
                return {**study, "base": merge_trial(PRESETS[preset], base, SUPERVISED[preset])}
        return study

    def _repr_html_(self) -> str:
        rows = {"question": self.question, "preset": self.preset} | self._facts()
        return html_table(self.name, rows)

    def _facts(self) -> dict[str, Any]:
        """What a notebook shows besides question and preset."""
        return {}

    def trial_with(self, values: Mapping[str, Any]) -> TrialSpec:
        """`base` with the fields at dotted paths replaced. Raises StudyError: a path is unknown or a value wrong."""
        return trial_with(self.base, values, SUPERVISED[self.preset])


class GridStudy(StudyBase):
    """All combinations of the axes' values, on every dataset and with every seed."""

    kind: Literal["grid"] = "grid"
    datasets: dict[Annotated[str, Field(pattern=NAME_PATTERN)], dict[str, Any]] = Field(
        default={},
        description="name: data settings, merged over base.data; the grid runs on each; none: base.data alone",
    )
    axes: dict[str, tuple[Any, ...]] = Field(
        default={}, description="dotted path in a trial: values; a mapping is merged over what base has there"
    )
    seeds: tuple[Annotated[int, Field(strict=True, ge=0, lt=2**31)], ...] = Field(
        default=(0,), min_length=1, description="one trial per seed"
    )

    @model_validator(mode="after")
    def _axes_name_fields(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed is named twice")
        if self.datasets and "data" in self.axes:
            raise ValueError("axes.data: 'datasets' replace it; leave out one of the two")
        below_plugins = plugin_paths(self.base, {"data": self.datasets.values(), **self.axes})
        for path, values in self.axes.items():
            check_trial_path(path, "axes", below_plugins)
            if not values:
                raise ValueError(f"axes.{path}: no values")
        return self

    def _facts(self) -> dict[str, Any]:
        varied = {path: ", ".join(map(str, values)) for path, values in self.varied.items()}
        return {"trials": f"{self.num_combinations:,} at most", **varied, "seeds": ", ".join(map(str, self.seeds))}

    @property
    def varied(self) -> dict[str, tuple[Any, ...]]:
        """What the grid is made of besides seeds: the names of the datasets, if there are any, then the axes."""
        return ({"dataset": tuple(self.datasets)} if self.datasets else {}) | self.axes

    @property
    def num_combinations(self) -> int:
        """Trials of the full grid, equal ones counted more than once; needs no planning."""
        return math.prod(map(len, self.varied.values())) * len(self.seeds)

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Values of each combination at dotted paths in a trial, without seeds, the first of `varied` slowest."""
        varied = self.varied
        for values in itertools.product(*varied.values()):
            chosen = dict(zip(varied, values, strict=True))
            data = {"data": self.datasets[chosen["dataset"]]} if self.datasets else {}
            yield data | chosen
