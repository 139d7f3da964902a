"""Results of studies: their files (the results contract) and the table that is read from them. No torch, no Ray.

>>> from smoe_ray.results import read_results
>>> table = read_results("results", "quickstart")  # doctest: +SKIP
"""

from smoe_ray.results.columns import EPOCH_COLUMNS, TIMING_COLUMNS, Row
from smoe_ray.results.current import current_trials
from smoe_ray.results.export import as_json, to_csv, to_json
from smoe_ray.results.incremental import StudyReader
from smoe_ray.results.pack import Packer
from smoe_ray.results.places import check_place
from smoe_ray.results.probe import Probe, ProbeRecord, read_probe
from smoe_ray.results.read import list_studies, read_embeddings, read_results, read_together, read_trials, read_weights
from smoe_ray.results.record import DataFacts, Status, Timings, TrialRecord, Versions
from smoe_ray.results.store import Store
from smoe_ray.results.trial import Arrays, TrialFolder

__all__ = [
    "EPOCH_COLUMNS",
    "TIMING_COLUMNS",
    "Arrays",
    "DataFacts",
    "Packer",
    "Probe",
    "ProbeRecord",
    "Row",
    "Status",
    "Store",
    "StudyReader",
    "Timings",
    "TrialFolder",
    "TrialRecord",
    "Versions",
    "as_json",
    "check_place",
    "current_trials",
    "list_studies",
    "read_embeddings",
    "read_probe",
    "read_results",
    "read_together",
    "read_trials",
    "read_weights",
    "to_csv",
    "to_json",
]
