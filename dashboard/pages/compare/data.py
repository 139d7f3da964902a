"""What the trials of a comparison have in common and in what they differ, cached until the study changes.

Shapes: B test images, N images shown, T trials, H W pixels; images are (H, W) where they are grey, else (C, H, W).
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from smoe_ray.analysis.curves import Curve, summarise
from smoe_ray.analysis.datasets import require_common_scale
from smoe_ray.analysis.outcomes import comparable_metric, loss_unit, not_failed
from smoe_ray.analysis.summary import group_summary
from smoe_ray.columns import ABSENT, COLUMNS, count
from smoe_ray.errors import ResultsError
from smoe_ray.results.table import flatten

from ... import load, study_tables, style

SHOWN = (
    *("test.reconstruction", "test.reconstruction_soft", "test.psnr", "test.linear_accuracy", "test.knn_accuracy"),
    *("experts.active", "experts.effective"),
)
"""Measures in the table of arms."""


@load.cached
def titles(study: str) -> dict[str, str]:
    """Arm and seed of each trial by its id, and the id where two trials share both."""
    rows = study_tables.trials(study)[["trial_id", "arm", "seed"]]
    is_shared = rows.duplicated(["arm", "seed"], keep=False)
    return {
        str(row.trial_id): f"{style.plain(row.arm, 80)}, seed {row.seed}" + (f" ({row.trial_id})" if shared else "")
        for row, shared in zip(rows.itertuples(index=False), is_shared, strict=True)
    }


@load.cached
def examples(study: str, arms: int, of_each: int) -> list[str]:
    """Finished trials of the first arms, where no link asks for others."""
    trials = study_tables.trials(study)
    finished = trials[trials["status"] == "finished"]
    first = finished[finished["arm"].isin(finished["arm"].unique()[:arms])]
    return list(first.groupby("arm", sort=False).head(of_each)["trial_id"])


def _rows(study: str, trials: tuple[str, ...]) -> pd.DataFrame:
    table = load.results(study).table
    return table[table["trial_id"].isin(trials)]


@load.cached
def by_arm(study: str, trials: tuple[str, ...]) -> pd.DataFrame:
    """Number of finished trials, and mean and s.d. of their measures, by arm; see `group_summary`."""
    summary = study_tables.trials(study)
    chosen = summary[summary["trial_id"].isin(trials) & (summary["status"] == "finished")]
    in_order = pd.Categorical(chosen["arm"], chosen["arm"].unique())
    found = group_summary(chosen.assign(arm=in_order), ["arm"], [name for name in SHOWN if name in chosen])
    return found.astype({"arm": str})


@load.cached
def answer(study: str, trials: tuple[str, ...]) -> str:
    """The best arm among the trials and its lead over the next."""
    rows, arms = _rows(study, trials), by_arm(study, trials)
    metric = comparable_metric(rows)
    if metric not in arms or arms[metric].isna().all():
        return f"None of {count(len(trials), 'trial')} has finished."
    column = COLUMNS[metric]
    ranked = arms.dropna(subset=metric).sort_values(metric, ascending=column.direction == "minimize", kind="stable")
    told = [
        f"{arm}, {column.number_format.format(value)} ({'mean of ' if n > 1 else ''}{count(n, 'trial')})"
        for arm, value, n in ranked[["arm", metric, "n"]].itertuples(index=False)
    ]
    best = "Lowest" if column.direction == "minimize" else "Highest"
    return f"{best} {column.heading}: {told[0]}" + (f"; then {told[1]}." if len(told) > 1 else ".")


@load.cached
def metrics(study: str, trials: tuple[str, ...]) -> list[str]:
    """What was measured in these trials."""
    rows = _rows(study, trials)
    return [name for name in study_tables.MEASURED if name in rows and rows[name].notna().any()]


class Curves(NamedTuple):
    """One measure against the epoch."""

    heading: str
    unit: str
    is_error: bool
    """Whether it is an error of images: its axis is logarithmic, as on the other pages."""
    arms: tuple[Curve, ...]
    """Mean and s.d. over the trials of each arm."""
    trials: tuple[tuple[Curve, ...], ...]
    """Those of each trial, by arm."""


@load.cached
def curves(study: str, trials: tuple[str, ...], metric: str) -> Curves:
    """The measure in these trials over training; failed trials are left out, as in all means.

    Raises:
        ResultsError: all failed; or they are of several datasets or likelihoods, whose losses have no common scale.
    """
    rows = not_failed(_rows(study, trials))
    column, is_error = COLUMNS[metric], COLUMNS[metric].unit == COLUMNS["test.reconstruction"].unit
    if is_error:
        require_common_scale(rows, column.heading)
    measured = rows[rows[metric].notna()]
    arm_of = study_tables.arm_of(study)
    groups = [
        (str(arm), runs) for arm, runs in measured.groupby(measured["trial_id"].map(arm_of), observed=True, sort=True)
    ]
    each = titles(study)
    return Curves(
        column.heading,
        loss_unit(rows) if is_error else column.unit,
        is_error,
        tuple(summarise(runs, arm, "epoch", metric) for arm, runs in groups),
        tuple(
            tuple(summarise(one, each[str(trial)], "epoch", metric) for trial, one in runs.groupby("trial_id"))
            for _, runs in groups
        ),
    )


@load.cached
def settings(study: str, trials: tuple[str, ...]) -> pd.DataFrame:
    """One row per setting, one column per trial: the specs, the data and what trained them, as text."""
    records, title_of = load.results(study).records, titles(study)
    columns = {}
    for trial in trials:
        record = records[trial]
        facts: dict[str, Any] = flatten(record.spec.model_dump(mode="json"))
        if record.data is not None:
            facts |= {"training images": record.data.train_images, "data fingerprint": record.data.fingerprint[:12]}
        facts |= {"host": record.host} | {
            f"version of {name}": version for name, version in record.versions.model_dump().items() if version
        }
        columns[title_of[trial]] = {path: style.plain(_text(value), 200) for path, value in facts.items()}
    table = pd.DataFrame(columns).fillna(ABSENT)
    return table.rename_axis("setting").reset_index()


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, float):
        return f"{value:.10g}"
    return value if isinstance(value, str) else json.dumps(value)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `settings` whose columns are not all the same."""
    return table[table.drop(columns="setting").nunique(axis=1) > 1]


class TrialReconstructions(NamedTuple):
    """What one trial makes of the images shown."""

    title: str
    trial_id: str
    image_NHW: npt.NDArray[Any]
    expert_N: npt.NDArray[np.int64]
    error_N: npt.NDArray[np.float64]
    """Squared error of each image, summed over its values."""


class Reconstructions(NamedTuple):
    """The same test images as several trials reconstruct them."""

    input_NHW: npt.NDArray[Any]
    class_N: tuple[str, ...]
    index_N: npt.NDArray[np.int64]
    """Their places in the test set."""
    trials: tuple[TrialReconstructions, ...]
    left_out: tuple[str, ...]
    """One line per trial that cannot be shown beside the first: why."""


@load.cached
def reconstructions(study: str, trials: tuple[str, ...], most_different: bool, number: int) -> Reconstructions:
    """Reconstructions of `number` test images: evenly over the classes, or those whose errors differ most.

    Raises:
        ResultsError: no trial has stored any.
    """
    records, title_of = load.results(study).records, titles(study)
    found: list[tuple[str, dict[str, Any]]] = []
    left_out = []
    for trial in trials:
        try:
            stored = load.embeddings(study, trial)
        except ResultsError as error:
            left_out.append(f"{title_of[trial]}: {error}")
            continue
        if "reconstruction" not in stored:
            left_out.append(f"{title_of[trial]}: its model reconstructs nothing")
            continue
        if found and not np.array_equal(found[0][1]["image"], stored["image"]):
            left_out.append(f"{title_of[trial]}: other test images than {title_of[found[0][0]]}")
            continue
        found.append((trial, dict(stored)))
    if not found:
        raise ResultsError(f"no trial to show: {'; '.join(left_out)}")
    first, names = found[0][1], records[found[0][0]].data
    error_TB = np.stack([_errors(stored["image"], stored["reconstruction"]) for _, stored in found])
    chosen = _most_different(error_TB, number) if most_different else _spread(first["label"], number)
    return Reconstructions(
        first["image"][chosen],
        tuple(names.class_names[label] if names else str(label) for label in first["label"][chosen]),
        chosen,
        tuple(
            TrialReconstructions(
                title_of[trial], trial, stored["reconstruction"][chosen], stored["expert"][chosen], error_B[chosen]
            )
            for (trial, stored), error_B in zip(found, error_TB, strict=True)
        ),
        tuple(left_out),
    )


def _errors(image_BHW: npt.NDArray[Any], reconstruction_BHW: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    given, made = (_in_unit_range(each).reshape(len(each), -1) for each in (image_BHW, reconstruction_BHW))
    return np.asarray(np.square(given - made).sum(axis=1, dtype=np.float64))


def _in_unit_range(image_BHW: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    floats = image_BHW.astype(np.float32)
    return np.float32(1 / 255) * floats if image_BHW.dtype == np.uint8 else floats


def _most_different(error_TB: npt.NDArray[np.float64], number: int) -> npt.NDArray[np.int64]:
    return np.argsort(-np.ptp(error_TB, axis=0), kind="stable")[:number]


def _spread(label_B: npt.NDArray[np.int64], number: int) -> npt.NDArray[np.int64]:
    """The first image of each class, then the second of each, and so on."""
    rank_B = pd.Series(label_B).groupby(label_B).cumcount().to_numpy()
    chosen = np.lexsort((label_B, rank_B))[:number]
    return chosen[np.lexsort((chosen, label_B[chosen]))]
