"""A data source that a plug-in brings.

The plug-in is an object, or a class that is made without arguments, with

- `Spec`: a subclass of `smoe_ray.spec.DataSpecBase`, with the source's own parameters;
- ``read(spec, found, context) -> Content``: all arrays, as `SourceReader.read`;
- `requirements`, `find` and `key` of `SourceReader`, where it reads files. Without them it generates its images from
  the spec alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from smoe_ray import plugins
from smoe_ray.data.dataset import Dataset
from smoe_ray.data.source import Content, DataRequirement, ReadContext
from smoe_ray.errors import PluginError
from smoe_ray.spec import MAX_SIDE, MIN_SIDE, PluginData
from smoe_ray.spec.data_base import MAX_CLASS_NAME


class PluginSource:
    """`SourceReader` of a plug-in: imports it and checks what it returns.

    Raises:
        PluginError: from every method: the plug-in fails.
        StudyError: its parameters are wrong.
    """

    def __init__(self, reference: PluginData) -> None:
        self._source: Any
        self._plugin, self._spec = reference.resolve()
        with plugins.blaming():
            self._source = self._plugin.target() if inspect.isclass(self._plugin.target) else self._plugin.target
        if not callable(getattr(self._source, "read", None)):
            raise PluginError(f"plug-in {reference.plugin}: a data source needs a method 'read'")

    def requirements(self, _spec: PluginData, /) -> tuple[DataRequirement, ...]:
        """What the plug-in says that it needs."""
        if not hasattr(self._source, "requirements"):
            return (DataRequirement(f"images of plug-in {self._plugin.name}", "generated", "drawn"),)
        with plugins.blaming():
            return tuple(self._source.requirements(self._spec))

    def find(self, _spec: PluginData, context: ReadContext, /) -> Any:
        """Where the plug-in's input is."""
        with plugins.blaming():
            return self._source.find(self._spec, context) if hasattr(self._source, "find") else None

    def key(self, _spec: PluginData, found: Any, context: ReadContext, /) -> Sequence[str]:
        """The plug-in's code, and the content of its input."""
        with plugins.blaming():
            content = self._source.key(self._spec, found, context) if hasattr(self._source, "key") else ()
        return [self._plugin.identity, *content]

    def read(self, _spec: PluginData, found: Any, context: ReadContext, /) -> Content:
        """The plug-in's images."""
        with plugins.blaming():
            content = self._source.read(self._spec, found, context)
        problem = _problem(content)
        if problem:
            raise PluginError(f"plug-in {self._plugin.name}: read() returned {problem}")
        parts = {name: _without_one_channel(getattr(content, name)) for name in ("train", "test")}
        return content._replace(**parts)  # type: ignore[no-any-return]


def _without_one_channel(dataset: Dataset) -> Dataset:
    """Grey images (B, 1, H, W) as those of all other sources, (B, H, W)."""
    image = dataset.image_BHW
    return replace(dataset, image_BHW=image[:, 0]) if image.shape[1:-2] == (1,) else dataset


def _problem(content: Any) -> str | None:
    """What is wrong with what a plug-in returned; None if nothing is."""
    if not isinstance(content, Content):
        return f"{type(content).__name__}, not a smoe_ray.data.Content"
    for name, dataset in (("train", content.train), ("test", content.test)):
        image, label = dataset.image_BHW, dataset.label_B
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            return f"{name} images that are no array of uint8"
        if not isinstance(label, np.ndarray) or label.dtype.kind not in "iu" or label.shape != (len(image),):
            return f"{name} labels that are no array of {len(image):,} whole numbers"
        if len(label) == 0 or label.min() < 0 or label.max() >= len(content.class_names):
            return f"{name} labels that are no indices into its {len(content.class_names)} class_names"
        if image.shape[1:] != content.train.image_BHW.shape[1:]:
            return f"{name} images of shape {image.shape[1:]} beside {content.train.image_BHW.shape[1:]}"
        problem = _problem_of_shape(image.shape)
        if problem:
            return f"{name} images of shape {image.shape}{problem}"
    if np.any(np.diff(content.train.label_B) < 0):
        return "training images that are not sorted by label"
    return _problem_of_names(content.train, content)


def _problem_of_shape(shape: tuple[int, ...]) -> str | None:
    *channels, height, width = shape[1:] if len(shape) in (3, 4) else (0, 0, 0)
    if channels in ([], [1], [3]) and MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE:
        return None
    sides = f"height and width from {MIN_SIDE} to {MAX_SIDE}"
    hint = ": return image.transpose(0, 3, 1, 2)" if len(shape) == 4 and shape[3] in (1, 3) else ""
    return f"; needed: (B, H, W) or (B, C, H, W) with C = 1 or 3, {sides}{hint}"


def _problem_of_names(train: Dataset, content: Content) -> str | None:
    for kind in ("class_names", "style_names", "parameter_names"):
        for name in getattr(content, kind):
            if not isinstance(name, str) or not 0 < len(name) <= MAX_CLASS_NAME or not name.isprintable():
                return f"{name!r:.80} in its {kind}; needed: printable text of 1 to {MAX_CLASS_NAME} characters"
    if train.style_B is not None and train.style_B.max() >= len(content.style_names):
        return f"styles that are no indices into its {len(content.style_names)} style_names"
    if train.parameter_BP is not None and train.parameter_BP.shape != (len(train), len(content.parameter_names)):
        return f"parameters of shape {train.parameter_BP.shape} for {len(content.parameter_names)} parameter_names"
    return None
