"""Forest plots, survival, phase diagram and homogeneity as pictures: well set, and true to the info."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_plots import assert_well_set

from smoe_ray.analysis import expert_survival, phase_diagram
from smoe_ray.analysis.comparison import compare_arms
from smoe_ray.analysis.data_homogeneity import homogeneity
from smoe_ray.figures.comparison import plot_comparison
from smoe_ray.figures.data_homogeneity import plot_homogeneity
from smoe_ray.figures.phase_diagrams import plot_phase_diagram
from smoe_ray.figures.survival import plot_expert_survival
from support.planted_results import many_arms, published, table, trial

AWKWARD = ["a$b$", "x^2_1", "ß" * 90, "many words " * 12]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


# --- comparison -------------------------------------------------------------------------------------------------------


def arms_and_counts(arms: int, counts: tuple[int, ...], seeds: int, spread: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return table(
        *(
            trial(
                f"{arm}-{count}-{seed}",
                [20.0 - arm * np.log(count) + spread * rng.normal()],
                seed=seed,
                configured=count,
                objective__name=("blend", "expected", "likelihood")[arm % 3],
                objective__lambda_balance=100.0 * (1 + arm // 3),
            )
            for arm in range(arms)
            for count in counts
            for seed in range(seeds)
        )
    )


@pytest.mark.parametrize(
    ("arms", "counts", "seeds"), [(2, (10,), 5), (2, (2, 5, 10, 20), 2), (3, (10,), 21), (13, (2, 5, 10, 50), 3)]
)
def test_a_forest_plot_is_well_set(arms: int, counts: tuple[int, ...], seeds: int) -> None:
    assert_well_set(plot_comparison(compare_arms(arms_and_counts(arms, counts, seeds))))


def test_awkward_arms_and_published_runs_are_well_set() -> None:
    rng = np.random.default_rng(0)
    awkward = table(*(trial(f"{n}{s}", [rng.normal()], seed=s, model__encoder=n) for n in AWKWARD for s in range(3)))
    assert_well_set(plot_comparison(compare_arms(awkward)))
    assert_well_set(plot_comparison(compare_arms(published())))


def test_a_row_says_in_words_what_its_interval_shows() -> None:
    info = compare_arms(arms_and_counts(2, (1, 50), 5, spread=0.5))
    figure = plot_comparison(info)
    forest = figure.axes[0]
    intervals = [segment for lines in forest.collections for segment in lines.get_segments()]
    for row, (difference, segment) in enumerate(zip(info.differences, intervals, strict=True)):
        np.testing.assert_allclose(segment, [[difference.low, row], [difference.high, row]])
    points = forest.lines[1:]
    assert [line.get_xdata()[0] for line in points] == [difference.estimate for difference in info.differences]
    hollow = [line.get_markerfacecolor() == "white" for line in points]
    assert hollow == [not difference.distinguishable for difference in info.differences] == [True, False]
    assert [label.get_text() for label in forest.get_yticklabels()] == ["E=1", "E=50"]
    said = words(figure)
    assert [text for text in said if text in ("lower", "higher", "not distinguishable")] == [
        "not distinguishable",
        "lower",
    ]
    assert said.count("5 pairs") == 2
    assert "difference from blend" in forest.get_xlabel()
    assert "corrected for 2 differences (Holm)" in " ".join(figure.get_supxlabel().split())


def test_many_arms_of_one_cell_are_named_beside_their_rows_and_a_wide_interval_hides_no_other() -> None:
    results = arms_and_counts(6, (10,), 4, spread=0.1)
    wild = results["config.objective.lambda_balance"].eq(200) & results["config.objective.name"].eq("expected")
    results.loc[wild, "test.reconstruction"] += 100.0 * results.loc[wild, "seed"]
    info = compare_arms(results)
    figure = plot_comparison(info)
    forest = figure.axes[0]
    names = [label.get_text().replace("\n", " ") for label in forest.get_yticklabels()]
    assert names == [difference.arm for difference in info.differences]
    assert not figure.legends
    [wide] = [row for row, one in enumerate(info.differences) if one.high > 100]
    low, high = forest.get_xlim()
    others = [one for row, one in enumerate(info.differences) if row != wide]
    assert low <= min(one.low for one in others) <= max(one.high for one in others) <= high < 100
    arrows = [(line.get_marker(), line.get_ydata()[0]) for line in forest.lines if line.get_marker() in ("<", ">")]
    assert arrows == [("<", wide), (">", wide)]
    assert "arrow: it goes on beyond the axis" in " ".join(figure.get_supxlabel().split())
    assert_well_set(figure)


def test_a_difference_without_an_interval_beyond_the_axis_has_its_arrow() -> None:
    results = arms_and_counts(6, (10,), 4, spread=0.1)
    alone = results["config.objective.lambda_balance"].eq(200) & results["config.objective.name"].eq("expected")
    results.loc[alone, "test.reconstruction"] += 500.0
    info = compare_arms(results[~alone | results["seed"].eq(0)])
    [row] = [row for row, one in enumerate(info.differences) if one.interval == "none"]
    forest = plot_comparison(info).axes[0]
    assert info.differences[row].estimate > 400 > forest.get_xlim()[1]
    assert (">", row) in [(line.get_marker(), line.get_ydata()[0]) for line in forest.lines]


def test_what_is_left_out_is_said() -> None:
    results = pd.concat(
        [
            arms_and_counts(2, (2, 5), 4).query("trial_id not in ('0-2-3', '0-5-0', '0-5-1', '0-5-2', '0-5-3')"),
            table(trial("r", [1.0], objective__name="blend", objective__lambda_balance=100.0, status="running")),
        ]
    )
    figure = plot_comparison(compare_arms(results))
    assert "3 pairs\n(1 left out)" in words(figure)
    caption = " ".join(figure.get_supxlabel().split())
    assert "cells with runs of only one arm left out: 1" in caption
    assert "unfinished trials left out: 1" in caption


def test_without_an_interval_there_is_a_point_and_a_reason() -> None:
    figure = plot_comparison(compare_arms(arms_and_counts(2, (10,), 2)))
    assert "cannot tell (n = 2)" in words(figure)
    assert "nothing was tested" in figure.get_supxlabel()


# --- collapse ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arms", "experts"), [(1, 2), (2, 10), (12, 50), (26, 5)])
def test_survival_is_well_set(arms: int, experts: int) -> None:
    assert_well_set(plot_expert_survival(expert_survival(many_arms(arms, experts))))


def test_survival_of_awkward_studies() -> None:
    one = table(trial("a", [5.0], active=1, configured=1, usage=[[1.0]]))
    assert_well_set(plot_expert_survival(expert_survival(one)))
    awkward = table(*(trial(name, [5.0, 5.0], usage=[[1.0], [1.0]], data__source=name) for name in AWKWARD))
    assert_well_set(plot_expert_survival(expert_survival(awkward)))


def test_the_survival_line_is_that_of_the_info_and_the_legend_tells_half_lives() -> None:
    usage = [[[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]], [[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]]
    info = expert_survival(table(*(trial(str(s), [1.0] * 3, usage=usage[s], configured=2, seed=s) for s in (0, 1))))
    figure = plot_expert_survival(info)
    (ax,) = figure.axes
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xydata(), [[0, 1], [1, 1], [2, 0.75], [3, 0.5]])
    (legend,) = figure.legends
    assert legend.get_texts()[0].get_text() == "E=2 (half-life 3 epochs; runs 2 to 3)"
    assert "n = 2" in figure.get_supxlabel()


def phases(counts: tuple[int, ...], rhos: tuple[float, ...], others: tuple[str, ...] = ()) -> pd.DataFrame:
    rng = np.random.default_rng(0)

    def active(count: int, share: float) -> int:
        return int(np.clip(round(count * (share + 0.1 * rng.normal())), 1, count))

    return table(
        *(
            trial(
                f"{count}-{rho}-{seed}",
                [1.0],
                active=active(count, min(1, 0.6 * rho)),
                configured=count,
                seed=seed,
                objective__name="blend",
                objective__lambda_balance=200.0 * rho,
                objective__lambda_entropy=400.0,
            )
            for count in counts
            for rho in rhos
            for seed in range(3)
        ),
        *(
            trial(f"{count}-{name}", [1.0], active=active(count, 0.9), configured=count, objective__name=name)
            for name in others
            for count in counts
        ),
    )


@pytest.mark.parametrize(
    ("counts", "rhos", "others"),
    [
        ((10,), (1.0,), ()),
        ((5, 10, 20), (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 20.0), ()),
        ((5, 10), (0.5, 1.0, 2.0), ("likelihood", "expected")),
        ((5,), (), ("likelihood",)),
        (tuple(range(2, 12)), (0.2, 1.0, 300.0), ("likelihood", "expected")),
    ],
)
def test_a_phase_diagram_is_well_set(counts: tuple, rhos: tuple, others: tuple) -> None:
    assert_well_set(plot_phase_diagram(phase_diagram(phases(counts, rhos, others))))


def test_the_theory_is_labelled_as_such_and_drawn_beside_active_experts_alone() -> None:
    figure = plot_phase_diagram(phase_diagram(phases((10,), (0.5, 1.0, 2.0), ("likelihood",))))
    dashed = [sum(line.get_linestyle() == "--" for line in ax.lines) for ax in figure.axes]
    assert dashed == [1, 0, 0, 0]
    (legend,) = figure.legends
    assert legend.get_texts()[-1].get_text() == "theory: min(1, 0.60 \N{GREEK SMALL LETTER RHO})"
    assert "theory for active experts under blend, not a measurement" in " ".join(figure.get_supxlabel().split())
    without = plot_phase_diagram(phase_diagram(phases((10,), (), ("likelihood",))))
    assert "theory" not in without.get_supxlabel()


# --- homogeneity ------------------------------------------------------------------------------------------------------


def homogeneous(seeds: int, classes: tuple[str, ...], alone: int, amounts: tuple[int, ...]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    conditions = [((name,), amounts[0]) for name in classes[:alone]] + [(classes, images) for images in amounts]
    return table(
        *(
            trial(
                f"{names}-{images}-{seed}",
                [20.0 + rng.normal()],
                active=1,
                configured=1,
                seed=seed,
                images=images,
                data__classes=names,
            )
            for names, images in conditions
            for seed in range(seeds)
        )
    )


@pytest.mark.parametrize(
    ("seeds", "classes", "alone", "amounts"),
    [
        (5, ("cat", "eye", "face", "pencil", "snowflake"), 5, (17_500, 350_000)),
        (1, ("cat", "eye"), 1, (100,)),
        (4, tuple(f"category number {number}" for number in range(20)), 15, (17_500, 35_000, 350_000)),
    ],
)
def test_homogeneity_is_well_set(seeds: int, classes: tuple, alone: int, amounts: tuple) -> None:
    assert_well_set(plot_homogeneity(homogeneity(homogeneous(seeds, classes, alone, amounts))))


def test_homogeneity_shows_every_run_and_the_mean_of_seeds() -> None:
    info = homogeneity(homogeneous(3, ("cat", "eye"), 2, (100,)))
    figure = plot_homogeneity(info)
    ax = figure.axes[0]
    shown = sorted(y for line in ax.lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True) if x % 1)
    assert shown == sorted(loss for c in info.conditions for member in c.members for loss in member.loss_R)
    means = [bar.lines[0].get_ydata()[0] for bar in ax.containers]
    assert means == pytest.approx([condition.mean for condition in info.conditions])
    (label, _) = [label.get_text() for label in ax.get_xticklabels()]
    assert label == "1 class\n100 images\n1 steps\nn = 3"
