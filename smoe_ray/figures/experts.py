"""Test loss against the number of experts, and expert usage over epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from smoe_ray.analysis import Curve, LossAgainstExperts, TrialUsage, UsageOverEpochs
from smoe_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_COUNT_ROWS = 12
_BASELINE_STYLES = ("--", ":", "-.")


@style.styled
def plot_loss_against_experts(info: LossAgainstExperts) -> Figure:
    """Mean and s.d. of the test loss at each number of experts, runs per point below, supervised baseline as a band."""
    from matplotlib.ticker import MaxNLocator

    # If all points have the same number of runs, the caption states it.
    counted = info.n_range[0] < info.n_range[1] and len(info.curves) <= _MOST_COUNT_ROWS
    looks = list(zip(info.curves, style.colours(len(info.curves)), style.markers(len(info.curves)), strict=True))
    if counted:
        rows = len(info.curves)
        figure = style.new_figure(width=7, height=4 + 0.15 * rows)
        ax, counts = figure.subplots(2, 1, sharex=True, height_ratios=(24, rows))
        ax.tick_params(axis="x", labelbottom=False)
        _write_counts(counts, [(curve, colour) for curve, colour, _ in looks])
    else:
        figure = style.new_figure(width=7)
        ax = counts = figure.subplots()
    handles = []
    for curve, colour, marker in looks:
        handles.append(
            ax.errorbar(curve.x, curve.mean, curve.sd, color=colour, marker=marker, capsize=2, elinewidth=0.9)
        )
    for number, baseline in enumerate(info.baselines):
        ax.axhspan(baseline.low, baseline.high, color=style.GREY, alpha=0.2, linewidth=0)
        line = _BASELINE_STYLES[number % len(_BASELINE_STYLES)]
        handles.append(ax.axhline(baseline.mean, color=style.GREY, linestyle=line, linewidth=1.2))
    ax.set_ylabel(f"test loss, {info.gating} gating\n{style.unit_lines(info.unit)}")
    ax.set_xlim(info.x_limits)
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    counts.set_xlabel(f"{info.experts} experts")
    labels = [curve.label for curve in info.curves]
    style.legend(figure, handles, [*labels, *(f"{base.label} (n = {base.n})" for base in info.baselines)])
    band = ("grey band: the same for the supervised baseline",) if info.baselines else ()
    style.caption(figure, style.spread_text(info.n_range), *band, *style.unnamed_text(len(handles)))
    return figure


def _write_counts(ax: Axes, curves: Sequence[tuple[Curve, Any]]) -> None:
    """Runs behind each point, one row per curve, in its colour."""
    for row, (curve, colour) in enumerate(curves):
        for x, n in zip(curve.x, curve.n, strict=True):
            ax.text(x, row, str(n), color=colour, fontsize=7, ha="center", va="center")
    ax.set_ylim(len(curves) - 0.5, -0.5)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(left=False, labelleft=False, length=0)
    ax.set_ylabel("n", rotation=0, ha="right", va="center")


@style.styled
def plot_usage_over_epochs(info: UsageOverEpochs) -> Figure:
    """Stacked shares of the experts over epochs, one block per trial, with active and effective experts below."""
    columns = min(4, len(info.trials))
    rows = -(-len(info.trials) // columns)
    width = 6 if columns == 1 else 2.6 * columns
    figure = style.new_figure(width=width, height=4 if rows == 1 else 3 * rows)
    blocks = figure.add_gridspec(rows, columns)
    handles = []
    for place, trial in enumerate(info.trials):
        block = blocks[place // columns, place % columns].subgridspec(2, 1, height_ratios=(2.4, 1))
        shares, counts = block.subplots(sharex=True, squeeze=False)[:, 0]
        style.title(shares, f"{trial.label}\nseed {trial.seed}", width / columns - 0.8)
        handles = _plot_trial_usage(shares, counts, trial)
        if place % columns == 0:
            shares.set_ylabel("share of test images")
            counts.set_ylabel("experts")
        if place + columns >= len(info.trials):
            counts.set_xlabel("epoch")
    style.legend(figure, handles, ["active experts", "effective experts, exp(entropy)"])
    style.caption(
        figure,
        "one trial per block, one band per expert, largest final share at the bottom",
        "grey: no test image at the last epoch",
        *style.cut_text(len(info.trials), info.num_available),
    )
    return figure


def _plot_trial_usage(shares: Axes, counts: Axes, trial: TrialUsage) -> list[object]:
    from matplotlib.ticker import MaxNLocator

    palette = style.COLOURS[:6]
    fill = [palette[place % 6] if alive else "#9a9a9a" for place, alive in enumerate(trial.alive_E)]
    shares.stackplot(trial.epoch_T, trial.share_ET, colors=fill, edgecolor="white", linewidth=0.4)
    shares.set_ylim(0, 1)
    shares.set_yticks([0, 0.5, 1])
    shares.margins(x=0)
    counts.margins(x=0)
    (active,) = counts.plot(trial.epoch_T, trial.active_T, color="black")
    (effective,) = counts.plot(trial.epoch_T, trial.effective_T, color=style.COLOURS[1], linestyle="--")
    configured = len(trial.expert_E)
    counts.set_ylim(0, 1.08 * configured)
    counts.set_yticks([0, configured])
    counts.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return [active, effective]
