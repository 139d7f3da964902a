"""Drawings are deterministic, grow without changing, look different where they should, and are what they say."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.metrics import r2_score

from smoe_ray.data.dataset import Dataset
from smoe_ray.data.sources.synthetic import (
    FAMILIES,
    LINE_WIDTH,
    PARAMETER_NAMES,
    SIZE_RANGE,
    Strokes,
    draw,
    tremor,
)
from smoe_ray.spec import SyntheticData

STYLES = [f"{family}/{style}" for family, styles in FAMILIES.items() for style in styles]


@pytest.fixture(scope="module")
def splits() -> tuple[Dataset, Dataset]:
    train, test, style_names, parameter_names = draw(SyntheticData(train_per_class=1200, test_per_class=240))
    assert style_names == tuple(STYLES)
    assert parameter_names == PARAMETER_NAMES
    return train, test


@pytest.fixture(scope="module")
def exact() -> Dataset:
    """Drawings without tremor."""
    return draw(SyntheticData(train_per_class=240, test_per_class=1, jitter=0))[0]


def column(data: Dataset, name: str) -> npt.NDArray[np.float32]:
    assert data.parameter_BP is not None
    return data.parameter_BP[:, PARAMETER_NAMES.index(name)]


def of_style(data: Dataset, style: str) -> npt.NDArray[np.bool_]:
    assert data.style_B is not None
    return data.style_B == STYLES.index(style)


def pixels(data: Dataset) -> npt.NDArray[np.float64]:
    return data.image_BHW.reshape(len(data), -1) / 255


def assert_same(first: Dataset, second: Dataset) -> None:
    np.testing.assert_array_equal(first.image_BHW, second.image_BHW)
    np.testing.assert_array_equal(first.label_B, second.label_B)
    np.testing.assert_array_equal(first.style_B, second.style_B)
    np.testing.assert_array_equal(first.parameter_BP, second.parameter_BP)


# --- what a dataset holds ---------------------------------------------------------------------------------------------


def test_arrays_are_what_a_dataset_promises(splits: tuple[Dataset, Dataset]) -> None:
    for data, per_class in zip(splits, (1200, 240), strict=True):
        assert data.image_BHW.shape == (5 * per_class, 28, 28)
        assert data.image_BHW.dtype == np.uint8
        assert data.label_B.dtype == np.int64
        assert data.style_B is not None
        assert data.style_B.dtype == np.int64
        assert data.parameter_BP is not None
        assert data.parameter_BP.dtype == np.float32
        np.testing.assert_array_equal(data.label_B, np.repeat(np.arange(5), per_class))
        families = np.array([list(FAMILIES).index(name.split("/")[0]) for name in STYLES])
        np.testing.assert_array_equal(families[data.style_B], data.label_B)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_of_a_class_are_a_balanced_sample_in_random_order(
    splits: tuple[Dataset, Dataset], family: str
) -> None:
    style_B = splits[0].style_B
    assert style_B is not None
    style_B = style_B[splits[0].label_B == list(FAMILIES).index(family)]
    for count in (5, 37, 240, 500, 1200):
        per_style = np.unique(style_B[:count], return_counts=True)[1]
        assert len(per_style) == len(FAMILIES[family])
        assert np.ptp(per_style) <= 1
    assert len(np.unique(style_B[:240].reshape(-1, len(FAMILIES[family])), axis=0)) > 1


@pytest.mark.parametrize("style", STYLES)
def test_parameters_fill_their_ranges_and_are_nan_where_they_do_not_apply(
    splits: tuple[Dataset, Dataset], style: str
) -> None:
    family, name = style.split("/")
    ranges = {**FAMILIES[family][name].ranges, "size": SIZE_RANGE, "jitter": (0.5, 1.5)}
    members = of_style(splits[0], style)
    for parameter in PARAMETER_NAMES:
        value_B = column(splits[0], parameter)[members]
        if parameter == "strokes":
            assert np.all(value_B >= 1)
        elif parameter not in ranges:
            assert np.all(np.isnan(value_B))
        else:
            low, high = ranges[parameter]
            margin = 0.05 * (high - low) + 1e-6
            assert low - 1e-5 <= value_B.min() <= low + margin
            assert high - margin <= value_B.max() <= high + 1e-5


def test_ink() -> None:
    black = draw(SyntheticData(train_per_class=4, test_per_class=4))
    white = draw(SyntheticData(train_per_class=4, test_per_class=4, ink="white_on_black"))
    for on_white, on_black in zip(black[:2], white[:2], strict=True):
        np.testing.assert_array_equal(on_white.image_BHW, 255 - on_black.image_BHW)
        assert np.all(on_white.image_BHW[:, 0, 0] == 255)
        assert np.all(on_white.image_BHW.min(axis=(1, 2)) < 30)


# --- the same drawings every time -------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(
    classes=st.lists(st.sampled_from(list(FAMILIES)), min_size=1, max_size=3, unique=True),
    train=st.integers(1, 500),
    test=st.integers(1, 300),
)
def test_a_drawing_depends_on_its_place_alone(
    splits: tuple[Dataset, Dataset], classes: list[str], train: int, test: int
) -> None:
    drawn = draw(SyntheticData(classes=tuple(classes), train_per_class=train, test_per_class=test))
    for large, small, count in zip(splits, drawn[:2], (train, test), strict=True):
        for label, family in enumerate(classes):
            here, there = slice(label * count, (label + 1) * count), large.label_B == list(FAMILIES).index(family)
            expected = np.flatnonzero(there)[:count]
            shared = slice(here.start, here.start + len(expected))
            assert np.all(small.label_B[here] == label)
            np.testing.assert_array_equal(small.image_BHW[shared], large.image_BHW[expected])
            assert small.parameter_BP is not None
            assert large.parameter_BP is not None
            np.testing.assert_array_equal(small.parameter_BP[shared], large.parameter_BP[expected])
            assert small.style_B is not None
            assert large.style_B is not None
            assert [drawn[2][style] for style in small.style_B[shared]] == [STYLES[s] for s in large.style_B[expected]]


def test_two_draws_are_equal() -> None:
    spec = SyntheticData(train_per_class=30, test_per_class=10, drawing_seed=3)
    for first, second in zip(draw(spec)[:2], draw(spec)[:2], strict=True):
        assert_same(first, second)


def test_seeds_splits_chunks_and_drawings_all_differ(splits: tuple[Dataset, Dataset]) -> None:
    other_seed = draw(SyntheticData(train_per_class=240, test_per_class=1, drawing_seed=1))[0]
    everything = np.concatenate([pixels(data) for data in (*splits, other_seed)])
    assert len(np.unique(everything, axis=0)) == len(everything)


# --- what can be learned ----------------------------------------------------------------------------------------------


def test_a_linear_classifier_tells_the_classes_apart(splits: tuple[Dataset, Dataset]) -> None:
    train, test = splits
    model = RidgeClassifier(alpha=100).fit(pixels(train), train.label_B)
    assert model.score(pixels(test), test.label_B) > 0.85  # chance: 0.2


@pytest.mark.parametrize("family", FAMILIES)
def test_styles_are_separate_clusters(splits: tuple[Dataset, Dataset], family: str) -> None:
    train, test = splits
    assert train.style_B is not None
    assert test.style_B is not None
    train_here, test_here = (data.label_B == list(FAMILIES).index(family) for data in splits)
    x_train, y_train = pixels(train)[train_here], train.style_B[train_here]
    x_test, y_test = pixels(test)[test_here], test.style_B[test_here]
    centre_SX = np.stack([x_train[y_train == style].mean(axis=0) for style in np.unique(y_train)])
    nearest = np.argmin(np.sum((x_test[:, None] - centre_SX) ** 2, axis=2), axis=1)
    assert np.mean(np.unique(y_train)[nearest] == y_test) > 0.75  # chance: 0.25 to 0.33
    assert RidgeClassifier(alpha=100).fit(x_train, y_train).score(x_test, y_test) > 0.85


@pytest.mark.parametrize("style", STYLES)
def test_drawings_of_a_style_vary(splits: tuple[Dataset, Dataset], style: str) -> None:
    pixel_BX = pixels(splits[0])[of_style(splits[0], style)]
    residual_BX = pixel_BX - pixel_BX.mean(axis=0)
    # Squared error over 784 pixels, the unit of the models' losses: the style's mean image is a poor reconstruction.
    assert np.median(np.sum(residual_BX**2, axis=1)) > 15
    scatter_BB = residual_BX @ residual_BX.T
    assert np.trace(scatter_BB) ** 2 / np.sum(scatter_BB**2) > 8  # effective number of directions, (tr C)^2 / tr C^2


# --- parameters are true ----------------------------------------------------------------------------------------------


def moments(image_BHW: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Angle (degrees) of the long axis of the ink, and length / width as root mean squares."""
    ink_BHW = 255.0 - image_BHW
    y_HW, x_HW = np.mgrid[27:-1:-1, 0:28]
    total_B = ink_BHW.sum(axis=(1, 2))
    x_BHW, y_BHW = (
        axis - (ink_BHW * axis).sum(axis=(1, 2), keepdims=True) / total_B[:, None, None] for axis in (x_HW, y_HW)
    )
    xx, yy, xy = (
        (ink_BHW * product).sum(axis=(1, 2)) / total_B for product in (x_BHW * x_BHW, y_BHW * y_BHW, x_BHW * y_BHW)
    )
    spread = np.hypot((xx - yy) / 2, xy)
    middle = (xx + yy) / 2
    return np.degrees(np.arctan2(2 * xy, xx - yy)) / 2, np.sqrt((middle + spread) / (middle - spread))


@pytest.mark.parametrize("style", FAMILIES["pencil"])
def test_orientation_of_pencils(splits: tuple[Dataset, Dataset], exact: Dataset, style: str) -> None:
    for data, tolerance in ((splits[0], 6.0), (exact, 2.0)):
        members = of_style(data, f"pencil/{style}")
        angle_B, _ = moments(data.image_BHW[members])
        error_B = (angle_B - column(data, "orientation")[members] + 90) % 180 - 90
        assert np.sqrt(np.mean(error_B**2)) < tolerance


def test_aspect_of_pencils(exact: Dataset) -> None:
    members = column(exact, "parts") == 0
    members &= exact.label_B == list(FAMILIES).index("pencil")
    assert spearmanr(moments(exact.image_BHW[members])[1], column(exact, "aspect")[members]).statistic > 0.9


@pytest.mark.parametrize("style", ["face/smile", "eye/plain"])
def test_aspect_is_that_of_the_bounding_box_where_nothing_sticks_out(exact: Dataset, style: str) -> None:
    members = of_style(exact, style) & (np.abs(column(exact, "orientation")) < 5)
    wide, high = (extent - LINE_WIDTH / 2 for extent in ink_extents(exact.image_BHW[members]))
    assert np.max(np.abs(wide / high / column(exact, "aspect")[members] - 1)) < 0.2


def ink_extents(image_BHW: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Width and height of the ink's bounding box, pixels; an edge pixel counts by how dark it is."""
    ink_BHW = 255.0 - image_BHW
    profiles = [ink_BHW.max(axis=axis) / 255 for axis in (1, 2)]
    edges = []
    for profile_BX in profiles:
        inside = profile_BX > 0.1
        first, last = inside.argmax(axis=1), 27 - inside[:, ::-1].argmax(axis=1)
        row = np.arange(len(profile_BX))
        edges.append(last - first - 1 + np.minimum(1, profile_BX[row, first]) + np.minimum(1, profile_BX[row, last]))
    return edges[0], edges[1]


@pytest.mark.parametrize("style", STYLES)
def test_size_is_that_of_the_ink(splits: tuple[Dataset, Dataset], style: str) -> None:
    members = of_style(splits[1], style)
    longer = np.maximum(*ink_extents(splits[1].image_BHW[members]))
    path = 28 * column(splits[1], "size")[members]
    # Around the pen's path lies up to half the line's width (0.75 pixels) on either side, and rounding.
    assert np.min(longer - path) > -0.5
    assert np.max(longer - path) < 1.5 + 0.75
    assert np.corrcoef(longer, path)[0, 1] > 0.97


def test_ink_is_centred(splits: tuple[Dataset, Dataset]) -> None:
    ink = splits[1].image_BHW < 200
    for axis in (1, 2):
        inside = ink.any(axis=axis)
        middle = (inside.argmax(axis=1) + 27 - inside[:, ::-1].argmax(axis=1)) / 2
        assert np.max(np.abs(middle - 13.5)) <= 1
        assert np.abs(np.mean(middle - 13.5)) < 0.1


@pytest.mark.parametrize("style", ["snowflake/six", "snowflake/eight"])
def test_arms_of_snowflakes_can_be_counted(exact: Dataset, style: str) -> None:
    members = of_style(exact, style)
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    counted = []
    for image_HW, size in zip(exact.image_BHW[members], column(exact, "size")[members], strict=True):
        radius = 0.7 * size * 14
        ring = map_coordinates(
            image_HW.astype(float), 13.5 + radius * np.stack([np.sin(angle), np.cos(angle)]), order=1
        )
        dark = ring < 160
        counted.append(np.sum(dark & ~np.roll(dark, 1)))
    assert np.mean(np.array(counted) == column(exact, "parts")[members]) > 0.95


@pytest.mark.parametrize("style", STYLES)
def test_parameters_can_be_read_from_the_pixels(splits: tuple[Dataset, Dataset], style: str) -> None:
    """By a linear model already; those that it cannot read are tested by their definition below."""
    least = {"orientation": 0.65, "size": 0.75, "aspect": 0.4, "parts": 0.35}
    family, name = style.split("/")
    ranges = {**FAMILIES[family][name].ranges, "size": SIZE_RANGE}
    varying = [key for key in least if key in ranges and np.ptp(ranges[key]) > 0]
    (x_train, y_train), (x_test, y_test) = (
        (pixels(data)[members], np.stack([column(data, key)[members] for key in varying], axis=1))
        for data, members in ((data, of_style(data, style)) for data in splits)
    )
    scale = y_train.std(axis=0)
    model = Ridge(alpha=30).fit(x_train, y_train / scale)
    for key, score in zip(
        varying, r2_score(y_test / scale, model.predict(x_test), multioutput="raw_values"), strict=True
    ):
        assert score > least[key], key


def strokes_of(style: str, **parameters: float) -> Strokes:
    """The strokes of one drawing, before they are turned and scaled."""
    family, name = style.split("/")
    batch = {key: np.array([value]) for key, value in parameters.items()}
    return [stroke[0] for stroke in FAMILIES[family][name].strokes(batch, np.random.default_rng(0))]


def half_extent(stroke_N2: npt.NDArray[np.float64], axis: int) -> float:
    return float(np.ptp(stroke_N2[:, axis]) / 2)


@pytest.mark.parametrize("value", [0.3, 0.6])
def test_details_and_curvatures_by_their_definition(value: float) -> None:
    head, left_eye, _, mouth = strokes_of("face/smile", aspect=1, detail=value, curvature=value)
    assert half_extent(head, 1) == pytest.approx(1, abs=0.05)
    assert half_extent(left_eye, 0) == pytest.approx(value)
    assert np.ptp(mouth[:, 1]) / half_extent(mouth, 0) == pytest.approx(value)
    assert mouth[8, 1] < mouth[0, 1]  # a smile hangs in the middle

    *lids, iris, _, brow = strokes_of("eye/brow", aspect=2.0, detail=value, curvature=value)
    almond = np.concatenate(lids)
    assert half_extent(almond, 0) / half_extent(almond, 1) == pytest.approx(2)
    assert half_extent(iris, 0) == pytest.approx(value, abs=0.03)
    assert np.ptp(brow[:, 1]) / half_extent(brow, 0) == pytest.approx(value)

    for ear in strokes_of("cat/face", aspect=1.0, detail=value, parts=2)[1:3]:
        assert np.linalg.norm(ear, axis=1).max() == pytest.approx(1 + value)
    for name, aspect, unit in (("sitting", 0.7, 1), ("walking", 2.4, 1.2)):
        straight, curled = (strokes_of(f"cat/{name}", aspect=aspect, detail=1, curvature=c)[-1] for c in (0, value))
        assert abs(straight[-1, 0]) - abs(curled[-1, 0]) == pytest.approx(value * unit)

    ring = strokes_of("snowflake/hexagon", parts=6, detail=value)[-1]
    assert np.linalg.norm(ring, axis=1).max() == pytest.approx(value)
    branch = strokes_of("snowflake/branched", parts=6, detail=value)[-1]
    assert np.linalg.norm(branch[0] - branch[8]) == pytest.approx(value)

    tip = strokes_of("pencil/rising", aspect=4.0, detail=value, parts=1)[1]
    assert np.ptp(tip[:, 0]) / 2 == pytest.approx(value)
    assert np.ptp(tip[:, 1]) == pytest.approx(2 / 4)


def test_strokes_follow_the_parts(splits: tuple[Dataset, Dataset]) -> None:
    for style, strokes_of_parts in {
        "face/spiky-hair": lambda parts: 4 + parts,
        "eye/lashes": lambda parts: 4 + parts,
        "eye/closed": lambda parts: 1 + parts,
        "cat/face": lambda parts: 8 + 2 * parts,
        "snowflake/six": lambda parts: parts / 2,
        "snowflake/eight": lambda parts: parts / 2,
        "pencil/falling": lambda parts: 4 + parts,
    }.items():
        members = of_style(splits[0], style)
        parts, strokes = column(splits[0], "parts")[members], column(splits[0], "strokes")[members]
        np.testing.assert_array_equal(strokes, strokes_of_parts(parts))


def test_tremor_is_smooth_and_as_strong_as_recorded() -> None:
    line_BN2 = np.broadcast_to(np.stack([np.linspace(0, 400, 401), np.zeros(401)], axis=1), (300, 401, 2))
    jitter_B = np.linspace(0.5, 3, 300)
    shift_BN2 = tremor(line_BN2, jitter_B, np.random.default_rng(0))
    strength_B = np.sqrt(np.mean(np.sum(shift_BN2**2, axis=2), axis=1))
    assert np.mean(strength_B / jitter_B) == pytest.approx(1, abs=0.03)
    assert np.corrcoef(strength_B, jitter_B)[0, 1] > 0.9
    step_B = np.linalg.norm(np.diff(shift_BN2, axis=1), axis=2).max(axis=1)  # as the pen moves on by one pixel
    assert np.max(step_B / jitter_B) < 1


def test_jitter_changes_the_lines_and_nothing_else(splits: tuple[Dataset, Dataset], exact: Dataset) -> None:
    test, still = splits[0], exact
    difference, jitter = [], []
    for label in range(5):
        trembling, without = np.flatnonzero(test.label_B == label)[:240], np.flatnonzero(still.label_B == label)
        for name in PARAMETER_NAMES[:-1]:
            np.testing.assert_array_equal(column(test, name)[trembling], column(still, name)[without])
        difference.append(np.sum((pixels(test)[trembling] - pixels(still)[without]) ** 2, axis=1))
        jitter.append(column(test, "jitter")[trembling])
    assert np.all(column(still, "jitter") == 0)
    for family_difference, family_jitter in zip(difference, jitter, strict=True):
        assert spearmanr(family_difference, family_jitter).statistic > 0.3


def test_import_stays_light() -> None:
    code = (
        "import sys, smoe_ray.data.sources.synthetic;"
        "print([m for m in ('PIL', 'torch', 'matplotlib') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
