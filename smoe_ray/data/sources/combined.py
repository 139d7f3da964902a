"""Data source `combined`: several sources as one, with distinct labels.

Shapes: B images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from smoe_ray.data.dataset import Dataset, Splits, shape_in_words
from smoe_ray.data.image_format import nearest_side
from smoe_ray.data.source import Content, DataRequirement, ReadContext
from smoe_ray.data.sources import source_reader
from smoe_ray.errors import DataError
from smoe_ray.spec import CombinedData
from smoe_ray.spec.messages import nearest


def requirements(spec: CombinedData) -> tuple[DataRequirement, ...]:
    """The requirements of all parts."""
    return tuple(
        replace(requirement, what=f"{name}: {requirement.what}")
        for name, part in spec.parts.items()
        for requirement in source_reader(part).requirements(part)
    )


def find(spec: CombinedData, context: ReadContext) -> dict[str, Splits]:
    """The parts by name, each prepared, with its own `fraction` and `imbalance` applied."""
    return {name: context.load(part) for name, part in spec.parts.items()}


def key(_spec: CombinedData, parts: Mapping[str, Splits], _context: ReadContext) -> list[str]:
    """The fingerprint of each part, in order."""
    return [part.fingerprint for part in parts.values()]


def read(spec: CombinedData, parts: Mapping[str, Splits], _context: ReadContext) -> Content:
    """The classes of all parts, named ``<part>/<class>``, or those that `spec` chooses.

    Styles are kept if all parts have them, parameters if all parts have the same ones.

    Raises:
        DataError: the parts' images differ in shape, or a class is absent or has fewer images than the spec requires.
    """
    _refuse_several_shapes(spec, parts)
    places = {
        f"{part}/{name}": (part, label) for part, data in parts.items() for label, name in enumerate(data.class_names)
    }
    names = spec.classes or tuple(places)
    for name in names:
        if name not in places:
            hint = nearest(name, places) or f"; there are: {', '.join(list(places)[:20])}"
            raise DataError(f"data.classes: no class '{name}'{hint}")
    chosen = {name: places[name] for name in names}
    sets = list(parts.values())
    styled = all(data.style_names for data in sets)
    measured = len({data.parameter_names for data in sets}) == 1 and bool(sets[0].parameter_names)
    return Content(
        train=_join(parts, chosen, "train", spec.train_per_class, styled, measured),
        test=_join(parts, chosen, "test", spec.test_per_class, styled, measured),
        class_names=names,
        style_names=tuple(f"{p}/{style}" for p, data in parts.items() for style in data.style_names) if styled else (),
        parameter_names=sets[0].parameter_names if measured else (),
        notes=tuple(f"{part}: {note}" for part, data in parts.items() for note in data.notes),
    )


def _refuse_several_shapes(spec: CombinedData, parts: Mapping[str, Splits]) -> None:
    """Name the parts and say which format would suit all: that of a part that has no choice, else of the first."""
    shapes = {name: data.train.image_shape for name, data in parts.items()}
    if len(set(shapes.values())) == 1:
        return
    found = ", ".join(f"{name} {shape_in_words(shape)}" for name, shape in shapes.items())
    fixed = [shape for name, shape in shapes.items() if not hasattr(spec.parts[name], "image")]
    channels, height, width = (fixed or list(shapes.values()))[0]
    side = height if height == width else nearest_side(height, width)
    wanted = (channels, side, side)
    if any(shape != wanted for shape in fixed):
        raise DataError(f"data.parts: images differ in shape: {found}; leave out parts until all agree")
    image = f"{{size: {side}, channels: {'grey' if channels == 1 else 'rgb'}}}"
    where = " and ".join(f"data.parts.{name}.image" for name, shape in shapes.items() if shape != wanted)
    raise DataError(f"data.parts: images differ in shape: {found}; set {where} to {image}")


def _join(
    parts: Mapping[str, Splits],
    chosen: Mapping[str, tuple[str, int]],
    which: Literal["train", "test"],
    wanted: int | None,
    styled: bool,
    measured: bool,
) -> Dataset:
    first_style = dict(zip(parts, np.cumsum([0, *(len(data.style_names) for data in parts.values())]), strict=False))
    image, count, style, parameter = [], [], [], []
    for name, (part, label) in chosen.items():
        data: Dataset = getattr(parts[part], which)
        index = np.flatnonzero(data.label_B == label)
        if wanted is not None and len(index) < wanted:
            raise DataError(
                f"data: class '{name}' has {len(index):,} {which} images, {wanted:,} are needed; "
                f"lower data.{which}_per_class"
            )
        index = index[:wanted]
        count.append(len(index))
        image.append(data.image_BHW[index])
        if styled and data.style_B is not None:
            style.append(data.style_B[index] + first_style[part])
        if measured and data.parameter_BP is not None:
            parameter.append(data.parameter_BP[index])
    return Dataset(
        image_BHW=np.concatenate(image),
        label_B=np.repeat(np.arange(len(count), dtype=np.int64), count),
        style_B=np.concatenate(style) if style else None,
        parameter_BP=np.concatenate(parameter) if parameter else None,
    )
