"""A study as an Optuna study in a journal file: for `optuna-dashboard`, importances and Optuna's plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoe_ray.atomic_write import write_whole
from smoe_ray.export.history import StudyHistory, TrialHistory
from smoe_ray.inspect.journal import history_from_trials, journal_text
from smoe_ray.inspect.past_trials import stored_trial
from smoe_ray.spec import SearchStudy

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial


def write_journal(study: StudyHistory, folder: Path) -> Path:
    """Write ``<study>.journal``, replacing an older one.

    A search keeps its space and objectives. Of any other study the parameters are the keys in which its trials differ,
    save the seed, and the objective is what its best trial is chosen by: the final test loss, or PSNR over units.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if isinstance(study.spec, SearchStudy):
        rows = {trial.record.trial_id: trial.rows for trial in study.trials}
        history = history_from_trials(study.spec, [trial.record for trial in study.trials], rows)
        metrics, directions, trials = history
    else:
        metrics, directions = (study.objective.metric,), (study.objective.direction,)
        trials = tuple(_trials_of_grid(study.trials, study.objective.metric))
    path = folder / f"{study.name}.journal"
    write_whole(path, journal_text(study.name, metrics, directions, trials))
    return path


def _trials_of_grid(trials: Sequence[TrialHistory], metric: str) -> list[FrozenTrial]:
    """Those that have ended, as Optuna stores them."""
    config_of = {trial.record.trial_id: _parameters(trial.config) for trial in trials}
    space = _space(list(config_of.values()))
    return [
        stored_trial(
            trial.record,
            {path: value for path, value in config_of[trial.record.trial_id].items() if path in space},
            space,
            _final(trial, metric),
            _measured(trial, metric),
        )
        for trial in sorted(trials, key=lambda trial: trial.record.timings.started_at)
        if trial.record.status != "running"
    ]


def _final(trial: TrialHistory, metric: str) -> list[float] | None:
    measured = _measured(trial, metric) if trial.record.status == "finished" else {}
    return [measured[max(measured)]] if measured else None


def _measured(trial: TrialHistory, metric: str) -> dict[int, float]:
    return {epoch: numbers[metric] for epoch, _, numbers in trial.metrics() if metric in numbers}


def _parameters(config: dict[str, Any]) -> dict[str, Any]:
    """A trial's configuration in values that Optuna takes; lists as text."""
    plain = {path: str(list(value)) if isinstance(value, tuple) else value for path, value in config.items()}
    return {path: value for path, value in plain.items() if value is not None and path != "seed"}


def _space(configs: Sequence[dict[str, Any]]) -> dict[str, BaseDistribution]:
    """Distributions of the keys in which configurations differ; a key that some lack is conditional."""
    from optuna import distributions

    space: dict[str, BaseDistribution] = {}
    for path in dict.fromkeys(path for config in configs for path in config):
        values = list(dict.fromkeys(config[path] for config in configs if path in config))
        kinds = {type(value) for value in values}
        if len(values) < 2:
            continue
        if kinds == {int}:
            space[path] = distributions.IntDistribution(min(values), max(values))
        elif kinds <= {int, float}:
            space[path] = distributions.FloatDistribution(min(values), max(values))
        else:
            space[path] = distributions.CategoricalDistribution(values)
    return space
