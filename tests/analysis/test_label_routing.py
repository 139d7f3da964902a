"""Unsupervised routing against routing by label: planted answers, one family of tests, words that say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import pytest
from scipy import stats

from smoe_ray.analysis import compare_arms, has_label_routing, label_routing
from smoe_ray.errors import ResultsError
from smoe_ray.figures import FIGURES
from support.planted_results import table, trial

NOISE = (0.0, 0.3, -0.2, 0.1, -0.1)
WEIGHTS = {1.0: 31.0, 50.0: 34.52, 200.0: 37.0}
OBJECTIVES = {"blend": 34.5, "likelihood": 30.0}


def study(
    weights: Mapping[float, float] = WEIGHTS,
    objectives: Mapping[str, float] = OBJECTIVES,
    fractions: Sequence[float] = (1.0,),
    seeds: int = 5,
) -> pd.DataFrame:
    """Runs of planted means, with the same noise of a seed in every arm and less of an own."""
    arms = [
        (
            f"w{weight}",
            mean,
            {"routing": "supervised", "objective__name": "supervised", "objective__cross_entropy_weight": weight},
        )
        for weight, mean in weights.items()
    ]
    arms += [(name, mean, {"routing": "unsupervised", "objective__name": name}) for name, mean in objectives.items()]
    return table(
        *(
            trial(
                f"{name}-{fraction}-{seed}",
                [90.0, mean + 5 * (1 - fraction) + NOISE[seed] + 0.2 * NOISE[(seed + number) % 5]],
                seed=seed,
                configured=5,
                data__fraction=fraction,
                **config,
            )
            for number, (name, mean, config) in enumerate(arms)
            for fraction in fractions
            for seed in range(seeds)
        )
    )


def test_every_pair_is_in_one_family() -> None:
    found = label_routing(study())
    assert found.baselines == tuple(f"supervised, cross_entropy_weight={weight}" for weight in (1, 50, 200))
    assert found.arms == ("blend", "likelihood")
    assert [(each.arm, each.reference) for each in found.differences] == [
        (arm, baseline) for arm in found.arms for baseline in found.baselines
    ]
    verdict_of = {(each.arm, each.reference[33:]): each.verdict for each in found.differences}
    assert verdict_of == {
        ("blend", "1"): "higher",
        ("blend", "50"): "not distinguishable",
        ("blend", "200"): "lower",
        ("likelihood", "1"): "lower",
        ("likelihood", "50"): "lower",
        ("likelihood", "200"): "lower",
    }
    alone = compare_arms(study(), arm=found.arms[1], reference=found.baselines[0]).differences[0]
    again = next(each for each in found.differences if (each.arm, each.reference) == (alone.arm, alone.reference))
    assert (
        again.p
        == alone.p
        == pytest.approx(stats.ttest_rel(*(found.runs["E=5", of] for of in (alone.arm, alone.reference))).pvalue)
    )
    assert again.p_holm > alone.p_holm == alone.p  # of six, and of one


def test_the_answer_is_about_the_best_of_either_kind() -> None:
    first, *others = label_routing(study()).sentences
    assert first.startswith(
        "Does unsupervised routing beat the best routing by label? Yes: likelihood has a mean test loss "
        "of 30.02, supervised, cross_entropy_weight=1 of 31.02, difference \N{MINUS SIGN}1.00, "
    )
    assert len(others) == 2
    assert others[0].startswith("blend: lower than supervised, cross_entropy_weight=200 (difference \N{MINUS SIGN}2.50")
    assert "; higher than supervised, cross_entropy_weight=1 (difference +3.50" in others[0]
    assert "; not distinguishable from supervised, cross_entropy_weight=50 (difference \N{MINUS SIGN}0.02" in others[0]


@pytest.mark.parametrize(
    ("objectives", "answer"),
    [({"blend": 34.5}, "? No: "), ({"blend": 31.05}, "? Not shown: "), ({"blend": 29.0}, "? Yes: ")],
)
def test_the_answer_follows_the_means(objectives: Mapping[str, float], answer: str) -> None:
    assert answer in label_routing(study(objectives=objectives)).sentences[0]


def test_two_seeds_answer_nothing() -> None:
    first, *others = label_routing(study(seeds=2)).sentences
    assert "? Cannot tell: " in first
    assert "n = 2" in first
    assert all("cannot tell from" in sentence and "lower" not in sentence for sentence in others)


def test_each_amount_of_data_has_an_answer_of_its_own() -> None:
    found = label_routing(study(fractions=(0.2, 1.0)))
    assert found.cells == ("20 % data", "100 % data")
    assert sum("Does unsupervised" in sentence for sentence in found.sentences) == 2
    assert len(found.differences) == 12
    assert found.mean("20 % data", found.baselines[0]) == pytest.approx(
        found.mean("100 % data", found.baselines[0]) + 4
    )


def test_both_kinds_are_needed() -> None:
    assert has_label_routing(study())
    for missing, results in (("supervised", study(weights={})), ("unsupervised", study(objectives={}))):
        assert not has_label_routing(results)
        with pytest.raises(ResultsError, match=f"routing: {missing};"):
            label_routing(results)


def test_the_figure_has_a_panel_per_amount_and_every_run() -> None:
    kind = FIGURES["label_routing"]
    info = kind.info(study(fractions=(0.2, 1.0)))
    figure = kind.plot(info)
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(info.cells)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [*info.baselines, *info.arms]
    assert sum(len(line.get_xdata()) for line in figure.axes[1].lines if line.get_markersize() == 3) == 25
