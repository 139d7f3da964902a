"""Data: readers of each kind of source, a cache of prepared sources, and the splits that trials are trained on."""

from smoe_ray.data.dataset import Dataset, Splits
from smoe_ray.data.files import cache_folder
from smoe_ray.data.preparation import load_splits, prepare
from smoe_ray.data.prepared import Source
from smoe_ray.data.source import Content, DataRequirement, ReadContext, SourceReader
from smoe_ray.data.sources import requirements
from smoe_ray.data.splits import split

__all__ = [
    "Content",
    "DataRequirement",
    "Dataset",
    "ReadContext",
    "Source",
    "SourceReader",
    "Splits",
    "cache_folder",
    "load_splits",
    "prepare",
    "requirements",
    "split",
]
