"""Results of the search page, cached until the study changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from smoe_ray.columns import COLUMNS, count, listed
from smoe_ray.errors import ResultsError, SmoeRayError
from smoe_ray.spec import SearchStudy

from ... import load
from . import charts

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from smoe_ray.inspect.journal import History

STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
"""Optuna's states of ended trials -> ours."""


def search_of(study: str) -> SearchStudy:
    """The study's spec. Raises SmoeRayError if it cannot be read or is a grid study."""
    spec = load.spec(study)
    if not isinstance(spec, SearchStudy):
        raise SmoeRayError(f"{study} is a grid study, which runs every combination; choose a search study")
    return spec


@load.cached
def history(study: str) -> tuple[History, str]:
    """The search's history from its journal; else from its trials, with a sentence that says why."""
    from smoe_ray.inspect.journal import JOURNAL, history_from_trials, parse_journal

    spec = search_of(study)
    try:
        content = load.file(study, JOURNAL)
        if content is None:
            raise ResultsError(f"{JOURNAL} is absent")
        return parse_journal(content, spec), ""
    except ResultsError as error:
        results = load.results(study)
        parts = results.table.groupby("trial_id")
        rows: dict[str, list[dict[str, Any]]] = {str(name): part.to_dict("records") for name, part in parts}  # type: ignore[misc]
        return history_from_trials(spec, results.records.values(), rows), f"Reconstructed from the trials, as {error}."


@load.cached
def drawn(study: str, chart: str, *choices: int | str) -> go.Figure:
    """The figure that function `chart` of `charts` makes. Raises ResultsError as that does."""
    figure: go.Figure = getattr(charts, chart)(history(study)[0], *choices)
    return figure


@load.cached
def trials(study: str) -> pd.DataFrame:
    """One row per ended trial, latest first. `trial` is the relative URL of its page."""
    import pandas as pd

    past = history(study)[0]
    best = {trial.number for trial in charts.pareto_trials(past)}
    rows = [
        {
            "trial": link_of(study, str(trial.user_attrs.get("trial_id", ""))),
            "state": STATES[trial.state.name],
            "best": trial.number in best,
            **dict(zip(past.metrics, trial.values or (), strict=False)),
            **{name: value if _is_number(value) else str(value) for name, value in trial.params.items()},
            "why": str(trial.user_attrs.get("why", "")),
        }
        for trial in reversed(past.trials)
    ]
    return pd.DataFrame(rows, columns=["trial", "state", "best", *past.metrics, *search_of(study).space, "why"])


def link_of(study: str, trial: str) -> str:
    """Relative URL of a trial's page."""
    return "trial?" + urlencode({"study": study, "trial": trial})


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def answer(study: str) -> str:
    """The best trial with its parameters, or the ends of the Pareto front."""
    past = history(study)[0]
    best = charts.pareto_trials(past)
    if not best:
        return "No trial has finished yet."
    if len(past.metrics) == 1:
        parameters = listed(f"{name} = {_short(value)}" for name, value in best[0].params.items())
        return f"Best {COLUMNS[past.metrics[0]].heading}: {best[0].values[0]:.4g}, with {parameters}."
    ends = listed(
        f"{COLUMNS[metric].heading} {min(values):.4g} to {max(values):.4g}"
        for metric, values in zip(past.metrics, zip(*(trial.values for trial in best), strict=True), strict=True)
    )
    return f"{count(len(best), 'trial')} that no other beats in all objectives: {ends}."


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def progress(study: str) -> str:
    """Number of trials by state, and the search's target, as text."""
    spec, past = search_of(study), history(study)[0]
    ended = [STATES[trial.state.name] for trial in past.trials]
    told = [f"{ended.count(state)} {state}" for state in STATES.values() if state in ended]
    running = sum(record.status == "running" for record in load.results(study).records.values())
    told += [f"{running} running or interrupted"] if running else []
    goal = f"Target: {spec.num_trials} finished or pruned; sampler: {spec.sampler.name}."
    return f"Trials: {', '.join(told) or 'none has ended yet'}. {goal}"
