"""Titles and facts of trials, as the Trial page shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

from smoe_ray import columns
from smoe_ray.columns import ABSENT, COLUMNS, count
from smoe_ray.data.dataset import shape_in_words
from smoe_ray.results import TrialRecord
from smoe_ray.spec import GridStudy, dump_study
from smoe_ray.spec.search import first_objective

from ... import load, study_tables, style

if TYPE_CHECKING:
    import pandas as pd


COST = tuple(column.name for column in columns.COST)
"""What a trial's page says of its cost."""


@load.cached
def titles(study: str) -> dict[str, str]:
    """Title of each trial, by its id."""
    rows = study_tables.trials(study)[["trial_id", "arm", "seed", "status"]].itertuples(index=False)
    return {trial: f"{style.plain(arm, 120)}, seed {seed}, {status} · {trial}" for trial, arm, seed, status in rows}


@load.cached
def answer(study: str, trial_id: str) -> str:
    """How the trial ended, or how far it is, and its place among the finished ones."""
    results = load.results(study)
    status, rows = results.records[trial_id].status, results.table
    last = rows.drop_duplicates("trial_id", keep="last").set_index("trial_id")
    epoch = last["epoch"][trial_id] if "epoch" in last else math.nan
    moment = "before its first epoch" if math.isnan(epoch) else f"after {count(int(epoch), 'epoch')}"
    so_far = f"{status.capitalize()} {moment}"
    objective = first_objective(load.spec(study)) if status == "finished" else None
    if objective is None or objective.metric not in last or math.isnan(last[objective.metric][trial_id]):
        return f"{so_far}."
    value_of = last.loc[last["status"] == "finished", objective.metric].dropna()
    value = value_of[trial_id]
    better = int((value_of < value if objective.direction == "minimize" else value_of > value).sum())
    rank = "the best" if better == 0 else f"number {better + 1}"
    place = f", {rank} of {len(value_of):,} finished trials" if len(value_of) > 1 else ""
    return f"{so_far}: {COLUMNS[objective.metric].heading} {value:.4g}{place}."


def facts(record: TrialRecord, last: Mapping[str, Any]) -> dict[str, str]:
    """Cost, host and time of a trial: name with unit -> value. `last` is the row of its last epoch."""
    times = record.timings
    said: dict[str, object] = {
        **{COLUMNS[name].label: number(last, name) for name in COST},
        "wall time over all epochs (s)": f"{times.seconds:,.1f}",
        "host": record.host,
        "started, UTC": f"{times.started_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        "ended, UTC": f"{times.finished_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if times.finished_at else "",
        "restarts": times.restarts,
        "versions": ", ".join(f"{name} {value}" for name, value in record.versions.model_dump().items()),
        "data": f"{record.data.train_images:,} training and {record.data.test_images:,} test images "
        f"({shape_in_words(record.data.image_shape)}) of {', '.join(record.data.class_names)}; "
        f"fingerprint {record.data.fingerprint}"
        if record.data
        else "",
        "imported from": f"{record.imported.file}, SHA-256 {record.imported.sha256}" if record.imported else "",
    }
    return {name: style.plain(value, 300) for name, value in said.items() if value not in ("", ABSENT)}


def latents(last: Mapping[str, Any]) -> str:
    """Active latent dimensions of those configured; a dash for a trial that did not measure them."""
    active, configured = (number(last, f"latent.{name}") for name in ("active", "configured"))
    return active if ABSENT in (active, configured) else f"{active} of {configured}"


def rerun_yaml(record: TrialRecord) -> str:
    """A study (YAML) that runs this trial alone."""
    question = f"Does trial {record.trial_id} of study {record.study} come out the same again?"
    study = GridStudy(name=f"again-{record.trial_id}", question=question, base=record.spec, seeds=(record.spec.seed,))
    return dump_study(study)


def is_measured(row: Mapping[str, Any] | pd.Series[Any], column: str) -> bool:
    """Whether there is a value: earlier versions lack columns, and some trials have no value for one."""
    value = row.get(column)
    return value is not None and bool(value == value)


def number(row: Mapping[str, Any] | pd.Series[Any], column: str) -> str:
    """The formatted value; a dash if it was not measured."""
    return COLUMNS[column].number_format.format(row[column]) if is_measured(row, column) else ABSENT
