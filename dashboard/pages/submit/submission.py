"""Checks and submits studies for the Submit page.

A study is data, not code, but it names folders that the cluster's nodes read, and its results show their contents. So
`data.root` must be inside a folder that the dashboard's operator has allowed, and results go to the dashboard's OUT.
It may name plug-ins only if the allow-list of the dashboard's process has them (`smoe_ray.plugins`). None are imported
here, and on the cluster its own allow-list decides.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import streamlit as st

import smoe_ray_studies
from smoe_ray.errors import SmoeRayError, StudyError
from smoe_ray.plugins import require_allowed
from smoe_ray.spec import MAX_STUDY_BYTES, GridStudy, SearchStudy, parse_study, roots

from ... import load

if TYPE_CHECKING:
    from smoe_ray.cluster.jobs import Job

ROOTS = "SMOE_RAY_DATA_ROOTS"
"""Environment variable: comma-separated folders and URIs below which `data.root` may be."""

MAX_TRIALS = 5_000
"""Planning a larger study would block other sessions for too long: submit it from the command line."""

_sending = threading.Lock()
"""One submission at a time: all go to the same cluster."""


class Checked(NamedTuple):
    """Result of `smoe-ray check` on a study."""

    name: str | None = None
    """None if the study is invalid."""
    wrong: str = ""
    """Why it is invalid."""
    lines: tuple[tuple[str, str], ...] = ()
    """Plan and cost, as pairs of a heading, which may be empty, and a text."""
    absent: str = ""
    """Which data are missing on this machine, if any."""


def templates() -> dict[str, str]:
    """The study files that are installed with smoe-ray: path below ``studies/`` -> YAML."""
    folder = Path(smoe_ray_studies.__file__).parent
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in sorted(folder.rglob("*.yaml"))}


@st.cache_data(max_entries=32, ttl=60, show_spinner=False)
def check(text: str) -> Checked:
    """Validate and plan a study as `smoe-ray check` does; nothing is started."""
    from smoe_ray.inspect.preview import in_words, preview

    try:
        study = admitted(text)
        seen = preview(study, load_plugins=False)
    except SmoeRayError as error:
        return Checked(wrong=str(error))
    checked = Checked(study.name, lines=tuple(in_words(study, seen)))
    try:
        seen.require_data()
    except SmoeRayError as error:
        return checked._replace(absent=str(error))
    return checked


def submit(text: str, note: str, address: str) -> Job:
    """Submit a study to the cluster, with the dashboard's OUT; if it is already running, its job is returned.

    Raises:
        SmoeRayError: the study is not admitted, or the cluster refuses.
    """
    from smoe_ray.cluster import jobs

    return jobs.submit(admitted(text), address, load.out(), note=note)


def send(key: str, note: str, address: str) -> None:
    """Callback of the button: submit the text of widget `key` and store the outcome in the session state.

    On a second click, Streamlit starts another run beside the first, which ends where it next accesses the session
    state. With the lock, the second waits for the first and then knows which job that has started.
    """
    with _sending:
        started: set[str] = st.session_state.setdefault("started here", set())
        try:
            job = submit(st.session_state[key], note, address)
            if job.is_new:
                started.add(job.id)
            st.session_state["sent"] = (job.id, job.study, job.id in started)
            st.session_state["job"] = job.id  # its log is shown
        except SmoeRayError as error:
            st.session_state["sent"] = error


def admitted(text: str) -> GridStudy | SearchStudy:
    """The study of a YAML text; plug-ins that it names are not imported.

    Raises:
        StudyError: it is invalid, too large, or reads what it may not.
        PluginError: it names a plug-in that is not allowed.
    """
    from smoe_ray import planning

    if len(text.encode()) > MAX_STUDY_BYTES:
        raise StudyError(f"study: larger than {MAX_STUDY_BYTES:,} bytes; a study file is a short YAML text")
    _refuse_aliases(text)
    study = parse_study(text)
    trials = planning.trials_to_plan(study)
    if trials > MAX_TRIALS:
        raise StudyError(
            f"{trials:,} trials to plan; this page allows {MAX_TRIALS:,}, 'smoe-ray submit' {planning.MAX_TRIALS:,}"
        )
    allowed = allowed_roots()
    for root in roots(study):
        if not any(_is_below(root, folder) for folder in allowed):
            raise StudyError(
                f"data.root: {root} is in none of the folders that this dashboard allows "
                f"({', '.join(allowed) or 'none'}); its operator sets them in {ROOTS}"
            )
    for reference in planning.StudyPlan(study).plugins:
        require_allowed(reference.kind, reference.plugin)
    return study


def allowed_roots() -> tuple[str, ...]:
    """Folders and URIs below which `data.root` may be."""
    return tuple(root.strip() for root in os.environ.get(ROOTS, "").split(",") if root.strip())


def _refuse_aliases(text: str) -> None:
    """Raise StudyError on YAML aliases: a few lines of them can expand to more values than fit into memory."""
    import yaml

    try:
        has_alias = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError:
        return  # parse_study says where
    if has_alias:
        raise StudyError("study: YAML aliases (*name) are not allowed here; write the values out")


def _is_below(place: str, folder: str) -> bool:
    place, folder = _plain(place), _plain(folder)
    return bool(place and folder) and (place == folder or place.startswith(folder.rstrip("/") + "/"))


def _plain(place: str) -> str:
    """Absolute path or URI; empty with ``..`` or chained protocols, whose target only the file system knows."""
    scheme, _, path = place.rpartition("://")
    if "::" in place or ".." in path.split("/"):
        return ""
    return place.rstrip("/") if scheme else str(Path(place).expanduser().absolute())
