"""A study as runs of Weights & Biases, or of Trackio, which has the same interface: one run per trial.

Nothing is sent anywhere unless the reader's own environment says so (`WANDB_MODE`, `TRACKIO_SPACE_ID` ...): W&B writes
runs that ``wandb sync`` uploads, Trackio a local database. Neither watches the machine, the code or the terminal.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from smoe_ray.errors import SmoeRayError
from smoe_ray.export.history import StudyHistory, refuse_existing
from smoe_ray.export.tracker import End, Measured, replay, tag


class _Run(NamedTuple):
    """A run of either tool."""

    log: Callable[..., None]
    """(metrics by key, step=)"""
    finish: Callable[[End, str | None], None]
    """(how it ended, why)"""
    leave: Callable[[], None]
    """It has not ended."""
    last: int
    """Step that it has already; 0: none."""


Open = Callable[[str, dict[str, Any]], _Run]
"""From a trial's id and configuration to its run."""


class RunsTracker:
    """Logs to runs: keys are columns with a slash for the first dot, which both tools group by, steps are epochs."""

    def __init__(self, open_run: Open) -> None:
        self._open = open_run
        self._runs: dict[str, _Run] = {}

    def start(self, trial_id: str, config: Mapping[str, Any], _moment_s: float) -> int:
        """See `Tracker.start`."""
        self._runs[trial_id] = self._open(trial_id, dict(config))
        return self._runs[trial_id].last

    def log(self, trial_id: str, epochs: Sequence[Measured]) -> None:
        """See `Tracker.log`."""
        for epoch, _, numbers in epochs:
            metrics = {tag(name): number for name, number in numbers.items()}
            self._runs[trial_id].log({"epoch": epoch, **metrics}, step=epoch)

    def end(self, trial_id: str, how: End, why: str | None, _moment_s: float) -> None:
        """See `Tracker.end`."""
        self._runs.pop(trial_id).finish(how, why)

    def close(self) -> None:
        """See `Tracker.close`."""
        for run in self._runs.values():
            run.leave()


def write_wandb(study: StudyHistory, folder: Path) -> Path:
    """Write ``<study>-wandb/wandb/offline-run-<time>-<study>-<trial_id>/``, of the project ``<study>``.

    Raises:
        SmoeRayError: the first of these folders is there already.
    """
    place = refuse_existing(folder / f"{study.name}-wandb")  # ``<study>`` is TensorBoard's
    place.mkdir(parents=True)
    replay(study, RunsTracker(_wandb(study.name, study.name, "offline", place)))
    return place


def track_wandb(study: str, _metric: str, project: str) -> RunsTracker:
    """The tracker of a study that is about to run: off-line, below WANDB_DIR, unless WANDB_MODE says otherwise.

    Raises:
        SmoeRayError: WANDB_MODE asks for a server, and no API key is known.
    """
    mode, folder = os.environ.get("WANDB_MODE", "offline"), os.environ.get("WANDB_DIR", ".")
    return RunsTracker(_wandb(project, study, mode, Path(folder)))


def write_trackio(study: StudyHistory, folder: Path) -> Path:
    """Write ``<study>.db``, of the project ``<study>``.

    Raises:
        SmoeRayError: it is there already, or this process has used Trackio with another folder.
    """
    place = folder.absolute()
    database = refuse_existing(place / f"{study.name}.db")
    with _environment(TRACKIO_DIR=str(place), TRACKIO_SPACE_ID=None, TRACKIO_SERVER_URL=None):
        import trackio.utils  # reads TRACKIO_DIR when it is imported

        used: Path = trackio.utils.TRACKIO_DIR
        if used != place:
            raise SmoeRayError(f"Trackio writes to {used} in this process; use another one")
        replay(study, RunsTracker(_trackio(study.name, study.name)))
    return database


def track_trackio(study: str, _metric: str, project: str) -> RunsTracker:
    """The tracker of a study that is about to run."""
    return RunsTracker(_trackio(project, study))


def _wandb(project: str, group: str, mode: str, folder: Path) -> Open:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when it is imported
    import wandb

    if mode in ("online", "shared") and not wandb.login(prompt=False):
        raise SmoeRayError(f"WANDB_MODE={mode} needs WANDB_API_KEY, or 'wandb login'")
    settings = wandb.Settings(
        mode=mode,
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )

    def open_run(trial_id: str, config: dict[str, Any]) -> _Run:
        run = wandb.init(
            project=project,
            group=group,
            id=f"{group}-{trial_id}",
            name=trial_id,
            config=config,
            dir=folder,
            resume="allow" if mode != "offline" else None,
            reinit="create_new",  # trials run side by side
            settings=settings,
        )

        def finish(how: End, why: str | None) -> None:
            run.summary.update({"status": how} | ({"why": why} if why else {}))
            run.finish(exit_code=int(how in ("failed", "interrupted")))

        last = max(run.step - 1, 0) if run.resumed else 0
        return _Run(partial(run.log, commit=True), finish, run.finish, last)

    return open_run


def _trackio(project: str, group: str) -> Open:
    import trackio
    import trackio.run
    import trackio.utils

    for module in (trackio, trackio.run, trackio.utils):
        module.print = _say_nothing  # it has no setting for that, and standard output is for results

    def open_run(trial_id: str, config: dict[str, Any]) -> _Run:
        # In a context of its own, for the run before would be finished.
        run = contextvars.Context().run(
            trackio.init,
            project=project,
            group=group,
            name=trial_id,
            config=config,
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        last = max(run._next_step - 1, 0)  # the only place where it says so for servers, too
        return _Run(run.log, lambda _how, _why: run.finish(), run.finish, last)  # it keeps no state of a run

    return open_run


def _say_nothing(*_words: Any, **_options: Any) -> None:
    """In place of `print`."""


@contextmanager
def _environment(**changes: str | None) -> Iterator[None]:
    """Environment variables of this process while it lasts; None: absent."""
    before = {name: os.environ.get(name) for name in changes}
    try:
        for name, value in changes.items():
            _set(name, value)
        yield
    finally:
        for name, value in before.items():
            _set(name, value)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
