"""Early stopping of trials whose experts have collapsed."""

from __future__ import annotations

from collections.abc import Sequence

from smoe_ray.results import Row
from smoe_ray.spec import CollapseSpec


def collapse_reason(spec: CollapseSpec | None, rows: Sequence[Row]) -> str | None:
    """The reason, in one line, to stop a trial after these epochs; None to continue.

    Decided by the newest epoch, if it was evaluated and the grace period is over.
    """
    if spec is None or not rows or rows[-1]["epoch"] <= spec.grace_epochs:
        return None
    row = rows[-1]
    limits = {"experts.active_fraction": spec.min_active_fraction, "experts.effective": spec.min_effective}
    for column, limit in limits.items():
        value = row.get(column)
        if limit is not None and value is not None and value < limit:
            return f"experts collapsed: {column} {value:.3g} < {limit:.3g} at epoch {row['epoch']}"
    return None
