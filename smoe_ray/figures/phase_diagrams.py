"""Phase diagram of the experts in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smoe_ray.analysis.curves import Curve
from smoe_ray.analysis.phase_diagrams import PhaseDiagram, PhasePanel
from smoe_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RHO = "\N{GREEK SMALL LETTER RHO}"
_THEORY = f"theory: min(1, 0.60 {_RHO})"
_RHO_TICKS = (0, 0.5, 1, 1.5, 2, 5, 10, 100, 1000, 10_000)
_SPREAD_POINTS = 12
_LINEAR_TO = 2


@style.styled
def plot_phase_diagram(info: PhaseDiagram) -> Figure:
    """Share of the experts in use against rho, mean and s.d.; separate axes for runs without an entropy term."""
    figure = style.new_figure(width=9, height=4.2)
    looks = zip(style.colours(len(info.labels)), style.markers(len(info.labels)), strict=True)
    look_of = dict(zip(info.labels, looks, strict=True))
    has_rho, has_margin = bool(info.panels[0].curves), bool(info.panels[0].margin)
    handle_of: dict[str, Any] = {}
    blocks = figure.add_gridspec(1, len(info.panels))
    for place, panel in enumerate(info.panels):
        widths = [4] * has_rho + [min(2, 0.6 + 0.25 * len(panel.margin))] * has_margin
        axes = blocks[place].subgridspec(1, len(widths), width_ratios=widths, wspace=0.06).subplots(squeeze=False)[0]
        axes[0].set_title(panel.title)
        for ax in axes:
            ax.set_ylim(0, 1.08)
            ax.tick_params(axis="y", labelleft=place == 0 and ax is axes[0])
        if has_rho:
            _plot_over_rho(axes[0], panel, look_of, handle_of, is_bent=info.theory_rho[-1] > _LINEAR_TO)
            axes[0].set_xlim(-0.04, info.theory_rho[-1])
        if has_margin:
            _plot_margin(axes[-1], panel, look_of, handle_of)
        if has_rho and place == 0:
            (handle_of[_THEORY],) = axes[0].plot(
                info.theory_rho, info.theory_share, color=style.GREY, linestyle="--", linewidth=1.2, zorder=1
            )
        if place == 0:
            axes[0].set_ylabel("share of the configured experts E")
    shown = [label for label in (*info.labels, _THEORY) if label in handle_of]
    style.legend(figure, [handle_of[label] for label in shown], shown)
    style.caption(
        figure,
        style.spread_text(info.n_range),
        *((f"points of the same {_RHO} are drawn side by side",) if len(info.panels[0].curves) > 1 else ()),
        f"pooled over all settings except objective, E and {_RHO}",
        *(("dashed: theory for active experts under blend, not a measurement",) if has_rho else ()),
        *style.unnamed_text(len(shown)),
    )
    return figure


def _plot_over_rho(
    ax: Axes, panel: PhasePanel, look_of: dict[str, Any], handle_of: dict[str, Any], is_bent: bool
) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
    from matplotlib.transforms import ScaledTranslation

    # Linear where the theory rises; logarithmic beyond, where little changes.
    ax.set_xscale("symlog", linthresh=_LINEAR_TO, linscale=1.5)
    for place, curve in enumerate(panel.curves):
        # Side by side, because studies share a few values of rho.
        aside = _SPREAD_POINTS / 72 * (place - (len(panel.curves) - 1) / 2) / max(len(panel.curves), 4)
        shift = ScaledTranslation(aside, 0, ax.figure.dpi_scale_trans)
        handle_of[curve.label] = _plot_points(ax, curve, look_of, transform=ax.transData + shift)
    ax.xaxis.set_major_locator(FixedLocator(_RHO_TICKS))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.short_number(value)))
    if is_bent:
        ax.axvline(_LINEAR_TO, color=style.GREY, linewidth=0.8, linestyle=":", zorder=0)
    scale = f"\n(linear to {_LINEAR_TO}, logarithmic beyond the dotted line)" if is_bent else ""
    ax.set_xlabel(f"{_RHO} = 2 λ_balance / λ_entropy{scale}")


def _plot_margin(ax: Axes, panel: PhasePanel, look_of: dict[str, Any], handle_of: dict[str, Any]) -> None:
    for curve in panel.margin:
        handle_of.setdefault(curve.label, _plot_points(ax, curve, look_of))
    ax.set_xlim(-0.7, len(panel.margin) - 0.3)
    ax.set_xticks([])
    ax.set_xlabel(f"no entropy\nterm (no {_RHO})")


def _plot_points(ax: Axes, curve: Curve, look_of: dict[str, Any], **options: Any) -> Any:
    colour, marker = look_of[curve.label]
    return ax.errorbar(
        curve.x,
        curve.mean,
        curve.sd,
        color=colour,
        marker=marker,
        linestyle="none",
        capsize=2,
        elinewidth=0.9,
        **options,
    )
