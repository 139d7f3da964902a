"""Conditions are told by the config, and compared seed by seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from smoe_ray.analysis.data_homogeneity import homogeneity
from smoe_ray.errors import ResultsError
from support.planted_results import table, trial

FIVE = ("cat", "eye", "face", "pencil", "snowflake")
ALONE = dict(zip(FIVE, (18.0, 14.0, 22.0, 16.0, 22.0), strict=True))


def study(seeds: int = 5, alone: Mapping[str, float] = ALONE, spread: float = 0.2, **more: object) -> pd.DataFrame:
    """One expert on each class alone, on five classes with as many images, and on five with twenty times as many."""
    rng = np.random.default_rng(0)
    conditions = [((name,), 17_500, loss) for name, loss in alone.items()]
    conditions += [(FIVE, 17_500, 24.0), (FIVE, 350_000, 17.7)]
    return table(
        *(
            trial(
                f"{'-'.join(classes)}-{images}-{seed}",
                [90.0, loss + spread * rng.normal()],
                active=1,
                configured=1,
                seed=seed,
                images=images,
                data__classes=classes,
                data__fraction=images / 350_000,
                **more,
            )
            for classes, images, loss in conditions
            for seed in range(seeds)
        )
    )


def test_the_three_conditions_of_the_paper_and_their_differences() -> None:
    results = study()
    info = homogeneity(results.assign(study="any name").sample(frac=1, random_state=0))
    assert [(c.label, c.num_classes, c.train_images) for c in info.conditions] == [
        ("1 class, 17,500 images", 1, 17_500),
        ("5 classes, 17,500 images", 5, 17_500),
        ("5 classes, 350,000 images", 5, 350_000),
    ]
    one, five, twenty_times = info.conditions
    assert (one.mean, five.mean, twenty_times.mean) == pytest.approx((18.4, 24.0, 17.7), abs=0.2)
    assert [member.classes for member in one.members] == [(name,) for name in FIVE]
    assert (five.members[0].classes, five.sd) == (FIVE, pytest.approx(np.std(five.loss_R, ddof=1)))
    assert (one.steps, twenty_times.steps) == (350, 7000)
    assert [(d.arm, d.reference, d.verdict) for d in info.differences] == [
        (five.label, one.label, "higher"),
        (twenty_times.label, one.label, "lower"),
        (twenty_times.label, five.label, "lower"),
    ]
    assert info.differences[0].estimate == pytest.approx(five.mean - one.mean)
    assert not any(d.paired for d in info.differences)
    assert info.untested == ()


def test_one_class_after_another_is_one_run_per_seed() -> None:
    """Classes differ by more than seeds do: twenty-five runs are no twenty-five repeats."""
    results = study(seeds=4, spread=0.0)
    one = homogeneity(results).conditions[0]
    assert one.loss_R.tolist() == pytest.approx([18.4] * 4)
    assert one.left_out == 0
    lacking = homogeneity(results[results["trial_id"] != "cat-17500-2"]).conditions[0]
    assert lacking.loss_R.tolist() == pytest.approx([18.4] * 3)
    assert lacking.left_out == 4, "the other four classes of that seed"


def test_classes_without_a_run_of_their_own_are_named() -> None:
    assert homogeneity(study(alone={"cat": 18.0})).untested == ("eye", "face", "pencil", "snowflake")


def test_few_runs_are_no_answer() -> None:
    info = homogeneity(study(seeds=2))
    assert {d.verdict for d in info.differences} == {"cannot tell (n = 2)"}


def test_the_order_of_classes_makes_no_member() -> None:
    results = study(seeds=3)
    turned = [
        classes[::-1] if seed == 1 else classes
        for classes, seed in zip(results["config.data.classes"], results["seed"], strict=True)
    ]
    assert len(homogeneity(results.assign(**{"config.data.classes": turned})).conditions[1].members) == 1


def test_other_expert_counts_do_not_count() -> None:
    more = study().assign(**{"experts.configured": 5, "config.model.num_experts": 5})
    more["trial_id"] += "-of-five"
    both = pd.concat([study(), more])
    assert [len(c.loss_R) for c in homogeneity(both).conditions] == [5, 5, 5]
    assert [len(c.loss_R) for c in homogeneity(both, experts=5).conditions] == [5, 5, 5]


def test_what_is_no_such_study_is_one_line() -> None:
    results = study()
    five_only = results[results["config.data.classes"].map(len) == 5]
    with pytest.raises(ResultsError, match=r"finished trials of 1 expert on one and on several .*homogeneity\.yaml$"):
        homogeneity(five_only)
    with pytest.raises(ResultsError, match="finished trials of 3 experts"):
        homogeneity(results, experts=3)
    with pytest.raises(ResultsError, match=r"finished trials of 1 expert on"):
        homogeneity(results.assign(**{"config.data.classes": None}))
    faster = results.assign(**{"config.training.learning_rate": np.where(results["seed"] == 0, 1e-3, 1e-4)})
    with pytest.raises(ResultsError, match=r"differ in more than their data \('lr=0\.0001', 'lr=0\.001'\); keep one"):
        homogeneity(faster)
