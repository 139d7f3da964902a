"""Images by expert: galleries, the swap matrix, interpolations between experts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from smoe_ray.analysis.encoding import ExcitingInputs
from smoe_ray.analysis.gallery import Choice, ExpertBlock, ExpertGallery, Interpolation, LatentPath, SwapMatrix
from smoe_ray.figures import style
from smoe_ray.figures.pictures import channels_last, size_of

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TILE_INCHES = 0.38
_LARGE_TILE_INCHES = 0.48
_BLOCK_GAP_INCHES = 0.3
_LEAST_BLOCK_INCHES = 3.3
_LEAST_INCHES = 4.5
_MOST_INCHES = 10
_LINE_INCHES = 0.16
_CAPTION_LINE_INCHES = 0.14
_LEAST_STEPS = 7
_MOST_EXPERTS = 12
_MOST_CLASSES_NAMED = 3
_MOST_DEAD_CHARACTERS = 100
_HAIRLINE = "#bdbdbd"
_TIE = "\N{NO-BREAK SPACE}"
"""Prevents a line break in a title."""
_CHOICE_TEXT: dict[Choice, str] = {
    "random": "chosen at random (seed {seed})",
    "most_confident": "the most confident ones (highest gate probability)",
    "least_confident": "the least confident ones (lowest gate probability)",
}


class _Tile(NamedTuple):
    """Place of an image on the page, inches."""

    width: float
    height: float

    @property
    def aspect(self) -> float:
        """Height of a tile of width 1."""
        return self.height / self.width


def _tile(image: npt.NDArray[Any], inches: float, across: float) -> _Tile:
    """Place of an image (..., H, W): `inches` for a small one, for a large one more if `across` of them fit a page."""
    width, height = size_of(image, inches)
    shrunk = min(1, max(inches, _MOST_INCHES / across) / width)
    return _Tile(shrunk * width, shrunk * height)


@style.styled
def plot_gallery(info: ExpertGallery) -> Figure:
    """One block per expert: some of its inputs above their reconstructions, its share and its classes."""
    tile = _tile(info.blocks[0].image_NHW, _TILE_INCHES, info.n)
    width = max(_LEAST_BLOCK_INCHES, tile.width * info.n + _BLOCK_GAP_INCHES)
    count = len(info.blocks) + bool(info.dead)
    columns = max(1, min(count, int(_MOST_INCHES / width)))
    figure = style.new_figure(width=columns * width)
    axes = style.panels(figure, count, columns)
    for ax, block in zip(axes, info.blocks, strict=False):
        _plot_block(ax, block, info.n, tile)
        style.title(ax, _block_title(block), width - _BLOCK_GAP_INCHES)
    if info.dead:
        _plot_dead(axes[-1], info, width - _BLOCK_GAP_INCHES, tile)
    active = info.num_experts - len(info.dead)
    style.caption(
        figure,
        *_named(info.label),
        f"{info.what}: at most {info.n} of each expert's test images",
        _choice_text(info),
        f"shares are of {info.num_images:,} test images",
        "gate: least and greatest gate probability of the expert on the images shown",
        *((f"the largest {len(info.blocks)} of {active} active experts",) if len(info.blocks) < active else ()),
    )
    lines = max(ax.get_title(loc="left").count("\n") for ax in axes) + 3  # the line below the images, and padding
    rows = len(info.blocks[0].rows)
    _set_height(figure, -(-count // columns) * (rows * tile.height + _LINE_INCHES * lines))
    return figure


def _plot_block(ax: Axes, block: ExpertBlock, n: int, tile: _Tile) -> None:
    _bare(ax, tile, n, len(block.rows))
    for row, (images, white) in enumerate(zip(block.rows, (255, 1), strict=False)):
        _strip(ax, images, 0, row, white=white)
    low, high = block.confidence_N.min(), block.confidence_N.max()
    ax.set_xlabel(f"gate {low:.2f} to {high:.2f}", fontsize=7, color=style.GREY, loc="left", labelpad=1)


def _block_title(block: ExpertBlock) -> str:
    classes = [f"{name}{_TIE}{_percent(share, 0)}" for name, share in block.class_mix[:_MOST_CLASSES_NAMED]]
    more = f",{_TIE}…" if len(block.class_mix) > _MOST_CLASSES_NAMED else ""
    count = f"(n{_TIE}={_TIE}{block.num_images:,})"
    return f"expert {block.expert}: {_percent(block.share, 1)} of images {count}\n{', '.join(classes)}{more}"


def _percent(share: float, digits: int) -> str:
    return f"{share:.{digits}%}".replace("%", f"{_TIE}%")


def _plot_dead(ax: Axes, info: ExpertGallery, width: float, tile: _Tile) -> None:
    rows = len(info.blocks[0].rows)
    _bare(ax, tile, info.n, rows)
    ax.axvspan(0, info.n, color="#e4e4e4", linewidth=0)
    ax.text(info.n / 2, rows / 2, "no test image", ha="center", va="center", color=style.GREY)
    numbers = textwrap.shorten(", ".join(map(str, info.dead)), _MOST_DEAD_CHARACTERS, placeholder=" …")
    style.title(ax, f"without test images: {len(info.dead)} of {info.num_experts} experts\n{numbers}", width)


@style.styled
def plot_swap_matrix(info: SwapMatrix) -> Figure:
    """One row per input, one column per decoding expert; the chosen expert framed, the lowest error in bold."""
    from matplotlib.patches import Rectangle

    rows, columns = info.error_RE.shape
    left = -1.5
    tile = _tile(info.image_RHW, _LARGE_TILE_INCHES, columns - left)
    below = _LARGE_TILE_INCHES / tile.height
    pitch = 1 + 0.36 * below  # room for a number below each image
    figure = style.new_figure(width=max(_LEAST_INCHES, tile.width * (columns - left) + 0.8))
    ax = figure.subplots()
    _bare(ax, tile, columns, pitch * rows, left)
    for row in range(rows):
        top = pitch * row
        _strip(ax, info.image_RHW[row : row + 1], left, top, white=255)
        _strip(ax, info.decoded_REHW[row], 0, top, white=1)
        ax.add_patch(Rectangle((row, top), 1, 1, fill=False, edgecolor=style.COLOURS[1], linewidth=2, zorder=3))
        for column in range(columns):
            ax.text(
                column + 0.5,
                top + 1 + 0.05 * below,
                f"{info.error_RE[row, column]:.1f}",
                ha="center",
                va="top",
                fontsize=6.5,
                weight="bold" if column == info.best_R[row] else "normal",
            )
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel("decoded by expert")
    names = [
        str(expert) if alive else f"{expert}\nunused" for expert, alive in zip(info.expert_E, info.alive_E, strict=True)
    ]
    ax.set_xticks([left + 0.5, *(column + 0.5 for column in range(columns))], ["input", *names])
    for tick, alive in zip(ax.get_xticklabels()[1:], info.alive_E, strict=True):
        tick.set_color("black" if alive else style.GREY)
    ax.set_yticks([pitch * row + 0.5 for row in range(rows)], [str(expert) for expert in info.expert_E[:rows]])
    ax.set_ylabel("chosen expert")
    style.caption(
        figure,
        *_named(info.label),
        "every expert's decoding of the same latent vectors",
        f"inputs: one test image per active expert, {_choice_text(info)}",
        f"numbers: squared error (sum over {info.image_RHW[0].size:,} values), the lowest in bold",
        "framed: the expert that the gate chose",
        *style.cut_text(columns, info.num_experts),
    )
    _set_height(figure, tile.height * pitch * rows + 0.9)
    return figure


@style.styled
def plot_interpolation(info: Interpolation) -> Figure:
    """One block per path: images by the chosen expert and by the blend of all, gate probabilities below."""
    steps = len(info.paths[0].z_SZ)
    tile = _tile(info.paths[0].chosen_SHW, _LARGE_TILE_INCHES, steps)
    figure = style.new_figure(width=max(_LEAST_INCHES, tile.width * steps + 1))
    figure.set_layout_engine("constrained", h_pad=0.12)
    axes = style.panels(figure, len(info.paths), 1, share=False)
    looks = zip(style.colours(len(info.named)), style.markers(len(info.named)), strict=True)
    look_of = dict(zip(info.named, looks, strict=True))
    line_of: dict[int, Any] = {}
    for ax, path in zip(axes, info.paths, strict=True):
        line_of |= _plot_path(ax, path, look_of, tile)
    style.caption(
        figure,
        *_named(info.label),
        "straight paths between the mean latent vectors of two experts' test images",
        "chosen: decoded by the argmax expert, whose number is above; blend: gate-weighted sum of all experts",
        "grey lines: the other experts",
    )
    _set_height(figure, (1.44 + 2 * tile.height) * len(info.paths) + 0.4)
    style.legend(figure, [line_of[expert] for expert in info.named], [f"expert {expert}" for expert in info.named])
    return figure


@style.styled
def plot_exciting_inputs(info: Sequence[ExcitingInputs]) -> Figure:
    """A block per target and a column per expert: what excites it most, found on pixels, in latent space, in tests."""
    shown = min(_MOST_EXPERTS, len(info[0].expert_E))
    names = ["found on pixels", "in latent space", *["test images"] * bool(len(info[0].test_KEI))]
    rows = 2 + len(info[0].test_KEI)
    tile = _tile(info[0].decoded_EI, _LARGE_TILE_INCHES, shown)
    right = max(shown, _LEAST_STEPS)  # a few images do not grow to the width of the page
    figure = style.new_figure(width=max(_LEAST_INCHES, tile.width * right + 1.6))
    figure.set_layout_engine("constrained", h_pad=0.12)
    for ax, of_target in zip(style.panels(figure, len(info), 1, share=False), info, strict=True):
        _bare(ax, tile, right, rows)
        for row, image_EI in enumerate((of_target.image_EI, of_target.decoded_EI)):
            _strip(ax, image_EI[:shown], 0, row, white=1)
        for row, image_EI in enumerate(of_target.test_KEI, start=2):
            _strip(ax, image_EI[:shown], 0, row, white=255)
        ax.xaxis.tick_top()
        ax.set_xticks([column + 0.5 for column in range(shown)], [str(expert) for expert in of_target.expert_E[:shown]])
        for tick, alive in zip(ax.get_xticklabels(), of_target.alive_E, strict=False):
            tick.set_color("black" if alive else style.GREY)
        ax.set_yticks([0.5, 1.5, 2.5][: len(names)], names)
        style.title(ax, _exciting_title(of_target), tile.width * right, pad=6)
    style.caption(
        figure,
        "columns: experts, those without test images in grey",
        "found on pixels: by gradient ascent, the best of several starts; in latent space: as the expert decodes it",
        "test images: those with the highest value, the highest first",
        "specific: its input excites an expert more than any other",
        *style.cut_text(shown, len(info[0].expert_E)),
    )
    _set_height(figure, (rows * tile.height + 0.75) * len(info))
    return figure


def _exciting_title(of: ExcitingInputs) -> str:
    told = [of.target.replace("_", " ")]
    if not np.isnan(of.beaten):
        told.append(f"above every test image for {_percent(of.beaten, 0)} of the experts in use")
    if not np.isnan(of.specificity.diagonal):
        told.append(f"specific for {_percent(of.specificity.diagonal, 0)} of the experts")
    return ", ".join(told)


def _plot_path(ax: Axes, path: LatentPath, look_of: dict[int, tuple[Any, str]], tile: _Tile) -> dict[int, Any]:
    steps = len(path.expert_S)
    right = max(steps, _LEAST_STEPS)  # a few images do not grow to the width of the page
    _bare(ax, tile, right, 2)
    _strip(ax, path.chosen_SHW, 0, 0, white=1)
    _strip(ax, path.blend_SHW, 0, 1, white=1)
    style.title(ax, f"from expert {path.start} to expert {path.end}", 4, pad=6)
    middles = [step + 0.5 for step in range(steps)]
    ax.xaxis.tick_top()
    ax.set_xticks(middles, [str(expert) for expert in path.expert_S])
    ax.set_yticks([0.5, 1.5], ["chosen", "blend"])
    # Inset of the image axes: stays below them whatever width their square pixels take.
    rows = 2 * tile.height
    gate = ax.inset_axes((0, -0.72 / rows, steps / right, 0.624 / rows))
    met = {path.start, path.end, *path.expert_S.tolist()}
    lines = {}
    for expert, gate_S in enumerate(path.gate_SE.T):
        if expert in met:
            colour, marker = look_of[expert]
            (lines[expert],) = gate.plot(middles, gate_S, color=colour, marker=marker, zorder=3)
        else:
            gate.plot(middles, gate_S, color="#9a9a9a", linewidth=0.7)
    gate.set_xlim(0, steps)
    gate.set_ylim(-0.05, 1.05)
    gate.set_yticks([0, 0.5, 1])
    gate.set_ylabel("gate")
    gate.set_xticks(middles, [])
    gate.tick_params(axis="x", length=0)
    return lines


def _bare(ax: Axes, tile: _Tile, right: float, bottom: float, left: float = 0) -> None:
    """Axes for images in unit squares, which look like `tile`: y downwards, no ticks, grid or spines."""
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, 0)
    ax.set_aspect(tile.aspect, adjustable="box", anchor="NW")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xticks([])
    ax.set_yticks([])


def _strip(ax: Axes, image_NHW: npt.NDArray[Any], left: float, top: float, white: float) -> None:
    """Images side by side in unit squares, each with a hairline border, visible on a white page."""
    count = len(image_NHW)
    # One artist for all, without resampling: fast, and an SVG keeps the pixels.
    ax.imshow(
        np.concatenate(channels_last(image_NHW), axis=1),
        cmap="gray",  # which, with the two limits, colour images do not need
        vmin=0,
        vmax=white,
        extent=(left, left + count, top + 1, top),
        aspect=ax.get_aspect(),
        interpolation="none",
    )
    edges = [left + place for place in range(count + 1)]
    ax.vlines(edges, top, top + 1, colors=_HAIRLINE, linewidth=0.7, clip_on=False)
    ax.hlines([top, top + 1], left, left + count, colors=_HAIRLINE, linewidth=0.7, clip_on=False)


def _set_height(figure: Figure, inches: float) -> None:
    """Room for `inches` of images and for the caption."""
    lines = figure.get_supxlabel().count("\n") + 1
    figure.set_figheight(inches + _CAPTION_LINE_INCHES * lines)


def _choice_text(info: ExpertGallery | SwapMatrix) -> str:
    return _CHOICE_TEXT[info.choice].format(seed=info.seed)


def _named(label: str) -> Sequence[str]:
    return (label,) if label else ()
