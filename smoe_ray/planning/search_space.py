"""The search space of a study: trials from Optuna's proposals and back, its corners, its Optuna distributions."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from smoe_ray.errors import StudyError
from smoe_ray.planning.size import MAX_TRIALS, refuse_too_many
from smoe_ray.spec import Choices, FloatRange, IntRange, SearchStudy, TrialSpec, trial_with, value_at, wanted_values

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
        StudyError: one of them is not a valid trial, or there are more than `MAX_TRIALS`.
    """
    refuse_too_many(study)
    ends = {path: _ends(parameter) for path, parameter in study.space.items()}
    of_model = {path: values for path, values in ends.items() if path.startswith("model.")}
    pinned = [{path: value} for path, values in ends.items() for value in values]
    pinned += [dict(zip(of_model, values, strict=True)) for values in itertools.product(*of_model.values())]
    trials: list[TrialSpec] = []
    for pins, end in itertools.product(pinned, (0, -1)):
        others = {path: values[end] for path, values in ends.items()}
        for conditions in _conditions_of(study, pins):
            if len(trials) == MAX_TRIALS:  # the conditions multiply further
                raise StudyError(f"study {study.name}: more than {MAX_TRIALS:,} corners of the space: split it")
            values = others | conditions | pins
            try:
                trials.append(study.trial_with(_choose(study, lambda path, _: values[path])))  # noqa: B023
            except StudyError as error:
                raise StudyError(f"space: {error}") from None
    return trials


def parameters_of(study: SearchStudy, trial: TrialSpec) -> dict[str, Any] | None:
    """The proposal from which `suggest` makes `trial`; None if `trial` is not a point of this search space."""
    try:
        values = _choose(study, lambda path, parameter: _proposed(parameter, trial, path))
        same = study.trial_with(values).identity() == trial.identity()
    except (KeyError, StudyError):
        return None
    return {path: _for_optuna(value) for path, value in values.items()} if same else None


def points(study: SearchStudy) -> list[dict[str, Any]] | None:
    """A proposal for each distinct trial of a space that has no more of them than `num_trials`; None for a larger one.

    The values are those that Optuna proposes (`parameters_of`). Raises StudyError for more than `MAX_TRIALS`.
    """
    refuse_too_many(study)
    most = study.num_trials
    found: dict[str, dict[str, Any]] = {}
    sizes = [None if one.values is None else len(one.values) for one in study.space.values()]
    unconditional = [size for size, one in zip(sizes, study.space.values(), strict=True) if not one.when]
    if None in sizes or math.prod(size or 0 for size in unconditional) > _REPEATS * most:
        return None
    for tried, values in enumerate(_combinations(study)):
        with suppress(StudyError):
            identity = json.dumps(study.trial_with(values).identity(), sort_keys=True)
            found.setdefault(identity, {path: _for_optuna(value) for path, value in values.items()})
        if len(found) > most or tried > _REPEATS * most:
            return None
    return list(found.values())


def trial_of(study: SearchStudy, proposal: Mapping[str, Any]) -> TrialSpec:
    """The trial of a proposal as `points` and `parameters_of` give them. Raises StudyError."""
    return study.trial_with(
        {path: _from_optuna(study.space[path], value) for path, value in proposal.items()},
    )


_REPEATS = 20
"""Proposals of a space for each distinct trial beyond which its trials are not counted."""


def _combinations(study: SearchStudy) -> Iterator[dict[str, Any]]:
    """Every combination of the parameters' values, each with the conditional parameters that apply."""
    free = {path: one.values or () for path, one in study.space.items() if not one.when}
    for values in itertools.product(*free.values()):
        chosen = dict(zip(free, values, strict=True))
        applying = {path: one.values or () for path, one in study.space.items() if one.when and _applies(one, chosen)}
        for others in itertools.product(*applying.values()):
            yield chosen | dict(zip(applying, others, strict=True))


def distributions(study: SearchStudy, paths: Sequence[str]) -> dict[str, optuna.distributions.BaseDistribution]:
    """Optuna's distributions of the named parameters."""
    return {path: _distribution(study.space[path]) for path in paths}


_Parameter = FloatRange | IntRange | Choices


def _conditions_first(study: SearchStudy) -> Iterator[tuple[str, _Parameter]]:
    yield from sorted(study.space.items(), key=lambda item: item[1].when is not None)


def _applies(parameter: _Parameter, values: Mapping[str, Any]) -> bool:
    return all(values[path] in wanted_values(parameter, path) for path in parameter.when or ())


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
        for other in study.space[path].when or ():
            allowed = wanted_values(study.space[path], other)
            holding.setdefault(other, []).extend(value for value in allowed if study.space[other].contains(value))
    for values in itertools.product(*holding.values()):
        yield dict(zip(holding, values, strict=True))


def _ends(parameter: _Parameter) -> tuple[Any, ...]:
    if isinstance(parameter, Choices):
        return parameter.choices
    return parameter.low, parameter.top


def _proposed(parameter: _Parameter, trial: TrialSpec, path: str) -> Any:
    """The proposed value at `path` from which `suggest` makes `trial`. Raises KeyError if the space has none."""
    value = value_at(trial, path)
    if parameter.contains(value):
        return value
    # The spec may write a choice differently from how a trial stores it: '1 epoch' and '1 epochs', '3' and 3.
    for choice in parameter.choices if isinstance(parameter, Choices) else ():
        with suppress(StudyError):
            if value_at(trial_with(trial, {path: choice}), path) == value:
                return choice
    raise KeyError(path)


def _for_optuna(value: Any) -> Any:
    """A value as Optuna takes it: of lists and mappings, which it does not, their JSON text."""
    return json.dumps(value) if isinstance(value, tuple | dict) else value


def _from_optuna(parameter: _Parameter, value: Any) -> Any:
    """The value that `_for_optuna` made Optuna's."""
    if not isinstance(parameter, Choices) or not isinstance(value, str):
        return value
    return next(choice for choice in parameter.choices if _for_optuna(choice) == value)


def _ask(proposal: optuna.Trial, path: str, parameter: _Parameter) -> Any:
    if isinstance(parameter, FloatRange):
        return proposal.suggest_float(path, parameter.low, parameter.top, step=parameter.step, log=parameter.log)
    if isinstance(parameter, IntRange):
        return proposal.suggest_int(path, parameter.low, parameter.top, step=parameter.step, log=parameter.log)
    return _from_optuna(parameter, proposal.suggest_categorical(path, list(map(_for_optuna, parameter.choices))))


def _distribution(parameter: _Parameter) -> optuna.distributions.BaseDistribution:
    from optuna import distributions as optuna_distributions

    if isinstance(parameter, FloatRange):
        return optuna_distributions.FloatDistribution(
            parameter.low, parameter.top, log=parameter.log, step=parameter.step
        )
    if isinstance(parameter, IntRange):
        return optuna_distributions.IntDistribution(
            parameter.low, parameter.top, log=parameter.log, step=parameter.step
        )
    return optuna_distributions.CategoricalDistribution([_for_optuna(choice) for choice in parameter.choices])
