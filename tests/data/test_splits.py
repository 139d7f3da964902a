"""Balanced fractions and unequal classes: counts, which images, and no copy where none is needed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from smoe_ray.data import Dataset, Source, split
from smoe_ray.errors import DataError
from smoe_ray.spec import ImageData


def source(*counts: int, test: int = 2) -> Source:
    """Classes a, b, … of these sizes; the 'image' of a training image is its number within its class."""
    names = tuple("abcdefgh"[: len(counts)])
    number = np.concatenate([np.arange(count) for count in counts])
    train = Dataset(number.reshape(-1, 1, 1), np.repeat(np.arange(len(counts)), counts), style_B=number + 1)
    test_set = Dataset(np.zeros((test * len(counts), 1, 1), np.uint8), np.repeat(np.arange(len(counts)), test))
    return Source(train, test_set, names, ("a/x",), (), "f" * 64, Path("nowhere"))


def spec(**fields: object) -> ImageData:
    return ImageData.model_validate({"root": "nowhere"} | fields)


def kept(made: Source, **fields: object) -> list[int]:
    """Training images that each class keeps; asserts that they are its first ones, class by class."""
    train = split(made, spec(**fields)).train
    counts = np.bincount(train.label_B, minlength=len(made.class_names)).tolist()
    assert train.label_B.tolist() == np.repeat(np.arange(len(counts)), counts).tolist()
    assert train.image_BHW.ravel().tolist() == [number for count in counts for number in range(count)]
    assert train.style_B is not None
    assert train.style_B.tolist() == [number + 1 for count in counts for number in range(count)]
    return counts


@given(
    n=st.integers(1, 10_000),
    digits=st.integers(1, 10_000),
    places=st.integers(1, 4),
)
def test_a_fraction_means_the_decimal_that_was_written(n: int, digits: int, places: int) -> None:
    assume(digits <= 10**places)
    exact = Fraction(digits, 10**places) * n
    assume(exact >= 1)
    assert kept(source(n), fraction=float(f"{digits}e-{places}")) == [exact.numerator // exact.denominator]


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.05, 3500), (0.1, 7000), (0.29, 20300), (0.57, 39900), (1, 70000)]
)
def test_the_fractions_of_the_paper(fraction: float, expected: int) -> None:
    assert kept(source(70_000, 70_000), fraction=fraction) == [expected] * 2


def test_fraction_applies_to_each_class_and_never_to_the_test_set() -> None:
    made = source(10, 7, 3)
    assert kept(made, fraction=0.5) == [5, 3, 1]
    assert split(made, spec(fraction=0.5)).test is made.test


def test_at_fraction_1_nothing_is_copied() -> None:
    made = source(10, 7)
    assert split(made, spec()).train is made.train
    assert split(made, spec(imbalance={"weights": {"a": 1.0}})).train is made.train
    alone = source(10)
    assert np.shares_memory(split(alone, spec(fraction=0.5)).train.image_BHW, alone.train.image_BHW)


def test_weights_thin_what_the_fraction_left() -> None:
    assert kept(source(100, 100, 100), imbalance={"weights": {"b": 0.29}}) == [100, 29, 100]
    assert kept(source(100, 100, 100), fraction=0.5, imbalance={"weights": {"b": 0.5, "c": 0.1}}) == [50, 25, 5]


def test_a_long_tail_keeps_one_over_the_rank() -> None:
    assert kept(source(*[9] * 4), imbalance={"exponent": 1}) == [9, 4, 3, 2]
    assert kept(source(*[9] * 3), imbalance={"exponent": 2}) == [9, 2, 1]
    assert kept(source(64, 64, 64, 64), imbalance={"exponent": 0.5}) == [64, 45, 36, 32]


@given(n=st.integers(1, 1000), rank=st.integers(2, 8))
def test_whole_shares_of_a_long_tail_are_not_rounded_away(n: int, rank: int) -> None:
    assert kept(source(*[n * rank] * rank), imbalance={"exponent": 1})[-1] == n


@given(
    counts=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    low=st.floats(0.01, 1),
    high=st.floats(0.01, 1),
    exponent=st.floats(0.1, 3),
)
def test_a_smaller_fraction_is_the_beginning_of_a_larger_one(
    counts: list[int], low: float, high: float, exponent: float
) -> None:
    low, high = sorted((low, high))
    made = source(*counts)
    try:
        fewer = kept(made, fraction=low, imbalance={"exponent": exponent})
    except DataError:
        return
    more = kept(made, fraction=high, imbalance={"exponent": exponent})
    assert all(1 <= a <= b <= count for a, b, count in zip(fewer, more, counts, strict=True))


def test_a_class_left_empty_is_named() -> None:
    for fields in (
        {"fraction": 0.05},
        {"imbalance": {"weights": {"b": 0.1}}},
        {"imbalance": {"exponent": 9}},
    ):
        with pytest.raises(DataError, match="class 'b' would keep none of its 9") as error:
            split(source(90, 9), spec(**fields))
        assert "\n" not in str(error.value)


def test_a_weight_for_no_class_names_the_nearest() -> None:
    made = source(9, 9)
    object.__setattr__(made, "class_names", ("cat", "face"))
    with pytest.raises(DataError, match=r"data\.imbalance\.weights: no class 'cats'; did you mean 'cat'\?"):
        split(made, spec(imbalance={"weights": {"cats": 0.5}}))
    with pytest.raises(DataError, match="classes: cat, face"):
        split(made, spec(imbalance={"weights": {"zzz": 0.5}}))


def test_names_and_fingerprint_stay_those_of_the_source() -> None:
    made = source(9, 9)
    splits = split(made, spec(fraction=0.5))
    assert (splits.fingerprint, splits.class_names, splits.style_names) == ("f" * 64, ("a", "b"), ("a/x",))
