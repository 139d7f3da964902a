"""A study from the Submit page to its end, on a real Ray head on loopback, with a token that the browser never sees."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from smoe_ray.cluster import jobs
from smoe_ray.results import read_results
from support.ray_cluster import Head, ray_head

TEXT = """
name: submitted
question: Does a study travel from the browser to its results?
base:
  data: {{source: synthetic, classes: [eye, pencil], train_per_class: 40, test_per_class: 10}}
  model: {{num_experts: 2, encoder: lite}}
  training: {{budget: {budget}, batch_size: 16}}
axes: {{objective.name: [blend, likelihood]}}
seeds: [0]
"""
PATIENCE_MS = 240_000
SLOW_MS = 60_000

Open = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as started:
        yield started


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def submit_page(head: Head, out: Path, serve: Callable[..., AbstractContextManager[str]], page: Page) -> Open:
    """The page of a dashboard that is given `token`."""

    @contextmanager
    def opened(token: str) -> Iterator[Page]:
        with serve(out, "--address", head.address, RAY_AUTH_TOKEN=token) as url:
            page.goto(f"{url}/submit")
            # The first visit loads torch and ray.
            expect(page.get_by_test_id("stApp")).to_have_attribute(
                "data-test-script-state", "notRunning", timeout=SLOW_MS
            )
            yield page
            page.goto("about:blank")  # else it would look for its server after that has ended

    return opened


def write(page: Page, text: str) -> None:
    editor = page.get_by_label("Study (YAML)")
    editor.fill(text)
    editor.press("Control+Enter")


@pytest.mark.slow
def test_a_study_is_submitted_watched_and_finished(
    head: Head, out: Path, submit_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    frames: list[str] = []
    with submit_page(head.token) as page:
        page.on("websocket", lambda socket: socket.on("framereceived", lambda data: frames.append(str(data))))
        page.reload()

        write(page, TEXT.format(budget="2 epochs").replace("num_experts", "num_expert"))
        expect(page.get_by_text("unknown key (value 2); did you mean 'num_experts'?")).to_be_visible()
        submit = page.get_by_role("button", name="Submit", exact=True)
        expect(submit).to_be_disabled()

        write(page, TEXT.format(budget="2 epochs"))
        expect(page.get_by_text("2 = 2 configurations x 1 seed")).to_be_visible()
        submit.dblclick()
        expect(page.get_by_text(re.compile("Submitted as job")).first).to_be_visible(timeout=SLOW_MS)

        (listed,) = jobs.list_jobs(head.address)  # the second click started nothing
        expect(page.get_by_test_id("stCode").get_by_text("[2/2 done").first).to_be_visible(timeout=PATIENCE_MS)
        assert listed.job.wait(PATIENCE_MS / 1000) == "succeeded"
        assert set(read_results(out, "submitted")["status"]) == {"finished"}

        page.get_by_role("link", name="Follow it on the Studies page").click()
        expect(page.get_by_text("Does a study travel from the browser to its results?").first).to_be_visible()
        assert head.token not in page.content() + "".join(frames)


@pytest.mark.slow
def test_a_job_is_stopped_after_a_question(
    head: Head, out: Path, submit_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    with submit_page(head.token) as page:
        write(page, TEXT.format(budget="100000 epochs").replace("submitted", "endless"))
        expect(page.get_by_text("Valid study")).to_be_visible()
        page.get_by_role("button", name="Submit", exact=True).click()
        expect(page.get_by_text(re.compile("Submitted as job endless"))).to_be_visible(timeout=SLOW_MS)
        page.get_by_role("button", name=re.compile(r"Stop \.\.\.")).click(timeout=SLOW_MS)
        expect(page.get_by_text("Trained results are kept")).to_be_visible()
        page.get_by_role("button", name="Stop it").click()
        expect(page.get_by_role("button", name=re.compile(r"Stop \.\.\."))).to_have_count(0, timeout=PATIENCE_MS)
        states = {one.job.study: one.state for one in jobs.list_jobs(head.address)}
        assert states["endless"] == "stopped"


@pytest.mark.slow
def test_without_the_token_the_page_says_so_in_one_line(submit_page: Open) -> None:
    with submit_page("") as page:
        expect(page.get_by_text("the cluster wants a token; set RAY_AUTH_TOKEN").first).to_be_visible()
