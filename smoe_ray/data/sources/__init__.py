"""The kinds of data source, one module each, named as the spec's field `source`: see `SourceReader`.

To add one: a spec class with ``source: Literal["<name>"]`` in `smoe_ray.spec`, and ``<name>.py`` here. Image sets that
are published in files of the usual kinds share one module, `named`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from smoe_ray.data.source import DataRequirement, SourceReader
from smoe_ray.spec import (
    CombinedData,
    DataSpec,
    ImageData,
    NamedDataBase,
    ParquetData,
    PluginData,
    QuickDrawData,
    SyntheticData,
)

if TYPE_CHECKING:  # the type checker compares each module with the interface
    from smoe_ray.data.dataset import Splits
    from smoe_ray.data.sources import combined, images, named, parquet, quickdraw, synthetic

    _synthetic: SourceReader[SyntheticData, None] = synthetic
    _quickdraw: SourceReader[QuickDrawData, tuple[Path, ...]] = quickdraw
    _images: SourceReader[ImageData, images.Found] = images
    _named: SourceReader[NamedDataBase, named.ArrayFiles] = named
    _parquet: SourceReader[ParquetData, parquet.ParquetFiles] = parquet
    _combined: SourceReader[CombinedData, dict[str, Splits]] = combined


def source_reader(spec: DataSpec) -> SourceReader[Any, Any]:
    """The reader of a spec: a module of `smoe_ray.data.sources`, imported when it is first needed.

    Raises:
        PluginError, StudyError: a plug-in that `spec.source` names cannot be imported, or refuses its parameters.
    """
    if isinstance(spec, PluginData):
        from smoe_ray.data.plugin_source import PluginSource

        return PluginSource(spec)
    module = "named" if isinstance(spec, NamedDataBase) else spec.source
    return cast(SourceReader[Any, Any], import_module(f"{__name__}.{module}"))


def requirements(spec: DataSpec) -> tuple[DataRequirement, ...]:
    """The files and drawings that `spec` needs and whether they are available; reads and downloads nothing."""
    return source_reader(spec).requirements(spec)
