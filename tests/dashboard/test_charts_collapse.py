"""Charts of collapse hold the numbers of their infos, and nothing that a stranger wrote runs in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from smoe_ray.analysis import collapse_rates, expert_survival, phase_diagram, usage_over_epochs
from smoe_ray.analysis.experts import QUANTILES, experts_in_use
from smoe_ray_dashboard.pages.collapse import charts
from support.planted_results import dying, many_arms, table, trial

SCRIPT = "<script>alert(1)</script><b>bold"


@pytest.fixture(scope="module")
def study() -> pd.DataFrame:
    return many_arms(4, configured=6)


def named(figure: go.Figure, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name is not None and trace.name.startswith(name)]


def test_usage_is_stacked_in_the_order_of_final_shares(study: pd.DataFrame) -> None:
    (trial_usage, *_) = usage_over_epochs(study).trials
    figure = charts.usage(trial_usage)
    assert [trace.name for trace in figure.data] == [
        f"expert {expert}" + ("" if state == "alive" else f" ({state})")
        for expert, state in zip(trial_usage.expert_E, trial_usage.state_E, strict=True)
    ]
    np.testing.assert_array_equal([trace.y for trace in figure.data], trial_usage.share_ET)
    assert {trace.stackgroup for trace in figure.data} == {"experts"}
    greys = [trace.fillcolor == charts.style.GREY for trace in figure.data]
    np.testing.assert_array_equal(greys, trial_usage.state_E != "alive")
    named_E = [str(e) for e, share in zip(trial_usage.expert_E, trial_usage.share_ET[:, -1], strict=True) if share > 0]
    assert [note.text for note in figure.layout.annotations] == named_E


def test_bands_are_quantiles_over_all_trials_and_lines_the_chosen_ones(study: pd.DataFrame) -> None:
    measures = experts_in_use(study, trials=("0-1", "3-2"))
    figure = charts.in_use(measures)
    for measure, median, half in zip(
        measures, named(figure, "median"), named(figure, "half of the trials"), strict=True
    ):
        np.testing.assert_array_equal(median.x, measure.epoch_T)
        np.testing.assert_array_equal(median.y, measure.quantile_QT[QUANTILES.index(0.5)])
        np.testing.assert_array_equal(median.customdata[:, :-1], measure.quantile_QT.T)
        np.testing.assert_array_equal(median.customdata[:, -1], measure.n_T)
        np.testing.assert_array_equal(half.y, measure.quantile_QT[QUANTILES.index(0.75)])
    active = measures[0].trials[1]
    shown = named(figure, active.label)[0]
    assert shown.legendgroup == "3-2"
    np.testing.assert_array_equal(shown.y, active.share_T)
    np.testing.assert_array_equal(shown.customdata, active.count_T)
    # The legend names each thing once, whatever the number of panels.
    names = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert len(names) == len(set(names)) == 4 + 2


def test_survival_is_a_step_line_an_arm(study: pd.DataFrame) -> None:
    info = expert_survival(study)
    chosen = [arm.label for arm in info.arms[:2]]
    figure = charts.survival(info, chosen)
    assert len(figure.data) == 2
    for trace, arm in zip(figure.data, info.arms, strict=False):
        np.testing.assert_array_equal(trace.x, arm.epoch_T)
        np.testing.assert_array_equal(trace.y, arm.share_T)
        assert trace.line.shape == "hv"
        assert trace.name.startswith(arm.label)
    whole = expert_survival(table(trial("a", [1.0] * 3, configured=2, usage=[[0.5, 0.5]] * 3)))
    (trace,) = charts.survival(whole, [whole.arms[0].label]).data
    assert trace.name.endswith("(half-life > 3 epochs)")


def test_collapse_rates_with_their_intervals(study: pd.DataFrame) -> None:
    found = collapse_rates(study)
    (trace,) = charts.rates(found).data
    np.testing.assert_array_equal(trace.x, [rate.share for rate in found])
    np.testing.assert_allclose(trace.x + trace.error_x.array, [rate.high for rate in found])
    np.testing.assert_allclose(trace.x - trace.error_x.arrayminus, [rate.low for rate in found], atol=1e-12)
    assert trace.hovertext[0].endswith(f"{found[0].collapsed} of 3 runs: 100 % (95 % 44 % to 100 %)")


def penalised(name: str, balance: float, entropy: float | None, active: int, **more: Any) -> list[dict[str, Any]]:
    objective = "blend" if entropy is not None else "likelihood"
    return trial(
        name,
        [1.0],
        active=active,
        objective__name=objective,
        objective__lambda_balance=balance,
        objective__lambda_entropy=entropy,
        **more,
    )


def test_phase_diagram_with_theory_and_margin() -> None:
    info = phase_diagram(
        table(
            penalised("a", 100.0, 200.0, 6),
            penalised("b", 100.0, 200.0, 8, seed=1),
            penalised("c", 2000.0, 200.0, 10),
            penalised("d", 100.0, None, 9),
        )
    )
    figure = charts.phase(info)
    for panel, over, apart in zip(info.panels, named(figure, "blend"), named(figure, "likelihood"), strict=True):
        np.testing.assert_array_equal(over.y, panel.curves[0].mean)
        np.testing.assert_array_equal(over.error_y.array, panel.curves[0].sd)
        np.testing.assert_array_equal(apart.y, panel.margin[0].mean)
    active = named(figure, "blend")[0]
    np.testing.assert_allclose(active.x, [1.0, 2 + 4 / 3])  # rho 1 and 20: linear to 2, then a decade each 4/3
    assert active.hovertext[0] == "blend<br>ρ = 1: 70% ± 14% of E, n = 2"  # noqa: RUF001  # rho
    (theory,) = named(figure, "theory")
    assert "no measurement" in theory.name
    np.testing.assert_array_equal(theory.y, info.theory_share)
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == [
        theory.name,
        "blend",
        "likelihood",
    ]


def test_many_points_are_drawn_by_webgl() -> None:
    many = phase_diagram(table(*(penalised(f"{n}", 100.0 + n, 200.0, 5) for n in range(600))))
    assert {trace.type for trace in charts.phase(many).data if trace.name == many.labels[0]} == {"scattergl"}


def test_labels_of_strangers_are_inert() -> None:
    usage = dying(4, 2, epochs=3)
    results = table(
        trial("a", [3.0] * 3, configured=4, objective__name=SCRIPT, usage=usage),
        trial("b", [4.0] * 3, configured=4, objective__name="blend", usage=usage),
    )
    results = results.assign(**{"config.objective.lambda_balance": 1.0, "config.objective.lambda_entropy": 1.0})
    survival = expert_survival(results)
    for figure in (
        charts.in_use(experts_in_use(results, ("a",))),
        charts.survival(survival, [arm.label for arm in survival.arms]),
        charts.rates(collapse_rates(results)),
        charts.phase(phase_diagram(results)),
    ):
        told = str(figure.to_dict())
        assert "script" in told
        assert "<script" not in told
        assert "<b>" not in told
