"""The Submit page without a cluster: what it says of a study, and what it lets through."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from smoe_ray.cli import app
from smoe_ray.cluster import jobs
from smoe_ray.errors import ClusterError, SmoeRayError, StudyError
from smoe_ray.spec import GridStudy, dump_study
from smoe_ray_dashboard.pages.submit import submission

NOWHERE = "http://127.0.0.1:9"
TEXT = """
name: tiny
question: Does it work?
base:
  data: {source: synthetic, classes: [eye, pencil], train_per_class: 40, test_per_class: 10}
  model: {num_experts: 2, encoder: lite}
axes: {objective.name: [blend, likelihood]}
seeds: [0]
"""

Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]


@pytest.fixture
def edit(open_page: Open, out: Path) -> Callable[[str], AppTest]:
    def edit(text: str) -> AppTest:
        submission.check.clear()
        at = open_page("submit", out, address=NOWHERE)
        return at.text_area[0].set_value(text).run()

    return edit


def printed(text: str, folder: Path) -> str:
    """What `smoe-ray check` prints, as one line of words; its error where it has one."""
    path = folder / "study.yaml"
    path.write_text(text)
    ended = CliRunner().invoke(app, ["check", str(path)])
    said = str(ended.exception) if isinstance(ended.exception, SmoeRayError) else ended.output
    return " ".join(said.replace(str(path), "study").split())


def test_the_page_is_there_only_with_a_cluster(open_page: Open, out: Path) -> None:
    with pytest.raises(AssertionError, match="page submit is not shown"):
        open_page("submit", out)


@pytest.mark.parametrize("name", ["quickstart.yaml", "search_collapse.yaml", "paper/homogeneity.yaml"])
def test_a_study_is_described_as_by_check(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    text = submission.templates()[name]
    checked = submission.check(text)
    lines = " ".join(" ".join(f"{head} {said}".split()) for head, said in checked.lines)
    expected = printed(text, tmp_path)
    assert lines == expected if not checked.absent else checked.absent == expected


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("num_experts", "num_expert"),
        TEXT.replace("num_experts: 2", "num_experts: 0"),
        TEXT + "name: again\n",
        TEXT + "routing: [",
        "[]",
        "",
        "name: \x00",
        TEXT.replace("seeds: [0]", "base: {}"),
        TEXT.replace("model: {num_experts: 2,", "routing: supervised\n  model: {num_experts: 3,"),
        TEXT.replace("train_per_class: 40", "train_per_class: 40, fraction: 0.001"),
    ],
)
def test_what_is_wrong_is_said_as_by_check(text: str, tmp_path: Path) -> None:
    submission.check.clear()
    wrong = submission.check(text).wrong
    assert wrong
    assert " ".join(wrong.split()) == printed(text, tmp_path)


def test_every_template_can_be_checked() -> None:
    names = set(submission.templates())
    studies = Path(__file__).resolve().parents[2] / "studies"
    assert names == {path.relative_to(studies).as_posix() for path in studies.rglob("*.yaml")}


def test_a_valid_study_may_be_submitted_and_a_wrong_one_not(edit: Callable[[str], AppTest], said: Said) -> None:
    at = edit(TEXT)
    assert "2 = 2 configurations x 1 seed" in said(at)
    assert not at.button[0].disabled
    at.text_area[0].set_value(TEXT.replace("num_experts", "num_expert")).run()
    assert "base.model.num_expert: unknown key (value 2); did you mean 'num_experts'?" in said(at)
    assert at.button[0].disabled


def test_a_cluster_that_is_not_there_is_one_line_and_the_editor_goes_on(
    edit: Callable[[str], AppTest], said: Said
) -> None:
    at = edit(TEXT)
    assert f"{NOWHERE}: does not answer (Connection refused)" in said(at)
    at.button[0].click().run()
    assert [f"{NOWHERE}: does not answer" in error.value.replace("\\", "") for error in at.error] == [True]
    assert at.text_area[0].value == TEXT


def test_a_study_in_out_can_be_taken_up_again(open_page: Open, out: Path, said: Said) -> None:
    (out / "tiny").mkdir(parents=True)
    (out / "tiny" / "study.yaml").write_text(TEXT)
    at = open_page("submit", out, address=NOWHERE, template="tiny (in OUT)")
    assert at.text_area[0].value == TEXT
    assert "OUT contains a study tiny: this one replaces its definition" in said(at)


def test_names_and_questions_are_shown_as_they_are(edit: Callable[[str], AppTest], said: Said) -> None:
    at = edit(TEXT.replace("Does it work?", "'<img src=x onerror=alert(1)> **bold** [a](http://b)'"))
    assert "<img src=x onerror=alert(1)> **bold** [a](http://b)" in said(at)
    assert not [one.value for one in at.markdown if "<img" in one.value.replace("\\<", "")]


def test_neither_token_nor_ray_is_on_the_page(edit: Callable[[str], AppTest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret-of-the-cluster")
    assert "secret-of-the-cluster" not in str(edit(TEXT))


# --- what is let through ----------------------------------------------------------------------------------------------


def with_data(data: str, axes: str = "{}") -> str:
    return f"name: tiny\nquestion: q\nbase: {{data: {data}}}\naxes: {axes}\n"


@pytest.mark.parametrize(
    "root",
    [
        "/etc", "/data/drawings2", "/data/drawings/../../etc", "/data", "drawings", "~", "s3://bucket", "s3://bucket/x/../../y",
        "file:///data/drawings", "http://169.254.169.254/latest", "s3://bucket/x::file:///etc", "/data/drawings::file:///etc",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "study",
    [
        with_data("{source: images, root: ROOT}"),
        with_data("{source: quickdraw, root: ROOT}"),
        with_data("{source: combined, parts: {root: {source: images, root: ROOT}}}"),
        with_data("{source: quickdraw}", "{data.root: [/data/drawings, ROOT]}"),
        with_data("{source: quickdraw}", "{data: [{source: images, root: ROOT}]}"),
        "name: tiny\nquestion: q\nbase: {data: {source: quickdraw}}\nnum_trials: 2\nobjectives: [{metric: test.kl}]\n"
        "space: {data.root: {type: categorical, choices: [ROOT]}}\n",
    ],
)
def test_data_outside_of_the_named_folders_are_refused(root: str, study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(submission.ROOTS, "/data/drawings, s3://bucket/x")
    with pytest.raises(StudyError, match="is in none of the folders that this dashboard allows"):
        submission.admitted(study.replace("ROOT", f"'{root}'"))


@pytest.mark.parametrize(
    "root", ["/data/drawings", "/data/drawings/", "/data/drawings/a/b", "s3://bucket/x", "s3://bucket/x/y"]
)
def test_data_below_a_named_folder_are_let_through(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(submission.ROOTS, "/data/drawings, s3://bucket/x")
    assert submission.admitted(with_data(f"{{source: images, root: '{root}'}}")).base.data.root == root


def test_without_named_folders_data_that_need_none_are_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(submission.ROOTS, raising=False)
    assert submission.admitted(TEXT).name == "tiny"
    assert submission.admitted(with_data("{source: quickdraw, download: true}")).name == "tiny"


def test_a_refused_study_is_not_sent_even_when_the_button_is_not_asked(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "submit", lambda *_, **__: pytest.fail("it was sent"))
    monkeypatch.setattr(sys, "argv", ["app.py", str(out)])
    with pytest.raises(StudyError, match="data\\.root: /etc is in none of the folders"):
        submission.submit(with_data("{source: images, root: /etc}"), "", NOWHERE)


def test_a_study_is_sent_as_it_stands_into_the_out_of_the_dashboard(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(
        jobs, "submit", lambda study, address, out, note: sent.append((dump_study(study), address, out, note))
    )
    monkeypatch.setattr(sys, "argv", ["app.py", str(out)])
    submission.submit(TEXT, "why", NOWHERE)
    assert sent == [(dump_study(submission.admitted(TEXT)), NOWHERE, str(out), "why")]


class Ended(BaseException):
    """As Streamlit ends a script's run when the next one has begun."""


class State(dict[str, Any]):
    """A session's state. The run of the first click is ended where it touches it after the submission."""

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "sent" and threading.current_thread().name == "first click":
            raise Ended
        super().__setitem__(key, value)


def test_a_second_click_in_the_middle_of_the_first_does_not_hide_what_that_has_started(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: set[str] = set()
    is_sent, goes_on = threading.Event(), threading.Event()

    def submit(study: GridStudy, address: str, out: str, note: str) -> jobs.Job:
        is_new = "tiny-1" not in running
        running.add("tiny-1")
        if is_new:  # the cluster has the job already, and its answer is on the way
            is_sent.set()
            assert goes_on.wait(60)
        return jobs.Job("tiny-1", address, study.name, out, note, is_new=is_new)

    def click() -> None:
        with suppress(Ended):
            submission.send("text", "", NOWHERE)

    monkeypatch.setattr(jobs, "submit", submit)
    monkeypatch.setattr(sys, "argv", ["app.py", str(out)])
    state = State(text=TEXT)
    monkeypatch.setattr(submission.st, "session_state", state)
    first, second = (threading.Thread(target=click, name=f"{name} click") for name in ("first", "second"))
    first.start()
    assert is_sent.wait(60)
    second.start()
    second.join(timeout=0.2)  # it would be over by then, did it not wait for the first
    assert "sent" not in state
    goes_on.set()
    first.join()
    second.join()
    assert state["sent"] == ("tiny-1", "tiny", True)

    stranger = State(text=TEXT)
    monkeypatch.setattr(submission.st, "session_state", stranger)
    click()
    assert stranger["sent"] == ("tiny-1", "tiny", False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace("[0]", str(list(range(3000)))), "6,000 trials to plan; this page allows 5,000"),
        (f"a: &a [x]\nb: [{', '.join(['*a'] * 9)}]\n{TEXT}", "YAML aliases"),
        ("# " + "x" * 1_000_000, "larger than 1,000,000 bytes"),
    ],
)
def test_what_would_keep_the_dashboard_busy_is_refused_at_once(text: str, message: str) -> None:
    started = time.monotonic()
    assert message in submission.check(text).wrong
    assert time.monotonic() - started < 10


def test_corners_of_a_huge_space_are_not_planned() -> None:
    choices = list(range(2, 402))
    space = {name: {"type": "categorical", "choices": choices} for name in ("model.num_experts", "model.latent_dim")}
    text = f"name: x\nquestion: q\nbase: {{}}\nnum_trials: 2\nobjectives: [{{metric: test.kl}}]\nspace: {space}\n"
    assert "160,800 trials to plan" in submission.check(text).wrong


def test_an_error_of_the_cluster_is_shown_inert(
    edit: Callable[[str], AppTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ClusterError("refused: <b>x</b> [a](http://b)")

    at = edit(TEXT)
    monkeypatch.setattr(jobs, "submit", refuse)
    at.button[0].click().run()
    assert at.error[0].value.replace("\\", "") == "refused: <b>x</b> [a](http://b)"
    assert "\\<b\\>" in at.error[0].value
