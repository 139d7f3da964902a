"""Data source `synthetic`: sketches drawn by this package, whose class, style and parameters are all known.

A *family* (face, eye, cat, snowflake, pencil) is one class. Its *styles* are the sub-categories that a model might
discover; `FAMILIES` lists them. A style is a function that turns a batch of parameters into pen strokes, together with
the range of each parameter. Strokes are then rotated, scaled, given hand tremor and rasterised as arXiv:2509.10025
rasterises its drawings (3 px lines on a 56x56 canvas, centred, LANCZOS to 28x28), except that a drawing fills 0.55 to
0.8 of the canvas instead of always 0.8, so that size is a real parameter.

Shapes: B drawings, N points of a stroke or path, V control points, K waves, 2 coordinates x (right) and y (up), H W
pixels, P parameters. A family draws around the origin, in its own units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from smoe_ray.data.dataset import IMAGE_SIDE, Dataset
from smoe_ray.data.source import Content, DataRequirement, ReadContext
from smoe_ray.spec import SyntheticData

DRAWING_VERSION = 1
"""Incremented whenever the same spec would give other pixels or parameters; part of the cache key."""

PARAMETER_NAMES = ("orientation", "size", "aspect", "curvature", "detail", "parts", "strokes", "jitter")
"""The columns of `Dataset.parameter_BP`; docs/synthetic.md says what each means for each family.

- orientation: degrees counter-clockwise from upright; of a pencil, of its long axis from the horizontal
- size: longer side of the bounding box of the pen's path, as a share of the canvas
- aspect: width / height of the main shape, before rotation
- curvature: bulge of the family's curved feature, relative to its own extent
- detail: size of the family's inner feature, relative to the main shape
- parts: number of the family's repeated features
- strokes: number of pen strokes
- jitter: root mean square displacement of the pen by tremor, in pixels of the 56x56 canvas
"""

CANVAS_SIDE = 56
LINE_WIDTH = 3
SIZE_RANGE = (0.55, 0.80)

Array: TypeAlias = npt.NDArray[np.float64]
Scalar: TypeAlias = float | Array
"""One number for all drawings, or one per drawing (B)."""
Parameters: TypeAlias = Mapping[str, Array]
Strokes: TypeAlias = list[Array]
"""Each (B, N, 2), or (1, N, 2) where all drawings share it; NaN where a drawing lacks that stroke."""

# Drawings come in chunks with one random generator each, so that a larger set begins with the same drawings. A multiple
# of every family's number of styles, so that chunks keep the styles balanced.
_CHUNK = 240


# --- the source -------------------------------------------------------------------------------------------------------


def requirements(spec: SyntheticData) -> tuple[DataRequirement, ...]:
    """Nothing on disk: the drawings are generated."""
    drawings = len(spec.classes) * (spec.train_per_class + spec.test_per_class)
    return (DataRequirement(f"{drawings:,} synthetic sketches", "drawn here", "drawn"),)


def find(_spec: SyntheticData, _context: ReadContext) -> None:
    """Nothing to find."""


def key(_spec: SyntheticData, _found: None, _context: ReadContext) -> list[str]:
    """The version of the drawings: spec and code determine everything else."""
    return [f"drawing version {DRAWING_VERSION}"]


def read(spec: SyntheticData, _found: None, _context: ReadContext) -> Content:
    """The drawings that `spec` describes."""
    train, test, styles, parameter_names = draw(spec)
    return Content(train, test, spec.classes, styles, parameter_names)


# --- pen strokes ------------------------------------------------------------------------------------------------------


def _mix(weight_NV: Array, vertices: tuple[tuple[Scalar, Scalar], ...]) -> Array:
    """Points as weighted means of `vertices`, each an (x, y) of `Scalar`s."""
    xyxy = np.broadcast_arrays(*(np.atleast_1d(value) for vertex in vertices for value in vertex))
    x_VB, y_VB = np.stack(xyxy[0::2]), np.stack(xyxy[1::2])
    return np.stack([(weight_NV @ x_VB).T, (weight_NV @ y_VB).T], axis=-1)


def _line(*vertices: tuple[Scalar, Scalar], points: int = 8) -> Array:
    """Straight lines from vertex to vertex, `points` steps each: tremor needs points between the corners."""
    last = len(vertices) - 1
    position_N1 = np.linspace(0, last, last * points + 1)[:, None]
    return _mix(np.maximum(0, 1 - np.abs(position_N1 - np.arange(last + 1))), vertices)


def curve(*vertices: tuple[Scalar, Scalar], points: int = 16) -> Array:
    """Bezier curve with any number of control points: (B, points + 1, 2)."""
    degree = len(vertices) - 1
    t_N = np.linspace(0, 1, points + 1)
    return _mix(
        np.stack([math.comb(degree, v) * t_N**v * (1 - t_N) ** (degree - v) for v in range(degree + 1)], axis=1),
        vertices,
    )


def _arc(
    x: Scalar,
    y: Scalar,
    radius_x: Scalar,
    radius_y: Scalar,
    start: Scalar = 90.0,
    sweep: Scalar = 360.0,
    points: int = 24,
) -> Array:
    """Part of an ellipse around (x, y), from `start` through `sweep` degrees counter-clockwise."""
    x, y, radius_x, radius_y, start, sweep = (
        np.atleast_1d(value)[:, None] for value in (x, y, radius_x, radius_y, start, sweep)
    )
    angle_BN = np.radians(start + sweep * np.linspace(0, 1, points + 1))
    x_BN, y_BN = np.broadcast_arrays(x + radius_x * np.cos(angle_BN), y + radius_y * np.sin(angle_BN))
    return np.stack([x_BN, y_BN], axis=-1)


def _outline(rng: Generator, size: int, x: Scalar, y: Scalar, radius_x: Scalar, radius_y: Scalar) -> Array:
    """A hand-drawn ellipse: it starts near the top and ends a little early or late."""
    return _arc(x, y, radius_x, radius_y, 90 + rng.uniform(-40, 40, size), rng.normal(360, 8, size), points=32)


def _dot(x: Scalar, y: Scalar, radius: Scalar) -> Array:
    return _arc(x, y, radius, radius, points=8)


def _only(present_B: npt.NDArray[np.bool_], stroke: Array) -> Array:
    """`stroke` where present, NaN elsewhere."""
    return np.where(present_B[:, None, None], stroke, np.nan)


def _polar(angle: Scalar, radius_x: Scalar, radius_y: Scalar) -> tuple[Scalar, Scalar]:
    return radius_x * np.cos(np.radians(angle)), radius_y * np.sin(np.radians(angle))


# --- families ---------------------------------------------------------------------------------------------------------
# What `rng` varies below is unrecorded variation between people; what is recorded is in the parameters.


def _face(p: Parameters, rng: Generator) -> Strokes:
    """Head of half-height 1, two eyes of radius `detail`, mouth with depth/half-width `curvature` (smiling > 0)."""
    count = len(p["aspect"])
    eye_x, eye_y = p["aspect"] * rng.uniform(0.32, 0.45, count), rng.uniform(0.15, 0.40, count)
    mouth_x, mouth_y = p["aspect"] * rng.uniform(0.38, 0.58, count), rng.uniform(-0.5, -0.3, count)
    depth = p["curvature"] * mouth_x
    return [
        _outline(rng, count, 0, 0, p["aspect"], 1),
        _dot(-eye_x, eye_y, p["detail"]),
        _dot(eye_x, eye_y, p["detail"]),
        curve((-mouth_x, mouth_y + depth / 2), (0, mouth_y - 1.5 * depth), (mouth_x, mouth_y + depth / 2)),
    ]


def _face_with_ears(p: Parameters, rng: Generator) -> Strokes:
    ear = rng.uniform(0.18, 0.28, len(p["aspect"]))
    ears = [_arc(side * p["aspect"], 0.05, ear, 1.3 * ear, 90, side * -180.0, points=12) for side in (-1, 1)]
    nose = _line((0, 0.15), (-0.14, -0.2), (0.08, -0.2))
    return [*_face(p, rng), nose, *ears]


def _face_with_spikes(p: Parameters, rng: Generator) -> Strokes:
    """Hair: `parts` spikes over the top of the head."""
    strokes, length = _face(p, rng), rng.uniform(0.35, 0.55, len(p["aspect"]))
    for spike in range(9):
        angle = 150 - 120 * spike / (p["parts"] - 1)
        root, end = _polar(angle, p["aspect"], 1), _polar(angle, p["aspect"] + length, 1 + length)
        strokes.append(_only(spike < p["parts"], _line(root, end)))
    return strokes


def _face_with_long_hair(p: Parameters, rng: Generator) -> Strokes:
    """Hair: a fringe, and `parts` locks on each side."""
    strokes, width, count = _face(p, rng), p["aspect"], len(p["aspect"])
    end = rng.uniform(-1.4, -0.9, count)
    for side in (-1, 1):
        strokes.append(curve((0, 1), (side * 0.5 * width, 0.8), (side * 0.95 * width, 0.3)))
        for lock in range(2):
            out = side * (width + 0.1 + 0.25 * lock)
            path = curve((0, 1), (out, 1.35 + 0.1 * lock), (1.25 * out, 0.3), (out, end))
            strokes.append(_only(lock < p["parts"], path))
    return strokes


def _eye(p: Parameters, rng: Generator) -> Strokes:
    """Almond of half-width `aspect` and height 2, iris of radius `detail`, pupil."""
    count, width = len(p["aspect"]), p["aspect"]
    upper, gaze = rng.uniform(0.9, 1.2, count), rng.uniform(-0.2, 0.2, count) * width
    lower = 2 - upper
    middle = (upper - lower) / 2
    return [
        curve((-width, 0), (0, 2 * upper), (width, 0)),
        curve((width, 0), (0, -2 * lower), (-width, 0)),
        _outline(rng, count, gaze, middle, p["detail"], p["detail"]),
        _dot(gaze, middle, 0.12),
    ]


def _lashes(p: Parameters, rng: Generator, height: float) -> Strokes:
    """`parts` lashes, fanned out along a lid that rises (or hangs) by `height` between the corners."""
    strokes, length = [], rng.uniform(0.6, 0.9, len(p["aspect"]))
    for lash in range(8):
        t = 0.12 + 0.76 * lash / (p["parts"] - 1)  # position along the lid, a parabola
        x, y = (2 * t - 1) * p["aspect"], 4 * t * (1 - t) * height
        dx, dy = _polar(140 - 100 * t, length, length)
        strokes.append(_only(lash < p["parts"], _line((x, y), (x + dx, y + math.copysign(1, height) * dy))))
    return strokes


def _eye_with_lashes(p: Parameters, rng: Generator) -> Strokes:
    return [*_eye(p, rng), *_lashes(p, rng, height=1)]


def _eye_with_brow(p: Parameters, rng: Generator) -> Strokes:
    """A brow above that rises by `curvature` times its half-width."""
    width, y = p["aspect"], rng.uniform(1.3, 1.6, len(p["aspect"]))
    return [*_eye(p, rng), curve((-width, y), (0, y + 2 * p["curvature"] * width), (width, y))]


def _closed_eye(p: Parameters, rng: Generator) -> Strokes:
    width = p["aspect"]
    return [curve((-width, 0), (0, -4), (width, 0)), *_lashes(p, rng, height=-2)]


def _cat_head(p: Parameters, rng: Generator, x: Scalar, y: Scalar, radius_x: Scalar, radius_y: Scalar) -> Strokes:
    """Outline with two pointed ears that stand out by `detail` times the head's radius."""
    strokes = [_outline(rng, len(p["detail"]), x, y, radius_x, radius_y)]
    for first, middle, last in ((155, 135, 105), (25, 45, 75)):
        foot, tip, other = (
            _polar(angle, reach * radius_x, reach * radius_y)
            for angle, reach in ((first, 1), (middle, 1 + p["detail"]), (last, 1))
        )
        strokes.append(_line(*((x + dx, y + dy) for dx, dy in (foot, tip, other))))
    return strokes


def _cat_face(p: Parameters, rng: Generator) -> Strokes:
    """Head of half-height 1 with eyes, nose, mouth and `parts` whiskers on each side."""
    count, width = len(p["aspect"]), p["aspect"]
    eye_x, eye_y = width * rng.uniform(0.33, 0.45, count), rng.uniform(0.2, 0.4, count)
    strokes = _cat_head(p, rng, 0, 0, width, 1)
    strokes += [_dot(side * eye_x, eye_y, 0.1) for side in (-1, 1)]
    strokes.append(_line((-0.12, -0.1), (0.12, -0.1), (0, -0.25), (-0.12, -0.1), points=3))
    strokes += [_arc(side * 0.17, -0.3, 0.17, 0.25, 180, 180, points=8) for side in (-1, 1)]
    reach, spread = width * rng.uniform(1.2, 1.5, count), rng.uniform(0.15, 0.3, count)
    for side in (-1, 1):
        for whisker in range(3):
            tilt = spread * (whisker - (p["parts"] - 1) / 2)
            path = _line((side * 0.55 * width, -0.2 + 0.4 * tilt), (side * reach, -0.15 + 1.6 * tilt))
            strokes.append(_only(whisker < p["parts"], path))
    return strokes


def _sitting_cat(p: Parameters, rng: Generator) -> Strokes:
    """Seen from the front: body with half-height 1, head on top, two legs, a tail curled by `curvature`."""
    count, width = len(p["aspect"]), p["aspect"]
    side = rng.choice([-1.0, 1.0], count)
    head = rng.uniform(0.5, 0.6, count)
    y = 1 + 0.75 * head
    tail = side * (width + 0.75)
    return [
        *_cat_head(p, rng, 0, y, 1.15 * head, head),
        *(_dot(eye * 0.4 * head, y + 0.1, 0.06) for eye in (-1, 1)),
        _outline(rng, count, 0, 0, width, 1),
        *(_line((leg * 0.3 * width, -0.2), (leg * 0.3 * width, -1)) for leg in (-1, 1)),
        curve((side * 0.8 * width, -0.7), (tail, -1.1), (1.2 * tail, 0.2), (tail - side * p["curvature"], 0.7)),
    ]


def _walking_cat(p: Parameters, rng: Generator) -> Strokes:
    """Seen from the side: body with half-height 0.5, head at one end, four legs, a raised tail."""
    count, half = len(p["aspect"]), 0.5 * p["aspect"]
    side = rng.choice([-1.0, 1.0], count)
    head, leg = rng.uniform(0.4, 0.5, count), rng.uniform(0.6, 0.9, count)
    x, y = side * (half + 0.6 * head), 0.45
    back = -side * half
    return [
        *_cat_head(p, rng, x, y, 1.1 * head, head),
        *(_dot(x + eye * 0.4 * head, y + 0.05, 0.04) for eye in (-1, 1)),
        _outline(rng, count, 0, 0, half, 0.5),
        *(_line((at * half, -0.35), (at * half, -0.4 - leg)) for at in (-0.75, -0.45, 0.45, 0.75)),
        curve((back, 0.1), (1.5 * back, 0.2), (1.5 * back, 1.0), (back * (1.5 - p["curvature"]), 1.2)),
    ]


def _snowflake(p: Parameters, rng: Generator) -> Strokes:
    """`parts` arms of length about 1, drawn as lines through the centre."""
    strokes = []
    for line in range(4):
        angle, (up, down) = _arm_angle(p, line), rng.normal(1, 0.06, (2, len(p["parts"])))
        strokes.append(
            _only(line < p["parts"] / 2, _line(_polar(angle, up, up), _polar(angle, -down, -down), points=16))
        )
    return strokes


def _arm_angle(p: Parameters, arm: int) -> Array:
    return 90 + 360 * arm / p["parts"]


def _branched_snowflake(p: Parameters, rng: Generator) -> Strokes:
    """Six arms, each with a V whose sides have length `detail`."""
    strokes, base = _snowflake(p, rng), rng.uniform(0.5, 0.65, len(p["parts"]))
    for arm in range(6):
        angle = _arm_angle(p, arm)
        x, y = _polar(angle, base, base)
        left, right = (_polar(angle + turn, p["detail"], p["detail"]) for turn in (55, -55))
        strokes.append(_line((x + left[0], y + left[1]), (x, y), (x + right[0], y + right[1])))
    return strokes


def _ringed_snowflake(p: Parameters, rng: Generator) -> Strokes:
    """Six arms and a hexagon with its corners on them, at distance `detail` from the centre."""
    corners = [_polar(_arm_angle(p, arm), p["detail"], p["detail"]) for arm in range(7)]
    return [*_snowflake(p, rng), _line(*corners, points=6)]


def _pencil(p: Parameters, rng: Generator) -> Strokes:
    """Length 2, tip of length 2 `detail`, an eraser's edge and `parts` lines along the body."""
    count, half = len(p["aspect"]), 1 / p["aspect"]
    end = rng.choice([-1.0, 1.0], count)
    tip, edge = end * (1 - 2 * p["detail"]), -end * rng.uniform(0.65, 0.8, count)
    strokes = [
        _line((tip, half), (-end, half), (-end, -half), (tip, -half)),
        _line((tip, half), (end, 0), (tip, -half)),
        _line((tip, half), (tip, -half)),
        _line((edge, half), (edge, -half)),
    ]
    for line in range(2):
        y = half * (2 * (line + 1) / (p["parts"] + 1) - 1)
        strokes.append(_only(line < p["parts"], _line((edge, y), (tip, y))))
    return strokes


class Style(NamedTuple):
    """How one sub-category is drawn, and the range of each of its parameters."""

    strokes: Callable[[Parameters, Generator], Strokes]
    ranges: Mapping[str, tuple[float, float]]
    """Uniform; `parts` is an integer, both ends included."""


_TILT = {"orientation": (-15, 15)}
_FACE = {**_TILT, "aspect": (0.75, 1.1), "detail": (0.08, 0.16), "curvature": (0.4, 1.0)}
_EYE = {**_TILT, "aspect": (1.5, 2.4), "detail": (0.45, 0.75)}
_CAT = {**_TILT, "detail": (0.6, 1.1), "curvature": (0.2, 0.8)}
_PENCIL = {"aspect": (3.0, 5.0), "detail": (0.15, 0.28), "parts": (0, 2)}

FAMILIES: Mapping[str, Mapping[str, Style]] = {
    "face": {
        "smile": Style(_face, _FACE),
        "ears": Style(_face_with_ears, {**_FACE, "curvature": (-0.3, 0.1)}),
        "spiky-hair": Style(_face_with_spikes, {**_FACE, "parts": (5, 9)}),
        "long-hair": Style(_face_with_long_hair, {**_FACE, "parts": (1, 2)}),
    },
    "eye": {
        "plain": Style(_eye, _EYE),
        "lashes": Style(_eye_with_lashes, {**_EYE, "parts": (4, 8)}),
        "brow": Style(_eye_with_brow, {**_EYE, "curvature": (0.1, 0.4)}),
        "closed": Style(_closed_eye, {**_TILT, "aspect": (2.2, 3.4), "parts": (4, 8)}),
    },
    "cat": {
        "face": Style(_cat_face, {**_TILT, "detail": (0.6, 1.1), "aspect": (0.9, 1.3), "parts": (2, 3)}),
        "sitting": Style(_sitting_cat, {**_CAT, "aspect": (0.6, 0.85)}),
        "walking": Style(_walking_cat, {**_CAT, "aspect": (1.8, 2.6)}),
    },
    "snowflake": {
        "six": Style(_snowflake, {**_TILT, "parts": (6, 6)}),
        "eight": Style(_snowflake, {**_TILT, "parts": (8, 8)}),
        "branched": Style(_branched_snowflake, {**_TILT, "parts": (6, 6), "detail": (0.25, 0.45)}),
        "hexagon": Style(_ringed_snowflake, {**_TILT, "parts": (6, 6), "detail": (0.4, 0.65)}),
    },
    "pencil": {
        "horizontal": Style(_pencil, {**_PENCIL, "orientation": (-15, 15)}),
        "rising": Style(_pencil, {**_PENCIL, "orientation": (30, 60)}),
        "vertical": Style(_pencil, {**_PENCIL, "orientation": (75, 105)}),
        "falling": Style(_pencil, {**_PENCIL, "orientation": (120, 150)}),
    },
}
"""Family -> style -> how to draw it. Seeds depend on the order of families and of styles: append, do not insert."""


# --- from strokes to pixels -------------------------------------------------------------------------------------------


def draw(spec: SyntheticData) -> tuple[Dataset, Dataset, tuple[str, ...], tuple[str, ...]]:
    """Draw the training and the test set that `spec` describes, at fraction 1 and without imbalance.

    Images are sorted by class, in the order of `spec.classes`; within a class styles are balanced and in random order,
    so that the first n images of a class are a balanced sample. A drawing depends on `drawing_seed`, its family, its
    split and its index within the class, not on what else is drawn.

    Returns:
        training set, test set, style names (``eye/lashes``; `Dataset.style_B` points into them), parameter names.
    """
    train, test = (
        _draw_split(spec, split, per_class)
        for split, per_class in enumerate((spec.train_per_class, spec.test_per_class))
    )
    return train, test, style_names(spec), PARAMETER_NAMES


def style_names(spec: SyntheticData) -> tuple[str, ...]:
    """``<class>/<style>`` of every style that is drawn."""
    return tuple(f"{family}/{style}" for family in spec.classes for style in FAMILIES[family])


def _draw_split(spec: SyntheticData, split: int, per_class: int) -> Dataset:
    total = per_class * len(spec.classes)
    image_BHW = np.empty((total, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    style_B = np.empty(total, np.int64)
    parameter_BP = np.empty((total, len(PARAMETER_NAMES)), np.float32)
    first_style = 0
    for label, family in enumerate(spec.classes):
        for first in range(0, per_class, _CHUNK):
            count = min(_CHUNK, per_class - first)
            seed = np.random.SeedSequence(
                spec.drawing_seed, spawn_key=(list(FAMILIES).index(family), split, first // _CHUNK)
            )
            chunk = _draw_chunk(FAMILIES[family], spec.jitter, np.random.default_rng(seed), count)
            here = slice(label * per_class + first, label * per_class + first + count)
            image_BHW[here], style_B[here], parameter_BP[here] = chunk
            style_B[here] += first_style
        first_style += len(FAMILIES[family])
    if spec.ink == "white_on_black":
        np.subtract(255, image_BHW, out=image_BHW)
    return Dataset(image_BHW, np.repeat(np.arange(len(spec.classes)), per_class), style_B, parameter_BP)


def _draw_chunk(
    styles: Mapping[str, Style], jitter: float, rng: Generator, count: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], Array]:
    """The first `count` drawings of a chunk. Geometry is computed for the whole chunk, pixels for these only."""
    rounds = _CHUNK // len(styles)
    style_B = rng.permuted(np.tile(np.arange(len(styles)), (rounds, 1)), axis=1).ravel()
    image_BHW = np.empty((_CHUNK, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    parameter_BP = np.full((_CHUNK, len(PARAMETER_NAMES)), np.nan)
    for index, style in enumerate(styles.values()):
        (member_B,) = np.nonzero(style_B == index)
        p = {name: _uniform(rng, name, bounds, rounds) for name, bounds in style.ranges.items()}
        p["size"] = rng.uniform(*SIZE_RANGE, rounds)
        p["jitter"] = jitter * rng.uniform(0.5, 1.5, rounds)
        strokes = style.strokes(p, rng)
        lengths = [stroke.shape[1] for stroke in strokes]
        path_BN2 = np.concatenate([np.broadcast_to(s, (rounds, *s.shape[1:])) for s in strokes], axis=1)
        path_BN2 = fit(turn(path_BN2, p["orientation"]), p["size"])
        path_BN2 = fit(path_BN2 + tremor(path_BN2, p["jitter"], rng), p["size"])
        strokes = np.split(path_BN2, np.cumsum(lengths)[:-1], axis=1)
        p["strokes"] = np.sum([np.isfinite(stroke[:, 0, 0]) for stroke in strokes], axis=0).astype(float)
        for name, value_B in p.items():
            parameter_BP[member_B, PARAMETER_NAMES.index(name)] = value_B
        wanted = int(np.sum(member_B < count))
        image_BHW[member_B[:wanted]] = rasterise([stroke[:wanted] for stroke in strokes])
    return image_BHW[:count], style_B[:count], parameter_BP[:count]


def _uniform(rng: Generator, name: str, bounds: tuple[float, float], size: int) -> Array:
    if name == "parts":
        return rng.integers(int(bounds[0]), int(bounds[1]), size, endpoint=True).astype(np.float64)
    return rng.uniform(*bounds, size)


def turn(path_BN2: Array, degrees_B: Array) -> Array:
    """Paths turned counter-clockwise around the origin."""
    cos_B1, sin_B1 = np.cos(np.radians(degrees_B))[:, None], np.sin(np.radians(degrees_B))[:, None]
    x_BN, y_BN = path_BN2[..., 0], path_BN2[..., 1]
    return np.stack([cos_B1 * x_BN - sin_B1 * y_BN, sin_B1 * x_BN + cos_B1 * y_BN], axis=-1)


def fit(path_BN2: Array, size_B: Array) -> Array:
    """Centred on the origin, with a bounding box whose longer side is `size_B` of the canvas, in pixels."""
    low_B12, high_B12 = np.nanmin(path_BN2, axis=1, keepdims=True), np.nanmax(path_BN2, axis=1, keepdims=True)
    scale_B11 = CANVAS_SIDE * size_B[:, None, None] / np.max(high_B12 - low_B12, axis=2, keepdims=True)
    fitted_BN2: Array = (path_BN2 - (low_B12 + high_B12) / 2) * scale_B11
    return fitted_BN2


def tremor(path_BN2: Array, jitter_B: Array, rng: Generator) -> Array:
    """Smooth displacement with root mean square length `jitter_B`, in pixels.

    A sum of waves along the pen's path, with amplitude proportional to wavelength: short waves bend a stroke, long ones
    displace it, so that outlines do not close exactly.
    """
    step_BN = np.linalg.norm(np.diff(path_BN2, axis=1, prepend=path_BN2[:, :1]), axis=2)
    travelled_BN = np.cumsum(np.nan_to_num(step_BN), axis=1)
    length_BK = np.exp(rng.uniform(np.log(10), np.log(80), (len(path_BN2), 5)))
    phase_2BK = rng.uniform(0, 2 * np.pi, (2, *length_BK.shape))
    amplitude_BK = length_BK * (jitter_B / np.linalg.norm(length_BK, axis=1))[:, None]
    angle_BNK = 2 * np.pi * travelled_BN[:, :, None] / length_BK[:, None]
    return np.stack(
        [np.einsum("bnk,bk->bn", np.cos(angle_BNK + phase_BK[:, None]), amplitude_BK) for phase_BK in phase_2BK],
        axis=-1,
    )


def rasterise(strokes: Strokes, side: int = IMAGE_SIDE, width_B: Array | None = None) -> npt.NDArray[np.uint8]:
    """Black lines on white: (B, N, 2) paths in pixels of the 56x56 canvas around the origin, y up, to (B, side, side).

    `width_B` is the width of the lines, in pixels of that canvas too; `LINE_WIDTH` by default.
    """
    from PIL import Image, ImageDraw

    canvas = CANVAS_SIDE * side // IMAGE_SIDE
    scale = canvas / CANVAS_SIDE
    # Pillow truncates fractions of a pixel; rounding first keeps drawings centred.
    pixel_strokes = [np.rint(stroke * (scale, -scale) + (canvas - 1) / 2) for stroke in strokes]
    images = []
    for drawing in range(len(strokes[0])):
        image = Image.new("L", (canvas, canvas), 255)
        pen = ImageDraw.Draw(image)
        width = max(1, round(scale * (LINE_WIDTH if width_B is None else float(width_B[drawing]))))
        for stroke in pixel_strokes:
            if not math.isnan(stroke[drawing, 0, 0]):
                pen.line(stroke[drawing].ravel().tolist(), fill=0, width=width)
        images.append(np.asarray(image.resize((side, side), Image.Resampling.LANCZOS)))
    return np.stack(images) if images else np.empty((0, side, side), np.uint8)
