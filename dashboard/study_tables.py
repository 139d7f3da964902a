"""Tables of a study's trials that several pages show."""

from __future__ import annotations

import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.summary import trial_summary
from smoe_ray.columns import COLUMNS, TRIAL_TABLE, format_cell

from . import load

MAX_ARMS = 60
"""With more arms, nearly every trial is its own arm (as in a search), and grouping by arm is of no use."""

TRIAL_HEADINGS = {name: COLUMNS[name].heading for name in TRIAL_TABLE}
"""Columns of `trial_summary` in the table of trials, with their headings."""


@load.cached
def arm_of(study: str) -> pd.Series[str]:
    """Label of each trial's arm, by `trial_id`: see `arms`."""
    return arms(load.results(study).table)


@load.cached
def trials(study: str) -> pd.DataFrame:
    """One row per trial, as `smoe-ray table` prints it."""
    summary = trial_summary(load.results(study).table)
    return summary[[column for column in TRIAL_HEADINGS if column in summary]].astype({"arm": str})


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of the report for display: headings, formatted numbers, and mean and s.d. in one cell."""
    names = [name for name in frame.columns if name.removesuffix("_sd") == name]
    return pd.DataFrame(
        [
            {COLUMNS[name].heading: format_cell(name, row[name], row.get(f"{name}_sd")) for name in names}
            for row in frame.to_dict("records")
        ]
    )
