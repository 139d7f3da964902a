"""The search space of a study: trials from Optuna's proposals and back, its corners, its Optuna distributions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from smoe_ray.errors import StudyError
from smoe_ray.spec import Choices, FloatRange, IntRange, SearchStudy, TrialSpec, trial_with, value_at

if TYPE_CHECKING:
    import optuna


def suggest(proposal: optuna.Trial, study: SearchStudy) -> TrialSpec:
    """The trial of an Optuna proposal, which is asked for each parameter of the space whose `when` holds.

    Raises:
        StudyError: the values do not make a valid trial.
    """
    return study.trial_with(_choose(study, partial(_ask, proposal)))


def corners(study: SearchStudy) -> list[TrialSpec]:
    """Trials at the edges of the search space.

    Each parameter takes its lowest and its highest value, or each of its choices, wherever its `when` holds, while the
    others are all at their first or all at their last value. Parameters of the model are taken in all combinations.

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
    """The proposal from which `suggest` makes `trial`; None if `trial` is not a point of this search space."""
    values: dict[str, Any] = {}
    try:
        for path, parameter in _conditions_first(study):
            if _applies(parameter, values):
                values[path] = _proposed(parameter, trial, path)
        same = study.trial_with(values).identity() == trial.identity()
    except (KeyError, StudyError):
        return None
    return values if same else None


def distributions(study: SearchStudy, paths: Sequence[str]) -> dict[str, optuna.distributions.BaseDistribution]:
    """Optuna's distributions of the named parameters."""
    return {path: _distribution(study.space[path]) for path in paths}


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
    """Every combination of values under which the `when` of all parameters at `paths` holds."""
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


def _proposed(parameter: _Parameter, trial: TrialSpec, path: str) -> Any:
    """The proposed value at `path` from which `suggest` makes `trial`. Raises KeyError if the space has none."""
    value = value_at(trial, path)
    if _contains(parameter, value):
        return value
    # The spec may write a choice differently from how a trial stores it: '1 epoch' and '1 epochs', '3' and 3.
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
