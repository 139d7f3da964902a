"""Charts of a search: Optuna's own plots where they are suitable, in the dashboard's style.

Names and values in a history are untrusted, so Optuna's plots get an escaped copy. Two plots are drawn here: Optuna's
parallel coordinates have one curve per trial, which takes seconds for a thousand trials, and its Pareto front writes
all attributes of a trial into the hover text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from smoe_ray.errors import ResultsError

from ... import style

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from smoe_ray.inspect.journal import History

MAX_IN_CONTOUR = 200
"""Finished trials; Optuna makes a row and a column of a grid of each."""

MIN_FOR_IMPORTANCES = 10
"""Finished trials, so that `BEST_FOR_IMPORTANCES` are at most the better half of them."""

BEST_FOR_IMPORTANCES = 5
"""Minimum number of best trials with which all are compared, as Optuna recommends."""


def finished(history: History) -> list[FrozenTrial]:
    """Trials with a finite value for each objective, in the order in which they ended."""
    return [trial for trial in history.trials if _is_measured(trial, len(history.metrics))]


def parameters(history: History) -> list[str]:
    """Parameters with at least two values among the finished trials, sorted: those that can be drawn."""
    values: dict[str, set[Any]] = {}
    for trial in finished(history):
        for name, value in trial.params.items():
            values.setdefault(name, set()).add(value)
    return sorted(name for name, distinct in values.items() if len(distinct) > 1)


def optimization_history(history: History, objective: int) -> go.Figure:
    """The objective of each finished trial in order of completion, and the best so far.

    Raises:
        ResultsError: no trial is finished.
    """
    from optuna.visualization import plot_optimization_history

    if not finished(history):
        raise ResultsError("No trial of this search has finished yet")
    drawn = plot_optimization_history(_one_objective(history, objective, history.trials))
    values, best = drawn.data[:2]
    values.update(name="trial", marker={"color": style.COLOURS[0], "size": 7})
    best.update(name="best so far", line={"color": style.COLOURS[1], "shape": "hv", "width": 2})
    label = _metric(history, objective)
    return style.figure(xaxis_title="trial, in order of completion", yaxis_title=label).add_traces([values, best])


def importances(history: History, objective: int) -> go.Figure:
    """Importance of each parameter for being among the best trials (PED-ANOVA, arXiv:2304.10255).

    A conditional parameter is judged among the trials that have it (arXiv:2601.20800).
    The best are the best tenth of the finished trials, at least `BEST_FOR_IMPORTANCES`.

    Raises:
        ResultsError: too few trials, or too few better than the worst.
    """
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import plot_param_importances

    ranked = _ranked(history, objective)
    if len(ranked) < MIN_FOR_IMPORTANCES:
        raise ResultsError(f"Importances need {MIN_FOR_IMPORTANCES} finished trials; there are {len(ranked)} so far")
    best = max(BEST_FOR_IMPORTANCES, math.ceil(0.1 * len(ranked)))
    if ranked[best - 1].values[objective] == ranked[-1].values[objective]:
        raise ResultsError(f"Fewer than {best} trials are better than the worst: too few to estimate importances")
    # A parameter that a single trial has, or a single one lacks, cannot be judged.
    holders = {name: sum(name in trial.params for trial in ranked) for name in parameters(history)}
    judged = [style.escape(name) for name, count in holders.items() if count >= 2 and len(ranked) - count != 1]
    evaluator = PedAnovaImportanceEvaluator(target_quantile=best / len(ranked))
    bars = plot_param_importances(_one_objective(history, objective, ranked), evaluator, judged).data[0]
    bars.update(marker_color=style.COLOURS[0], hovertemplate="%{y}: %{x:.3f}<extra></extra>")
    height = max(160, 90 + 34 * len(judged))
    return style.figure(xaxis_title="importance (all sum to 1)", height=height).add_traces([bars])


def contour(history: History, objective: int, x: str, y: str) -> go.Figure:
    """The objective over two parameters: measured at the points, interpolated by Plotly elsewhere.

    At most `MAX_IN_CONTOUR` trials are used, evenly spaced from the best to the worst.

    Raises:
        ResultsError: too few trials have both parameters.
    """
    from optuna.visualization import plot_contour

    both = [trial for trial in _ranked(history, objective) if {x, y} <= set(trial.params)]
    if x == y or any(len({trial.params[name] for trial in both}) < 2 for name in (x, y)):
        raise ResultsError(
            f"Too few finished trials have both {x} and {y} for a contour plot; choose others, or wait for more trials"
        )
    one = _one_objective(history, objective, _few(both))
    drawn = plot_contour(one, [style.escape(x), style.escape(y)])
    surface, points = drawn.data[:2]
    bar = {"title": {"text": _metric(history, objective), "side": "right"}, "thickness": 12}
    surface.update(colorscale="Viridis", colorbar=bar, line={"width": 0.5, "color": "white"})
    points.update(marker={"color": "white", "size": 7, "line": {"color": "black", "width": 1}})
    points.update(hovertemplate="%{xaxis.title.text}: %{x}<br>%{yaxis.title.text}: %{y}<extra></extra>")
    return style.figure(xaxis=drawn.layout.xaxis, yaxis=drawn.layout.yaxis).add_traces([surface, points])


def parallel_coordinates(history: History, objective: int) -> go.Figure:
    """One line per finished trial through all objectives and parameters, coloured by its rank in `objective`.

    Raises:
        ResultsError: fewer than two trials are finished.
    """
    import plotly.graph_objects as go

    trials = _ranked(history, objective)[::-1]  # the best are drawn last, above the others
    if len(trials) < 2:
        raise ResultsError("Parallel coordinates need two finished trials; wait for more")
    axes = [
        _numeric_axis(_broken(metric), [trial.values[at] for trial in trials])
        for at, metric in enumerate(history.metrics)
    ]
    axes += [_axis(name, trials) for name in parameters(history)]
    line = {
        "color": list(range(len(trials))),
        "colorscale": "Viridis",
        "showscale": True,
        "colorbar": {
            "title": {"text": f"rank in {style.escape(history.metrics[objective])}", "side": "right"},
            "tickvals": [0, len(trials) - 1],
            "ticktext": ["worst", "best"],
            "thickness": 12,
        },
    }
    figure = style.figure(margin={"l": 72, "r": 8, "t": 72, "b": 24})
    return figure.add_trace(go.Parcoords(line=line, dimensions=axes))


def brushed(
    history: History, objective: int, ranges: Sequence[Sequence[tuple[float, float]]]
) -> tuple[go.Figure, list[str]]:
    """`parallel_coordinates` with these ranges brushed on its axes, and ids of the trials whose lines remain.

    Raises:
        ResultsError: as `parallel_coordinates`.
    """
    figure = parallel_coordinates(history, objective)
    trials = _ranked(history, objective)[::-1]
    kept = np.ones(len(trials), dtype=bool)
    for axis, of_axis in zip(figure.data[0].dimensions, ranges, strict=False):
        if of_axis:
            axis.constraintrange = [list(ends) for ends in of_axis]
            place = np.asarray(axis["values"], np.float64)
            kept &= np.any([(low <= place) & (place <= high) for low, high in of_axis], axis=0)
    return figure, [
        str(trial.user_attrs.get("trial_id", "")) for trial, is_kept in zip(trials, kept, strict=True) if is_kept
    ]


def pareto_front(history: History, x: int, y: int) -> go.Figure:
    """Two objectives of each finished trial; those that no other beats in all objectives are marked.

    With two objectives, a line shows the attained front.

    Raises:
        ResultsError: no trial is finished.
    """
    import plotly.graph_objects as go

    best = {trial.number for trial in pareto_trials(history)}
    trials = sorted(finished(history), key=lambda trial: trial.values[x])
    if not trials:
        raise ResultsError("No trial of this search has finished yet")
    # Between two points of the front, the attained value is that of the one that is better in x.
    line = {"shape": "hv" if history.directions[x] == "minimize" else "vh", "width": 1.5, "color": style.COLOURS[1]}
    mode = "lines+markers" if len(history.metrics) == 2 else "markers"
    looks = (
        (False, {"name": "others", "mode": "markers", "marker": {"symbol": "circle-open", "color": style.GREY}}),
        (True, {"name": "Pareto front", "mode": mode, "line": line, "marker": {"symbol": "diamond", "size": 10}}),
    )
    figure = style.figure(xaxis_title=_metric(history, x), yaxis_title=_metric(history, y))
    for is_best, look in looks:
        shown = [trial for trial in trials if (trial.number in best) == is_best]
        figure.add_trace(
            go.Scatter(
                x=[trial.values[x] for trial in shown],
                y=[trial.values[y] for trial in shown],
                text=[style.escape(trial.user_attrs.get("trial_id", "")) for trial in shown],
                hovertemplate="trial %{text}<br>%{xaxis.title.text}: %{x}<br>%{yaxis.title.text}: %{y}<extra></extra>",
                **look,
            )
        )
    return figure.update_traces(marker_color=style.COLOURS[1], selector={"name": "Pareto front"})


def pareto_trials(history: History) -> list[FrozenTrial]:
    """The finished trials that no other beats in all objectives; with one objective, the best."""
    measured = finished(history)
    study = _empty_study(*history.directions)
    study.add_trials(measured)
    return [measured[trial.number] for trial in study.best_trials]


def _metric(history: History, objective: int) -> str:
    return f"{style.escape(history.metrics[objective])} ({history.directions[objective]})"


def _ranked(history: History, objective: int) -> list[FrozenTrial]:
    """The finished trials, best first."""
    is_reverse = history.directions[objective] == "maximize"
    return sorted(finished(history), key=lambda trial: trial.values[objective], reverse=is_reverse)


def _few(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    if len(trials) <= MAX_IN_CONTOUR:
        return trials
    return [trials[step * (len(trials) - 1) // (MAX_IN_CONTOUR - 1)] for step in range(MAX_IN_CONTOUR)]


def _is_measured(trial: FrozenTrial, objectives: int) -> bool:
    values = trial.values if trial.state.name == "COMPLETE" else None
    return values is not None and len(values) == objectives and all(map(math.isfinite, values))


# --- axes of the parallel coordinates ---------------------------------------------------------------------------------


def _axis(name: str, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution

    label = _broken(name)
    values = [trial.params.get(name) for trial in trials]
    distribution = next(trial.distributions[name] for trial in trials if name in trial.params)
    if not isinstance(distribution, CategoricalDistribution):
        return _numeric_axis(label, values, getattr(distribution, "log", False))
    places = {choice: place for place, choice in enumerate(distribution.choices)}
    words = [style.escape(choice) for choice in distribution.choices]
    ticks = [float(place) for place in places.values()]
    found, low = _with_absent([places.get(value) for value in values], ticks[0], ticks[-1])
    if low < ticks[0]:
        ticks, words = [low, *ticks], ["not used", *words]
    return {"label": label, "values": found, "tickvals": ticks, "ticktext": words, **_span(low, ticks[-1])}


def _broken(name: str) -> str:
    """A dotted name, broken into lines."""
    return style.escape(name).replace(".", ".<br>")


def _numeric_axis(label: str, values: Sequence[float | None], is_log: bool = False) -> dict[str, Any]:
    """An axis without ticks of our own: with them, Plotly takes an axis for ordinal, and a brush snaps to its ticks."""
    places = [value if value is None or not is_log else math.log10(value) for value in values]
    known = [place for place in places if place is not None]
    found, low = _with_absent(places, min(known), max(known))
    notes = ["log10"] * is_log + ["lowest: not used"] * (low < min(known))
    note = f"<br>({', '.join(notes)})" if notes else ""
    return {"label": f"{label}{note}", "values": found, **_span(low, max(known))}


def _with_absent(places: Sequence[float | None], low: float, high: float) -> tuple[list[float], float]:
    """Places on an axis from `low` to `high`, and its lowest: trials without the parameter pass below `low`."""
    below = low - 0.15 * ((high - low) or 1)
    return [below if place is None else place for place in places], below if None in places else low


def _span(low: float, high: float) -> dict[str, Any]:
    return {"range": [low, high]} if low < high else {}


# --- escaped copies for Optuna's plots --------------------------------------------------------------------------------


def _one_objective(history: History, objective: int, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """A study of `trials` with one objective, all text escaped for Plotly."""
    from optuna.trial import TrialState, create_trial

    copy = _empty_study(history.directions[objective])
    for trial in trials:
        is_measured = _is_measured(trial, len(history.metrics))
        copy.add_trial(
            create_trial(
                state=TrialState.COMPLETE if is_measured else TrialState.FAIL,
                value=trial.values[objective] if is_measured else None,
                params={style.escape(name): _escaped(value) for name, value in trial.params.items()},
                distributions={style.escape(name): _escaped_choices(one) for name, one in trial.distributions.items()},
            )
        )
    return copy


def _empty_study(*directions: str) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(directions=cast(Any, directions))


def _escaped(value: Any) -> Any:
    return style.escape(value) if isinstance(value, str) else value


def _escaped_choices(distribution: BaseDistribution) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution

    if isinstance(distribution, CategoricalDistribution):
        return CategoricalDistribution([_escaped(choice) for choice in distribution.choices])
    return distribution
