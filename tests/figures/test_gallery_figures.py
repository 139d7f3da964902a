"""Galleries as pictures: everything drawn, in the data's own ink, nothing over anything."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image
from test_plots import assert_well_set

from smoe_ray.analysis.gallery import Choice, expert_gallery, interpolation, swap_matrix
from smoe_ray.figures.gallery import plot_gallery, plot_interpolation, plot_swap_matrix
from smoe_ray.figures.style import COLOURS
from support.planted_gallery import PlantedModel, embeddings

NAMES = ("cat", "eye", "flower")
LONG_NAMES = ("a$b$ " * 12, "ß" * 60, "snow/" + "flakes " * 8)


def many(num_experts: int, dead: int = 0) -> list[int]:
    return [*range(1, num_experts - dead + 1), *[0] * dead]


def text_of(figure: Figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


def pixels(figure: Figure, image: AxesImage) -> np.ndarray:
    """Grey values of what is drawn in the place of an image, without its outermost pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page = np.asarray(canvas.buffer_rgba())
    box = image.get_window_extent(canvas.get_renderer())
    height = page.shape[0]
    return page[int(height - box.y1) + 3 : int(height - box.y0) - 3, int(box.x0) + 3 : int(box.x1) - 3, 0]


@pytest.mark.parametrize("images_of", [many(5), many(10, dead=6), many(12), many(50, dead=20)])
def test_a_gallery_is_well_set_at_every_size(images_of: list[int]) -> None:
    for n in (1, 8):
        assert_well_set(plot_gallery(expert_gallery(embeddings(images_of), NAMES, n=n, label="likelihood, seed 0")))


@pytest.mark.parametrize("images_of", [[7], [1, 0], [3, 5], [0] * 400 + [2]])
def test_a_gallery_of_few_experts_is_drawn_without_a_warning(images_of: list[int]) -> None:
    for n in (1, 8):
        FigureCanvasAgg(plot_gallery(expert_gallery(embeddings(images_of), NAMES, n=n))).draw()


def test_long_names_are_well_set() -> None:
    info = expert_gallery(embeddings(many(10, dead=3)), LONG_NAMES, label="many words " * 12)
    assert_well_set(plot_gallery(info))


@pytest.mark.parametrize("images_of", [[7], [3, 0], many(10, dead=9), many(10, dead=6), many(12), many(50, dead=20)])
def test_a_swap_matrix_is_well_set_at_every_size(images_of: list[int]) -> None:
    assert_well_set(plot_swap_matrix(swap_matrix(embeddings(images_of), PlantedModel(len(images_of)), label="blend")))


@pytest.mark.parametrize(("images_of", "steps"), [([3, 4], 2), (many(10, dead=4), 9), (many(50), 15)])
def test_paths_are_well_set_at_every_size(images_of: list[int], steps: int) -> None:
    info = interpolation(embeddings(images_of), PlantedModel(len(images_of)), steps=steps, label="blend")
    assert_well_set(plot_interpolation(info))


def test_a_block_says_share_and_classes() -> None:
    kept = embeddings([3, 1])
    kept["label"] = np.where(kept["expert"] == 1, 2, [0, 0, 1, 0])
    titles = [ax.get_title(loc="left").replace("\xa0", " ") for ax in plot_gallery(expert_gallery(kept, NAMES)).axes]
    first = np.sort(kept["label"][kept["expert"] == 0])
    mix = "cat 67 %, eye 33 %" if first.tolist() == [0, 0, 1] else "cat 100 %"
    assert titles == [f"expert 0: 75.0 % of images (n = 3)\n{mix}", "expert 1: 25.0 % of images (n = 1)\nflower 100 %"]


def test_dead_experts_are_listed_in_a_block_of_their_own() -> None:
    figure = plot_gallery(expert_gallery(embeddings([3, 0, 2, 0]), NAMES))
    assert len(figure.axes) == 3
    assert figure.axes[-1].get_title(loc="left") == "without test images: 2 of 4 experts\n1, 3"
    assert [text.get_text() for text in figure.axes[-1].texts] == ["no test image"]
    assert len(plot_gallery(expert_gallery(embeddings([3, 2]), NAMES)).axes) == 2


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("random", "chosen at random (seed 5)"),
        ("most_confident", "the most confident ones (highest gate probability)"),
        ("least_confident", "the least confident ones (lowest gate probability)"),
    ],
)
def test_the_caption_says_which_images_are_shown(choice: Choice, words: str) -> None:
    kept = embeddings([9, 9])
    gallery = plot_gallery(expert_gallery(kept, NAMES, n=3, choice=choice, seed=5, label="blend, seed 1"))
    assert words in text_of(gallery)
    assert "at most 3 of each expert's test images" in text_of(gallery)
    assert text_of(gallery).startswith("blend, seed 1; ")
    assert words in text_of(plot_swap_matrix(swap_matrix(kept, PlantedModel(2), choice=choice, seed=5)))


def test_the_caption_says_what_is_left_out() -> None:
    kept = embeddings(many(20, dead=3))
    assert "the largest 12 of 17 active experts" in text_of(plot_gallery(expert_gallery(kept, NAMES)))
    assert "largest" not in text_of(plot_gallery(expert_gallery(kept, NAMES, limit=17)))
    assert "first 12 of 20 shown" in text_of(plot_swap_matrix(swap_matrix(kept, PlantedModel(20))))


@pytest.mark.parametrize("paper", [0, 255])
def test_inputs_stand_above_their_reconstructions_in_the_ink_of_the_data(paper: int) -> None:
    info = expert_gallery(embeddings([6], paper=paper), NAMES, n=4)
    figure = plot_gallery(info)
    inputs, reconstructions = figure.axes[0].images
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    extents = [image.get_window_extent(canvas.get_renderer()) for image in (inputs, reconstructions)]
    assert extents[0].y0 >= extents[1].y1 - 1  # display coordinates grow upwards
    assert np.array_equal(inputs.get_array(), np.hstack(list(info.blocks[0].image_NHW)))
    drawn = pixels(figure, inputs)
    assert np.median(drawn) == paper
    ink = 200 if paper == 0 else 50
    assert np.isin(ink, drawn)
    top, bottom = (np.median(pixels(figure, image)) for image in (inputs, reconstructions))
    assert bottom == pytest.approx(0.9 * top, abs=2)


def test_the_frame_is_around_the_chosen_expert_and_the_least_error_is_bold() -> None:
    info = swap_matrix(embeddings([2, 0, 6]), PlantedModel(3))
    (ax,) = plot_swap_matrix(info).axes
    frames = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [frame.get_x() for frame in frames] == [0, 1]
    assert {to_hex(frame.get_edgecolor()) for frame in frames} == {COLOURS[1].lower()}
    bold = [text for text in ax.texts if text.get_weight() == "bold"]
    assert [text.get_position()[0] - 0.5 for text in bold] == info.best_R.tolist()
    numbers = [float(text.get_text()) for text in ax.texts]
    np.testing.assert_allclose(numbers, info.error_RE.ravel(), atol=0.051)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["input", "2", "0", "1\nunused"]


def test_a_path_names_the_chosen_expert_of_each_step() -> None:
    info = interpolation(embeddings([5, 1, 4]), PlantedModel(3), [(0, 2)], steps=6)
    figure = plot_interpolation(info)
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == [str(expert) for expert in info.paths[0].expert_S]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["expert 0", "expert 1", "expert 2"]
    (gate,) = ax.child_axes
    for expert, line in enumerate(gate.lines):
        np.testing.assert_allclose(line.get_ydata(), info.paths[0].gate_SE[:, expert])
        assert to_hex(line.get_color()) == COLOURS[expert].lower()


def test_an_expert_that_a_path_does_not_meet_is_grey() -> None:
    info = interpolation(embeddings([5, 4, 3]), PlantedModel(3), [(0, 1), (1, 2)], steps=3)
    for ax, absent in zip(plot_interpolation(info).axes, (2, 0), strict=True):
        (gate,) = ax.child_axes
        assert [to_hex(line.get_color()) == "#9a9a9a" for line in gate.lines] == [e == absent for e in range(3)]


# --- shapes and colours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 128, 128), (3, 12, 40), (40, 12)], ids=str)
def test_images_of_every_shape_are_well_set_and_keep_their_aspect(shape: tuple[int, ...]) -> None:
    kept, model = embeddings(many(4, dead=1), shape=shape), PlantedModel(4, shape)
    figures = [
        plot_gallery(expert_gallery(kept, NAMES, label="likelihood, seed 0")),
        plot_swap_matrix(swap_matrix(kept, model, label="blend")),
        plot_interpolation(interpolation(kept, model, label="blend")),
    ]
    for figure in figures:
        assert_well_set(figure)
        for image in figure.axes[0].images:
            box, (left, right, *_) = image.get_window_extent(), image.get_extent()
            assert box.height / (box.width / (right - left)) == pytest.approx(shape[-2] / shape[-1], rel=1e-3)


def test_a_large_image_is_shown_larger_as_far_as_the_page_goes() -> None:
    def width(shape: tuple[int, ...], n: int) -> float:
        """Of one image, in inches."""
        figure = plot_gallery(expert_gallery(embeddings([40], shape=shape), NAMES, n=n))
        FigureCanvasAgg(figure).draw()
        return figure.axes[0].images[0].get_window_extent().width / figure.dpi / n

    assert width((16, 16), 8) == pytest.approx(width((28, 28), 8), rel=0.01)
    assert width((3, 112, 112), 8) == pytest.approx(2 * width((28, 28), 8), rel=0.03)
    assert width((3, 112, 112), 20) == pytest.approx(10 / 20, rel=0.03)


COLOURS_OF_IMAGES = [(255, 0, 0), (0, 255, 0), (60, 0, 0), (10, 20, 200)]


def test_colours_are_the_images_own_in_png_and_svg() -> None:
    kept = embeddings([4], shape=(3, 32, 32))
    kept["image"] = np.broadcast_to(np.array(COLOURS_OF_IMAGES, np.uint8)[..., None, None], (4, 3, 32, 32))
    kept["reconstruction"] = (kept["image"] / 255).astype(np.float16)
    kept["reconstruction"][0] *= 1.5  # what is out of range is the end of it
    info = expert_gallery(kept, NAMES, n=4)
    figure = plot_gallery(info)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page = np.asarray(canvas.buffer_rgba())
    expected = [COLOURS_OF_IMAGES[place] for place in info.blocks[0].index_N]
    for image in figure.axes[0].images:
        box = image.get_window_extent()
        row = page.shape[0] - round((box.y0 + box.y1) / 2)
        columns = (box.x0 + box.width * (np.arange(4) + 0.5) / 4).astype(int)
        np.testing.assert_allclose(page[row, columns, :3], expected, atol=1)

    svg = io.StringIO()
    figure.savefig(svg, format="svg")
    embedded = re.findall(r'xlink:href="data:image/png;base64,\s*([^"]+)"', svg.getvalue())
    assert len(embedded) == 2
    for data in embedded:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        step = pixels.shape[1] // 4
        np.testing.assert_allclose(pixels[pixels.shape[0] // 2, step // 2 :: step], expected, atol=1)
