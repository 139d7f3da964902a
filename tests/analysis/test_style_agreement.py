"""Do experts follow styles: planted runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from smoe_ray.analysis import compare_style_agreement, experts_per_style, style_agreements
from smoe_ray.analysis.style_agreement import CLASS_AMI, STYLE_AMI, STYLES
from smoe_ray.errors import ResultsError
from support.planted_results import table, trial

ACTIVE = {
    "blend": {4: (4, 4, 4), 8: (4, 5, 4)},
    "likelihood": {4: (4, 4, 5), 8: (8, 8, 9)},
    "style_oracle": {8: (8,) * 3},
}
AMI = {"blend": 0.3, "likelihood": 0.6, "style_oracle": 0.9}


@pytest.fixture(scope="module")
def results() -> pd.DataFrame:
    rows = []
    for objective, active_of in ACTIVE.items():
        for styles, active_N in active_of.items():
            for seed, active in enumerate(active_N):
                name = f"{objective}{styles}{seed}"
                classes = ("face", "eye")[: styles // 4]
                config = {"objective__name": objective, "routing": "unsupervised", "data__classes": classes}
                [row] = trial(name, [20.0], active=active, configured=10, seed=seed, **config)
                rows.append(
                    [{**row, STYLES: styles, CLASS_AMI: 0.5, STYLE_AMI: AMI[objective] + 0.01 * seed * (styles - 6)}]
                )
    return table(*rows)


def test_each_arm(results: pd.DataFrame) -> None:
    found = {(arm.label.split(",")[0], arm.styles): arm for arm in style_agreements(results)}
    assert len(found) == 5
    arm = found["likelihood", 8]
    assert arm.active.mean == pytest.approx(25 / 3)
    assert arm.style_ami.mean == pytest.approx(0.62)
    assert arm.style_ami.low < 0.6 < arm.style_ami.high
    assert arm.class_ami[:3] == (0.5, 0.5, 0.5)


def test_experts_per_style_of_each_objective(results: pd.DataFrame) -> None:
    blend, likelihood = experts_per_style(results)  # the style oracle's number is given
    assert (blend.label, likelihood.label) == ("blend", "likelihood")
    assert likelihood.slope.mean == pytest.approx(1)
    assert (
        "likelihood: the number of active experts grows with the number of styles, +1.00 per style"
        in likelihood.sentence
    )
    assert likelihood.sentence.endswith("n = 6): 4.33 at 4 styles, 8.33 at 8")
    assert "blend: the number of active experts does not change demonstrably" in blend.sentence


def test_agreement_with_styles_is_compared_with_the_first_objective_at_equal_data(results: pd.DataFrame) -> None:
    found = compare_style_agreement(results)
    assert found.reference == "blend"  # not the style oracle, which is routed by label
    assert {(each.arm, each.n_arm) for each in found.differences} == {("likelihood", 3), ("style_oracle", 3)}
    assert [each.estimate for each in found.differences] == pytest.approx([0.3, 0.3, 0.6])


def test_trials_without_styles_are_left_out(results: pd.DataFrame) -> None:
    with pytest.raises(ResultsError, match="no finished trial with stored embeddings has styles"):
        style_agreements(results.assign(**{STYLE_AMI: np.nan}))
