"""What the pages Studies and Trial say of studies and trials, in rows and words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dashboard import load, style
from smoe_ray.analysis.arms import arms
from smoe_ray.analysis.overview import collapsed_share
from smoe_ray.analysis.summary import trial_summary
from smoe_ray.errors import SmoeRayError
from smoe_ray.results import TrialRecord
from smoe_ray.spec import GridStudy, SearchStudy, dump_study

if TYPE_CHECKING:
    import pandas as pd

    from smoe_ray.inspect.status import StudyStatus

LIVELY = timedelta(minutes=10)
"""A running trial whose record is older may have been interrupted: the files cannot tell."""

MOST_ARMS = 60
"""Arms beyond which a study is taken for a search, where nearly each trial is an arm of its own."""

SHOWN = {
    "arm": "arm",
    "seed": "seed",
    "status": "status",
    "epoch": "epoch",
    "experts.active": "active",
    "experts.configured": "experts",
    "experts.effective": "effective",
    "test.reconstruction": "test loss",
    "test.reconstruction_soft": "soft",
    "gap": "gap",
    "trial_id": "trial",
}
"""Columns of `trial_summary` in the table of trials, with their heads."""


def study_row(study: str, with_best: bool) -> dict[str, Any]:
    """One line about a study; of one that cannot be read, what is wrong with it."""
    row: dict[str, Any] = {"study": study, "question": style.plain(load.question(study), 300)}
    try:
        status = load.status(study, with_best)
        row |= {
            "state": state(status, done := settled(status, is_search(study))),
            "progress": 100 * done / max(status.total, 1),
            "finished": f"{status.finished:,} of {status.total:,}",
            **{name: getattr(status, name) for name in ("running", "failed", "pruned")},
            "updated": status.updated_at,
        }
        if status.best is not None:
            row["best"] = f"{status.best.value:.4g}"
            row["measure"] = status.best.metric
        if with_best:
            row["collapsed"] = collapsed(study)
    except SmoeRayError as error:
        row["state"] = "unreadable"
        row["question"] = style.plain(error, 300)
    except Exception as error:  # what strangers wrote can break anything; the other studies are shown all the same
        row["state"] = "unreadable"
        row["question"] = style.plain(f"{type(error).__name__}: {error}", 300)
    return row


def runs(study: str) -> bool:
    """Whether a trial of the study runs, as far as its files tell."""
    try:
        return load.status(study, with_best=False).running > 0
    except Exception:  # said where the study is shown
        return False


def is_search(study: str) -> bool:
    """Whether the study is a search."""
    try:
        return isinstance(load.spec(study), SearchStudy)
    except Exception:  # said where the study is shown
        return False


def settled(status: StudyStatus, of_search: bool) -> int:
    """Trials that count towards the total: a search makes another one for each that failed."""
    return status.finished + status.pruned + (0 if of_search else status.failed)


def state(status: StudyStatus, done: int) -> str:
    """Where a study stands, in a word or three; `done`: its trials that are `settled`."""
    if status.running:
        recent = status.updated_at is not None and datetime.now(UTC) - status.updated_at < LIVELY
        return "running" if recent else "stopped?"
    if not done + status.failed:
        return "not started"
    return "complete" if done >= status.total else "incomplete"


@load.cached
def collapsed(study: str) -> float | None:
    """Share of the study's finished unsupervised trials that collapsed, 0 to 1."""
    return collapsed_share(load.results(study).table)


@load.cached
def arm_of(study: str) -> pd.Series[str]:
    """Label of each trial's arm, by `trial_id`: see `arms`."""
    return arms(load.results(study).table)


@load.cached
def trials(study: str) -> pd.DataFrame:
    """One row a trial, as `smoe-ray table` prints it."""
    summary = trial_summary(load.results(study).table)
    return summary[[column for column in SHOWN if column in summary]].astype({"arm": str})


@load.cached
def titles(study: str) -> dict[str, str]:
    """Each trial in words, by its id."""
    rows = trials(study)[["trial_id", "arm", "seed", "status"]].itertuples(index=False)
    return {trial: f"{style.plain(arm, 120)}, seed {seed}, {status} · {trial}" for trial, arm, seed, status in rows}


def facts(record: TrialRecord, last: Mapping[str, Any]) -> dict[str, str]:
    """Cost, place and time of a trial: name with unit -> value. `last` is its last row."""
    times = record.timings
    said: dict[str, object] = {
        "parameters": number(last, "cost.params_total"),
        "parameters met by one image": number(last, "cost.params_active"),
        "training FLOPs": number(last, "cost.flops", "{:.3g}"),
        "training images seen": number(last, "cost.images"),
        "optimizer steps": number(last, "cost.steps"),
        "last epoch (s)": number(last, "cost.wall_s", "{:.1f}"),
        "training images per second": number(last, "cost.images_per_s"),
        "wall time over all epochs (s)": f"{times.seconds:,.1f}",
        "host": record.host,
        "started, UTC": f"{times.started_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        "ended, UTC": f"{times.finished_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if times.finished_at else "",
        "restarts": times.restarts,
        "versions": ", ".join(f"{name} {value}" for name, value in record.versions.model_dump().items()),
        "data": f"{record.data.train_images:,} training and {record.data.test_images:,} test images of "
        f"{', '.join(record.data.class_names)}; fingerprint {record.data.fingerprint}"
        if record.data
        else "",
    }
    return {name: style.plain(value, 300) for name, value in said.items() if value not in ("", "\N{EN DASH}")}


def again(record: TrialRecord) -> str:
    """A study (YAML) of this trial alone."""
    question = f"Does trial {record.trial_id} of study {record.study} come out the same again?"
    study = GridStudy(name=f"again-{record.trial_id}", question=question, base=record.spec, seeds=(record.spec.seed,))
    return dump_study(study)


def number(row: Mapping[str, Any] | pd.Series[Any], column: str, form: str = "{:,.0f}") -> str:
    """The value in words; a dash where it was not measured."""
    value = row.get(column)
    return "\N{EN DASH}" if value is None or value != value else form.format(value)
