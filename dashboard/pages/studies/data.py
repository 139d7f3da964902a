"""Rows of the table of studies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from smoe_ray.analysis import posterior
from smoe_ray.analysis.survival import collapsed_share
from smoe_ray.columns import COLUMNS, count
from smoe_ray.errors import SmoeRayError
from smoe_ray.spec import SearchStudy

from ... import load, notes, study_tables, style

if TYPE_CHECKING:
    from smoe_ray.inspect.status import Best, StudyStatus

RECENT = timedelta(minutes=10)
"""After this time without a write, running trials may have been interrupted; the files cannot tell."""


def study_row(study: str, with_best: bool) -> dict[str, Any]:
    """Table row of a study; for one that cannot be read, the reason."""
    told = ": ".join(filter(None, (notes.line(notes.of(study).study), load.question(study))))
    row: dict[str, Any] = {"study": study, "question": style.plain(told, 300)}
    try:
        status = load.status(study, with_best)
        row |= {
            "state": state(status, done := settled(status, is_search(study)), is_abandoned(study)),
            "progress": 100 * done / max(status.total, 1),
            "finished": f"{status.finished:,} of {status.total:,}",
            **{name: getattr(status, name) for name in ("running", "failed", "pruned")},
            "updated": status.updated_at,
        }
        if status.best is not None:
            row["best"] = f"{status.best.value:.4g}"
            row["metric"] = status.best.metric
        if with_best:
            row["collapsed"] = collapsed(study)
    except SmoeRayError as error:
        row["state"] = "unreadable"
        row["question"] = style.plain(error, 300)
    except Exception as error:  # a malformed study can raise anything; the others are still shown
        row["state"] = "unreadable"
        row["question"] = style.plain(f"{type(error).__name__}: {error}", 300)
    return row


def answer(study: str) -> str:
    """How far the study is, its best trial, and the best trial of another arm."""
    status = load.status(study, with_best=True)
    others = [f"{number:,} {name}" for name in ("running", "failed", "pruned") if (number := getattr(status, name))]
    far = ", ".join([f"{status.finished:,} of {count(status.total, 'trial')} finished", *others])
    if status.best is None:
        return f"{far}."
    return f"{far}. {_best(study, status.best)}"


@load.cached
def _best(study: str, best: Best) -> str:
    results = load.results(study).table
    ended = results[results["status"] == "finished"].drop_duplicates("trial_id", keep="last").set_index("trial_id")
    arm_of, value_of = study_tables.arm_of(study).astype(str), ended[best.metric].dropna()
    arm, heading = arm_of[best.trial_id], COLUMNS[best.metric].heading
    said = f"Best: {arm}, seed {ended['seed'][best.trial_id]}, {heading} {best.value:.4g}"
    others = value_of[arm_of[value_of.index] != arm]
    if others.empty:
        return f"{said}."
    second = str((others - best.value).abs().idxmin())
    return f"{said}; the best trial of another arm, {arm_of[second]}, has {value_of[second]:.4g}."


def is_running(study: str) -> bool:
    """Whether a trial of the study is running, according to its files."""
    try:
        return load.status(study, with_best=False).running > 0
    except Exception:  # reported where the study is shown
        return False


def is_search(study: str) -> bool:
    """Whether the study is a search."""
    try:
        return isinstance(load.spec(study), SearchStudy)
    except Exception:  # reported where the study is shown
        return False


def settled(status: StudyStatus, of_search: bool) -> int:
    """Trials that count towards the total. A search replaces its failed trials, so they do not count."""
    return status.finished + status.pruned + (0 if of_search else status.failed)


def is_abandoned(study: str) -> bool:
    """Whether no process trains any of the trials whose records say that they are running."""
    running = [record for record in load.trials(study).records.values() if record.status == "running"]
    return bool(running) and all(map(load.is_abandoned, running))


def state(status: StudyStatus, done: int, abandoned: bool = False) -> str:
    """State of a study; `done` is its number of `settled` trials, `abandoned`: no process trains its running ones."""
    if status.running and abandoned:
        return "interrupted"
    if status.running:
        recent = status.updated_at is not None and datetime.now(UTC) - status.updated_at < RECENT
        return "running" if recent else "stopped?"
    if not done + status.failed:
        return "not started"
    return "complete" if done >= status.total else "incomplete"


@load.cached
def collapsed(study: str) -> float | None:
    """Share of the study's finished unsupervised trials that collapsed, 0 to 1."""
    return collapsed_share(load.results(study).table)


@load.cached
def posterior_warning(study: str) -> str | None:
    """A sentence about the study's trials with a collapsed posterior; None if there is none."""
    return posterior.posterior_warning(load.results(study).table)
