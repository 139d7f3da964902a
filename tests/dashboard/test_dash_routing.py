"""The routing page: verdicts, numbers and pictures of the arms that a reader picks; sentences where there are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from smoe_ray.analysis import arms, compare_arms, routing, separability
from smoe_ray.results import TrialRecord, read_embeddings, read_results
from smoe_ray.spec import trial_with
from smoe_ray_dashboard.pages.routing.linked_maps import LASSO
from support.planted_folder import plant
from support.processes import wait_until

Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]

FOUR = ["blend, E=4", "blend, E=8", "likelihood, E=4", "likelihood, E=8"]


def chosen(at: AppTest) -> list[str]:
    """Labels of the chosen arms."""
    box = at.multiselect(key="arms")
    return [box.options[place] for place in box.indices]


def figures(at: AppTest) -> list[Any]:
    """Plotly's own description of each chart of the page."""
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def test_a_verdict_says_what_the_analysis_of_the_table_says(open_page: Open, said: Said, out: Path) -> None:
    plant(out, "arms", objectives=("blend",))
    at = open_page("routing", out, study="arms")
    (one,) = compare_arms(read_results(out, "arms"), cells=()).differences
    assert chosen(at) == ["E=4", "E=8"]
    words = said(at)
    assert f"mean {one.mean_arm:.2f} against {one.mean_reference:.2f}" in words
    assert one.verdict in words
    assert "3 pairs of the same seed" in words
    assert figures(at)[0]["data"][1]["x"] == [pytest.approx(one.estimate)]


def test_arms_keep_the_names_that_they_have_in_the_whole_study(open_page: Open, said: Said, out: Path) -> None:
    plant(out, "arms")
    at = open_page("routing", out, study="arms", arms=[FOUR[1], FOUR[3]], reference=FOUR[3])
    assert at.multiselect(key="arms").options == FOUR
    table = read_results(out, "arms")
    some = table[table["trial_id"].map(arms(table).astype(str)).isin([FOUR[1], FOUR[3]])]
    (one,) = compare_arms(some, reference="likelihood", cells=()).differences
    assert f"{FOUR[1]} and {FOUR[3]}" in said(at) or f"{FOUR[1]} is {one.verdict} than {FOUR[3]}" in said(at)
    assert f"mean {one.mean_arm:.2f} against {one.mean_reference:.2f}" in said(at)


def test_a_link_to_arms_keeps_its_meaning_while_the_study_grows(open_page: Open, said: Said, out: Path) -> None:
    """Labels change with the other arms that there are, ids do not."""
    plant(out, "arms", objectives=("blend",))
    at = open_page("routing", out, study="arms", arms=["E=4", "E=8"])  # as older links have it
    link = at.query_params["arms"]
    assert chosen(at) == ["E=4", "E=8"]
    assert not {"E=4", "E=8"} & set(link)
    plant(out, "arms")

    def labels_are_the_longer_ones() -> bool:  # files are looked for again in the background
        return chosen(open_page("routing", out, study="arms", arms=link)) == [FOUR[0], FOUR[1]]

    wait_until(labels_are_the_longer_ones, seconds=60)
    at = open_page("routing", out, study="arms", arms=link)
    assert at.query_params["arms"] == link
    assert "any more" not in said(at)


def test_an_arm_that_is_gone_is_said_and_none_is_shown_in_its_place(open_page: Open, said: Said, out: Path) -> None:
    plant(out, "arms", objectives=("blend",))
    at = open_page("routing", out, study="arms", arms=["E=8", "gone"])
    assert "Arms: 'gone' is no arm with a finished trial here (any more)" in said(at)
    assert chosen(at) == ["E=8"]
    assert at.query_params["arms"] == ["E=8", "gone"]
    at.run()
    assert "'gone'" in said(at)
    at.multiselect(key="arms").set_value(at.multiselect(key="arms").options).run()
    assert chosen(at) == ["E=4", "E=8"]
    assert "gone" not in said(at)
    assert "gone" not in at.query_params["arms"]


def test_the_family_of_a_correction_is_what_is_shown(open_page: Open, out: Path) -> None:
    plant(out, "arms")
    at = open_page("routing", out, study="arms", arms=FOUR)
    numbers = next(frame.value for frame in at.dataframe if "p, Holm" in frame.value)
    assert numbers["arm"].tolist() == FOUR[1:]
    assert set(numbers["level"]) <= {f"{1 - 0.05 / tests:.4g}" for tests in (1, 2, 3)}


def test_one_arm_is_no_comparison(open_page: Open, said: Said, out: Path) -> None:
    plant(out, "arms")
    at = open_page("routing", out, study="arms")
    at.multiselect(key="arms").set_value([FOUR[0]]).run()
    assert not at.exception
    assert "Select at least two arms" in said(at)
    at.multiselect(key="arms").set_value(FOUR[1:3]).run()
    assert "Choose two" not in said(at)


@pytest.mark.parametrize("ends", [(), ({"status": "running"},) * 2, ({"status": "failed", "error": "x"},) * 2])
def test_without_two_finished_arms_the_page_says_so(open_page: Open, said: Said, out: Path, ends: Any) -> None:
    plant(out, "lone", objectives=("blend",), experts=(4,) if not ends else (4, 8), seeds=1, ends=ends)
    at = open_page("routing", out, study="lone")
    assert "a comparison needs two arms with finished trials" in said(at)


def test_the_supervised_arm_is_the_baseline(open_page: Open, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(out, "arms", objectives=("blend",), experts=(4,))
    supervised = plant(out, "sup", objectives=("blend",), experts=(4,), routing="supervised")
    for record in supervised:
        (out / "sup" / "trials" / record.trial_id).rename(out / "arms" / "trials" / record.trial_id)
    at = open_page("routing", out, study="arms")
    reference = at.selectbox(key="reference")
    assert reference.options[reference.index] == "supervised"


# --- closely ----------------------------------------------------------------------------------------------------------


def test_heatmap_and_scores_are_those_of_the_trial_of_the_chosen_seed(open_page: Open, out: Path) -> None:
    records = plant(out, "arms", objectives=("blend",))
    at = open_page("routing", out, study="arms", seed="1")
    chosen = [record for record in records if record.spec.seed == 1]
    for record, figure in zip(chosen, figures(at)[1:], strict=True):
        kept = read_embeddings(out, "arms", record.trial_id)
        found = routing(kept["expert"], kept["label"], record.spec.model.num_experts, ["cat", "eye", "flower"])
        text = [text for trace in figure["data"] if trace["type"] == "scatter" for text in trace["text"]]
        shares = found.class_given_expert_EC[found.reading_order]
        assert sorted(text) == sorted(f"{share:.0%}" for share in shares.ravel())
    scores = next(frame.value for frame in at.dataframe if "NMI" in frame.value)
    assert scores["arm"].tolist() == ["E=4, seed 1", "E=8, seed 1"]
    assert scores["NMI"].tolist() == ["1.000", "1.000"]


def test_the_flow_is_shown_in_place_of_the_heatmap(open_page: Open, out: Path) -> None:
    plant(out, "arms", objectives=("blend",))
    at = open_page("routing", out, study="arms", routing="Flow")
    sankeys = [figure["data"][0] for figure in figures(at)[1:]]
    assert [trace["type"] for trace in sankeys] == ["sankey", "sankey"]


def test_probes_are_fitted_when_asked_for(open_page: Open, said: Said, out: Path) -> None:
    records = plant(out, "arms", objectives=("blend",))
    at = open_page("routing", out, study="arms")
    assert not any("linear probe" in json.dumps(figure) for figure in figures(at))
    at.toggle(key="probes").set_value(True).run()
    assert not at.exception
    kept = read_embeddings(out, "arms", records[0].trial_id)
    expected = separability(kept["mu"], kept["label"], kept["expert"])
    bars = figures(at)[-1]["data"][0]
    assert np.round(decoded(bars["x"]), 9).tolist() == [round(one.accuracy, 9) for one in expected]
    assert "compare each bar with the controls" in said(at)


def decoded(values: Any) -> Any:
    """Numbers of a chart, which Plotly writes in base 64 where they are an array."""
    import base64

    if isinstance(values, list):
        return np.array(values)
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])


def test_without_embeddings_the_difference_stays(open_page: Open, said: Said, out: Path) -> None:
    plant(out, "arms", objectives=("blend",), embeddings=False)
    at = open_page("routing", out, study="arms", maps="true")
    assert "pairs of the same seed" in said(at)
    assert said(at).count("embeddings.npz: no such file") == 2


# --- maps -------------------------------------------------------------------------------------------------------------


def picked(figure: Any) -> set[int]:
    """Images that a map picks out."""
    return {trace["customdata"][place] for trace in figure["data"] for place in trace.get("selectedpoints") or []}


def maps(at: AppTest) -> list[Any]:
    return [figure for figure in figures(at) if "customdata" in figure["data"][0] and "marker" in figure["data"][0]]


def test_a_group_is_picked_out_on_every_map(open_page: Open, said: Said, out: Path) -> None:
    records = plant(out, "arms", objectives=("blend",))
    at = open_page("routing", out, study="arms", maps="true")
    assert "60 of 60 test images" in said(at)
    assert [picked(figure) for figure in maps(at)] == [set(), set()]
    label_B = read_embeddings(out, "arms", records[0].trial_id)["label"]
    at.selectbox(key="picked").set_value("class eye").run()
    eyes = set(np.flatnonzero(label_B == 1).tolist())
    assert [picked(figure) for figure in maps(at)] == [eyes, eyes]
    assert "20 of 60 images are highlighted" in said(at).replace("*", "")
    assert "classes: eye 100%" in said(at)
    assert "E=4, seed 0: expert 1 100%" in said(at)


def test_a_lasso_selection_on_one_map_is_highlighted_on_all(open_page: Open, said: Said, out: Path) -> None:
    records = plant(out, "arms", objectives=("blend",))
    at = open_page("routing", out, study="arms", maps="true", colour="expert")
    memory = f"lasso {records[0].trial_id} {records[3].trial_id}"
    at.session_state[memory] = frozenset({0, 1, 4, 7, 6_000_000})
    at.run()
    assert at.selectbox(key="picked").value == LASSO
    assert [picked(figure) for figure in maps(at)] == [{0, 1, 4, 7}] * 2
    assert "4 of 60 images are highlighted" in said(at).replace("*", "")
    assert len(at.get("image")) == 1
    at.button[0].click().run()
    assert [picked(figure) for figure in maps(at)] == [set(), set()]


def test_different_test_images_are_not_linked(open_page: Open, said: Said, out: Path) -> None:
    first, *_ = plant(out, "arms", objectives=("blend",), seeds=1)
    file = out / "arms" / "trials" / first.trial_id / "trial.json"
    record = TrialRecord.model_validate_json(file.read_bytes())
    assert record.data is not None
    spec = trial_with(record.spec, {"data.test_per_class": 31})
    facts = record.data.model_copy(update={"fingerprint": "e" * 64})
    other = record.model_copy(update={"spec": spec, "data": facts})
    file.write_text(other.model_dump_json(), encoding="utf-8")
    at = open_page("routing", out, study="arms", maps="true")
    assert "different test images" in said(at)
    assert len(maps(at)) == 1


# --- strangers --------------------------------------------------------------------------------------------------------


def test_names_of_strangers_run_nothing(open_page: Open, out: Path) -> None:
    script = "<img src=x onerror=alert(1)>"
    plant(out, "arms", objectives=("blend",), class_names=(script, "[eye](javascript:1)", "$flower$"))
    at = open_page("routing", out, study="arms", maps="true")
    for figure in figures(at):
        assert "<img" not in json.dumps(figure)
    for element in [*at.markdown, *at.caption]:
        assert "<img" not in element.value
        assert "](javascript" not in element.value
