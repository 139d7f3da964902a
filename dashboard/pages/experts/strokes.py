"""Validates the strokes of the canvas, untrusted input from a browser, and rasterises them as a model's input.

Shapes: P points of a drawing, H W pixels of the images that `quickdraw.rasterise` makes (28 x 28).
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from smoe_ray.data.quickdraw import WHITE, Drawing, rasterise
from smoe_ray.errors import DataError
from smoe_ray.results import TrialRecord
from smoe_ray.spec import IMAGE_SIDE, DrawingColours, drawing_ink

CANVAS_UNITS = 1000
"""Side of the canvas, in the units of its coordinates: x to the right, y downwards."""
MAX_STROKES = 200
MAX_POINTS = 5000
"""Over all strokes."""
MAX_CHARACTERS = 100_000
"""Length of the JSON text: enough for `MAX_POINTS` integer coordinates, with a margin."""

Image = npt.NDArray[np.uint8]
_Coordinate = Annotated[float, Field(ge=0, le=CANVAS_UNITS, allow_inf_nan=False)]
_Stroke = Annotated[list[tuple[_Coordinate, _Coordinate]], Field(min_length=1, max_length=MAX_POINTS)]
_Strokes = Annotated[list[_Stroke], Field(max_length=MAX_STROKES)]


def ink_of_doodles(record: TrialRecord) -> DrawingColours | None:
    """How a doodle for this trial's model is inked; None where its data are no drawings that look like a doodle."""
    if record.data is None or record.data.image_shape != (1, IMAGE_SIDE, IMAGE_SIDE):
        return None
    return drawing_ink(record.spec.data)


@cache
def _schema() -> TypeAdapter[list[list[tuple[float, float]]]]:
    return TypeAdapter(_Strokes, config=ConfigDict(strict=True))


def parse_strokes(text: object) -> Drawing | None:
    """The drawing behind ``[[[x, y], …], …]``, one list of points per stroke, in the layout of Quick, Draw!

    Args:
        text: JSON from the browser; coordinates from 0 to `CANVAS_UNITS`.

    Returns:
        int16 (P, 3): dx, dy and 1 where the pen is lifted after the point; None if nothing is drawn.

    Raises:
        DataError: it is anything else, or too large.
    """
    if not isinstance(text, str):
        raise _refused(f"strokes must be text, not {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise _refused(f"its strokes are {len(text):,} characters long, at most {MAX_CHARACTERS:,} are allowed")
    try:
        strokes = _schema().validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = "".join(f"[{part}]" for part in problem["loc"])
        raise _refused(f"strokes{where}: {problem['msg']}") from None
    points = sum(map(len, strokes))
    if points > MAX_POINTS:
        raise _refused(f"it has {points:,} points, at most {MAX_POINTS:,} are allowed")
    if not points:
        return None
    position_P2 = np.rint(list(chain.from_iterable(strokes))).astype(np.int16)
    lifted_P = np.zeros(points, np.int16)
    lifted_P[np.cumsum([len(stroke) for stroke in strokes]) - 1] = 1
    return np.column_stack([np.diff(position_P2, axis=0, prepend=np.int16(0)), lifted_P])


def draw(drawing_P3: Drawing, ink: DrawingColours) -> Image:
    """Rasterise a drawing, (28, 28), as the trial's data: scaled and centred by `quickdraw.rasterise`, same ink."""
    image_HW: Image = rasterise([drawing_P3])[0]
    if ink == "white_on_black":
        image_HW = WHITE - image_HW
    return image_HW


def _refused(why: str) -> DataError:
    return DataError(f"drawing: {why}; clear the canvas and draw again")
