"""Builds one tidy table from the files of all trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray.results.columns import empty_epochs
from smoe_ray.results.record import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

_DATA_COLUMNS = ["data.train_images", "data.image_shape", "data.fingerprint"]


class Found(NamedTuple):
    """Record and epochs of one trial."""

    record: TrialRecord
    epochs: Any  # pyarrow.Table | None


def build_table(found: Sequence[Found]) -> pd.DataFrame:
    """The table that `read_results` describes, without its `attrs`."""
    import pandas as pd
    import pyarrow as pa

    no_epoch = pa.table({"epoch": pa.nulls(1, pa.int64())})
    epochs = [no_epoch if item.epochs is None or not len(item.epochs) else item.epochs for item in found]
    # The empty table fixes order and types of the columns, also if no trial has an epoch yet.
    measured: pd.DataFrame = pa.concat_tables([empty_epochs(), *epochs], promote_options="permissive").to_pandas()
    described = pd.DataFrame(
        [_describe(item.record) for item in found],
        columns=None if found else ["study", "trial_id", "status", "seed", *_DATA_COLUMNS],
    )
    config = [name for name in described.columns if name.startswith("config.") and not _is_parent(name, described)]
    repeated = described.loc[described.index.repeat([len(part) for part in epochs])].reset_index(drop=True)
    head = [*(repeated[name] for name in ("study", "trial_id", "status", "seed")), measured.pop("epoch")]
    return pd.concat([*head, repeated[config], repeated[_DATA_COLUMNS], measured], axis=1)


def _describe(record: TrialRecord) -> dict[str, Any]:
    """The columns that are constant over the epochs of a trial."""
    spec = record.spec.model_dump(mode="json")
    seed = spec.pop("seed")
    return {
        "study": record.study,
        "trial_id": record.trial_id,
        "status": record.status,
        "seed": seed,
        **flatten(spec, "config"),
        "data.train_images": record.data.train_images if record.data else None,
        "data.image_shape": "x".join(map(str, record.data.image_shape)) if record.data else None,
        "data.fingerprint": record.data.fingerprint if record.data else None,
    }


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted path, below `prefix` if there is one; lists as tuples."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            flat |= flatten(value, path)
        else:
            flat[path] = tuple(value) if isinstance(value, list) else value
    return flat


def _is_parent(name: str, described: pd.DataFrame) -> bool:
    """Whether other columns hold the fields of this one: `config.objective`, null in supervised trials.

    A column with values of its own stays: some trials may have a decoder that is a name, others one with fields.
    """
    return bool(described[name].isna().all()) and any(other.startswith(f"{name}.") for other in described.columns)
