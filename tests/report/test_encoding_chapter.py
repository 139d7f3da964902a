"""The chapter on what experts encode: of real probes, made by the command's own path; absent without them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from smoe_ray.errors import ResultsError
from smoe_ray.report.evidence import Evidence
from smoe_ray.report.findings import findings
from smoe_ray.report.page import table_item
from smoe_ray.report.sections import Section, sections
from smoe_ray.results import Store
from smoe_ray.study.probe_run import ProbeTask, probe_trial
from smoe_ray.training.probe import exciting
from support.planted_folder import plant

TITLE = "What each expert encodes"


def chapter(evidence: Evidence) -> Section | None:
    return next((section for section in sections(evidence) if section.title == TITLE), None)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one arm with real weights, probed."""
    out = tmp_path_factory.mktemp("probed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exciting, "_PIXEL_STEPS", 2)
        patch.setattr(exciting, "_LATENT_STEPS", 2)
        for record in plant(out, "drawings", objectives=["likelihood"], experts=[3], seeds=2):
            assert probe_trial(ProbeTask(str(out), "drawings", record.trial_id)).error is None
    return out


def test_every_exhibit_of_a_probe_can_be_made(probed: Path) -> None:
    evidence = Evidence(probed, ["drawings"])
    section = chapter(evidence)
    assert section is not None
    made = {
        exhibit.name.partition("-" + evidence.records[0].trial_id)[0]: exhibit.make() for exhibit in section.exhibits
    }
    tables = {name: frame for name, frame in made.items() if isinstance(frame, pd.DataFrame)}
    names = {
        "encoding-findings",
        "expert-tunings",
        "encodings",
        "hidden-separability",
        "encoding-trials",
        "encoding-stability",
    }

    assert set(tables) == names
    assert sum(isinstance(figure, Figure) for figure in made.values()) == len(section.exhibits) - len(tables) >= 4
    for name, frame in tables.items():
        assert table_item(name, frame, ()).rows  # every column has a heading and a format
    assert tables["encodings"]["expert"].tolist() == [0, 1, 2]
    assert len(tables["expert-tunings"]) == 3 * 7
    assert tables["encodings"]["share"].sum() == pytest.approx(1)
    assert set(tables["encoding-findings"]["answer"]) == {"cannot tell"}  # two seeds
    assert "first split of seed 0" in " ".join(tables["encoding-stability"]["measure"])


def test_the_three_findings_are_among_the_first_sentences(probed: Path) -> None:
    found = {finding.question: finding.sentences for finding in findings(Evidence(probed, ["drawings"]))}
    sentences = found["What do the experts encode (arXiv:2605.20610)?"]
    assert len(sentences) == 3
    assert all("cannot tell; three seeds or more could (n = " in sentence for sentence in sentences)


def test_without_probes_there_is_no_chapter(tmp_path: Path) -> None:
    plant(tmp_path, "drawings", objectives=["likelihood"], experts=[3], seeds=1)
    evidence = Evidence(tmp_path, ["drawings"])
    assert chapter(evidence) is None
    assert not any("encode" in finding.question for finding in findings(evidence))


def test_a_damaged_probe_is_named(probed: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in Store(probed).files("drawings"):
        content = Store(probed).read(name) or b""
        store.write(name, content[:-1] if name.endswith("probe.npz") else content)
    section = chapter(Evidence(tmp_path, ["drawings"]))
    assert section is not None
    for exhibit in section.exhibits:
        with pytest.raises(ResultsError, match="damaged"):
            exhibit.make()
