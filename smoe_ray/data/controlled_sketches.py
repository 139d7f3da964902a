"""Controlled sketches: drawings of one simple figure, of which one parameter is varied at a time. For tuning curves.

The figure is a patch of strokes that run side by side from left to right, each a curve. Its base parameters are drawn
at random, once per repeat; then each parameter in turn takes its values while the others stay as drawn. So the sketches
of a repeat differ in one parameter alone, and a curve is a mean over repeats. Strokes are turned, fitted, given tremor
and rasterised by the synthetic sketches' own code (`data.sources.synthetic`).

Shapes: R repeats, V values of a parameter, N = sum of R x V sketches, B drawings, C H W an image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.data.sources.synthetic import Strokes, curve, fit, rasterise, tremor, turn
from smoe_ray.spec import DrawingColours, ImageShape

Array = npt.NDArray[np.float64]

REPEATS = 16

_TREMOR = 0.4
"""Root mean square displacement of the pen, in pixels of the 56x56 canvas: a steady hand."""


class Parameter(NamedTuple):
    """A parameter of the figure."""

    name: str
    unit: str
    values: tuple[float, ...]
    """At which the figure is drawn."""
    base: tuple[float, float]
    """Range of the base value, which is drawn uniformly; of `strokes` an integer, both ends included."""


def _steps(first: float, last: float, count: int) -> tuple[float, ...]:
    return tuple(np.linspace(first, last, count).round(6).tolist())


PARAMETERS = (
    Parameter("orientation", "degrees from the horizontal, counter-clockwise", _steps(0, 168.75, 16), (0, 180)),
    Parameter("size", "longer side of the figure, share of the image", _steps(0.3, 0.9, 7), (0.55, 0.8)),
    Parameter("aspect", "length of the strokes / width of the patch", (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0), (0.8, 1.6)),
    Parameter("strokes", "number of strokes", (1, 2, 3, 4, 5, 6, 7, 8), (2, 5)),
    Parameter("curvature", "bulge of a stroke / its length", _steps(0, 0.6, 7), (0, 0.3)),
    Parameter("symmetry", "width of the patch at its end / at its beginning", _steps(0, 1, 7), (0.6, 1)),
    Parameter("ink", "width of the pen, pixels of the 56x56 canvas", (1, 2, 3, 4, 5, 6, 8), (2, 4)),
)  # fmt: skip


class ControlledSketches(NamedTuple):
    """Sketches, each with the one parameter that was set, and to what."""

    image: npt.NDArray[np.uint8]
    """(N, H, W), or (N, 3, H, W) for images in colour."""
    parameter: npt.NDArray[np.int64]
    """(N,): place in `PARAMETERS`."""
    value: npt.NDArray[np.float32]
    """(N,): in the parameter's unit."""
    repeat: npt.NDArray[np.int64]
    """(N,): sketches of one repeat have the same base."""


def controlled_sketches(image_shape: ImageShape, ink: DrawingColours, seed: int = 0) -> ControlledSketches:
    """Draw `PARAMETERS` at their values, `REPEATS` times each, in the format of a trial's images.

    Args:
        image_shape: (C, H, W). The canvas is the largest square in the middle of the image.
        ink: colours of strokes and paper.
        seed: of base parameters and tremor.
    """
    rng = np.random.default_rng(seed)
    base = {each.name: _base(each, rng) for each in PARAMETERS}
    parts = [_varied(number, base) for number in range(len(PARAMETERS))]
    values = {name: np.concatenate([part[name] for part in parts]) for name in base}
    index = np.repeat(np.arange(len(PARAMETERS)), [REPEATS * len(each.values) for each in PARAMETERS])
    value = np.array([values[PARAMETERS[number].name][place] for place, number in enumerate(index)], np.float32)
    repeat = np.concatenate([np.arange(REPEATS)] * sum(len(each.values) for each in PARAMETERS))
    return ControlledSketches(_draw(values, image_shape, ink, seed), index, value, repeat)


def _base(parameter: Parameter, rng: np.random.Generator) -> Array:
    low, high = parameter.base
    drawn: Array = rng.uniform(low, high, REPEATS)
    if parameter.name == "strokes":
        drawn = rng.integers(int(low), int(high), REPEATS, endpoint=True).astype(np.float64)
    return drawn


def _varied(number: int, base: dict[str, Array]) -> dict[str, Array]:
    """Parameters of the sketches in which parameter `number` takes its values: (V R,) each, value by value."""
    varied = PARAMETERS[number]
    tiled = {name: np.tile(drawn, len(varied.values)) for name, drawn in base.items()}
    return tiled | {varied.name: np.repeat(np.array(varied.values, np.float64), REPEATS)}


def _draw(values: dict[str, Array], image_shape: ImageShape, ink: DrawingColours, seed: int) -> npt.NDArray[np.uint8]:
    channels, height, width = image_shape
    side = min(height, width)
    strokes = _strokes(values)
    lengths = [stroke.shape[1] for stroke in strokes]
    path_BN2 = fit(turn(np.concatenate(strokes, axis=1), values["orientation"]), values["size"])
    path_BN2 = path_BN2 + _tremor_of_each_repeat(path_BN2, seed)
    drawn = rasterise(np.split(path_BN2, np.cumsum(lengths)[:-1], axis=1), side, values["ink"])
    image_BHW = np.full((len(drawn), height, width), 255, np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    image_BHW[:, top : top + side, left : left + side] = drawn
    if ink == "white_on_black":
        np.subtract(255, image_BHW, out=image_BHW)
    return image_BHW if channels == 1 else np.repeat(image_BHW[:, None], channels, axis=1)


def _tremor_of_each_repeat(path_BN2: Array, seed: int) -> Array:
    """Tremor that is the same in all sketches of a repeat: it must not tell one value of a parameter from another."""
    blocks = path_BN2.reshape(-1, REPEATS, *path_BN2.shape[1:])
    amplitude_R = np.full(REPEATS, _TREMOR)
    return np.concatenate([tremor(block, amplitude_R, np.random.default_rng((seed, 1))) for block in blocks])


def _strokes(values: dict[str, Array]) -> Strokes:
    """Strokes of the figure around the origin: length 2, side by side over the width 2 / aspect; NaN for those beyond
    the number of strokes.
    """
    most = int(max(values["strokes"]))
    return [_stroke(values, number) for number in range(most)]


def _stroke(values: dict[str, Array], number: int) -> Array:
    count, half = values["strokes"], 1 / values["aspect"]
    place = np.where(count > 1, 2 * number / np.maximum(count - 1, 1) - 1, 0.0)
    begin, end = half * place, half * place * values["symmetry"]
    bulge = 4 * values["curvature"]  # of the control point: the curve itself reaches half of it, its length is 2
    # Without symmetry the bulge leans towards the beginning, where the patch is wide.
    path = curve((-1, begin), (values["symmetry"] - 1, (begin + end) / 2 + bulge), (1, end))
    return np.where((number < count)[:, None, None], path, np.nan)
