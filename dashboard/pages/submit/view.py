"""Submit: edit a study, see its plan and cost, submit it to the Ray cluster, follow its job."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from smoe_ray.cluster import jobs
from smoe_ray.errors import SmoeRayError, StudyError
from smoe_ray.results.study_file import study_text

from ... import load, page, style, url_state
from . import PAGE, submission

MAX_LOG_CHARACTERS = 20_000
WARNING = (
    "Anyone who can open this page can use the cluster, write below OUT, stop any listed job, and see the contents of "
    "the folders that studies may read ({roots}). A study is data, never code; the cluster's token stays on the server."
)


def editor(address: str) -> None:
    """Text editor, and beside it the result of `smoe-ray check`."""
    texts = submission.templates() | {f"{study} (in OUT)": "" for study in load.studies()}
    template = url_state.one("Start from", list(texts), "template", "quickstart.yaml")
    if template.endswith(" (in OUT)"):
        try:
            texts[template] = study_text(load.file(template.removesuffix(" (in OUT)"), "study.yaml") or b"", template)
        except StudyError as error:
            st.error(style.markdown(str(error)), icon=":material/error:")
    key = f"yaml-{template}"  # each template keeps its own edits
    left, right = st.columns([3, 2])
    with left, st.container(key="editor"):
        st.html("<style>.st-key-editor textarea {font-family: monospace; font-size: 0.85rem; white-space: pre}</style>")
        text = st.text_area("Study (YAML)", texts[template], height=420, key=key, persist_state="session") or ""
    checked = submission.check(text)
    with right:
        if checked.name is None:
            st.error(style.markdown(checked.wrong), icon=":material/error:")
        else:
            st.success("Valid study. Plan and cost:", icon=":material/check:")
            lines = (
                (f"**{style.markdown(head)}** " if head else "") + style.markdown(said) for head, said in checked.lines
            )
            st.markdown("  \n".join(lines))
        if checked.absent:
            st.warning(
                style.markdown(
                    f"{checked.absent}. This was checked on the dashboard's machine; the cluster's nodes may differ."
                )
            )
        if checked.name in load.studies():
            st.info(
                style.markdown(
                    f"OUT contains a study {checked.name}: this one replaces its definition and keeps its trials."
                )
            )
    note = st.text_input("Note", max_chars=jobs.MAX_NOTE_CHARACTERS, help="Free text, shown in the list of jobs.")
    st.caption(
        style.markdown(f"Results go to {load.out()}, which must be the same shared place on every node of the cluster.")
    )
    st.button(
        "Submit", type="primary", disabled=checked.name is None, on_click=submission.send, args=(key, note, address)
    )


def outcome() -> None:
    """Outcome of the last submission of this session."""
    sent = st.session_state.get("sent")
    if isinstance(sent, SmoeRayError):
        st.error(style.markdown(sent), icon=":material/error:")
    elif sent is not None:
        job, study, is_new = sent
        st.success(
            style.markdown(
                f"Submitted as job {job}" if is_new else f"Already running as job {job}; nothing was started"
            )
        )
        page.link("studies", "Follow it on the Studies page", study=study)


@st.fragment(run_every=5)
def job_list(address: str) -> None:
    """Jobs, newest first, and the log of one. Errors stay inside, so that the editor keeps working."""
    with page.section("Jobs"):
        listed = {one.job.id: one for one in jobs.list_jobs(address)}
        if not listed:
            st.info("No study has been submitted to this cluster yet.")
            return
        rows = [(name, one.state, one.submitted_at, one.job.out, one.job.note) for name, one in listed.items()]
        st.dataframe(pd.DataFrame(rows, columns=["job", "state", "submitted", "out", "note"]), hide_index=True)
        chosen = listed[url_state.one("Job", list(listed), "job", stays=True)]
        if chosen.is_active:
            with st.popover("Stop ...", icon=":material/stop_circle:"):
                st.text(f"Stop {chosen.job.id}? Trained results are kept; to resume, submit the study again.")
                if st.button("Stop it", type="primary"):
                    with st.spinner("Stopping; the job saves its state ..."):
                        chosen.job.stop()
                    st.rerun(scope="fragment")
        log = "".join(chosen.job.logs())
        st.code(log[-MAX_LOG_CHARACTERS:] or "(no output yet)", language=None, wrap_lines=True, height=280)


def show() -> None:
    """The page."""
    page.frame(PAGE)
    with page.boundary():
        head = load.address()
        if head is None:
            raise StudyError("The dashboard was started without a cluster; start it with --address http://<head>:8265")
        roots = submission.allowed_roots()
        st.caption(style.markdown(WARNING.format(roots=", ".join(roots) or f"none; {submission.ROOTS} sets them")))
        outcome()
        editor(head)
        job_list(head)
