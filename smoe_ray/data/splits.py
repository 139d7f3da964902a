"""Which training images of a source a trial sees: a balanced fraction, then class imbalance.

Shapes: B images, H W pixels, P parameters, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from smoe_ray.data.dataset import Dataset, Splits
from smoe_ray.data.prepared import Source
from smoe_ray.data.sources.synthetic import style_names
from smoe_ray.errors import DataError
from smoe_ray.spec import CombinedData, DataSpec, Imbalance, PluginData, SyntheticData
from smoe_ray.spec.data_base import normalised
from smoe_ray.spec.messages import nearest

_NUDGE = Decimal("1e-12")


def split(source: Source, spec: DataSpec) -> Splits:
    """The first ``int(fraction * n)`` training images of each class, thinned by `imbalance`; the test set whole.

    Training images are sorted by label. At fraction 1 without imbalance they are the source's own memory map.

    Raises:
        DataError: a class would keep no image, or `imbalance` names an unknown class.
    """
    available_C = np.bincount(source.train.label_B, minlength=len(source.class_names)).tolist()
    kept_C = _kept(available_C, source.class_names, spec)
    return Splits(
        train=_first_of_each(source.train, available_C, kept_C),
        test=source.test,
        class_names=source.class_names,
        fingerprint=source.fingerprint,
        style_names=source.style_names,
        parameter_names=source.parameter_names,
        notes=source.notes,
    )


def planned_train_images(spec: DataSpec) -> int | None:
    """Training images that a trial will see, if the spec alone determines it; None if it depends on the files.

    Raises:
        DataError: a class would keep no image, or `imbalance` names an unknown class.
    """
    if spec.classes is None or spec.train_per_class is None:
        return None
    return sum(_kept([spec.train_per_class] * len(spec.classes), spec.classes, spec))


def planned_num_styles(spec: DataSpec) -> int | None:
    """Number of styles of the data, if the spec alone determines it (0: none); None if it depends on the files."""
    if isinstance(spec, SyntheticData):
        return len(style_names(spec))
    return None if isinstance(spec, (CombinedData, PluginData)) else 0


def _kept(available_C: Sequence[int], class_names: Sequence[str], spec: DataSpec) -> list[int]:
    """Training images that each class keeps."""
    weight_C = _weights(spec.imbalance, class_names) if spec.imbalance else [Decimal(1)] * len(class_names)
    kept_C = [
        _share(_share(n, _decimal(spec.fraction)), weight) for n, weight in zip(available_C, weight_C, strict=True)
    ]
    for name, n, kept in zip(class_names, available_C, kept_C, strict=True):
        if kept < 1:
            raise DataError(
                f"data: class '{name}' would keep none of its {n} training images; raise data.fraction or its share"
            )
    return kept_C


def _share(n: int, share: Decimal) -> int:
    return int(share * n)


def _decimal(number: float) -> Decimal:
    # 0.29 is a little less than 0.29 in binary, and int(0.29 * 100) is 28. The decimal as written is what counts.
    return Decimal(repr(number))


def _weights(imbalance: Imbalance, class_names: Sequence[str]) -> list[Decimal]:
    """Share of its images that each class keeps, in label order."""
    if imbalance.exponent is not None:
        # (1/3 of 9 images are 3, though 3 ** -1 is rounded down: the nudge is far below one image of any class.)
        return [_decimal(number**-imbalance.exponent) + _NUDGE for number in range(1, len(class_names) + 1)]
    weights = {normalised(name): weight for name, weight in (imbalance.weights or {}).items()}
    for name in weights:
        if name not in class_names:
            hint = nearest(name, class_names) or f"; classes: {', '.join(class_names)}"
            raise DataError(f"data.imbalance.weights: no class '{name}'{hint}")
    return [_decimal(weights.get(name, 1.0)) for name in class_names]


def _first_of_each(train: Dataset, available_C: Sequence[int], kept_C: Sequence[int]) -> Dataset:
    if list(available_C) == list(kept_C):
        return train
    start_C = np.concatenate(([0], np.cumsum(available_C)[:-1])).tolist()
    slices = [slice(start, start + kept) for start, kept in zip(start_C, kept_C, strict=True)]

    def take(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array[slices[0]] if len(slices) == 1 else np.concatenate([array[part] for part in slices])

    return Dataset(
        image_BHW=take(train.image_BHW),
        label_B=take(train.label_B),
        style_B=None if train.style_B is None else take(train.style_B),
        parameter_BP=None if train.parameter_BP is None else take(train.parameter_BP),
    )
