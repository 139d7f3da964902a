"""Losses of several likelihoods and image formats: what their unit is called, and that they are never compared."""

from __future__ import annotations

import re
from collections.abc import Callable

import matplotlib as mpl
import pandas as pd
import pytest

from smoe_ray.analysis import (
    compare_arms,
    loss_against_experts,
    loss_surface,
    recommend,
    representatives,
    training_curves,
)
from smoe_ray.analysis.outcomes import comparable_metric, loss_unit, with_soft_loss
from smoe_ray.columns import LOSS_COLUMNS
from smoe_ray.errors import ResultsError
from smoe_ray.figures import plot_comparison, plot_loss_against_experts
from smoe_ray.published import read_published
from smoe_ray.report.sections import reading
from support.planted_results import table, trial

mpl.use("agg")

GREY, COLOUR = "squared error per image (sum over 784 values)", "squared error per image (sum over 3,072 values)"


def study(*formats: tuple[str | None, str | None], seeds: int = 3) -> pd.DataFrame:
    """Trials of each (likelihood, image shape): the better its PSNR, the greater its loss."""
    return table(
        *(
            [
                row | {"data.image_shape": shape, "test.psnr": 20.0 + arm + 0.01 * seed}
                for row in trial(
                    f"{arm}-{seed}",
                    [90.0, 30.0 + 100 * arm + seed],
                    seed=seed,
                    objective__name="expected",
                    objective__likelihood=likelihood,
                    data__image__size=shape,
                )
            ]
            for arm, (likelihood, shape) in enumerate(formats)
            for seed in range(seeds)
        )
    )


@pytest.mark.parametrize(
    ("formats", "unit"),
    [
        ([("gaussian", "1x28x28")], GREY),
        ([("gaussian", "3x32x32")], COLOUR),
        ([(None, "1x28x28")], GREY),  # of a plug-in
        ([("bernoulli", "1x28x28")], "binary cross-entropy per image, nats (sum over 784 values)"),
        ([("laplace", "3x128x128")], "absolute error per image (sum over 49,152 values)"),
        ([("gaussian", "3x32x32"), ("gaussian", "1x28x28")], "squared error per image (sum over 784 or 3,072 values)"),
        (
            [("laplace", "1x28x28"), ("bernoulli", "1x28x28"), ("gaussian", "1x28x28")],
            "squared error, binary cross-entropy or absolute error per image (sum over 784 values)",
        ),
        ([("gaussian", None)], "squared error per image (sum over its values)"),  # no trial has read its data yet
    ],
)
def test_the_unit_is_true_of_every_trial(formats: list[tuple[str | None, str | None]], unit: str) -> None:
    results = study(*formats)
    assert loss_unit(results) == unit
    assert comparable_metric(results) == ("test.reconstruction" if len(formats) == 1 else "test.psnr")


def test_the_published_losses_have_their_unit() -> None:
    assert loss_unit(read_published()) == GREY


def test_analyses_and_figures_of_colour_images_name_their_3072_values() -> None:
    results = study(("gaussian", "3x32x32"))
    found = [loss_against_experts(results), loss_surface(results), training_curves(results), recommend(results)]
    assert {info.unit for info in found} == {COLOUR}
    assert plot_loss_against_experts(found[0]).axes[0].get_ylabel() == f"test loss, hard gating\n{COLOUR}"
    assert f"The test loss is the {COLOUR}, averaged" in reading("arms", unit=found[0].unit)


def test_arms_of_one_unit_are_compared_by_their_loss() -> None:
    two = study(("laplace", "1x28x28"), seeds=6)
    two["config.objective.name"] = two["seed"].map(lambda seed: ("blend", "expected")[seed % 2])
    found = compare_arms(two)
    assert (found.metric, found.measure) == ("test.reconstruction", "test loss")
    assert found.unit == "absolute error per image (sum over 784 values)"


def test_arms_of_different_units_are_compared_by_their_psnr() -> None:
    found = compare_arms(study(("gaussian", "1x28x28"), ("bernoulli", "1x28x28")))
    assert (found.metric, found.measure, found.unit) == ("test.psnr", "PSNR", "dB, higher is better")
    [difference] = found.differences
    assert difference.estimate == pytest.approx(1 if difference.mean_arm > difference.mean_reference else -1)
    assert "PSNR, hard gating: difference from" in plot_comparison(found).axes[0].get_xlabel()


def test_losses_of_different_units_are_not_compared_even_if_asked_for() -> None:
    results = study(("gaussian", "1x28x28"), ("bernoulli", "1x28x28"))
    assert {"test.reconstruction", "test.reconstruction_soft", "test.per_value", "train.loss"} <= LOSS_COLUMNS
    assert not {"test.psnr", "test.kl", "experts.active"} & LOSS_COLUMNS
    with pytest.raises(
        ResultsError, match=r"test\.reconstruction has no common unit: .* or binary .*; compare test.psnr"
    ):
        compare_arms(results, metric="test.reconstruction")
    assert compare_arms(results, metric="experts.active").unit == ""


def test_arms_of_different_units_stay_apart_in_curves_and_recommendations() -> None:
    results = study(("gaussian", "1x28x28"), ("bernoulli", "1x28x28"))
    assert {curve.label for curve in loss_against_experts(results).curves} == {"gaussian", "bernoulli"}
    assert {surface.label for surface in loss_surface(results).surfaces} == {"gaussian", "bernoulli"}
    assert {arm.label for arm in recommend(results).arms} == {"gaussian", "bernoulli"}


def test_of_arms_with_different_units_those_of_highest_psnr_are_shown() -> None:
    results = study(("gaussian", "1x28x28"), ("bernoulli", "1x28x28"), ("laplace", "1x28x28"))
    assert {one.label for one in representatives(results, limit=2).trials} == {"bernoulli", "laplace"}
    one_unit = results.assign(
        **{"config.objective.likelihood": "gaussian", "config.objective.weight": results["test.psnr"].round()}
    )
    assert [one.trial_id for one in representatives(one_unit, limit=1).trials] == ["0-0"]


@pytest.mark.parametrize("other", ["gaussian", "laplace"])
def test_the_table_shows_the_psnr_beside_losses_of_several_units_and_says_why(
    other: str,
    smoe_ray: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = study(("gaussian", "1x28x28"), (other, "1x28x28"))
    results.attrs["problems"] = []
    monkeypatch.setattr("smoe_ray.results.read_results", lambda *_, **__: results)
    code, out, err = smoe_ray("table", "out", "x")
    assert code == 0
    if other == "laplace":
        assert re.search(r"effective +PSNR +test loss", out)
        assert "losses have different units, squared error or absolute error per image (sum over 784 values)" in err
    else:
        assert re.search(r"effective +test loss .*PSNR", out)
        assert "units" not in err


def test_the_soft_loss_keeps_its_unit() -> None:
    assert loss_unit(with_soft_loss(study(("bernoulli", "1x28x28")))).startswith("binary cross-entropy")
