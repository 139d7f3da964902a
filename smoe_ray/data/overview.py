"""What prepared data are, and what is probably wrong with them.

Shapes: B images, C channels, H W pixels, X pixels of the border of an image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.data.checks import DARK, LIGHT, image_digest, some
from smoe_ray.data.dataset import Dataset, Splits, shape_in_words
from smoe_ray.spec import DataSpec

Background = Literal["light", "dark"]

_BLOCK = 4096  # images that are looked at together
_PLAIN_STEPS = 16
"""Grey levels by which a pixel of a plain background may differ from its median."""
_PLAIN_SHARE = 0.8
"""Share of an image's border that must be background, if it has a plain one: a drawing may touch the border."""
_MOSTLY = 0.9
"""Only data of which this share has plain backgrounds, all light or dark, are taken for drawings."""
_FEW = 0.01
"""From this share on, images of a class on the other background are told."""


class Overview(NamedTuple):
    """What a data set is."""

    shape: str
    """E.g. ``32x32 RGB``."""
    train_C: tuple[int, ...]
    """Training images of each class."""
    test_C: tuple[int, ...]
    low: int
    """Lowest pixel value."""
    high: int
    mean: tuple[float, float]
    """Mean pixel value of training and test images, 0 to 1."""
    background: Background | None
    """Of drawings, most of which are on one; None for other images."""
    warnings: tuple[str, ...]
    """What is probably wrong, one line each."""


def overview(splits: Splits) -> Overview:
    """Look at every image once."""
    sets = (splits.train, splits.test)
    train_C, test_C = (np.bincount(part.label_B, minlength=len(splits.class_names)) for part in sets)
    backgrounds = _backgrounds(splits)
    light, dark = (sum(counts[kind] for _, _, counts in backgrounds) for kind in ("light", "dark"))
    return Overview(
        shape=shape_in_words(splits.train.image_shape),
        train_C=tuple(train_C.tolist()),
        test_C=tuple(test_C.tolist()),
        low=min(int(part.image_BHW.min()) for part in sets),
        high=max(int(part.image_BHW.max()) for part in sets),
        mean=(float(splits.train.image_BHW.mean()) / 255, float(splits.test.image_BHW.mean()) / 255),
        background=None if not backgrounds else "light" if light >= dark else "dark",
        warnings=(*_shared_images(splits), *_mixed_backgrounds(backgrounds)),
    )


# --- the same images in training and test -----------------------------------------------------------------------------


def _shared_images(splits: Splits) -> list[str]:
    """Test images that are also training images: a model has seen them, so they measure nothing."""
    label_of: dict[bytes, set[int]] = {}
    for digest, label in _digests(splits.train):
        label_of.setdefault(digest, set()).add(label)
    shared: Counter[str] = Counter()
    elsewhere = 0
    for digest, label in _digests(splits.test):
        if digest in label_of:
            shared[splits.class_names[label]] += 1
            elsewhere += label not in label_of[digest]
    if not shared:
        return []
    classes = some(f"{name}: {number:,}" for name, number in shared.most_common())
    as_another = f"; {elsewhere:,} of them as another class" if elsewhere else ""
    return [
        f"test images that are also training images: {shared.total():,} of {len(splits.test):,} ({classes}){as_another}"
    ]


def _digests(data: Dataset) -> Iterator[tuple[bytes, int]]:
    return zip(map(image_digest, data.image_BHW), data.label_B.tolist(), strict=True)


# --- inverted drawings ------------------------------------------------------------------------------------------------


def _backgrounds(splits: Splits) -> list[tuple[str, str, Counter[str]]]:
    """(split, class, images by background) where the images are drawings; nothing where they are not."""
    found = []
    for split, data in (("train", splits.train), ("test", splits.test)):
        kind_B = _background_kinds(data)
        for label, name in enumerate(splits.class_names):
            found.append((split, name, Counter(kind_B[data.label_B == label].tolist())))
    plain = sum(counts["light"] + counts["dark"] for _, _, counts in found)
    return found if plain >= _MOSTLY * (len(splits.train) + len(splits.test)) else []


def _background_kinds(data: Dataset) -> npt.NDArray[np.str_]:
    """light, dark or neither, for each image, as its border tells."""
    kinds = [np.empty(0, "<U7")]
    for start in range(0, len(data), _BLOCK):
        border_BX = _borders(data.image_BHW[start : start + _BLOCK])
        median_B = np.median(border_BX, axis=1)
        plain_B = np.mean(np.abs(border_BX - median_B[:, None]) <= _PLAIN_STEPS, axis=1) >= _PLAIN_SHARE
        light_or_dark = np.where(median_B >= LIGHT, "light", np.where(median_B <= DARK, "dark", "neither"))
        kinds.append(np.where(plain_B, light_or_dark, "neither"))
    return np.concatenate(kinds)


def _borders(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The outermost pixels of each image, colours averaged."""
    edges = [image[..., 0, :], image[..., -1, :], image[..., 1:-1, 0], image[..., 1:-1, -1]]
    border = np.concatenate(edges, axis=-1).astype(np.float32)
    return border if border.ndim == 2 else border.mean(axis=1)


def _mixed_backgrounds(found: Sequence[tuple[str, str, Counter[str]]]) -> list[str]:
    """Drawings in the other ink: within a class, between classes, between training and test."""
    most_of = {
        (split, name): max(("dark", "light"), key=lambda kind, counts=counts: counts[kind])  # type: ignore[misc]
        for split, name, counts in found
    }
    warnings = []
    for split in ("train", "test"):
        of_kind = {kind: [n for (s, n), k in most_of.items() if s == split and k == kind] for kind in ("light", "dark")}
        if of_kind["light"] and of_kind["dark"]:
            fewer, more = sorted(of_kind.items(), key=lambda item: len(item[1]))
            warnings.append(
                f"{split}: most images of {some(fewer[1])} are on a {fewer[0]} background, those of {some(more[1])} on "
                f"a {more[0]} one: is one of them inverted?"
            )
    turned = {name: kind for (split, name), kind in most_of.items() if split == "train"}
    differing = [name for (split, name), kind in most_of.items() if split == "test" and kind != turned[name]]
    if differing:
        warnings.append(f"training and test images are on opposite backgrounds ({some(differing)}): are some inverted?")
    mixed = {}
    for split, name, counts in found:
        few, many = sorted((counts["light"], counts["dark"]))
        if few >= max(1, _FEW * (few + many)):
            mixed[f"{split} {name}"] = f"{few:,} of {counts.total():,}"
    if mixed:
        listed = some(f"{name}: {number}" for name, number in mixed.items())
        warnings.append(f"some images of a class are on the other background than most ({listed}): are they inverted?")
    return warnings


def headings(specs: Sequence[DataSpec]) -> list[str]:
    """One line for each of several data settings: what it reads, and in what it differs from the others."""
    trees = [dict(_leaves(spec.model_dump(mode="json"))) for spec in specs]
    lines = []
    for tree in trees:
        names = [str(tree["source"]), *([str(tree["root"])] if tree.get("root") else [])]
        differing = [
            f"{key}: {value}"
            for key, value in tree.items()
            if key not in ("source", "root") and any(other.get(key, value) != value for other in trees)
        ]
        lines.append(", ".join([" ".join(names), *differing]))
    return lines


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield above + key, value
