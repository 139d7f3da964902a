"""The experts page: galleries, what experts decode, and a doodle routed as the model itself routes it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from smoe_ray.analysis import expert_gallery, interpolation, swap_matrix
from smoe_ray.errors import DataError
from smoe_ray.results import TrialRecord, read_embeddings
from smoe_ray.spec import trial_with
from smoe_ray.training.inference import load_model
from smoe_ray_dashboard.pages.experts.strokes import draw, parse_strokes
from smoe_ray_dashboard.pages.experts.uploads import as_trained_on
from support.planted_folder import plant

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("cat", "eye", "flower")
CROSS = json.dumps([[[100, 500], [900, 500]], [[500, 100], [500, 900]]])

Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]


@pytest.fixture
def trial(out: Path) -> TrialRecord:
    """The only trial: four experts, of which three take images."""
    (record,) = plant(out, "arm", objectives=("blend",), experts=(4,), seeds=1)
    return record


def figure(at: AppTest) -> Any:
    (chart,) = at.get("plotly_chart")
    return json.loads(chart.proto.spec)


def captions(at: AppTest) -> list[str]:
    """Of the pictures of the page."""
    return [one.caption.replace("\\", "") for images in at.get("image") for one in images.proto.imgs]


def bars(at: AppTest) -> list[str]:
    """What is written on the gate's bars."""
    texts: list[str] = figure(at)["data"][0]["text"]
    return texts


def test_the_gallery_shows_every_expert_that_takes_images(open_page: Open, said: Said, out: Path, trial: Any) -> None:
    at = open_page("experts", out, study="arm", trial=trial.trial_id)
    info = expert_gallery(read_embeddings(out, "arm", trial.trial_id), NAMES)
    words = said(at).replace("*", "")
    for block in info.blocks:
        assert f"Expert {block.expert}: {block.share:.1%} of images ({block.num_images:,})" in words
        assert f"{block.class_mix[0][0]} 100%; gate" in words
    assert "1 of 4 experts (3)" in words
    assert len(at.get("image")) == len(info.blocks) == 3


def test_a_link_opens_the_trial_that_it_names(open_page: Open, out: Path) -> None:
    last = plant(out, "arm", objectives=("blend",), experts=(4,))[-1]
    at = open_page("experts", out, study="arm", trial=last.trial_id)
    assert at.selectbox(key="trial").value == last.trial_id
    assert at.selectbox(key="trial").options == [f"blend, E=4, seed {seed}" for seed in range(3)]


def test_the_swap_matrix_is_the_models(open_page: Open, out: Path, trial: TrialRecord) -> None:
    at = open_page("experts", out, study="arm", trial=trial.trial_id, show="Swap matrix")
    model = load_model(out, "arm", trial.trial_id)
    info = swap_matrix(read_embeddings(out, "arm", trial.trial_id), model)
    texts = [text.removeprefix("<b>").removesuffix("</b>") for text in figure(at)["data"][0]["text"]]
    assert texts == [f"{error:.1f}" for error in info.error_RE.ravel()]


def test_a_path_leads_between_the_experts_that_are_chosen(open_page: Open, out: Path, trial: TrialRecord) -> None:
    at = open_page("experts", out, study="arm", trial=trial.trial_id, show="Interpolation")
    at.selectbox(key="from").set_value("2").run()
    at.selectbox(key="to").set_value("1").run()
    assert not at.exception
    model = load_model(out, "arm", trial.trial_id)
    (path,) = interpolation(read_embeddings(out, "arm", trial.trial_id), model, [(2, 1)]).paths
    assert figure(at)["layout"]["xaxis"]["ticktext"] == [str(expert) for expert in path.expert_S]
    assert at.selectbox(key="to").options == ["0", "1"]


# --- doodle -----------------------------------------------------------------------------------------------------------


def test_a_test_image_is_a_doodle_that_needs_no_pointer(
    open_page: Open, said: Said, out: Path, trial: TrialRecord
) -> None:
    at = open_page("experts", out, study="arm", trial=trial.trial_id, show="Doodle", doodle="test image", image="7")
    model = load_model(out, "arm", trial.trial_id)
    kept = read_embeddings(out, "arm", trial.trial_id)
    codes = model.encode(kept["image"][7:8])
    assert bars(at) == [f"{probability:.3f}" for probability in codes.gate_BE[0]]
    chosen = int(codes.expert_B[0])
    assert f"The gate chooses expert {chosen} with probability" in said(at).replace("*", "")
    decoded_EHW = model.decode_all(codes.mu_BZ)[0]
    error_E = np.square(decoded_EHW - kept["image"][7] / 255).sum(axis=(1, 2))
    assert f"expert {chosen} draws" in captions(at)
    assert [f"{expert}: {error:.1f}" for expert, error in enumerate(error_E)] == captions(at)[3:7]
    order = np.argsort(np.linalg.norm(kept["mu"] - codes.mu_BZ, axis=1))[:8]
    nearest = [f"{place}: {NAMES[kept['label'][place]]}, expert {kept['expert'][place]}" for place in order]
    assert captions(at)[7:] == nearest
    at.number_input(key="image").set_value(8).run()
    assert bars(at) == [f"{probability:.3f}" for probability in model.encode(kept["image"][8:9]).gate_BE[0]]


def test_an_empty_canvas_asks_for_a_drawing(open_page: Open, said: Said, out: Path, trial: TrialRecord) -> None:
    at = open_page("experts", out, study="arm", trial=trial.trial_id, show="Doodle")
    assert "Draw something" in said(at)
    assert not at.get("plotly_chart")


def test_strokes_are_rastered_in_the_ink_of_the_data(
    open_page: Open, said: Said, out: Path, trial: TrialRecord
) -> None:
    at = open_page("experts", out, study="arm", trial=trial.trial_id, show="Doodle")
    at.session_state["canvas"] = {"drawing": CROSS}
    at.run()
    drawing_P3 = parse_strokes(CROSS)
    assert drawing_P3 is not None
    codes = load_model(out, "arm", trial.trial_id).encode(draw(drawing_P3, "black_on_white")[None])
    assert bars(at) == [f"{probability:.3f}" for probability in codes.gate_BE[0]]
    assert "rasterised by other software" not in said(at)


def with_data(out: Path, trial: TrialRecord, **data: Any) -> None:
    """Rewrite the record: its data come from files."""
    file = out / "arm" / "trials" / trial.trial_id / "trial.json"
    spec = trial_with(trial.spec, {"data": {"source": "images", "root": "mnist", **data}})
    file.write_text(trial.model_copy(update={"spec": spec}).model_dump_json(), encoding="utf-8")


def test_drawings_from_files_are_doodled_in_their_ink(
    open_page: Open, said: Said, out: Path, trial: TrialRecord
) -> None:
    with_data(out, trial, ink="white_on_black")
    at = open_page("experts", out, study="arm", trial=trial.trial_id, show="Doodle")
    assert "rasterised by other software" in said(at)
    at.session_state["canvas"] = {"drawing": CROSS}
    at.run()
    drawing_P3 = parse_strokes(CROSS)
    assert drawing_P3 is not None
    codes = load_model(out, "arm", trial.trial_id).encode(draw(drawing_P3, "white_on_black")[None])
    assert bars(at) == [f"{probability:.3f}" for probability in codes.gate_BE[0]]


@pytest.mark.parametrize("drawing", ["[[[NaN, 1]]]", {"a": 1}])
def test_a_browser_may_send_anything(open_page: Open, said: Said, out: Path, trial: TrialRecord, drawing: Any) -> None:
    at = open_page("experts", out, study="arm", trial=trial.trial_id, show="Doodle")
    at.session_state["canvas"] = {"drawing": drawing}
    at.run()
    assert not at.exception
    assert "clear the canvas and draw again" in said(at)
    assert not at.get("plotly_chart")


# --- one image --------------------------------------------------------------------------------------------------------


def choices(at: AppTest, key: str) -> list[str]:
    """What a control offers."""
    (group,) = (one for one in at.button_group if one.key == key)
    return list(group.options)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 32, 32), (3, 28, 28)], ids=str)
def test_only_drawings_of_which_the_ink_is_known_can_be_doodled(
    open_page: Open, out: Path, shape: tuple[int, int, int]
) -> None:
    (trial,) = plant(out, "arm", objectives=("blend",), experts=(4,), seeds=1, image_shape=shape)
    with_data(out, trial, ink=None if shape == (1, 28, 28) else "white_on_black")
    at = open_page("experts", out, study="arm", trial=trial.trial_id, show="One image")
    assert choices(at, "show") == ["Gallery", "Swap matrix", "Interpolation", "One image"]
    assert choices(at, "doodle") == ["test image", "upload"]


def picture(colour: Any, size: tuple[int, int] = (40, 20)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "png")
    return content.getvalue()


def test_an_uploaded_image_is_made_one_of_the_trials_and_routed(open_page: Open, said: Said, out: Path) -> None:
    (trial,) = plant(out, "arm", objectives=("blend",), experts=(4,), seeds=1, image_shape=(3, 32, 32))
    at = open_page("experts", out, study="arm", trial=trial.trial_id, show="One image", doodle="upload")
    assert "as the model was trained on: 32x32 RGB" in said(at)
    assert not at.get("plotly_chart")
    at.file_uploader[0].set_value(("red.png", picture((255, 0, 0)), "image/png")).run()
    assert not at.exception
    red_CHW = np.zeros((3, 32, 32), np.uint8)
    red_CHW[0] = 255
    model = load_model(out, "arm", trial.trial_id)
    codes = model.encode(red_CHW[None])
    assert bars(at) == [f"{probability:.3f}" for probability in codes.gate_BE[0]]
    error_E = np.square(model.decode_all(codes.mu_BZ)[0] - red_CHW / 255).sum(axis=(1, 2, 3))
    assert [f"{expert}: {error:.1f}" for expert, error in enumerate(error_E)] == captions(at)[2:6]
    at.file_uploader[0].set_value(("red.png", picture((255, 0, 0))[:60], "image/png")).run()
    assert not at.exception
    assert "the uploaded file: not a readable image" in said(at)
    assert not at.get("plotly_chart")


def with_shape(trial: TrialRecord, shape: tuple[int, int, int], **data: Any) -> TrialRecord:
    assert trial.data is not None
    spec = trial_with(trial.spec, {"data": {"source": "images", "root": "photos", **data}})
    return trial.model_copy(update={"spec": spec, "data": trial.data.model_copy(update={"image_shape": shape})})


def test_an_upload_takes_the_shape_channels_and_ink_of_the_data(trial: TrialRecord) -> None:
    wide_CHW = as_trained_on(picture((255, 0, 0)), with_shape(trial, (3, 12, 20)))
    assert wide_CHW.shape == (3, 12, 20)
    assert wide_CHW.reshape(3, -1).T.tolist() == [[255, 0, 0]] * 240
    grey_HW = as_trained_on(picture((255, 0, 0)), with_shape(trial, (1, 16, 16)))
    assert grey_HW.tolist() == [[76] * 16] * 16  # 0.299 of red: ITU-R 601-2
    white_on_black = with_shape(trial, (1, 28, 28), ink="white_on_black")
    assert as_trained_on(picture("white"), white_on_black).max() == 0
    assert as_trained_on(picture("black"), white_on_black).max() == 0
    clear = io.BytesIO()
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(clear, "png")
    assert as_trained_on(clear.getvalue(), with_shape(trial, (1, 16, 16), background="black")).max() == 0
    assert as_trained_on(clear.getvalue(), with_shape(trial, (1, 16, 16))).min() == 255


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "its content is none of PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "its content is none of PNG, JPEG"),
        (picture("red", (30_000, 2_000)), "pixel"),
    ],
    ids=["empty", "PostScript", "huge"],
)
def test_a_file_that_is_no_image_is_one_line(trial: TrialRecord, content: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=f"^the uploaded file: not a readable image .*{problem}") as raised:
        as_trained_on(content, with_shape(trial, (3, 16, 16)))
    assert "0x" not in str(raised.value)
    assert "\n" not in str(raised.value)


# --- what is absent or foreign ----------------------------------------------------------------------------------------


def test_without_a_finished_trial_the_page_says_so(open_page: Open, said: Said, out: Path) -> None:
    plant(out, "none", objectives=("blend",), experts=(4,), seeds=1, ends=({"status": "running"},))
    assert "no trial has finished" in said(open_page("experts", out, study="none"))


@pytest.mark.parametrize(
    ("show", "file", "problem"),
    [
        ("Gallery", "embeddings.npz", "embeddings.npz: no such file"),
        ("Swap matrix", "model.safetensors", "model.safetensors: no such file"),
        ("Doodle", "model.safetensors", "model.safetensors: no such file"),
    ],
)
def test_an_absent_file_is_a_sentence(
    open_page: Open, said: Said, out: Path, trial: TrialRecord, show: str, file: str, problem: str
) -> None:
    (out / "arm" / "trials" / trial.trial_id / file).unlink()
    assert problem in said(open_page("experts", out, study="arm", trial=trial.trial_id, show=show))


@pytest.mark.parametrize("show", ["Swap matrix", "Doodle"])
def test_weights_of_another_model_are_a_sentence(
    open_page: Open, said: Said, out: Path, trial: TrialRecord, show: str
) -> None:
    (other, *_) = plant(out, "other", objectives=("blend",), experts=(6,), seeds=1)
    source = out / "other" / "trials" / other.trial_id / "model.safetensors"
    (out / "arm" / "trials" / trial.trial_id / "model.safetensors").write_bytes(source.read_bytes())
    words = said(open_page("experts", out, study="arm", trial=trial.trial_id, show=show))
    assert "the trial's spec needs" in words
    assert "Traceback" not in words


def test_class_names_of_strangers_are_inert(open_page: Open, out: Path) -> None:
    names = ("<img src=x onerror=alert(1)>", "[eye](javascript:1)", "**flower**")
    (record,) = plant(out, "arm", objectives=("blend",), experts=(4,), seeds=1, class_names=names)
    at = open_page("experts", out, study="arm", trial=record.trial_id, show="Doodle", doodle="test image")
    shown = [element.value for element in [*at.caption, *at.markdown]]
    shown += [one.caption for images in at.get("image") for one in images.proto.imgs]
    assert any(r"\<img src\=x onerror\=alert\(1\)\>" in text for text in shown)
    assert not [text for text in shown if re.search(r"(?<!\\)(<img|\]\(javascript|\*\*flower)", text)]


TORCH_AFTER = """
import json, sys
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash
sys.argv = ["app", {out!r}]
loaded = {{}}
for view, show in (("routing", ""), ("experts", "Gallery"), ("experts", "Swap matrix")):
    at = AppTest.from_file({app!r}, default_timeout=120).run()
    at.query_params["show"] = show
    at._page_hash = calc_hash(view)
    at.run()
    assert not at.exception, at.exception
    loaded[f"{{view}} {{show}}".strip()] = ["torch" in sys.modules, "ray" in sys.modules]
print(json.dumps(loaded))
"""


def test_torch_is_loaded_by_what_runs_the_model_and_by_nothing_before(out: Path, trial: TrialRecord) -> None:
    program = TORCH_AFTER.format(out=str(out), app=str(ROOT / "dashboard" / "script" / "app.py"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded == {
        "routing": [False, False],
        "experts Gallery": [False, False],
        "experts Swap matrix": [True, False],
    }
