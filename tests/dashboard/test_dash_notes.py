"""What is noted on studies and trials: shown to everybody, changed with --annotate alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from smoe_ray.cli import main
from smoe_ray.errors import ResultsError
from smoe_ray.results import Store
from smoe_ray.results.annotations import Annotation, Annotations, annotations_file, change_annotations, read_annotations
from smoe_ray_dashboard.notes import Edit, change
from support.planted_folder import plant

Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]


def note(out: Path, study: str, noted: Annotations) -> None:
    change_annotations(Store(out), study, lambda _: noted)


def test_notes_are_shown_filtered_by_and_archived_trials_hidden(open_page: Open, out: Path, said: Said) -> None:
    trials = [record.trial_id for record in plant(out, "demo", embeddings=False)]
    noted = {
        trials[0]: Annotation(tags=("keep",), star=True, note="*the* <b>one</b>"),
        trials[1]: Annotation(tags=("keep", "odd")),
        trials[2]: Annotation(archived=True),
    }
    note(out, "demo", Annotations(trials=noted, study=Annotation(note="mind the seeds", tags=("paper",))))
    shown = open_page("trials", out, study="demo").dataframe[0].value.set_index("trial_id")
    assert set(shown.index) == set(trials) - {trials[2]}
    assert shown.loc[trials[0], "note"] == "*the* <b>one</b>"
    assert list(shown.loc[trials[1], "tags"]) == ["keep", "odd"]
    for selections, expected in (
        ({"tags": ["odd"]}, {trials[1]}),
        ({"starred": "true"}, {trials[0]}),
        ({"archived": "true"}, set(trials)),
    ):
        found = open_page("trials", out, study="demo", **selections)
        assert set(found.dataframe[0].value["trial_id"]) == expected
    assert "★ keep: *the* <b>one</b>" in said(open_page("trial", out, study="demo", trial=trials[0])).replace("\\", "")
    assert "paper: mind the seeds: Does it hold?" in said(open_page("studies", out, study="demo"))
    assert not open_page("trials", out, study="demo", trials=trials[:1]).text_area


def test_a_form_notes_on_all_selected_trials_and_keeps_what_they_differ_in(open_page: Open, out: Path) -> None:
    trials = [record.trial_id for record in plant(out, "demo", embeddings=False)]
    note(out, "demo", Annotations(trials={trials[0]: Annotation(tags=("mine",), note="first")}))
    at = open_page("trials", out, annotate=True, study="demo", trials=trials[:2])
    [star] = [box for box in at.checkbox if box.label == "Star"]
    star.check()
    [save] = [button for button in at.button if button.form_id.startswith("annotate demo")]
    save.click().run()
    assert read_annotations(Store(out), "demo").trials == {
        trials[0]: Annotation(tags=("mine",), note="first", star=True),
        trials[1]: Annotation(star=True),
    }
    at.query_params.pop("trials")
    at.run()
    [area] = at.text_area
    area.set_value("of the study")
    [save] = [button for button in at.button if button.form_id.startswith("annotate demo")]
    save.click().run()
    assert read_annotations(Store(out), "demo").study == Annotation(note="of the study")


def test_nothing_is_written_without_the_option(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever calls it: a form that an older page still shows, say."""
    plant(out, "demo", seeds=1, embeddings=False)
    monkeypatch.setattr("sys.argv", ["app.py", str(out)])
    with pytest.raises(ResultsError, match="start smoe-ray dashboard with --annotate"):
        change("demo", lambda noted: noted)
    assert not Path(out, annotations_file("demo")).exists()


def test_an_edit_changes_what_was_changed_in_the_form_alone() -> None:
    both = [Annotation(tags=("a", "b"), note="x", star=True), Annotation(tags=("b", "c"), note="y", star=True)]
    before = Edit.common(both)
    assert before == Edit(frozenset({"b"}), "", star=True, archived=False)
    after = Edit(frozenset({"new"}), "", star=False, archived=False)
    assert [after.apply(before, one) for one in both] == [
        Annotation(tags=("a", "new"), note="x"),
        Annotation(tags=("c", "new"), note="y"),
    ]


def test_an_archived_study_is_hidden_until_it_is_asked_for(open_page: Open, out: Path) -> None:
    for name in ("first", "second"):
        plant(out, name, seeds=1, embeddings=False)
    note(out, "second", Annotations(study=Annotation(archived=True)))
    at = open_page("studies", out, study="first")
    assert at.dataframe[0].value["study"].tolist() == ["first"]
    at.toggle(key="archive").set_value(True).run()
    assert at.dataframe[0].value["study"].tolist() == ["first", "second"]


def test_a_damaged_file_is_said_and_the_trials_are_shown(open_page: Open, out: Path) -> None:
    plant(out, "demo", embeddings=False)
    Store(out).write(annotations_file("demo"), b'{"trials": 1}')
    st.cache_data.clear()
    at = open_page("trials", out, study="demo")
    assert "annotations" in at.warning[0].value
    assert len(at.dataframe[0].value) == 12


def test_places_that_cannot_be_locked_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["smoe-ray", "dashboard", "memory://empty", "--annotate"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "cannot be annotated" in error
    assert error.count("\n") == 1
