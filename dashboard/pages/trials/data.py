"""The table of all trials of a study, what it can be filtered and grouped by, and its filters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from smoe_ray.analysis.arm_labels import IRRELEVANT
from smoe_ray.analysis.outcomes import comparable_metric
from smoe_ray.analysis.summary import group_summary, trial_summary
from smoe_ray.columns import COLUMNS, count
from smoe_ray.results.annotations import Annotations

from ... import load, notes, study_tables, style

FIXED = ("arm", "seed", "status", "epoch")
"""Columns that are always there, before those of the settings."""
MEASURES = ("gap", *study_tables.MEASURED)
DEFAULT_MEASURES = (
    *("test.reconstruction", "test.reconstruction_soft", "test.linear_accuracy", "test.knn_accuracy"),
    *("experts.active", "experts.effective"),
)
MAX_LISTED = 30
"""With more values, the numbers of a setting are filtered by a range."""
_CONFIG = "config."


class Trials(NamedTuple):
    """All trials of a study. Shared between sessions: do not modify."""

    table: pd.DataFrame
    """One row per trial: `trial_id`, `FIXED`, settings by dotted path, and measures at the last epoch."""
    settings: tuple[str, ...]
    """Dotted paths of the settings in which trials differ."""
    following: tuple[str, ...]
    """Further ones, which follow from those: `objective.balance_form`, which label-routed trials lack."""
    measures: tuple[str, ...]


@load.cached
def trials(study: str) -> Trials:
    """The trials with the settings in which they differ, and what was measured."""
    summary = trial_summary(load.results(study).table)
    paths = [name.removeprefix(_CONFIG) for name in map(str, summary) if name.startswith(_CONFIG)]
    plain = {
        path: summary[_CONFIG + path].map(_plain, na_action="ignore")
        for path in paths
        if not path.startswith(IRRELEVANT)
    }
    varied = {path: values for path, values in plain.items() if values.nunique(dropna=False) > 1}
    measures = [name for name in MEASURES if name in summary and summary[name].notna().any()]
    columns = {name: summary[name] for name in ("trial_id", *FIXED)} | varied
    table = pd.DataFrame(columns | {name: summary[name] for name in measures}).astype({"arm": str})
    free = _free(table[list(varied)])
    return Trials(table, free, tuple(name for name in varied if name not in free), tuple(measures))


def _free(settings: pd.DataFrame) -> tuple[str, ...]:
    """The columns that do not follow from those of words before them."""
    names = sorted(map(str, settings), key=lambda name: pd.api.types.is_numeric_dtype(settings[name]))
    free: list[str] = []
    for name in names:
        words = [other for other in free if not pd.api.types.is_numeric_dtype(settings[other])]
        parts = settings.groupby(words, dropna=False)[name] if words else None
        if parts is None or (parts.nunique(dropna=False) > 1).any():
            free.append(name)
    return tuple(name for name in map(str, settings) if name in free)


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float | str):
        return value
    return ", ".join(map(str, value)) if isinstance(value, Collection) else str(value)


def annotated(table: pd.DataFrame, noted: Annotations) -> pd.DataFrame:
    """The table with the columns `star`, `tags` and `note`, and whether a trial is `archived`."""
    each = [noted.of(trial) for trial in table["trial_id"]]
    return table.assign(
        star=[notes.STAR if one.star else "" for one in each],
        tags=pd.Series([list(one.tags) for one in each], index=table.index, dtype=object),
        note=[style.plain(one.note, 300) for one in each],
        archived=[one.archived for one in each],
    )


class Listed(NamedTuple):
    """A filter that keeps the trials which have one of some values."""

    values: frozenset[str]


class Range(NamedTuple):
    """A filter that keeps the trials whose value is not below `low` nor above `high`; None: no limit."""

    low: float | None
    high: float | None


def values(column: pd.Series[Any]) -> list[str] | None:
    """What a column can be filtered by, as text and in order; None: by a range, as what was measured always is."""
    found = column.dropna().drop_duplicates()
    if pd.api.types.is_numeric_dtype(column) and (len(found) > MAX_LISTED or column.name in MEASURES):
        return None
    return list(map(str, sorted(found, key=lambda value: (isinstance(value, str), value))))


def filtered(table: pd.DataFrame, filters: Mapping[str, Listed | Range]) -> pd.DataFrame:
    """The rows that pass every filter; `filters` by column. A row without a value passes none of that column."""
    for name, kept in filters.items():
        match kept:
            case Listed(chosen) if chosen:
                table = table[table[name].map(str).isin(chosen)]
            case Range(low, high):
                if low is not None:
                    table = table[table[name] >= low]
                if high is not None:
                    table = table[table[name] <= high]
    return table


def groups(table: pd.DataFrame, keys: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """The finished trials of the table, grouped: see `group_summary`. A setting that a trial lacks is a dash."""
    finished = table[table["status"] == "finished"]
    return group_summary(finished, keys, measures)


@load.cached
def answer(study: str) -> str:
    """How many trials there are, in what they differ, and the best."""
    found = trials(study)
    differ = ", ".join(found.settings[:6]) + (f" and {len(found.settings) - 6} more" if found.settings[6:] else "")
    said = f"{count(len(found.table), 'trial')}" + (f", which differ in {differ}." if differ else ".")
    metric = comparable_metric(load.results(study).table)
    finished = found.table[found.table["status"] == "finished"]
    if metric not in finished or finished[metric].isna().all():
        return said
    column = COLUMNS[metric]
    best = finished.sort_values(metric, ascending=column.direction == "minimize", kind="stable").iloc[0]
    return f"{said} Best {column.heading}: {best[metric]:.4g}, {style.plain(best['arm'], 120)}, seed {best['seed']}."
