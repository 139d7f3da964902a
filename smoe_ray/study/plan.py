"""From a study to trials: the cells of a grid, and a search space as Optuna sees it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from smoe_ray.errors import StudyError
from smoe_ray.results import Row, TrialRecord
from smoe_ray.spec import (
    Choices,
    FloatRange,
    GridStudy,
    IntRange,
    PluginReference,
    SearchStudy,
    TrialSpec,
    plugin_paths,
    plugin_references,
    trial_with,
    value_at,
)

if TYPE_CHECKING:
    import optuna


def plan_grid(study: GridStudy) -> list[TrialSpec]:
    """All combinations of the axes' values, the first axis slowest, each with every seed; no trial twice.

    Raises:
        StudyError: a combination is not a valid trial.
    """
    return list(identified(study).values())


def identified(study: GridStudy) -> dict[str, TrialSpec]:
    """`plan_grid` by `identity_of` each trial."""
    trials: dict[str, TrialSpec] = {}
    for values in itertools.product(*study.axes.values()):
        cell = study.trial_with(dict(zip(study.axes, values, strict=True)))
        identity = cell.identity()
        for seed in study.seeds:
            trials.setdefault(_canonical(identity | {"seed": seed}), cell.model_copy(update={"seed": seed}))
    return trials


def identity_of(trial: TrialSpec) -> str:
    """What makes it that trial, whatever its data; equal for equal trials alone."""
    return _canonical(trial.identity())


def _canonical(identity: Mapping[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)


def check_plugins(study: GridStudy | SearchStudy) -> None:
    """Import the plug-ins of a study's trials, for a search those of its base and corners, and validate their
    parameters.

    Raises:
        PluginError: a plug-in is not allowed, not installed or fails.
        StudyError: a parameter is wrong.
    """
    for reference in plugins_in(study):
        reference.resolve()


def plugins_in(study: GridStudy | SearchStudy) -> list[PluginReference]:
    """The plug-ins of a study's trials, for a search those of its base and corners, each with its parameters once."""
    if isinstance(study, GridStudy):
        trials = plan_grid(study)
    else:
        choices = {path: one.choices for path, one in study.space.items() if isinstance(one, Choices)}
        trials = [study.base, *(corners(study) if plugin_paths(study.base, choices) else ())]
    references = (reference for trial in trials for reference in plugin_references(trial))
    return list(
        {f"{reference.kind} {_canonical(reference.identity())}": reference for reference in references}.values()
    )


# --- search -----------------------------------------------------------------------------------------------------------


def suggest(proposal: optuna.Trial, study: SearchStudy) -> TrialSpec:
    """The trial that Optuna's proposal stands for: each parameter of the space whose `when` holds is asked for.

    Raises:
        StudyError: the values do not make a valid trial.
    """
    return study.trial_with(_choose(study, partial(_ask, proposal)))


def corners(study: SearchStudy) -> list[TrialSpec]:
    """Trials at the edges of the search space.

    Each parameter stands at its lowest and its highest value, or at each of its choices, wherever its `when` holds,
    while the others are all at their first or all at their last value; those of the model stand in all combinations.

    Raises:
        StudyError: one of them is not a valid trial.
    """
    ends = {path: _ends(parameter) for path, parameter in study.space.items()}
    of_model = {path: values for path, values in ends.items() if path.startswith("model.")}
    pinned = [{path: value} for path, values in ends.items() for value in values]
    pinned += [dict(zip(of_model, values, strict=True)) for values in itertools.product(*of_model.values())]
    trials = []
    for pins, end in itertools.product(pinned, (0, -1)):
        others = {path: values[end] for path, values in ends.items()}
        for conditions in _conditions_of(study, pins):
            values = others | conditions | pins
            try:
                trials.append(study.trial_with(_choose(study, lambda path, _: values[path])))  # noqa: B023
            except StudyError as error:
                raise StudyError(f"space: {error}") from None
    return trials


def parameters_of(study: SearchStudy, trial: TrialSpec) -> dict[str, Any] | None:
    """The values that `suggest` would have needed to make `trial`; None when `trial` is no point of this search."""
    values: dict[str, Any] = {}
    try:
        for path, parameter in _conditions_first(study):
            if _applies(parameter, values):
                values[path] = _asked(parameter, trial, path)
        same = study.trial_with(values).identity() == trial.identity()
    except (KeyError, StudyError):
        return None
    return values if same else None


def distributions(study: SearchStudy, paths: Sequence[str]) -> dict[str, optuna.distributions.BaseDistribution]:
    """Optuna's distributions of the named parameters."""
    return {path: _distribution(study.space[path]) for path in paths}


def make_sampler(study: SearchStudy, trials_before: int) -> optuna.samplers.BaseSampler:
    """The study's sampler. After `trials_before` trials its seed is another, so that it repeats no proposals."""
    import numpy as np
    import optuna

    spec = study.sampler
    seed = int(np.random.SeedSequence((spec.seed, trials_before)).generate_state(1)[0])
    if spec.name == "tpe":
        # Trials under way count as bad ones, so that parallel proposals keep a distance from each other.
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    if spec.name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if spec.name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    if spec.name == "gp":
        return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def make_pruner(study: SearchStudy) -> optuna.pruners.BasePruner:
    """The study's pruner; steps are epochs, counted from 1."""
    import optuna

    spec = study.pruner
    if spec.name == "median":
        return optuna.pruners.MedianPruner(n_warmup_steps=spec.grace_epochs)
    if spec.name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=spec.grace_epochs, reduction_factor=spec.reduction_factor
        )
    return optuna.pruners.NopPruner()


def final_values(study: SearchStudy, rows: Sequence[Row]) -> list[float] | None:
    """The objectives as they stand at the end of a trial; None when one was not measured."""
    last = rows[-1] if rows else {}
    values = [_number(last.get(objective.metric)) for objective in study.objectives]
    return None if any(math.isnan(value) for value in values) else values


def reports(study: SearchStudy, rows: Sequence[Row]) -> dict[int, float]:
    """Epoch -> first objective, for the epochs in which it was measured: what a pruner judges by."""
    if study.pruner.name == "none":
        return {}
    metric = study.objectives[0].metric
    measured = {int(row["epoch"]): _number(row.get(metric)) for row in rows}
    return {epoch: value for epoch, value in measured.items() if not math.isnan(value)}


def past_trial(study: SearchStudy, record: TrialRecord, rows: Sequence[Row]) -> optuna.trial.FrozenTrial | None:
    """A trial of OUT as Optuna stores it, to be added to an Optuna study; None when it is no part of this search, or
    has not ended.

    A trial that finished without a measured objective counts as failed: there is no value to learn from.
    """
    import optuna

    values = parameters_of(study, record.spec)
    if values is None or record.status == "running":
        return None
    results = final_values(study, rows) if record.status == "finished" else None
    state = optuna.trial.TrialState.FAIL
    if results is not None:
        state = optuna.trial.TrialState.COMPLETE
    elif record.status == "pruned":
        state = optuna.trial.TrialState.PRUNED
    trial = optuna.trial.create_trial(
        state=state,
        params=values,
        distributions=distributions(study, list(values)),
        values=results,
        intermediate_values=reports(study, rows),
        user_attrs={"trial_id": record.trial_id, "why": record.reason or record.error or ""},
    )
    trial.datetime_start = _local(record.timings.started_at)
    trial.datetime_complete = _local(record.timings.finished_at or record.timings.started_at)
    return trial


def _local(moment: datetime) -> datetime:
    """As Optuna writes times: local, without a zone."""
    return moment.astimezone().replace(tzinfo=None)


_Parameter = FloatRange | IntRange | Choices


def _conditions_first(study: SearchStudy) -> Iterator[tuple[str, _Parameter]]:
    yield from sorted(study.space.items(), key=lambda item: item[1].when is not None)


def _applies(parameter: _Parameter, values: Mapping[str, Any]) -> bool:
    for path, wanted in (parameter.when or {}).items():
        if values[path] not in (wanted if isinstance(wanted, tuple) else (wanted,)):
            return False
    return True


def _choose(study: SearchStudy, ask: Callable[[str, _Parameter], Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path, parameter in _conditions_first(study):
        if _applies(parameter, values):
            values[path] = ask(path, parameter)
    return values


def _conditions_of(study: SearchStudy, paths: Collection[str]) -> Iterator[dict[str, Any]]:
    """Every way in which the `when` of the parameters at `paths` can hold."""
    holding: dict[str, list[Any]] = {}
    for path in paths:
        for other, wanted in (study.space[path].when or {}).items():
            allowed = wanted if isinstance(wanted, tuple) else (wanted,)
            holding.setdefault(other, []).extend(value for value in allowed if _contains(study.space[other], value))
    for values in itertools.product(*holding.values()):
        yield dict(zip(holding, values, strict=True))


def _ends(parameter: _Parameter) -> tuple[Any, ...]:
    if isinstance(parameter, Choices):
        return parameter.choices
    if isinstance(parameter, IntRange):
        return parameter.low, range(parameter.low, parameter.high + 1, parameter.step)[-1]
    return parameter.low, parameter.high


def _asked(parameter: _Parameter, trial: TrialSpec, path: str) -> Any:
    """What `suggest` was given at `path` when it made `trial`. Raises KeyError when the space has no such value."""
    value = value_at(trial, path)
    if _contains(parameter, value):
        return value
    # A choice may be written otherwise than a trial holds it: '1 epoch' and '1 epochs', '3' and 3.
    for choice in parameter.choices if isinstance(parameter, Choices) else ():
        with suppress(StudyError):
            if value_at(trial_with(trial, {path: choice}), path) == value:
                return choice
    raise KeyError(path)


def _contains(parameter: _Parameter, value: Any) -> bool:
    if isinstance(parameter, Choices):
        return value in parameter.choices
    return isinstance(value, (int, float)) and parameter.low <= value <= parameter.high


def _ask(proposal: optuna.Trial, path: str, parameter: _Parameter) -> Any:
    if isinstance(parameter, FloatRange):
        return proposal.suggest_float(path, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
    if isinstance(parameter, IntRange):
        return proposal.suggest_int(path, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
    return proposal.suggest_categorical(path, parameter.choices)


def _distribution(parameter: _Parameter) -> optuna.distributions.BaseDistribution:
    from optuna import distributions as optuna_distributions

    if isinstance(parameter, FloatRange):
        return optuna_distributions.FloatDistribution(
            parameter.low, parameter.high, log=parameter.log, step=parameter.step
        )
    if isinstance(parameter, IntRange):
        return optuna_distributions.IntDistribution(
            parameter.low, parameter.high, log=parameter.log, step=parameter.step
        )
    return optuna_distributions.CategoricalDistribution(parameter.choices)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
