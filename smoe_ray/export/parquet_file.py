"""A whole study in one Parquet file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoe_ray.analysis.summary import epoch_summary
from smoe_ray.atomic_write import write_whole
from smoe_ray.export.history import StudyHistory
from smoe_ray.results import as_json

if TYPE_CHECKING:
    import pandas as pd


def write_parquet(study: StudyHistory, folder: Path) -> Path:
    """Write ``<study>.parquet``: the columns of ``smoe-ray table --epochs``, a row per trial and epoch.

    A column of lists stays one; one of mixed types is JSON text. The file's metadata have the study's YAML text
    (``smoe_ray.study``) and every trial's record (``smoe_ray.trials``, JSON). An older file is replaced.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = epoch_summary(study.results)
    table = pa.table({str(name): _column(frame[name]) for name in frame.columns})
    records = json.dumps([as_json(trial.record) for trial in study.trials])
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"smoe_ray.study": study.text, "smoe_ray.trials": records}), sink)
    path = folder / f"{study.name}.parquet"
    write_whole(path, sink.getvalue().to_pybytes())
    return path


def _column(values: pd.Series[Any]) -> Any:
    import pyarrow as pa

    plain = as_json(values.astype(object) if values.dtype == "category" else values)
    try:
        return pa.array(plain)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else json.dumps(value) for value in plain])
