"""What a study will cost, from its spec alone: no data are read or generated, and nothing is started."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from smoe_ray.columns import count
from smoe_ray.data import DataRequirement, requirements
from smoe_ray.data.dataset import shape_in_words
from smoe_ray.data.splits import planned_num_styles, planned_train_images
from smoe_ray.errors import DataError, SmoeRayError
from smoe_ray.inspect.machine import in_gb
from smoe_ray.model.cost import Cost, flops_of_training, model_cost
from smoe_ray.model.memory import trial_memory
from smoe_ray.planning import StudyPlan
from smoe_ray.spec import (
    Choices,
    DataSpec,
    Distribution,
    FloatRange,
    GridStudy,
    ImageShape,
    PluginData,
    PluginReference,
    SearchStudy,
    Spec,
    TrialSpec,
    check_experts_per_label,
    plugin_references,
    wanted_values,
)

_Known = TypeVar("_Known")


class Preview(NamedTuple):
    """What a study will cost."""

    trials: int
    configurations: int
    """Distinct configurations; each is run with every seed. For a search: 1, its base."""
    image_shapes: tuple[ImageShape, ...] | None
    """The different shapes of its images; for a search, at the corners of its space. None if only the data files, or a
    plug-in that was not imported, can tell; then parameters and FLOPs are not known either."""
    params_total: tuple[int, int] | None
    """Parameters of the smallest and the largest model of the study, likewise."""
    params_active: tuple[int, int] | None
    """Likewise, the parameters that are active for one image."""
    train_images: tuple[int, int] | None
    """Likewise, the fewest and the most training images of a trial; None if only the data files can tell."""
    flops: float | None
    """Training FLOPs of all trials together; for a search, as if every trial were its base. None as above."""
    memory: tuple[int, int] | None
    """Estimated memory (bytes) of the process that trains a trial, at its peak: least and most, likewise."""
    needs: tuple[DataRequirement, ...]
    """Files and generated sketches that the study needs; for a search, those of its base and corners."""
    notes: tuple[str, ...] = ()
    """Settings that will have no effect, one line each."""

    @property
    def absent(self) -> tuple[DataRequirement, ...]:
        """Those that must be provided before the study can run."""
        return tuple(need for need in self.needs if need.state == "absent")

    def require_data(self) -> None:
        """Raise DataError if any of them is absent."""
        if self.absent:
            first = self.absent[0]
            fetch = ", or data.download: true, or run 'smoe-ray data fetch' with this study" * first.can_download
            raise DataError(
                f"{first.where}: absent ({len(self.absent)} of {len(self.needs)} that the study needs); set data.root "
                f"(of several datasets: datasets.NAME.root) to the folder that has them{fetch}"
            )


def preview(study: GridStudy | SearchStudy | StudyPlan, load_plugins: bool = True) -> Preview:
    """Plan a study and count its cost.

    Args:
        study: a study, or its plan where the caller has made one already.
        load_plugins: import its plug-ins and validate their parameters; without that, what only they can tell is left
            open.

    Raises:
        StudyError, DataError: a trial of the study is invalid.
        PluginError: a plug-in is not allowed, not installed or fails.
    """
    plan = StudyPlan.of(study)
    if load_plugins:
        plan.check_plugins()
    typical = plan.known_trials
    if isinstance(plan.study, GridStudy):
        trials, configurations = typical, len({_without_seed(trial) for trial in typical})
    else:
        trials, configurations = plan.corners, 1
    for trial in trials:
        if not _is_unknown(trial.objective, load_plugins):
            num_classes = None if trial.data.classes is None else len(trial.data.classes)
            check_experts_per_label(trial, num_classes, planned_num_styles(trial.data))
    shapes = _all_known(_image_shape(trial.data, load_plugins) for trial in trials)
    costs = _all_known(_cost(trial, load_plugins) for trial in trials)
    images = _all_known(_train_images(trial, load_plugins) for trial in trials)
    flops = _all_known(_training_flops(trial, load_plugins) for trial in typical)
    return Preview(
        trials=plan.total,
        configurations=configurations,
        image_shapes=tuple(dict.fromkeys(shapes)) if shapes else None,
        params_total=_range(cost.params_total for cost in costs) if costs else None,
        params_active=_range(cost.params_active for cost in costs) if costs else None,
        train_images=_range(images) if images else None,
        flops=sum(flops) * plan.total / len(flops) if flops else None,
        memory=_memory(trials, load_plugins),
        needs=_needs((trial.data for trial in [*typical, *trials]), load_plugins),
        notes=tuple(_notes(plan, [*typical, *trials])),
    )


def peak_memory(plan: StudyPlan) -> tuple[int, int] | None:
    """`Preview.memory` alone, of a study whose plug-ins may be imported.

    Of trials whose data or plug-ins are not in order nothing is known here: their failures will say what is wrong.
    """
    peaks = []
    for trial in _without_seeds(plan.corners or plan.known_trials):
        with suppress(SmoeRayError):
            peaks.append(_peak_memory(trial, load_plugins=True))
    known = [peak for peak in peaks if peak is not None]
    return _range(known) if known else None


def data_settings(plan: StudyPlan) -> list[DataSpec]:
    """The different data of a study's trials, `fraction` and `imbalance` aside: of each, that with the most images."""
    distinct: dict[str, DataSpec] = {}
    for data in (trial.data for trial in (*plan.known_trials, *plan.corners)):
        known = distinct.setdefault(_images_of(data), data)
        if data.fraction > known.fraction:
            distinct[_images_of(data)] = data
    return list(distinct.values())


def in_words(study: GridStudy | SearchStudy, seen: Preview) -> list[tuple[str, str]]:
    """A study and its preview as lines of text, each with a heading, which may be empty."""
    lines = [("study", f"{study.name} (preset {study.preset})"), ("question", study.question)]
    if isinstance(study, GridStudy):
        product = f"{count(seen.configurations, 'configuration')} x {count(len(study.seeds), 'seed')}"
        lines.append(("trials", f"{seen.trials:,} = {product}"))
        lines += [(f"  {path}", _listed(values)) for path, values in study.varied.items()]
        total = "in all"
    else:
        lines.append(("trials", f"{seen.trials:,} proposed by {study.sampler.name}"))
        lines += [(f"  {path}", _distribution(parameter)) for path, parameter in study.space.items()]
        total = "if every trial were like base"
    lines += _size_in_words(study, seen, total)
    for position, need in enumerate(seen.needs):
        if need.state == "drawn":
            lines.append(("data" if position == 0 else "", f"{need.what}: generated, no files needed"))
            continue
        size = f", {need.size_bytes / 1e6:.1f} MB" if need.size_bytes is not None else ""
        lines.append(("data" if position == 0 else "", f"{need.what}: {need.state} ({need.where}{size})"))
    lines += [("note", note) for note in seen.notes]
    return lines


def _size_in_words(study: GridStudy | SearchStudy, seen: Preview, total: str) -> list[tuple[str, str]]:
    images = ", ".join(map(shape_in_words, seen.image_shapes or ())) or "size and colours known once they are read"
    lines = [("images", images)]
    if seen.params_total and seen.params_active:
        lines.append(("parameters", f"{_span(seen.params_total)}, {_span(seen.params_active)} active for an image"))
    else:
        lines.append(
            (
                "parameters",
                "known once the plug-in is imported" if seen.image_shapes else "known once the images are read",
            )
        )
    lines.append(
        ("training images", _span(seen.train_images) if seen.train_images else "known once the files are read")
    )
    if seen.flops is not None:
        lines.append(("training", f"{seen.flops:.3g} FLOPs {total}"))
    if seen.memory is not None:
        low, high = map(in_gb, seen.memory)
        on_gpu = ", most of it on the GPU" if study.base.resources.gpus else ""
        lines.append(("memory", f"about {low if low == high else f'{low} to {high}'} per trial at its peak{on_gpu}"))
    return lines


def _notes(plan: StudyPlan, trials: Sequence[TrialSpec]) -> Iterable[str]:
    study = plan.study
    if isinstance(study, SearchStudy) and plan.total < study.num_trials:
        space = count(plan.total, "trial")
        yield f"the space has {space}, fewer than num_trials ({study.num_trials}): each is trained once"
    longest = max((_epochs(trial) for trial in trials), default=math.inf)
    graces = {"collapse": study.collapse.grace_epochs} if study.collapse else {}
    if isinstance(study, SearchStudy) and study.pruner.name != "none":
        graces["pruner"] = study.pruner.grace_epochs
    for what, grace in graces.items():
        if grace >= longest:
            yield (
                f"{what}.grace_epochs is {grace}, but no trial is longer than {count(longest, 'epoch')}: none will be "
                "stopped early"
            )


def _epochs(trial: TrialSpec) -> float:
    """Epochs that the budget gives; infinite where only the data files can tell."""
    budget, images = trial.training.budget, planned_train_images(trial.data)
    if budget.unit == "epochs":
        return budget.amount
    return math.inf if images is None else math.ceil(budget.amount / math.ceil(images / trial.training.batch_size))


def _span(low_high: tuple[int, int]) -> str:
    low, high = low_high
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(json.dumps(value) if isinstance(value, dict) else str(value) for value in values)


def _distribution(parameter: Distribution) -> str:
    words = [parameter.type, str(parameter)]
    if not isinstance(parameter, Choices) and parameter.log:
        words.append("log")
    if isinstance(parameter, FloatRange) and parameter.step is not None:
        words.append(f"in steps of {parameter.step:g}")
    if parameter.when:
        conditions = (f"{path} is {' or '.join(map(str, wanted_values(parameter, path)))}" for path in parameter.when)
        words.append(f"where {' and '.join(conditions)}")
    return ", ".join(words)


def _images_of(data: DataSpec) -> str:
    """What tells data apart that a study needs, whatever part of them a trial sees."""
    return data.model_dump_json(exclude={"fraction", "imbalance"})


def _without_seed(trial: TrialSpec) -> str:
    return trial.model_copy(update={"seed": 0}).model_dump_json()


def _is_unknown(part: Spec, load_plugins: bool) -> bool:
    """Whether only a plug-in can tell, and is not imported."""
    return not load_plugins and (isinstance(part, PluginReference) or any(plugin_references(part)))


def _train_images(trial: TrialSpec, load_plugins: bool) -> int | None:
    if isinstance(trial.data, PluginData) and load_plugins:
        return planned_train_images(trial.data.resolve()[1])
    return planned_train_images(trial.data)


def _cost(trial: TrialSpec, load_plugins: bool) -> Cost | None:
    image_shape = _image_shape(trial.data, load_plugins)
    if image_shape is None or _is_unknown(trial.model, load_plugins):
        return None
    return model_cost(trial.model, image_shape)


def _image_shape(data: DataSpec, load_plugins: bool) -> ImageShape | None:
    return None if _is_unknown(data, load_plugins) else data.image_shape


def _training_flops(trial: TrialSpec, load_plugins: bool) -> float | None:
    train_images, cost = _train_images(trial, load_plugins), _cost(trial, load_plugins)
    if train_images is None or cost is None or _is_unknown(trial.objective, load_plugins):
        return None
    budget = trial.training.budget
    per_image = flops_of_training(cost, trial.objective)
    steps_per_epoch = math.ceil(train_images / trial.training.batch_size)
    return budget.steps(steps_per_epoch) / steps_per_epoch * train_images * per_image


def _memory(trials: Sequence[TrialSpec], load_plugins: bool) -> tuple[int, int] | None:
    peaks = _all_known(_peak_memory(trial, load_plugins) for trial in _without_seeds(trials))
    return _range(peaks) if peaks else None


def _without_seeds(trials: Sequence[TrialSpec]) -> Iterable[TrialSpec]:
    """One of each configuration, whose seeds need the same."""
    return {_without_seed(trial): trial for trial in trials}.values()


def _peak_memory(trial: TrialSpec, load_plugins: bool) -> int | None:
    image_shape = _image_shape(trial.data, load_plugins)
    if image_shape is None or _is_unknown(trial.model, load_plugins) or _is_unknown(trial.objective, load_plugins):
        return None
    per_class = trial.data.test_per_class or 0
    test_images = per_class * len(trial.data.classes or ())
    return trial_memory(trial, image_shape, _train_images(trial, load_plugins) or 0, test_images).peak


def _all_known(values: Iterable[_Known | None]) -> list[_Known] | None:
    values = list(values)
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _range(values: Iterable[int]) -> tuple[int, int]:
    values = list(values)
    return min(values), max(values)


def _needs(specs: Iterable[DataSpec], load_plugins: bool) -> tuple[DataRequirement, ...]:
    """Each file once, however many trials read it."""
    distinct = {_images_of(spec): spec for spec in specs}
    needs: dict[DataRequirement, None] = {}
    for spec in distinct.values():
        if _is_unknown(spec, load_plugins):
            needs |= {DataRequirement("images of a plug-in", "known once it is imported", "remote"): None}
        else:
            needs |= dict.fromkeys(requirements(spec))
    return tuple(needs)
