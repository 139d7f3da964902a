"""Results in the formats of other tools, and trained models as folders that load by themselves.

Reads results and trains nothing. A tool that is absent costs its own kind of export alone: each writer imports it at
first use. To add a kind: a module with a function (study, folder) -> what it wrote, and an entry in `KINDS`.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import NamedTuple

from smoe_ray.errors import SmoeRayError
from smoe_ray.export.history import read_history
from smoe_ray.export.model_folder import export_model
from smoe_ray.spec.messages import nearest


class Kind(NamedTuple):
    """How one kind of export is made."""

    writer: str
    """``module:function`` of a function (StudyHistory, folder) -> path of what it wrote."""
    needs: str
    """Module of the tool."""
    description: str


KINDS = {
    "parquet": Kind("parquet_file:write_parquet", "pyarrow", "one file: every trial and epoch, with its configuration"),
    "tensorboard": Kind("tensorboard_events:write_events", "tensorboard", "a run per trial, with HParams"),
    "optuna": Kind("optuna_journal:write_journal", "optuna", "a journal storage, of a grid too"),
    "mlflow": Kind("mlflow_store:write_store", "mlflow", "an experiment in a local SQLite store"),
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
    if importlib.util.find_spec(kind.needs) is None:
        raise SmoeRayError(f"--to {to} needs the extra 'export': in the repository, pip install '.[export]'")
    module, function = kind.writer.split(":")
    history = read_history(out, study)
    write = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    try:
        path = write(history, Path(folder))
    except OSError as error:
        raise SmoeRayError(f"{folder}: cannot be written: {error.strerror or error}; choose another folder") from None
    return Exported(path, history.problems, history.notices)


__all__ = ["KINDS", "Exported", "Kind", "export_model", "export_study"]
