"""The Search page: numbers of the trials, every state of a search, and histories that strangers wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from streamlit.testing.v1 import AppTest

from smoe_ray.errors import ResultsError
from smoe_ray.inspect.journal import JOURNAL, History, Journal, history_from_trials, parse_journal
from smoe_ray.results import Store, Timings, TrialFolder, TrialRecord, Versions
from smoe_ray.spec import SearchStudy, parse_study, trial_with
from smoe_ray_dashboard.pages.search import brush, charts
from support.planted_folder import MOMENT

HOSTILE = "<b>x</b><img src=x onerror=alert(1)> **bold** $x$ [a](http://b)"
BOTH = "[{metric: test.reconstruction}, {metric: experts.active_fraction, direction: maximize}]"
STUDY = """
name: search
question: Which weights?
base: {{data: {{source: synthetic}}, model: {{encoder: lite}}}}
space:
  model.num_experts: {{type: int, low: 2, high: 32, log: true}}
  objective.name: {{type: categorical, choices: [blend, likelihood]}}
  objective.lambda_balance: {{type: float, low: 10, high: 2000, log: true}}
  objective.lambda_entropy: {{type: float, low: 10, high: 2000, log: true, when: {{objective.name: blend}}}}
objectives: {objectives}
num_trials: 20
sampler: {{name: random}}
"""
VERSIONS = Versions(smoe_ray="0.1.0", torch="2.9.9", numpy="2.0.0", python="3.11.0", numerics=1)


def planted(out: Path, count: int = 12, objectives: str = BOTH, journal: bool = True) -> dict[str, tuple[float, float]]:
    """A search of `count` finished trials, one pruned, one failed and one running; its values by trial_id."""
    study = parse_study(STUDY.format(objectives=objectives))
    assert isinstance(study, SearchStudy)
    store, values = Store(out), {}
    store.write("search/study.yaml", STUDY.format(objectives=objectives).encode())
    mirror = Journal(study, store)
    ends: list[dict[str, Any]] = [{"status": "finished"}] * count
    ends += [{"status": "pruned", "reason": HOSTILE}, {"status": "failed", "error": HOSTILE}, {"status": "running"}]
    for number, end in enumerate(ends):
        name = "blend" if number % 2 else "likelihood"
        point = {
            "model.num_experts": 2 + number,
            "objective.name": name,
            "objective.lambda_balance": 10.0 * (1 + number),
        }
        if name == "blend":
            point["objective.lambda_entropy"] = 400.0 - 20 * number
        record = TrialRecord(
            study="search",
            trial_id=f"{number:012x}",
            spec=trial_with(study.base, point),
            host="here",
            versions=VERSIONS,
            timings=Timings(started_at=MOMENT.replace(minute=number), finished_at=MOMENT.replace(minute=number)),
            **end,
        )
        loss, active = 55 + 0.5 * (number - 3.2) ** 2, 1.0 if number % 3 else 0.5
        rows = [{"epoch": 1, "test.reconstruction": loss, "experts.active_fraction": active}]
        folder = TrialFolder(store, "search", record.trial_id)
        folder.write_epochs(rows)
        folder.write_record(record)
        if end["status"] == "finished":
            values[record.trial_id] = (loss, active)
        if end["status"] != "running":
            mirror.add(record, rows)
    if journal:
        mirror.write()
    else:
        (out / "search" / JOURNAL).unlink(missing_ok=True)
    return values


def trials_of(at: AppTest) -> dict[str, dict[str, Any]]:
    frame = at.dataframe[0].value
    return {parse_qs(urlsplit(row["trial"]).query)["trial"][0]: row for row in frame.to_dict("records")}


Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]


@pytest.mark.parametrize("journal", [True, False])
def test_the_numbers_are_those_of_the_trials(out: Path, open_page: Open, said: Said, journal: bool) -> None:
    values = planted(out, journal=journal)
    at = open_page("search", out, study="search")
    rows = trials_of(at)
    shown = {
        name: (row["test.reconstruction"], row["experts.active_fraction"])
        for name, row in rows.items()
        if row["state"] == "finished"
    }
    assert shown == values
    # The loss is least at number 3, which has dead experts, and next at number 4, which has none.
    assert [name for name, row in rows.items() if row["best"]] == ["000000000004", "000000000003"]
    assert rows["000000000001"]["objective.lambda_entropy"] == 380
    assert math.isnan(rows["000000000002"]["objective.lambda_entropy"])
    assert "Trials: 12 finished, 1 pruned, 1 failed, 1 running or interrupted." in said(at)
    assert ("absent" in said(at)) is not journal
    assert len(at.get("plotly_chart")) == 5


def test_pruned_and_failed_trials_say_why(out: Path, open_page: Open, said: Said) -> None:
    planted(out)
    at = open_page("search", out, study="search")
    rows = trials_of(at)
    assert {name: row["state"] for name, row in rows.items() if row["why"] == HOSTILE} == {
        "00000000000c": "pruned",
        "00000000000d": "failed",
    }
    assert "onerror" not in said(at)


def test_one_objective_has_no_pareto_front(out: Path, open_page: Open, said: Said) -> None:
    planted(out, objectives="[{metric: test.reconstruction}]")
    at = open_page("search", out, study="search")
    assert "Pareto front" not in [heading.value for heading in at.subheader]
    assert [name for name, row in trials_of(at).items() if row["best"]] == ["000000000003"]


def test_the_url_carries_objective_and_parameters(out: Path, open_page: Open) -> None:
    planted(out)
    at = open_page("search", out, study="search", objective="experts.active_fraction", x="model.num_experts")
    assert at.selectbox(key="objective").value == "experts.active_fraction"
    assert (at.selectbox(key="x").value, at.selectbox(key="y").value) == (
        "model.num_experts",
        "objective.lambda_entropy",
    )


def test_too_few_trials_are_a_sentence(out: Path, open_page: Open, said: Said) -> None:
    planted(out, count=1)
    at = open_page("search", out, study="search")
    assert "Importances need 10 finished trials; there are 1 so far" in said(at)
    assert "Parallel coordinates need two finished trials" in said(at)
    assert "A contour plot needs two parameters" in said(at)


def test_before_any_trial_has_ended(out: Path, open_page: Open, said: Said) -> None:
    Store(out).write("search/study.yaml", STUDY.format(objectives=BOTH).encode())
    assert "none has ended" in said(open_page("search", out, study="search"))


def test_a_grid_is_no_search(out: Path, open_page: Open, said: Said) -> None:
    Store(out).write("grid/study.yaml", b"name: grid\nquestion: q\nbase: {}\naxes: {model.num_experts: [2, 3]}\n")
    assert "grid is a grid study, which runs every combination" in said(open_page("search", out, study="grid"))


# --- what strangers write ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"rubbish",
        b"\x80\x04\x95" + b"." * 50,  # the beginning of a pickle
        b"[" * 100_000,
        b'{"op_code": 99}\n',
        b'{"op_code": 0, "worker_id": "w", "study_name": "other", "directions": [1]}\n',
        b'{"op_code": 0, "worker_id": "w", "study_name": "search", "directions": [1]}\n',
    ],
)
def test_what_is_no_journal_is_one_line(content: bytes) -> None:
    with pytest.raises(ResultsError, match=r"optuna\.journal is (no journal of Optuna|of another version)") as caught:
        parse_journal(content, parse_study(STUDY.format(objectives=BOTH)))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_broken_journal_is_replaced_by_the_trials(out: Path, open_page: Open, said: Said) -> None:
    values = planted(out)
    (out / "search" / JOURNAL).write_bytes(b"rubbish")
    at = open_page("search", out, study="search")
    assert "Reconstructed from the trials, as optuna.journal is no journal" in said(at)
    assert values.keys() == {name for name, row in trials_of(at).items() if row["state"] == "finished"}


def test_a_journal_of_another_version_of_the_search_is_not_shown(out: Path) -> None:
    planted(out)
    study = parse_study(STUDY.format(objectives=BOTH))
    other = study.model_copy(update={"space": {"model.num_experts": study.space["model.num_experts"]}})  # type: ignore[union-attr]
    with pytest.raises(ResultsError, match="another version of the search"):
        parse_journal((out / "search" / JOURNAL).read_bytes(), other)  # type: ignore[arg-type]


TREES = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["op_code", "worker_id", "study_id"]), inner),
)


@given(st.binary(max_size=200) | TREES.map(lambda tree: json.dumps(tree).encode()))
def test_no_journal_raises_anything_else(content: bytes) -> None:
    with pytest.raises(ResultsError):
        parse_journal(content, parse_study(STUDY.format(objectives=BOTH)))  # type: ignore[arg-type]


def test_the_journal_and_the_trials_tell_the_same(out: Path) -> None:
    from smoe_ray.results import read_results, read_trials

    planted(out)
    study = parse_study(STUDY.format(objectives=BOTH))
    assert isinstance(study, SearchStudy)
    table = read_results(out, "search")
    rows = {str(name): part.to_dict("records") for name, part in table.groupby("trial_id")}
    made = history_from_trials(study, read_trials(out, "search"), rows)
    read = parse_journal((out / "search" / JOURNAL).read_bytes(), study)
    assert len(made.trials) == 14
    for one, other in zip(made.trials, read.trials, strict=True):
        assert (one.state, one.values, one.params, one.user_attrs) == (
            other.state,
            other.values,
            other.params,
            other.user_attrs,
        )


# --- charts -----------------------------------------------------------------------------------------------------------


def history(count: int, name: str = "objective.name", choice: str = "blend", **direction: str) -> History:
    """`count` finished trials, loss rising with the balance weight; the number of experts does nothing."""
    trials = []
    for number in range(count):
        weight = 10 ** (1 + 2 * (number * 7 % count) / count)
        params = {"objective.lambda_balance": weight, "model.num_experts": 2 + number % 5, name: choice}
        distributions = {
            "objective.lambda_balance": FloatDistribution(10, 2000, log=True),
            "model.num_experts": IntDistribution(2, 32),
            name: CategoricalDistribution(["other", choice]),
        }
        if number % 4 == 0:
            params[name] = "other"
        trial = create_trial(
            params=params, distributions=distributions, value=math.log10(weight), user_attrs={"why": HOSTILE}
        )
        trial.number = number
        trials.append(trial)
    return History(("test.reconstruction",), (direction.get("direction", "minimize"),), tuple(trials))


def test_the_parameter_that_matters_comes_first() -> None:
    (bars,) = charts.importances(history(40), 0).data
    assert bars.y[-1] == "objective.lambda_balance"  # the topmost
    assert bars.x[-1] > 0.8


def test_importances_of_equal_trials_are_refused() -> None:
    equal = history(20)
    for trial in equal.trials:
        trial.values = [1.0]
    with pytest.raises(ResultsError, match="Fewer than 5 trials are better than the worst"):
        charts.importances(equal, 0)


@pytest.mark.parametrize(("direction", "best"), [("minimize", min), ("maximize", max)])
def test_the_best_so_far_follows_the_direction(direction: str, best: Callable[[list[float]], float]) -> None:
    past = history(9, direction=direction)
    values, line = charts.optimization_history(past, 0).data
    losses = [trial.values[0] for trial in past.trials]
    assert list(values.y) == losses
    assert list(line.y) == [best(losses[: end + 1]) for end in range(len(losses))]


def test_the_best_line_of_the_parallel_coordinates_is_the_last() -> None:
    (lines,) = charts.parallel_coordinates(history(9), 0).data
    assert list(lines.dimensions[0]["values"]) == sorted((trial.values[0] for trial in history(9).trials), reverse=True)
    assert lines.line.colorbar.ticktext == ("worst", "best")


def test_a_parameter_that_is_not_used_has_a_place_of_its_own() -> None:
    past = history(9)
    del past.trials[0].params["objective.lambda_balance"]
    (lines,) = charts.parallel_coordinates(past, 0).data
    axis = next(one for one in lines.dimensions if "lambda_balance" in one.label)
    assert "lowest: not used" in axis.label
    assert list(axis["values"]).count(axis.range[0]) == 1


def test_a_brush_is_exact_on_numeric_axes_and_keeps_the_trials_in_range() -> None:
    past = history(9)
    for number, trial in enumerate(past.trials):
        trial.user_attrs["trial_id"] = f"t{number}"
    figure, every = charts.brushed(past, 0, [])
    assert sorted(every) == [f"t{number}" for number in range(9)]
    for axis in figure.data[0].dimensions:
        # Plotly takes an axis with ticks of its own for ordinal, and snaps a brush to them.
        assert (axis.tickvals is None) == ("name" not in axis.label)
    losses = {trial.user_attrs["trial_id"]: trial.values[0] for trial in past.trials}
    low, high = sorted(losses.values())[2:8:5]
    figure, kept = charts.brushed(past, 0, [[(low, high)]])
    assert set(kept) == {trial for trial, loss in losses.items() if low <= loss <= high}
    assert len(kept) == 6
    assert figure.data[0].dimensions[0].constraintrange == ((low, high),)


@pytest.mark.parametrize(
    "sent", [None, 3, "", "x", "[[[1]]]", "[[[1, null]]]", "[[[NaN, 1]]]", '{"a": 1}', "[" * 30_000]
)
def test_a_brush_that_cannot_be_read_is_none(sent: object) -> None:
    assert brush.parse_ranges(sent) == []
    assert brush.parse_ranges("[[], [[1, 2.5]]]") == [[], [(1, 2.5)]]


def test_the_pareto_front_is_what_no_other_beats() -> None:
    past = history(4)._replace(metrics=("test.reconstruction", "experts.active"), directions=("minimize", "maximize"))
    for trial, values in zip(past.trials, ([1.0, 1.0], [2.0, 5.0], [3.0, 4.0], [2.0, 3.0]), strict=True):
        trial.values = values
    others, front = charts.pareto_front(past, 0, 1).data
    assert list(zip(front.x, front.y, strict=True)) == [(1.0, 1.0), (2.0, 5.0)]
    assert front.line.shape == "hv"
    assert list(zip(others.x, others.y, strict=True)) == [(2.0, 3.0), (3.0, 4.0)]


def test_thousands_of_trials_make_a_small_contour_with_the_best_and_the_worst() -> None:
    past = history(1999)
    surface, points = charts.contour(past, 0, "objective.lambda_balance", "model.num_experts").data
    assert len(points.x) == charts.MAX_IN_CONTOUR
    losses = [trial.values[0] for trial in past.trials]
    assert {min(losses), max(losses)} <= {value for row in surface.z for value in row}


def test_no_chart_carries_markup_of_strangers() -> None:
    past = history(30, name=f"data.parts.{HOSTILE}", choice=HOSTILE)
    past.trials[1].user_attrs["trial_id"] = HOSTILE
    two = past._replace(metrics=(*past.metrics, "experts.active"), directions=("minimize", "maximize"))
    for trial in two.trials:
        trial.values = [trial.values[0], 1.0]
    drawn = [
        charts.optimization_history(two, 0),
        charts.importances(two, 0),
        charts.parallel_coordinates(two, 0),
        charts.pareto_front(two, 0, 1),
        charts.contour(two, 0, "objective.lambda_balance", f"data.parts.{HOSTILE}"),
    ]
    for figure in drawn:
        said = json.loads(figure.to_json())
        assert "<img" not in json.dumps(said)
        assert "<b>" not in json.dumps(said)


def test_trials_without_a_finite_value_are_not_drawn() -> None:
    past = history(6)
    past.trials[0].values = [math.inf]
    past.trials[1].values = [1.0, 2.0]
    past.trials[2].state = TrialState.FAIL
    assert [trial.number for trial in charts.finished(past)] == [3, 4, 5]
    assert len(charts.optimization_history(past, 0).data[0].x) == 3
