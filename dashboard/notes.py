"""Tags, notes, stars and the archive of a study and its trials, and the form that changes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import streamlit as st

from smoe_ray.columns import count
from smoe_ray.errors import ResultsError
from smoe_ray.results import Store
from smoe_ray.results.annotations import Annotation, Annotations, change_annotations, read_annotations

from . import load, style

STAR = "\N{BLACK STAR}"
_SECONDS = 2
"""What others note is seen after so long."""


def may_change() -> bool:
    """Whether the dashboard was started with ``--annotate``."""
    return load.arguments().annotate


def of(study: str) -> Annotations:
    """What is noted on a study and its trials; where that cannot be read, nothing, and a message on the page."""
    try:
        return _read(load.out(), study)
    except ResultsError as error:
        st.warning(style.markdown(error), icon=":material/warning:")
        return Annotations()


@st.cache_data(ttl=_SECONDS, max_entries=200, show_spinner=False)
def _read(out: str, study: str) -> Annotations:
    return read_annotations(Store(out), study)


def change(study: str, changed: Callable[[Annotations], Annotations]) -> None:
    """Write what `changed` makes of the annotations.

    Raises:
        ResultsError: it was started without ``--annotate``, or as `change_annotations` says.
    """
    if not may_change():
        raise ResultsError("nothing can be noted here; start smoe-ray dashboard with --annotate")
    change_annotations(Store(load.out()), study, changed)
    _read.clear(load.out(), study)


def line(noted: Annotation) -> str:
    """Star, tags and note in a line; empty where nothing is noted."""
    words = [STAR if noted.star else "", "archived" if noted.archived else "", ", ".join(noted.tags)]
    return ": ".join(filter(None, (" ".join(filter(None, words)), noted.note)))


def show(noted: Annotation) -> None:
    """The line on the page, if there is one."""
    if text := line(noted):
        st.markdown(style.markdown(text), width="content")


class Edit(NamedTuple):
    """What the form says of the trials that it is about."""

    tags: frozenset[str]
    """That all of them have."""
    note: str
    """The same on all of them, or empty."""
    star: bool
    """On all of them."""
    archived: bool

    @classmethod
    def common(cls, noted: Sequence[Annotation]) -> Edit:
        """What several have in common."""
        notes = {one.note for one in noted}
        return cls(
            frozenset.intersection(*(frozenset(one.tags) for one in noted)),
            notes.pop() if len(notes) == 1 else "",
            all(one.star for one in noted),
            all(one.archived for one in noted),
        )

    def apply(self, before: Edit, noted: Annotation) -> Annotation:
        """`noted`, changed in what differs from the form as it was `before`: what several differ in stays."""
        tags = (set(noted.tags) | (self.tags - before.tags)) - (before.tags - self.tags)
        fields = {name: getattr(self, name) for name in ("note", "star", "archived")}
        changed = {name: value for name, value in fields.items() if value != getattr(before, name)}
        return noted.model_copy(update={"tags": tuple(sorted(tags)), **changed})


def form(study: str, trials: Sequence[str]) -> None:
    """A popover that changes what is noted on trials or, without any, on the study; none without ``--annotate``."""
    if not may_change():
        return
    noted = of(study)
    subjects = [noted.of(trial) for trial in trials] or [noted.study]
    before = Edit.common(subjects)
    known = sorted({tag for one in (noted.study, *noted.trials.values()) for tag in one.tags})
    what = count(len(trials), "trial") if trials else "the study"
    with (
        st.popover(f"Annotate {what}", icon=":material/edit_note:"),
        st.form(f"annotate {study} {' '.join(trials)}", border=False),
    ):
        star = st.checkbox("Star", before.star)
        archived = st.checkbox("Archive: hide from tables", before.archived)
        tags = st.multiselect("Tags", known, sorted(before.tags), accept_new_options=True, placeholder="Choose or type")
        several_notes = len({one.note for one in subjects}) > 1
        hint = "Several notes; leave empty to keep them" if several_notes else ""
        note = st.text_area("Note", before.note, max_chars=2000, placeholder=hint)
        if st.form_submit_button("Save", type="primary"):
            _save(study, trials, before, Edit(frozenset(tags), note.strip(), star, archived))


def _save(study: str, trials: Sequence[str], before: Edit, after: Edit) -> None:
    def changed(noted: Annotations) -> Annotations:
        if not trials:
            return noted.model_copy(update={"study": after.apply(before, noted.study)})
        return noted.with_trials({trial: after.apply(before, noted.of(trial)) for trial in trials})

    try:
        change(study, changed)
    except ResultsError as error:
        st.error(style.markdown(error), icon=":material/error:")
        return
    st.rerun()
