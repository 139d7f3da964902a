"""The page of one expert: what it receives and, of a probed trial, what it encodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from smoe_ray.analysis import routing
from smoe_ray.report.trial_encoding import TrialEncoding
from smoe_ray.results import Store, TrialFolder, TrialRecord, read_embeddings, read_trials
from smoe_ray.study.probe_run import ProbeTask, probe_trial
from smoe_ray_dashboard.pages.expert import data
from support.planted_folder import plant
from support.quick_probe import few_steps

Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two probed seeds of one arm, and a study without probes."""
    out = tmp_path_factory.mktemp("probed")
    with pytest.MonkeyPatch.context() as patch:
        few_steps(patch)
        for record in plant(out, "drawings", objectives=["likelihood"], experts=[3], seeds=2):
            assert probe_trial(ProbeTask(str(out), "drawings", record.trial_id)).error is None
    plant(out, "plain", objectives=["likelihood"], experts=[3], seeds=1)
    return out


def test_an_expert_without_a_probe_has_its_images_and_the_command(open_page: Open, said: Said, probed: Path) -> None:
    [record] = read_trials(probed, "plain")
    share = np.mean(read_embeddings(probed, "plain", record.trial_id)["expert"] == 1)
    page = open_page("expert", probed, study="plain", expert="1")
    assert f"Expert 1 receives {share:.0%} of the test images" in said(page)
    assert f"smoe-ray probe {probed} plain --trial {record.trial_id}" in said(page)
    assert not page.dataframe


def test_the_numbers_are_those_of_the_probe(open_page: Open, said: Said, probed: Path) -> None:
    record = read_trials(probed, "drawings")[0]
    found = TrialEncoding(str(probed), record, "")
    page = open_page("expert", probed, study="drawings", trial=record.trial_id, expert="2")
    assert f"Without it the test loss changes by {found.ablation.increase_E[2]:+.3g}" in said(page)
    classes, tuned = (frame.value for frame in page.dataframe)
    np.testing.assert_allclose(classes["loss without the expert"], found.ablation.increase_EC[2])
    given = found.preference.selectivity.routing.count_EC
    np.testing.assert_allclose(classes["of the class's images"], given[2] / given.sum(axis=0))
    assert tuned["parameter"].tolist() == [curves.parameter for curves in found.tuning.routing]
    highest = [curves.value_K[curves.curves[2].mean_K.argmax()] for curves in found.tuning.routing]
    np.testing.assert_allclose(tuned["gate: prefers"], highest)
    assert len(page.get("plotly_chart")) == 1


def test_links_lead_to_the_experts_beside_it_and_to_the_one_like_it(open_page: Open, probed: Path) -> None:
    one, other = (TrialEncoding(str(probed), record, "") for record in read_trials(probed, "drawings"))
    page = open_page("expert", probed, study="drawings", trial=one.record.trial_id, expert="1")
    links = {link.proto.label.replace("\\", ""): link.proto.query_string for link in page.get("page_link")}
    assert "expert=0" in links["\N{LEFTWARDS ARROW} Expert 0"]
    assert "expert=2" in links["\N{RIGHTWARDS ARROW} Expert 2"]
    matched = set()
    for expert in range(3):
        correlation_F = [np.corrcoef(one.decoding_EB[expert], of_other)[0, 1] for of_other in other.decoding_EB]
        matched.add(best := int(np.argmax(correlation_F)))
        page = open_page("expert", probed, study="drawings", trial=one.record.trial_id, expert=str(expert))
        links = {link.proto.label.replace("\\", ""): link.proto.query_string for link in page.get("page_link")}
        label = f"Seed {other.record.spec.seed}, expert {best}: correlation {max(correlation_F):.2f}"
        assert f"trial={other.record.trial_id}" in links[label]
    assert len(matched) > 1  # or it could be always the same


def test_an_expert_without_images_says_so() -> None:
    found = routing(np.array([0, 0]), np.array([0, 1]), 2, ("cat", "eye"))
    assert data.answer(1, found, None) == "No test image goes to expert 1."
    assert data.answer(0, found, None) == "Expert 0 receives 100% of the test images, 50% of them cat."


def test_a_stale_probe_is_told_and_the_images_are_shown(open_page: Open, said: Said, tmp_path: Path) -> None:
    [record] = plant(tmp_path, "drawings", objectives=["likelihood"], experts=[3], seeds=1)
    with pytest.MonkeyPatch.context() as patch:
        few_steps(patch)
        assert probe_trial(ProbeTask(str(tmp_path), "drawings", record.trial_id)).error is None
    _other_weights(tmp_path, record)
    page = open_page("expert", tmp_path, study="drawings")
    assert said(page).count("stale: measured on other weights") == 1
    assert "Its test images" in said(page)


def _other_weights(out: Path, record: TrialRecord) -> None:
    folder = TrialFolder(Store(out), "drawings", record.trial_id)
    file = out / folder.name / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
