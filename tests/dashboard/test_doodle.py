"""From a browser's strokes to an image: anything may come, and only a drawing passes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoe_ray.data.quickdraw import rasterise
from smoe_ray.errors import DataError
from smoe_ray_dashboard.pages.experts.canvas import _JS
from smoe_ray_dashboard.pages.experts.strokes import (
    CANVAS_UNITS,
    MAX_CHARACTERS,
    MAX_POINTS,
    MAX_STROKES,
    draw,
    parse_strokes,
)

coordinates = st.integers(0, CANVAS_UNITS)
drawings = st.lists(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=20), min_size=1, max_size=8)


def parsed(strokes: Any) -> Any:
    return parse_strokes(json.dumps(strokes))


@given(drawings)
def test_a_drawing_is_its_steps_and_the_ends_of_its_strokes(strokes: list[list[tuple[int, int]]]) -> None:
    drawing_P3 = parsed(strokes)
    assert drawing_P3.dtype == np.int16
    points = [point for stroke in strokes for point in stroke]
    np.testing.assert_array_equal(np.cumsum(drawing_P3[:, :2], axis=0), points)
    ends = np.cumsum([len(stroke) for stroke in strokes]) - 1
    np.testing.assert_array_equal(np.flatnonzero(drawing_P3[:, 2]), ends)


def test_fractions_are_rounded_once() -> None:
    points = [[0.4, 0.4], [1.0, 0.6], [1.4, 1.4]]
    np.testing.assert_array_equal(parsed([points])[:, :2].cumsum(axis=0), [[0, 0], [1, 1], [1, 1]])


def test_nothing_drawn_is_no_drawing() -> None:
    assert parsed([]) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "strokes must be text, not NoneType"),
        ([[[1, 2]]], "not list"),
        ("", "Invalid JSON"),
        ("[[[1, 2]]", "Invalid JSON"),
        ("[" * 50_000, "recursion"),
        ("null", "valid array"),
        ('{"0": [[1, 2]]}', "valid array"),
        ("[[]]", r"strokes\[0\]: List should have at least 1 item"),
        ("[[[1]]]", r"strokes\[0\]\[0\]"),
        ("[[[1, 2, 3]]]", "at most 2 items"),
        ('[[["1", 2]]]', "valid number"),
        ("[[[true, 2]]]", "valid number"),
        ("[[[null, 2]]]", "valid number"),
        ("[[[NaN, 2]]]", "finite number"),
        ("[[[Infinity, 2]]]", "finite number"),
        ("[[[1e999, 2]]]", "finite number"),
        (f"[[[1{'0' * 5000}, 2]]]", "number"),
        ("[[[-0.1, 2]]]", "greater than or equal to 0"),
        (f"[[[2, {CANVAS_UNITS + 1}]]]", f"less than or equal to {CANVAS_UNITS}"),
        (json.dumps([[[1, 1]]] * (MAX_STROKES + 1)), "at most 200 items"),
        (json.dumps([[[1, 1]] * (MAX_POINTS // 2)] * 3), "it has 7,500 points, at most 5,000 are allowed"),
        (" " * MAX_CHARACTERS + "[]", "characters long"),
    ],
)
def test_anything_else_is_one_line_that_says_what_to_do(text: object, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as raised:
        parse_strokes(text)
    message = str(raised.value)
    assert "\n" not in message
    assert message.endswith("clear the canvas and draw again")
    assert len(message) < 200


@given(st.text(max_size=200) | st.recursive(st.none() | st.floats() | st.text(max_size=5), st.lists).map(json.dumps))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        drawing_P3 = parse_strokes(text)
    except DataError:
        return
    assert drawing_P3 is None or drawing_P3.shape[1] == 3


def test_the_largest_drawing_that_the_canvas_lets_through_passes() -> None:
    strokes = [[[CANVAS_UNITS, CANVAS_UNITS]] * (MAX_POINTS // MAX_STROKES)] * MAX_STROKES
    text = json.dumps(strokes, separators=(",", ":"))  # as JSON.stringify writes it
    assert len(text) <= MAX_CHARACTERS
    drawing_P3 = parse_strokes(text)
    assert drawing_P3 is not None
    assert len(drawing_P3) == MAX_POINTS
    assert "data.max_points" in _JS
    assert "data.max_strokes" in _JS


# --- raster -----------------------------------------------------------------------------------------------------------

CROSS = [[[100, 500], [900, 500]], [[500, 100], [500, 900]]]


def test_the_image_is_the_projects_own_raster() -> None:
    drawing_P3 = np.array([[100, 500, 0], [800, 0, 1], [-400, -400, 0], [0, 800, 1]], np.int16)
    image_HW = draw(parsed(CROSS), "black_on_white")
    assert image_HW.dtype == np.uint8
    assert image_HW.shape == (28, 28)
    np.testing.assert_array_equal(image_HW, rasterise([drawing_P3])[0])
    ink = 255 - image_HW.astype(int)
    # 0.8 of 28 pixels are 22.4, centred: from 2.8 to 25.2
    for place in np.nonzero(ink > 20):
        assert abs(place.min() - 2.8) <= 1
        assert abs(place.max() + 1 - 25.2) <= 1


def test_white_ink_is_the_inverse() -> None:
    drawing_P3 = parsed(CROSS)
    np.testing.assert_array_equal(draw(drawing_P3, "white_on_black"), 255 - draw(drawing_P3, "black_on_white"))


def test_place_and_size_on_the_canvas_do_not_matter() -> None:
    small = [[[(x - 100) // 4 + 13, (y - 100) // 4 + 600] for x, y in stroke] for stroke in CROSS]
    np.testing.assert_array_equal(draw(parsed(small), "black_on_white"), draw(parsed(CROSS), "black_on_white"))


def test_a_tap_is_a_dot_in_the_middle() -> None:
    ink = 255 - draw(parsed([[[10, 990]]]), "black_on_white").astype(int)
    rows, columns = np.nonzero(ink > 100)
    assert {rows.min(), rows.max()} <= {13, 14}
    assert {columns.min(), columns.max()} <= {13, 14}
