"""The Experts page in a browser: a doodle drawn with the mouse is routed as the model itself routes it."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from smoe_ray.analysis import expert_gallery
from smoe_ray.results import read_embeddings, read_trials
from smoe_ray.training.inference import load_model
from smoe_ray_dashboard.pages.experts.strokes import CANVAS_UNITS, draw, parse_strokes
from support.browser_page import drawn
from support.planted_folder import plant

Visit = Callable[..., Page]
STROKES = [[(0.2, 0.3), (0.5, 0.8), (0.8, 0.3)], [(0.4, 0.2), (0.6, 0.2)]]


@pytest.fixture
def trial(small_results: Path) -> str:
    """A finished trial of `arms`."""
    return next(record.trial_id for record in read_trials(small_results, "arms") if record.status == "finished")


def doodle(visit: Visit, trial: str) -> tuple[Page, Locator]:
    """The page with its canvas. The first time, the server loads torch."""
    page = visit("experts", study="arms", trial=trial)
    page.get_by_role("radio", name="Doodle").click()
    canvas = page.get_by_role("img", name=re.compile("^Drawing area"))
    expect(canvas).to_be_visible(timeout=60_000)
    return page, canvas


def drag(page: Page, canvas: Locator, strokes: Any) -> None:
    """Draw with the mouse; places are shares of the canvas."""
    box = canvas.bounding_box()
    assert box is not None
    for stroke in strokes:
        (x, y), *others = [
            (box["x"] + across * box["width"], box["y"] + down * box["height"]) for across, down in stroke
        ]
        page.mouse.move(x, y)
        page.mouse.down()
        for x, y in others:
            page.mouse.move(x, y, steps=6)
        page.mouse.up()


def bars(page: Page) -> list[str]:
    """What is written on the gate's bars, in the order of experts."""
    return page.locator(".js-plotly-plot .bartext").all_text_contents()


def raster(canvas: Locator) -> Any:
    """The image of the strokes that the canvas holds."""
    drawing_P3 = parse_strokes(canvas.evaluate("canvas => JSON.stringify(canvas.strokes)"))
    assert drawing_P3 is not None
    return draw(drawing_P3, "black_on_white")


def expected(out: Path, trial: str, canvas: Locator) -> Any:
    """What the model says of that image."""
    return load_model(out, "arms", trial).encode(raster(canvas)[None])


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_a_doodle_is_routed_as_the_model_routes_it(visit: Visit, small_results: Path, trial: str) -> None:
    page, canvas = doodle(visit, trial)
    expect(canvas).to_have_accessible_name("Drawing area, 0 strokes")
    drag(page, canvas, STROKES)
    expect(canvas).to_have_accessible_name("Drawing area, 2 strokes")
    codes = expected(small_results, trial, canvas)
    written = [f"{probability:.3f}" for probability in codes.gate_BE[0]]
    expect(page.locator(".js-plotly-plot .bartext")).to_have_text(written)
    assert sum(map(float, bars(page))) == pytest.approx(1, abs=0.0016)
    chosen = int(codes.expert_B[0])
    expect(page.get_by_text(re.compile("The gate chooses"))).to_have_text(
        f"The gate chooses expert {chosen} with probability {codes.gate_BE[0, chosen]:.3f}."
    )
    expect(page.get_by_text(f"expert {chosen} draws")).to_be_visible()
    decoded_EHW = load_model(small_results, "arms", trial).decode_all(codes.mu_BZ)[0]
    for expert, error in enumerate(np.square(decoded_EHW - raster(canvas) / 255).sum(axis=(1, 2))):
        expect(page.get_by_text(f"{expert}: {error:.1f}", exact=True)).to_be_visible()


def test_the_canvas_sends_where_the_mouse_was(visit: Visit, trial: str) -> None:
    page, canvas = doodle(visit, trial)
    drag(page, canvas, STROKES)
    strokes = canvas.evaluate("canvas => canvas.strokes")
    for sent, drawn_at in zip(strokes, STROKES, strict=True):
        for (x, y), (across, down) in ((sent[0], drawn_at[0]), (sent[-1], drawn_at[-1])):
            assert (x, y) == pytest.approx((across * CANVAS_UNITS, down * CANVAS_UNITS), abs=5)


def test_undo_clear_and_another_page_and_back(visit: Visit, small_results: Path, trial: str) -> None:
    page, canvas = doodle(visit, trial)
    drag(page, canvas, STROKES)
    two = [f"{probability:.3f}" for probability in expected(small_results, trial, canvas).gate_BE[0]]
    expect(page.locator(".js-plotly-plot .bartext")).to_have_text(two)
    page.get_by_role("button", name="Undo").press("Enter")  # by keyboard
    expect(canvas).to_have_accessible_name("Drawing area, 1 stroke")
    one = [f"{probability:.3f}" for probability in expected(small_results, trial, canvas).gate_BE[0]]
    expect(page.locator(".js-plotly-plot .bartext")).to_have_text(one)
    page.get_by_role("radio", name="Gallery").click()
    expect(page.get_by_text("Inputs above reconstructions")).to_be_visible()
    page.get_by_role("radio", name="Doodle").click()
    expect(canvas).to_have_accessible_name("Drawing area, 1 stroke")
    expect(page.locator(".js-plotly-plot .bartext")).to_have_text(one)
    page.get_by_role("button", name="Clear").click()
    expect(canvas).to_have_accessible_name("Drawing area, 0 strokes")
    expect(page.get_by_text("Draw something")).to_be_visible()
    expect(page.get_by_role("button", name="Clear")).to_be_disabled()


def test_a_test_image_is_a_doodle_for_the_keyboard(visit: Visit, small_results: Path, trial: str) -> None:
    page, _ = doodle(visit, trial)
    page.get_by_role("radio", name="test image").click()
    number = page.get_by_role("spinbutton", name="Test image")
    number.fill("31")
    number.press("Enter")
    kept = read_embeddings(small_results, "arms", trial)
    expect(page.locator(".js-plotly-plot .bartext")).to_have_text([f"{share:.3f}" for share in kept["gate"][31]])
    expect(page.get_by_text(re.compile(r"^31: "))).to_be_visible()  # nearest to itself


def test_the_gallery_says_what_the_embeddings_say(visit: Visit, small_results: Path, trial: str) -> None:
    page = visit("experts", study="arms", trial=trial)
    record = next(record for record in read_trials(small_results, "arms") if record.trial_id == trial)
    assert record.data is not None
    info = expert_gallery(read_embeddings(small_results, "arms", trial), record.data.class_names)
    for block in info.blocks:
        expect(page.get_by_text(f"Expert {block.expert}: {block.share:.1%} of images")).to_be_visible()
    page.get_by_role("radio", name="Swap matrix").click()
    expect(page.locator(".js-plotly-plot .textpoint")).to_have_count(len(info.blocks) * info.num_experts)
    expect(page.locator(".js-plotly-plot .layer-above image")).to_have_count(2 * len(info.blocks))


def test_an_uploaded_image_is_routed_where_the_data_are_in_colour(
    page: Page, serve: Callable[..., AbstractContextManager[str]], tmp_path: Path
) -> None:
    out, file = tmp_path / "out", tmp_path / "orange.jpg"
    (record,) = plant(out, "photos", objectives=("blend",), experts=(4,), seeds=1, image_shape=(3, 32, 32))
    Image.new("RGB", (400, 300), (230, 120, 20)).save(file)
    with serve(out) as url:
        page.goto(f"{url}/experts")
        drawn(page)
        expect(page.get_by_role("radio", name="Gallery")).to_be_visible()
        expect(page.get_by_role("radio", name="Doodle")).to_have_count(0)
        page.get_by_role("radio", name="One image").click()
        page.get_by_role("radio", name="upload").click()
        page.locator("input[type=file]").set_input_files(file)
        orange_CHW = np.asarray(Image.open(file).resize((32, 32))).transpose(2, 0, 1)  # one colour: any filter will do
        codes = load_model(out, "photos", record.trial_id).encode(orange_CHW[None])
        written = [f"{probability:.3f}" for probability in codes.gate_BE[0]]
        expect(page.locator(".js-plotly-plot .bartext")).to_have_text(written, timeout=60_000)
        source = page.get_by_test_id("stImage").first.locator("img").get_attribute("src")
        assert source is not None
        shown = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        assert shown.getpixel((40, 40)) == tuple(orange_CHW[:, 16, 16])
        page.locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no"})
        expect(page.get_by_text("the uploaded file: not a readable image")).to_be_visible()
