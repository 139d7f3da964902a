"""Tables of a study's trials that several pages show, and ids of its arms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import get_args

import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.datasets import DATASET, dataset_names
from smoe_ray.analysis.outcomes import families
from smoe_ray.analysis.summary import trial_summary
from smoe_ray.columns import COLUMNS, EPOCHS, Family, format_cell, trial_table
from smoe_ray.results.table import flatten

from . import load

MAX_ARMS = 60
"""With more arms, nearly every trial is its own arm (as in a search), and grouping by arm is of no use."""


MEASURED = tuple(column.name for column in EPOCHS if column.dtype in ("float", "int") and column.name != "epoch")
"""Numbers of each epoch, which a page may show or draw."""
TRIAL_HEADINGS = {name: COLUMNS[name].heading for name in trial_table(get_args(Family))}
"""Columns of `trial_summary` that a table of trials may have, with their headings."""


@load.cached
def arm_of(study: str) -> pd.Series[str]:
    """Label of each trial's arm, by `trial_id`: see `arms`."""
    return arms(load.results(study).table)


def arm_ids(
    study: str, label_of: pd.Series[str], ignored: Collection[str] = (), only: Collection[str] | None = None
) -> dict[str, str]:
    """Label of each arm by its id: a hash of the arm's configuration and data, which stays when the study grows.

    Labels do not: they name what tells an arm from the others that there are.

    Args:
        study: its name.
        label_of: label per trial.
        ignored: dotted spec paths that do not separate these arms, besides the seed.
        only: the spec paths that do; None: all others.
    """
    records = load.results(study).records
    trials_of: dict[str, list[str]] = {}
    for trial, label in label_of.items():
        trials_of.setdefault(str(label), []).append(str(trial))
    id_of = {}
    names = None if only is None else dataset_names(load.results(study).table)
    for label, members in trials_of.items():
        spec = flatten(records[members[0]].spec.identity())
        config: dict[str, object] = {
            path: value
            for path, value in spec.items()
            if path != "seed" and path not in ignored and (only is None or path in only)
        }
        if only is None:  # the data are read when a trial starts, so one that failed early does not know them
            config["data"] = next((data.fingerprint for trial in members if (data := records[trial].data)), "")
        elif names is not None:
            config[DATASET] = str(names[members[0]])
        canonical = json.dumps(config, sort_keys=True)
        id_of[label] = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    return {id_of[label]: label for label in map(str, label_of.cat.categories) if label in id_of}


@load.cached
def trials(study: str) -> pd.DataFrame:
    """One row per trial, as `smoe-ray table` prints it."""
    results = load.results(study).table
    summary = trial_summary(results)
    return summary[[name for name in trial_table(families(results)) if name in summary]].astype({"arm": str})


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of the report for display: headings, formatted numbers, and mean and s.d. in one cell."""
    names = [name for name in frame.columns if name.removesuffix("_sd") == name]
    return pd.DataFrame(
        [
            {COLUMNS[name].heading: format_cell(name, row[name], row.get(f"{name}_sd")) for name in names}
            for row in frame.to_dict("records")
        ]
    )
