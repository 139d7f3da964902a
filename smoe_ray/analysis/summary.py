"""One row a trial: how it ended and what it reached."""

from __future__ import annotations

import pandas as pd

from smoe_ray.analysis.arms import arms
from smoe_ray.analysis.trials import require


def trial_summary(results: pd.DataFrame) -> pd.DataFrame:
    """The last row of each trial, whatever its status, with the label of its arm in front.

    Columns beyond those of `results`: ``arm`` (see `arms`) and ``gap`` = test.reconstruction -
    test.reconstruction_soft, squared error an image: what choosing one expert costs against blending all.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).

    Returns:
        One row a trial, sorted by arm and seed.

    Raises:
        ResultsError: `results` is not such a table.
    """
    require(results, ("trial_id", "epoch", "seed", "test.reconstruction", "test.reconstruction_soft"))
    label_of = arms(results)
    last = results.sort_values("epoch", kind="stable", na_position="first").groupby("trial_id", sort=False).tail(1)
    summary = last.assign(
        arm=pd.Categorical(last["trial_id"].map(label_of), categories=label_of.cat.categories, ordered=True),
        gap=last["test.reconstruction"] - last["test.reconstruction_soft"],
    )
    front = ["arm", "seed"]
    columns = front + [column for column in summary.columns if column not in front]
    return summary[columns].sort_values(["arm", "seed", "trial_id"], kind="stable").reset_index(drop=True)
