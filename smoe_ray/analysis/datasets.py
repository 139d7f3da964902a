"""Which data the trials of a study were trained on: losses of different data have no common scale."""

from __future__ import annotations

import shlex

import pandas as pd

from smoe_ray.analysis.outcomes import error_names, require
from smoe_ray.columns import listed
from smoe_ray.errors import ResultsError
from smoe_ray.spec.messages import nearest

DATASET = "dataset"
"""Path under which `arms` splits trials by `dataset_names`, as if it were a spec path."""

_HUMAN = {"quickdraw": "drawings"}


def dataset_names(results: pd.DataFrame) -> pd.Series[str]:
    """Name of each trial's data: that of the study's `datasets` or, without one, its source.

    Trials of one source that differ in the shape of their images have it in the name.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).

    Returns:
        Names indexed by `trial_id`.

    Raises:
        ResultsError: `results` has no column `trial_id`.
    """
    require(results, ("trial_id",))
    trials = results.drop_duplicates("trial_id").set_index("trial_id")
    nothing = pd.Series(None, index=trials.index, dtype=object)
    given, source, shape = (
        trials.get(column, nothing) for column in ("config.dataset", "config.data.source", "data.image_shape")
    )
    short = source.map(lambda name: _HUMAN.get(name, str(name).rpartition(":")[2]), na_action="ignore")
    names = given.where(given.notna(), short).fillna("data").astype(str)
    differ = (given.isna() & shape.notna()) & (shape.groupby(names).transform("nunique") > 1)
    return names.where(~differ, names + " " + shape.astype(str)).rename(DATASET)


def dataset_paths(results: pd.DataFrame) -> tuple[str, ...]:
    """Spec paths that follow from the dataset, `DATASET` first; empty if all trials have the same.

    What differs within a dataset, such as `data.fraction` on an axis, is not among them.
    """
    names = dataset_names(results)
    if names.nunique() < 2:
        return ()
    trials = results.drop_duplicates("trial_id").set_index("trial_id")
    columns = [column for column in trials.columns if column.startswith("config.data.")]
    differs = trials[columns].astype(str).groupby(names).nunique().gt(1).any()
    return (DATASET, *(column.removeprefix("config.") for column in columns if not differs[column]))


def of_dataset(results: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one dataset. Raises ResultsError, with the names that there are, if it has none."""
    name_of = dataset_names(results)
    if name not in set(name_of):
        known = sorted(set(name_of))
        raise ResultsError(f"no dataset '{name}' here; there are {', '.join(known)}{nearest(name, known)}")
    return results[results["trial_id"].map(name_of) == name]


def require_common_scale(results: pd.DataFrame, what: str) -> None:
    """Raise ResultsError, naming `what` would mix their losses, if these are of several datasets or likelihoods."""
    names = sorted(set(dataset_names(results)))
    if len(names) > 1:
        raise ResultsError(
            f"{what}: losses of {listed(names)} have no common scale; choose one, --dataset "
            f"{shlex.quote(names[0])}, or --kind datasets for all of them"
        )
    if (errors := error_names(results))[1:]:
        raise ResultsError(f"{what}: {listed(errors)} have no common scale; --kind comparison has the PSNR")
