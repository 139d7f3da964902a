"""What the pages of results that are made from a study share."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

import machine
import pandas as pd

from smoe_ray.columns import COLUMNS, format_cell
from smoe_ray.results import TrialRecord, read_results, read_trials


def read_without_places(out: str, study: str) -> pd.DataFrame:
    """The table of a study; of folders of this machine the names alone are kept."""
    results = read_results(out, study)
    places = [column for column in results if column.endswith(".root")]
    results[places] = results[places].map(lambda place: Path(place).name, na_action="ignore")
    return results


def finished(out: str, study: str) -> list[TrialRecord]:
    """Records of the finished trials."""
    return [record for record in read_trials(out, study) if record.status == "finished"]


def made(records: Sequence[TrialRecord]) -> str:
    """When, where and with what the trials were run."""
    minutes = sum(record.timings.seconds for record in records) / 60
    return (
        f"{datetime.date.today()}, {machine.cpu()}, torch {records[0].versions.torch}, commit {machine.commit()}; "
        f"{len(records)} trials, {minutes:.0f} minutes of\nwall time in all, two at a time, beside other work."
    )


def markdown(table: pd.DataFrame, names: Iterable[str]) -> str:
    """Columns of a table, with standard deviations beside their means."""
    names = list(names)
    rows = [[format_cell(name, row[name], row.get(f"{name}_sd")) for name in names] for row in table.to_dict("records")]
    heads = [COLUMNS[name].heading for name in names]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))
