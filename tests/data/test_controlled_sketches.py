"""Controlled sketches: what is varied shows in the pixels, and nothing else is varied."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from smoe_ray.data.controlled_sketches import PARAMETERS, REPEATS, ControlledSketches, controlled_sketches

NAMES = [each.name for each in PARAMETERS]


@pytest.fixture(scope="module")
def sketches() -> ControlledSketches:
    return controlled_sketches((1, 28, 28), "white_on_black")


def ink_of(sketches: ControlledSketches, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Ink of the sketches that vary a parameter, in [0, 1]: (V, R, H, W)."""
    chosen = sketches.parameter == NAMES.index(name)
    return sketches.image[chosen].reshape(-1, REPEATS, 28, 28) / 255


def test_each_parameter_takes_its_values_in_every_repeat(sketches: ControlledSketches) -> None:
    for number, each in enumerate(PARAMETERS):
        chosen = sketches.parameter == number
        pairs = zip(sketches.value[chosen].tolist(), sketches.repeat[chosen].tolist(), strict=True)
        assert list(pairs) == [(np.float32(value), repeat) for value in each.values for repeat in range(REPEATS)]
    assert len(sketches.image) == REPEATS * sum(len(each.values) for each in PARAMETERS)


def test_a_repeat_differs_in_one_parameter_alone(sketches: ControlledSketches) -> None:
    """At its base value every parameter gives the same sketch: the two values around it differ less than others."""
    for name in ("size", "aspect", "curvature", "symmetry"):
        ink = ink_of(sketches, name)
        near = np.abs(np.diff(ink, axis=0)).mean(axis=(0, 2, 3))
        far = np.abs(ink[:-3] - ink[3:]).mean(axis=(0, 2, 3))
        assert (near < far).all(), name
    same = controlled_sketches((1, 28, 28), "white_on_black")
    assert np.array_equal(same.image, sketches.image)
    assert not np.array_equal(controlled_sketches((1, 28, 28), "white_on_black", seed=1).image, sketches.image)


def test_ink_and_strokes_add_ink(sketches: ControlledSketches) -> None:
    for name in ("ink", "strokes"):
        amount_VR = ink_of(sketches, name).mean(axis=(2, 3))
        assert (np.diff(amount_VR.mean(axis=1)) > 0).all(), name


def test_size_is_the_longer_side_of_the_bounding_box(sketches: ControlledSketches) -> None:
    ink_VRHW = ink_of(sketches, "size") > 0.3
    side_VR = np.maximum(ink_VRHW.any(axis=2).sum(axis=2), ink_VRHW.any(axis=3).sum(axis=2))
    wanted_V = 28 * np.array(PARAMETERS[NAMES.index("size")].values)
    assert np.abs(side_VR.mean(axis=1) - wanted_V).max() < 2.5  # the pen is 1 to 2 pixels wide


def test_orientation_is_that_of_the_strokes(sketches: ControlledSketches) -> None:
    """The mean direction of the edges, from the structure tensor, turns with the parameter."""
    ink = gaussian_filter(ink_of(sketches, "orientation"), (0, 0, 1, 1))  # else the grid of pixels would show
    along_y, along_x = np.gradient(ink, axis=(2, 3))
    doubled_VR = ((along_x - 1j * along_y) ** 2).sum(axis=(2, 3))  # y up; edges point across the strokes
    found_V = np.degrees(np.angle(-doubled_VR.sum(axis=1))) / 2 % 180
    wanted_V = np.array(PARAMETERS[NAMES.index("orientation")].values)
    off_V = (found_V - wanted_V + 90) % 180 - 90
    assert np.abs(off_V).max() < 6


@pytest.mark.parametrize(("shape", "ink"), [((3, 24, 32), "black_on_white"), ((1, 40, 40), "white_on_black")])
def test_sketches_have_the_format_of_the_images(shape: tuple[int, int, int], ink: str) -> None:
    found = controlled_sketches(shape, ink)  # type: ignore[arg-type]
    assert found.image.shape[1:] == (shape if shape[0] == 3 else shape[1:])
    paper = 255 if ink == "black_on_white" else 0
    assert (found.image[..., 0, :] == paper).mean() > 0.9
    share = np.mean(np.abs(found.image.astype(float) - paper)) / 255
    assert 0.05 < share < 0.4
    if shape[0] == 3:
        assert np.array_equal(found.image[:, 0], found.image[:, 2])
        assert (found.image[..., :4] == paper).all()  # the canvas is the square in the middle
