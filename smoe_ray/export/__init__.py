"""Results in the formats of other tools, and trained models as folders that load by themselves.

Reads results and trains nothing. A tool that is absent costs its own kind of export alone: each writer imports it at
first use. To add a kind: a module with a function (study, folder) -> what it wrote, and an entry in `KINDS`. A tool
that follows trials as they are trained has a `Tracker` too (`smoe_ray.export.tracker`).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from smoe_ray.errors import SmoeRayError
from smoe_ray.export.history import read_history
from smoe_ray.export.model_folder import export_model
from smoe_ray.export.tracker import Tracker
from smoe_ray.spec import GridStudy, SearchObjective, SearchStudy, first_objective
from smoe_ray.spec.messages import nearest


class Kind(NamedTuple):
    """How one kind of export is made."""

    writer: str
    """``module:function`` of a function (StudyHistory, folder) -> path of what it wrote."""
    needs: str
    """Module of the tool."""
    description: str
    tracker: str = ""
    """``module:function`` of a function (study, metric, place) -> `Tracker`, for ``run --log-to``; empty: has none."""
    place: str = ""
    """What a place is for this tracker, in a word."""
    extra: str = "export"
    """The extra of smoe-ray that installs the tool."""
    loads: tuple[str, ...] = ()
    """Modules that its tracker uses: see `_load`."""


KINDS = {
    "parquet": Kind("parquet_file:write_parquet", "pyarrow", "one file: every trial and epoch, with its configuration"),
    "tensorboard": Kind(
        "tensorboard_events:write_events",
        "tensorboard",
        "a run per trial, with HParams",
        "tensorboard_events:track",
        "DIR",
        loads=("torch.utils.tensorboard",),
    ),
    "optuna": Kind("optuna_journal:write_journal", "optuna", "a journal storage, of a grid too"),
    "mlflow": Kind(
        "mlflow_store:write_store",
        "mlflow",
        "an experiment in a local SQLite store",
        "mlflow_store:track",
        "URI",
        loads=("mlflow",),
    ),
    "wandb": Kind(
        "wandb_runs:write_wandb",
        "wandb",
        "off-line runs for 'wandb sync'",
        "wandb_runs:track_wandb",
        "PROJECT",
        loads=("wandb", "wandb.apis.public"),
    ),
    "trackio": Kind(
        "wandb_runs:write_trackio",
        "trackio",
        "a project in a local database",
        "wandb_runs:track_trackio",
        "PROJECT",
        extra="trackio",
        loads=("trackio",),
    ),
}


class Exported(NamedTuple):
    """What an export wrote."""

    path: Path
    problems: tuple[str, ...]
    """One line per trial that is left out since its files are unreadable."""
    notices: tuple[str, ...]


def export_study(out: str | Path, study: str, to: str, folder: str | Path) -> Exported:
    """Write the results of a study for another tool.

    Args:
        out: folder or URI of the results.
        study: name of the study.
        to: kind of export, one of `KINDS`.
        folder: on this machine; created if absent.

    Raises:
        SmoeRayError: no such kind, its tool is not installed, or the folder has this export already.
        ResultsError: no such study, or none of its trials can be read.
    """
    if to not in KINDS:
        raise SmoeRayError(f"--to {to}: none of {', '.join(KINDS)}{nearest(to, KINDS)}")
    kind = KINDS[to]
    write = _function(f"--to {to}", kind, kind.writer)
    history = read_history(out, study)
    try:
        path = write(history, Path(folder))
    except OSError as error:
        raise SmoeRayError(f"{folder}: cannot be written: {error.strerror or error}; choose another folder") from None
    return Exported(path, history.problems, history.notices)


def tracker_for(to: str, study: GridStudy | SearchStudy) -> tuple[str, Callable[[], Tracker]]:
    """What makes the tracker of a study that is about to run, and a name for it.

    Args:
        to: ``kind:place``, e.g. ``tensorboard:logs``; kinds are those of `KINDS` that have a tracker.
        study: the study.

    Raises:
        SmoeRayError: no such kind, or no place. (That its tool is absent, the tracker's maker says.)
    """
    kinds = {name: kind for name, kind in KINDS.items() if kind.tracker}
    name, _, place = to.partition(":")
    if name not in kinds:
        known = ", ".join(f"{known}:{kind.place}" for known, kind in kinds.items())
        raise SmoeRayError(f"--log-to {to}: none of {known}{nearest(name, kinds)}")
    if not place:
        raise SmoeRayError(f"--log-to {to}: say where, as --log-to {name}:{kinds[name].place}")
    _load(kinds[name].loads)
    # On several datasets no metric but this can be compared.
    objective = first_objective(study) or SearchObjective(metric="test.psnr", direction="maximize")

    def make() -> Tracker:
        track = _function(name, kinds[name], kinds[name].tracker)
        tracker: Tracker = track(study.name, objective.metric, place)
        return tracker

    return f"--log-to {name}", make


def _load(modules: tuple[str, ...]) -> None:
    """Import what a tracker uses before the study begins, in the thread that trains.

    In a thread of its own the imports would parse code while the study reads arrays, which parses too: on Python 3.11
    two threads that parse can make each other fail (gh-106905, "AST constructor recursion depth mismatch").
    """
    for module in modules:
        with suppress(Exception):  # the tracker will say what is wrong with its tool
            importlib.import_module(module)


def _function(asked: str, kind: Kind, name: str) -> Any:
    """A function of a kind, by ``module:function``. Raises SmoeRayError: its tool is not installed."""
    if importlib.util.find_spec(kind.needs) is None:
        extra = kind.extra
        raise SmoeRayError(f"{asked} needs the extra '{extra}': in the repository, pip install '.[{extra}]'")
    module, function = name.split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)


__all__ = ["KINDS", "Exported", "Kind", "Tracker", "export_model", "export_study", "tracker_for"]
