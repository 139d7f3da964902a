"""What each expert encodes: classes, tuning curves, similarity of experts, ablation."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from smoe_ray.analysis.curves import FloatArray
from smoe_ray.analysis.encoding import (
    Ablation,
    ClassPreference,
    ExpertSimilarity,
    ExpertTuning,
    PermutationTest,
    TuningCurves,
)
from smoe_ray.columns import count
from smoe_ray.errors import ResultsError
from smoe_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_WRITTEN = 10
"""Columns of a matrix up to which its values are written into the cells."""
_MOST_EXPERTS = 12
_NAME_CHARACTERS = 18
_LEVEL_CHARACTERS = 8
_SIGNIFICANT = 0.05
_RESPONSES: dict[str, tuple[str, Literal["-", "--"]]] = {
    "gate probability": (style.COLOURS[0], "-"),
    "share of the decoding precision": (style.COLOURS[1], "--"),
}
"""Colour and line of each."""


@style.styled
def plot_class_preference(info: ClassPreference) -> Figure:
    """Classes that each active expert is given, beside those that it decodes better than others do; selectivity."""
    found, mismatch = info.selectivity.routing, info.mismatch
    experts = found.reading_order
    if not len(experts):
        raise ResultsError("class preference: there are no images; evaluate on at least one test image")
    names = found.class_names
    figure, (given, good, scores) = _matrices(len(experts), names, matrices=2)
    image = _heatmap(given, found.class_given_expert_EC[experts], names, high=1, percent=True)
    _heatmap(good, mismatch.tuning_EC[experts], names, high=1, percent=True)
    given.set_title("images it is given")
    good.set_title("images it decodes best")
    _name_experts(given, experts)
    dots = {
        "selectivity of routing": (found.selectivity_E, "o", style.COLOURS[0]),
        "sparseness of the gate": (info.selectivity.sparseness_E, "s", style.COLOURS[2]),
        "divergence given / best": (mismatch.divergence_E, "D", style.COLOURS[1]),
    }
    handles = [
        scores.plot(value_E[experts], range(len(experts)), marker, color=colour, markersize=5, clip_on=False)[0]
        for value_E, marker, colour in dots.values()
    ]
    scores.set_xlim(0, 1)
    scores.set_xlabel("score")
    scores.grid(visible=True, axis="x")
    style.legend(figure, handles, list(dots))
    figure.colorbar(image, ax=scores, label="share of the\nexpert's images", aspect=15, pad=0.08)
    style.caption(
        figure,
        f"{len(experts)} of {len(found.share_E)} experts are active and shown",
        "right-hand matrix: softmax over classes of the standardised advantage over the other experts, all images",
        f"regret of routing {mismatch.regret:.3g} of squared error per image",
        f"{mismatch.misrouted:.0%} of the images are decoded better by another expert",
    )
    return figure


@style.styled
def plot_expert_tuning(info: ExpertTuning) -> Figure:
    """A row per expert and a column per parameter: gate probability and share of the decoding precision."""
    from matplotlib.lines import Line2D

    experts = _strongest(info)
    columns = len(info.routing)
    figure = style.new_figure(width=1.1 + 1.28 * columns, height=1.5 + 0.62 * len(experts))
    axes = figure.subplots(len(experts), columns, squeeze=False, sharex="col", sharey=True)
    for column, (routed, decoded) in enumerate(zip(info.routing, info.decoding, strict=True)):
        for row, expert in enumerate(experts):
            _draw_curve(axes[row, column], routed, expert, *_RESPONSES["gate probability"])
            _draw_curve(axes[row, column], decoded, expert, *_RESPONSES["share of the decoding precision"])
        axes[0, column].set_title(routed.parameter, loc="center")
        if routed.period is None:
            axes[-1, column].locator_params(axis="x", nbins=3)
        else:
            axes[-1, column].set_xticks([0, routed.period / 2, routed.period])
            axes[-1, column].set_xlabel("degrees", fontsize=7.5)
    for row, expert in enumerate(experts):
        axes[row, 0].set_ylabel(f"expert {expert}", rotation=0, ha="right", va="center")
    top = _round_up(
        max(float(curve.mean_K.max()) for curves in (*info.routing, *info.decoding) for curve in curves.curves)
    )
    axes[0, 0].set_ylim(0, 1.05 * top)
    axes[0, 0].set_yticks([0, top], ["0", f"{top:g}"])
    even = 1 / len(info.routing[0].curves)
    for ax in axes.flat:
        ax.axhline(even, color=style.GREY, linewidth=0.7, linestyle=":", zorder=1)
        ax.tick_params(labelsize=7, length=2)
    handles = [Line2D([], [], color=colour, linestyle=line) for colour, line in _RESPONSES.values()]
    style.legend(figure, handles, list(_RESPONSES))
    stimuli = sum(int(curves.count_K.sum()) for curves in info.routing)
    style.caption(
        figure,
        f"means over {stimuli:,} drawings, each with one parameter varied and the others drawn at random",
        "dotted: 1 / number of experts",
        f"pale: the parameter explains no more variance than permuted values do (p > {_SIGNIFICANT})",
        *style.cut_text(len(experts), len(info.routing[0].curves)),
    )
    return figure


@style.styled
def plot_expert_similarity(info: ExpertSimilarity) -> Figure:
    """CKA and RSA of all pairs of experts; below each, the pairs, their mean, and what permuted images give."""
    experts = len(info.cka_EE)
    side = max(2.4, 0.36 * experts) if experts <= _MOST_EXPERTS else 5.0
    figure = style.new_figure(width=2 * side + 1.9, height=side + 2.1)
    grid = figure.subplots(2, 2, height_ratios=(side, 0.55))
    measures = (
        ("linear CKA, debiased", info.cka_EE, info.cka_p_EE, info.cka),
        ("RSA, Spearman", info.rsa_EE, info.rsa_p_EE, info.rsa),
    )
    image: Any = None
    for (above, below), (title, matrix_EE, p_EE, test) in zip(grid.T, measures, strict=True):
        image = _similarity_matrix(above, matrix_EE, p_EE)
        above.set_title(title)
        _draw_pairs(below, matrix_EE[np.triu_indices(experts, 1)], test)
    grid[0, 0].set_ylabel("expert")
    figure.colorbar(image, ax=grid[0, 1], aspect=18, pad=0.03, label="similarity")
    style.caption(
        figure,
        f"hidden values of every expert on {count(info.images, 'image')}; RSA and permutations on {info.null_images:,}",
        f"grey numbers: no more than permuted images give (p > {_SIGNIFICANT})",
        "below: pairs (dots), their mean (diamond, on the images of the permutations), 95 % of permutations (grey)",
    )
    return figure


@style.styled
def plot_ablation(info: Ablation) -> Figure:
    """Increase of the test loss without each expert, by class and over all images; what its images lose elsewhere."""
    experts = np.flatnonzero(info.rerouted_to_EE.sum(axis=1) > 0)
    if not len(experts):
        raise ResultsError("ablation: a single expert cannot be left out; configure two or more")
    figure, (cells, right, swap) = _matrices(len(experts), info.class_names, matrices=1, square=len(info.increase_E))
    for ax, matrix, names, title in (
        (cells, info.increase_EC[experts], info.class_names, "loss without it, by class"),
        (swap, info.swap_EE[experts], tuple(map(str, range(len(info.increase_E)))), "its images decoded by expert"),
    ):
        image = _heatmap(ax, matrix, names, high=_largest(matrix), diverging=True)
        ax.set_title(title)
        bar = figure.colorbar(image, ax=ax, aspect=15, pad=0.03, label="increase of squared error")
        bar.ax.set_ylim(min(0.0, float(np.nanmin(matrix))), _largest(matrix))
    _name_experts(cells, experts)
    right.barh(range(len(experts)), info.increase_E[experts], color=style.GREY, height=0.7)
    right.axvline(0, color="black", linewidth=0.8)
    right.set_title("over all images")
    right.set_xlabel("increase of the loss")
    right.grid(visible=True, axis="x")
    style.caption(
        figure,
        f"squared error per image, {info.loss:.2f} with all experts",
        "left: without the expert of a row, its images go to the next by gate logit; mean over all images of a class",
        "right: mean over the images routed to the expert of a row, whose own error is subtracted",
        f"{len(experts)} of {len(info.increase_E)} experts are active, one row each",
    )
    return figure


def _matrices(rows: int, names: tuple[str, ...], matrices: int, square: int = 0) -> tuple[Figure, list[Axes]]:
    """Axes side by side with common rows: matrices of classes, one for scores and, last, one of `square` columns."""
    written = len(names) <= _MOST_WRITTEN
    cell = max(1.9, len(names) * (0.5 if written else 0.22))
    widths = [cell] * matrices + [1.5] + ([_square_width(square)] if square else [])
    longest = max(len(_short(name)) for name in names)
    level = written and longest <= _LEVEL_CHARACTERS
    height = max(1.2, 0.3 * rows) + 1.5 + (0 if level else 0.07 * longest)
    figure = style.new_figure(width=sum(widths) + 2.6 + (1.2 if square else 0), height=height)
    (axes,) = figure.subplots(1, len(widths), squeeze=False, sharey=True, width_ratios=widths)
    for ax in axes:
        ax.grid(visible=False)
        ax.tick_params(axis="y", length=0)
    return figure, list(axes)


def _square_width(columns: int) -> float:
    return max(1.6, columns * (0.45 if columns <= _MOST_WRITTEN else 0.25))


def _name_experts(ax: Axes, experts: Any) -> None:
    ax.set_yticks(range(len(experts)), [f"expert {expert}" for expert in experts])
    ax.set_ylim(len(experts) - 0.5, -0.5)


def _heatmap(
    ax: Axes,
    matrix: FloatArray,
    names: tuple[str, ...],
    high: float,
    percent: bool = False,
    diverging: bool = False,
) -> Any:
    image = ax.imshow(
        matrix, aspect="auto", cmap="RdBu_r" if diverging else "Blues", vmin=-high if diverging else 0, vmax=high
    )
    shown = list(map(_short, names))
    level = len(names) <= _MOST_WRITTEN and max(map(len, shown)) <= _LEVEL_CHARACTERS
    ax.set_xticks(range(len(names)), shown, rotation=0 if level else 90, fontsize=8)
    ax.tick_params(length=0)
    if len(names) <= _MOST_WRITTEN:
        for (row, column), value in np.ndenumerate(matrix):
            text = "" if math.isnan(value) else f"{value:.0%}" if percent else _signed(value)
            if text in ("0%", "0"):
                continue
            colour = "white" if abs(value) > 0.6 * high else "black"
            ax.text(column, row, text, color=colour, fontsize=7, ha="center", va="center")
    return image


def _signed(value: float) -> str:
    """Two digits; 0 if it rounds to it."""
    if abs(value) < 0.005:
        return "0"
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}" if abs(value) < 10 else f"{value:.0f}"


def _largest(matrix: FloatArray) -> float:
    finite = np.abs(matrix[np.isfinite(matrix)])
    return max(float(finite.max()), 1e-9) if len(finite) else 1.0


def _short(name: str) -> str:
    return textwrap.shorten(name, _NAME_CHARACTERS, placeholder="…") if " " in name else name[:_NAME_CHARACTERS]


def _strongest(info: ExpertTuning) -> list[int]:
    """Experts by decreasing mean gate probability, at most twelve of them, in the order of their numbers."""
    mean_E = np.mean([[curve.mean_K.mean() for curve in curves.curves] for curves in info.routing], axis=0)
    return sorted(np.argsort(-mean_E, kind="stable")[:_MOST_EXPERTS].tolist())


def _draw_curve(ax: Axes, curves: TuningCurves, expert: int, colour: str, line: str) -> None:
    curve = curves.curves[expert]
    alpha = 1.0 if curve.modulation.p <= _SIGNIFICANT else 0.35
    ax.plot(curves.value_K, curve.mean_K, line, color=colour, alpha=alpha, linewidth=1.3)


def _round_up(value: float) -> float:
    """To a tenth."""
    return math.ceil(10 * value) / 10


def _similarity_matrix(ax: Axes, matrix_EE: FloatArray, p_EE: FloatArray) -> Any:
    experts = len(matrix_EE)
    image = ax.imshow(matrix_EE, cmap="Blues", vmin=0, vmax=1)
    numbered = range(0, experts, -(-experts // 16))
    ax.set_xticks(numbered)
    ax.set_yticks(numbered)
    ax.tick_params(length=0, labelsize=8)
    ax.grid(visible=False)
    if experts <= _MOST_EXPERTS:
        for (row, column), value in np.ndenumerate(matrix_EE):
            if row == column or math.isnan(value):
                continue
            chance = p_EE[row, column] > _SIGNIFICANT
            colour = "#9a9a9a" if chance else "white" if value > 0.6 else "black"
            ax.text(
                column, row, _signed(value).replace("0.", "."), color=colour, fontsize=6.5, ha="center", va="center"
            )
    return image


def _draw_pairs(ax: Axes, value_N: FloatArray, test: PermutationTest) -> None:
    ax.set_xlim(-0.1, 1.02)
    ax.set_ylim(-1, 1)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False, axis="y")
    if math.isnan(test.value):
        ax.set_xlabel("no two experts whose values vary")
        return
    low, high = np.quantile(test.null_P, (0.025, 0.975))
    ax.axvspan(low, high, color=style.GREY, alpha=0.35, linewidth=0)
    height_N = np.linspace(-0.6, 0.6, 5)[np.arange(len(value_N)) % 5]  # so that equal pairs are told apart
    ax.plot(value_N, height_N, "o", color=style.COLOURS[0], markersize=3, alpha=0.5, linestyle="none")
    ax.plot([test.value], [0], "D", color=style.COLOURS[1], markersize=6)
    ax.set_xlabel(f"mean {test.value:.2f}, chance {test.chance:.2f}, p = {test.p:.3f}".replace("-0.00", "0.00"))
