"""The same grid on several datasets: each is judged alone, and no loss of one is compared with that of another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from smoe_ray.analysis import (
    arms,
    compare_arms,
    dataset_names,
    dataset_verdict,
    loss_against_experts,
    loss_against_samples_per_expert,
    loss_surface,
    of_dataset,
    recommend,
    representatives,
    training_curves,
)
from smoe_ray.analysis.curves import Curve
from smoe_ray.analysis.dataset_verdicts import best_count
from smoe_ray.errors import ResultsError
from smoe_ray.figures import FIGURES
from smoe_ray.published import read_published_datasets
from support.planted_results import table, trial

NOISE = (-0.3, 0.1, 0.2, 0.05, -0.05)
DIGITS = {1: 30.0, 3: 26.0, 5: 24.0, 10: 25.0}
PHOTOGRAPHS = {1: 150.0, 3: 151.0, 5: 153.0, 10: 156.0}
IMAGES = {"digits": 800, "photographs": 1000}


def grid(
    seeds: int = 5, objectives: tuple[str, ...] = ("blend", "likelihood"), scale: float = 1.0, **config: Any
) -> pd.DataFrame:
    """Digits gain by experts, photographs (whose losses are `scale` as large) lose by them."""
    return table(
        *(
            trial(
                f"{name}-{objective}-{experts}-{seed}",
                # runs of a seed have noise in common, which only a paired comparison removes
                [(mean + 20 * NOISE[seed] + 0.1 * NOISE[(seed + experts) % 5]) * (scale if size else 1)],
                seed=seed, configured=experts, active=min(experts, 4), images=IMAGES[name],
                dataset=name, data__source="images", data__root=f"/{name}", objective__name=objective, **config,
            )
            for size, (name, means) in enumerate((("digits", DIGITS), ("photographs", PHOTOGRAPHS)))
            for objective in objectives
            for experts, mean in means.items()
            for seed in range(seeds)
        )
    )  # fmt: skip


def test_each_dataset_is_judged_alone_and_paired_by_seed() -> None:
    found = dataset_verdict(grid())
    assert (found.datasets, found.arms, found.caution) == (("digits", "photographs"), ("blend", "likelihood"), None)
    assert [(one.dataset, one.arm, one.best.experts) for one in found.verdicts] == [
        ("digits", "blend", 5),
        ("digits", "likelihood", 5),
        ("photographs", "blend", 1),
        ("photographs", "likelihood", 1),
    ]
    blend = found.verdicts[0]
    assert blend.difference is not None
    runs = of_dataset(grid(objectives=("blend",)), "digits").set_index("seed")
    five, one = (runs.loc[runs["experts.configured"] == count, "test.reconstruction"] for count in (5, 1))
    assert blend.difference.estimate == pytest.approx((five - one).mean())
    assert blend.difference.p == pytest.approx(stats.ttest_rel(five, one).pvalue)
    assert blend.in_words == "E=5 lower than E=1, \N{MINUS SIGN}20.0 %"
    assert "of 5 experts 4 stay active" in blend.sentence
    worse = found.verdicts[2]
    assert worse.in_words == "E=3 higher than E=1, +0.7 %"
    assert "1 expert has the lowest mean loss" in worse.sentence


def test_the_family_of_a_dataset_is_all_its_counts_and_arms() -> None:
    alone = dataset_verdict(grid(objectives=("blend",))).verdicts[0].difference
    both = dataset_verdict(grid()).verdicts[0].difference
    assert alone is not None
    assert both is not None
    assert both.p == alone.p
    assert alone.p_holm < both.p_holm
    assert both.p_holm <= 6 * both.p


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_one_dataset_changes_no_verdict(scale: float) -> None:
    as_it_was, scaled = (dataset_verdict(grid(scale=factor)) for factor in (1.0, scale))
    for before, after in zip(as_it_was.verdicts, scaled.verdicts, strict=True):
        assert after.in_words == before.in_words
        assert after.best.experts == before.best.experts
        assert after.change == pytest.approx(before.change)
        assert (after.dataset == "photographs") or after.loss.mean.tolist() == before.loss.mean.tolist()


def test_few_seeds_are_said() -> None:
    found = dataset_verdict(grid(seeds=2))
    assert found.caution is not None
    assert found.caution.startswith("With 2 runs per count")
    assert all(one.in_words == f"cannot tell {one.difference.arm} from E=1 (n = 2)" for one in found.verdicts)
    single = dataset_verdict(grid(seeds=1))
    assert single.verdicts[0].best.interval is None
    assert np.isnan(single.table["best_low"]).all()
    assert single.caution is not None
    assert single.caution.startswith("With 1 run per count")


def test_without_one_expert_there_is_nothing_to_compare_with() -> None:
    results = grid()
    found = dataset_verdict(results[results["experts.configured"] > 1])
    assert {one.in_words for one in found.verdicts} == {"no runs to compare with E=1"}
    assert found.verdicts[0].best.experts == 5
    assert found.table["estimate"].isna().all()


def test_the_verdict_is_at_the_largest_amount_of_each_dataset() -> None:
    little = grid(data__fraction=0.5).assign(
        **{"data.train_images": lambda frame: frame["data.train_images"] // 2, "test.reconstruction": 1.0}
    )
    little["trial_id"] += "-half"
    found = dataset_verdict(pd.concat([grid(data__fraction=1.0), little]))
    assert len(found.verdicts) == 4
    assert found.verdicts[0].loss.mean.min() > 20
    advice = found.verdicts[0].recommendation
    assert advice is not None
    assert advice.amount == 800
    assert advice.num_runs == 40


def test_the_chance_of_the_best_of_two_counts_is_that_of_students_t() -> None:
    n = np.array([4, 4])
    found = best_count(Curve("", np.array([1, 3]), np.array([10.0, 9.5]), np.array([0.6, 0.8]), n))
    pooled = np.sqrt((0.6**2 + 0.8**2) / 2)
    expected = stats.t.cdf(0.5 / (pooled * np.sqrt(2 / 4)), 6)
    assert found.experts == 3
    assert found.chance_K[1] == pytest.approx(expected, abs=0.01)
    assert found.interval == (1, 3)


def test_one_dataset_is_refused_in_one_line() -> None:
    with pytest.raises(ResultsError, match=r"all finished trials are on one dataset \('digits'\); give the study"):
        dataset_verdict(of_dataset(grid(), "digits"))
    with pytest.raises(ResultsError, match="no dataset 'digit' here; there are digits, photographs; did you mean"):
        of_dataset(grid(), "digit")


@pytest.mark.parametrize(
    "analysis", [training_curves, loss_against_experts, loss_surface, loss_against_samples_per_expert]
)
def test_what_has_one_axis_of_losses_says_what_to_choose(analysis: Any) -> None:
    with pytest.raises(ResultsError, match="losses of digits and photographs have no common scale; choose one, --dat"):
        analysis(grid())
    analysis(of_dataset(grid(), "photographs"))


def test_labels_name_the_dataset_and_nothing_that_follows_from_it() -> None:
    labels = list(arms(grid(seeds=1)).cat.categories)
    assert labels[0] == "digits, blend, E=1"
    assert "photographs, likelihood, E=10" in labels
    assert arms(of_dataset(grid(seeds=1), "digits")).cat.categories[0] == "blend, E=1"


def test_sources_without_a_name_are_told_apart_by_what_they_are() -> None:
    results = table(
        trial("a", [1.0], data__source="quickdraw"),
        trial("b", [1.0], data__source="my_plugin:Cells"),
        trial("c", [1.0], data__source="images"),
        trial("d", [1.0], data__source="images"),
    )
    results["data.image_shape"] = ["1x28x28", "1x28x28", "1x28x28", "3x32x32"]
    assert list(dataset_names(results)) == ["drawings", "Cells", "images 1x28x28", "images 3x32x32"]


def test_arms_are_compared_within_a_dataset_only() -> None:
    found = compare_arms(grid())
    assert (found.reference, found.arms) == ("blend", ("likelihood",))
    assert {difference.label for difference in found.differences} == {
        f"{name}, E={experts}" for name in IMAGES for experts in DIGITS
    }


def test_recommendations_are_for_the_amount_of_each_dataset() -> None:
    found = recommend(grid(seeds=1))
    assert {arm.label: arm.amount for arm in found.arms} == {
        f"{name}, {objective}": amount for name, amount in IMAGES.items() for objective in ("blend", "likelihood")
    }
    assert found.several_datasets
    assert {arm.amount for arm in recommend(grid(seeds=1), 500).arms} == {500}


def test_representatives_are_of_every_dataset() -> None:
    shown = representatives(grid(seeds=1), 4).trials
    assert sorted(one.label.partition(",")[0] for one in shown) == ["digits", "digits", "photographs", "photographs"]


def test_the_figure_has_a_scale_for_each_dataset() -> None:
    kind = FIGURES["datasets"]
    figure = kind.plot(kind.info(grid()))
    left, right, *below = figure.axes
    assert left.get_title(loc="left").splitlines()[0] == "digits"
    assert "blend: E=5 lower than E=1" in left.get_title(loc="left")
    assert left.get_ylim()[1] < right.get_ylim()[0]
    assert len(below) == 2
    assert "compare shapes, not levels" in " ".join(figure.get_supxlabel().split())


def test_the_published_runs_have_a_unit_and_seeds_of_their_own() -> None:
    runs = read_published_datasets()
    assert runs.groupby("config.dataset").size().to_dict() == {"fashion-mnist": 24, "mnist": 40}
    found = dataset_verdict(runs, unit="theirs")
    assert [(one.dataset, one.best.experts) for one in found.verdicts] == [("fashion-mnist", 12), ("mnist", 5)]
    assert not any(one.difference.paired for one in found.verdicts if one.difference)
    figure = FIGURES["datasets"].plot(found)
    assert len(figure.axes) == 2  # active experts are unknown
    assert figure.axes[0].get_ylabel().endswith("\ntheirs")
