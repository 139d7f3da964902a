"""Data: Quick, Draw! files, image sets, sketches drawn here; a cache of prepared sources; splits."""

from smoe_ray.data.dataset import Dataset, Splits
from smoe_ray.data.description import Need, describe
from smoe_ray.data.files import cache_folder
from smoe_ray.data.preparation import load_splits, prepare
from smoe_ray.data.source import Source
from smoe_ray.data.splits import split

__all__ = ["Dataset", "Need", "Source", "Splits", "cache_folder", "describe", "load_splits", "prepare", "split"]
