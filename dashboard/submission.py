"""What the Submit page lets through to the cluster, and what it says of a study before.

A study is data, no program, yet it names folders that the cluster's nodes read, and its results show what was in them.
So `data.root` must lie in a folder that whoever started the dashboard has named, and results go to the dashboard's OUT.
It may name plug-ins only if they are on the allow-list of the dashboard's process. They are never imported here, and on
the cluster its own allow-list decides once more.
"""

from __future__ import annotations

import math
import os
import sysconfig
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import streamlit as st

import smoe_ray
from dashboard import load
from smoe_ray.errors import SmoeRayError, StudyError
from smoe_ray.plugins import require_allowed
from smoe_ray.spec import MAX_STUDY_BYTES, Choices, GridStudy, SearchStudy, parse_study, roots

if TYPE_CHECKING:
    from smoe_ray.cluster.jobs import Job

ROOTS = "SMOE_RAY_DATA_ROOTS"
"""Environment variable: folders and URIs below which `data.root` may lie, with commas between them."""

MOST_TRIALS = 5_000
"""A larger study takes longer to plan than a page may keep others waiting: submit it from the command line."""

_TEMPLATES = (
    Path(smoe_ray.__file__).parents[1] / "studies",
    Path(sysconfig.get_path("data")) / "share/smoe-ray/studies",
)
"""In a checkout, and where a wheel puts them."""

_sending = threading.Lock()
"""One submission at a time: all go to the same cluster."""


class Checked(NamedTuple):
    """What `smoe-ray check` says of a study."""

    name: str | None = None
    """None when it cannot run."""
    wrong: str = ""
    """Why it cannot."""
    lines: tuple[tuple[str, str], ...] = ()
    """What it takes: a head, which may be empty, and what is said."""
    absent: str = ""
    """What data is not on this machine, where some is."""


def templates() -> dict[str, str]:
    """The study files that come with smoe-ray: path below ``studies/`` -> YAML."""
    folder = next((folder for folder in _TEMPLATES if folder.is_dir()), None)
    if folder is None:
        return {}
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
    """Send a study to the cluster, into the dashboard's OUT; while its job runs, the same study starts nothing anew.

    Raises:
        SmoeRayError: the study is not admitted, or the cluster refuses.
    """
    from smoe_ray.cluster import jobs

    return jobs.submit(admitted(text), address, load.out(), note=note)


def send(key: str, note: str, address: str) -> None:
    """Answer to the button: submit the text of widget `key`, and remember what to say.

    At a second click Streamlit starts a run beside the one of the first, which ends where it next touches the session's
    state. So the second waits for the first, and what that started is known by then.
    """
    with _sending:
        started: set[str] = st.session_state.setdefault("started here", set())
        try:
            job = submit(st.session_state[key], note, address)
            if job.is_new:
                started.add(job.id)
            st.session_state["sent"] = (job.id, job.study, job.id in started)
            st.session_state["job"] = job.id  # the one whose log is shown
        except SmoeRayError as error:
            st.session_state["sent"] = error


def admitted(text: str) -> GridStudy | SearchStudy:
    """The study of a YAML text; plug-ins that it names are not imported.

    Raises:
        StudyError: it is none, too large, or reads where it may not.
        PluginError: it names a plug-in that is not allowed.
    """
    from smoe_ray.planning import StudyPlan

    if len(text.encode()) > MAX_STUDY_BYTES:
        raise StudyError(f"study: larger than {MAX_STUDY_BYTES:,} bytes; a study file is a short YAML text")
    _refuse_aliases(text)
    study = parse_study(text)
    trials = _most_trials(study)
    if trials > MOST_TRIALS:
        raise StudyError(
            f"{trials:,} trials to plan; the page takes {MOST_TRIALS:,}, 'smoe-ray submit' takes any number"
        )
    for reference in StudyPlan(study).plugins:
        require_allowed(reference.kind, reference.plugin)
    allowed = allowed_roots()
    for root in roots(study):
        if not any(_is_below(root, folder) for folder in allowed):
            raise StudyError(
                f"data.root: {root} is in no folder that this dashboard may have read "
                f"({', '.join(allowed) or 'none'}); whoever starts it names them in {ROOTS}"
            )
    return study


def allowed_roots() -> tuple[str, ...]:
    """Folders and URIs below which `data.root` may lie."""
    return tuple(root.strip() for root in os.environ.get(ROOTS, "").split(",") if root.strip())


def _refuse_aliases(text: str) -> None:
    """A few lines of YAML aliases stand for more values than fit into memory."""
    import yaml

    try:
        has_alias = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError:
        return  # parse_study says where
    if has_alias:
        raise StudyError("study: YAML aliases (*name) are not taken here; write the values out")


def _most_trials(study: GridStudy | SearchStudy) -> int:
    """How many trials must be planned: a grid's, or the corners of a search space."""
    if isinstance(study, GridStudy):
        return math.prod(map(len, study.axes.values())) * len(study.seeds)
    ends = {path: len(one.choices) if isinstance(one, Choices) else 2 for path, one in study.space.items()}
    return sum(ends.values()) + math.prod(count for path, count in ends.items() if path.startswith("model."))


def _is_below(place: str, folder: str) -> bool:
    place, folder = _plain(place), _plain(folder)
    return bool(place and folder) and (place == folder or place.startswith(folder.rstrip("/") + "/"))


def _plain(place: str) -> str:
    """An absolute place; none where it makes detours, whose end only the file system knows."""
    scheme, _, path = place.rpartition("://")
    if "::" in place or ".." in path.split("/"):
        return ""
    return place.rstrip("/") if scheme else str(Path(place).expanduser().absolute())
