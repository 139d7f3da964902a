"""What every data source has in common: class names, the image format, and the keys that all specs of data share."""

from __future__ import annotations

import unicodedata
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from smoe_ray.spec.architectures import MAX_SIDE, MIN_SIDE, ImageShape
from smoe_ray.spec.base import Spec

IMAGE_SIDE = 28
"""Height and width of drawings that this package rasterises, in pixels."""

MAX_CLASS_NAME = 255
"""Characters of a class name, which may be the name of a folder."""


def normalised(name: str) -> str:
    """A class name in Unicode form NFC: the same name is the same text, whichever system wrote it."""
    return unicodedata.normalize("NFC", name)


def _class_name(name: str) -> str:
    if not 0 < len(name) <= MAX_CLASS_NAME or not name.isprintable() or name.startswith(".") or set(name) & {*"/\\"}:
        allowed = f"1 to {MAX_CLASS_NAME} printable characters without / and \\, not beginning with a dot"
        raise ValueError(f"{name!r} cannot be the name of a class: {allowed}")
    return normalised(name)


ClassName = Annotated[str, AfterValidator(_class_name)]
DrawingColours = Literal["black_on_white", "white_on_black"]

ALLOW_CONSTANT = "accept classes most of whose images are blank or copies of each other"
"""Description of the field `allow_constant`."""


class Imbalance(Spec):
    """Unequal class sizes in the training set; the test set stays balanced. Exactly one of the two fields."""

    weights: dict[str, Annotated[float, Field(gt=0, le=1)]] | None = Field(
        default=None, description="share of the balanced class size that a class keeps, 0 < w <= 1; 1 where not named"
    )
    exponent: float | None = Field(
        default=None,
        gt=0,
        description="long tail: class number c (from 0, in the order of `classes`) keeps (c+1)^-exponent",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.weights is None) == (self.exponent is None):
            raise ValueError("give exactly one of 'weights' and 'exponent'")
        return self


class ImageFormat(Spec):
    """What images are turned into when they are read; by default they stay as they are."""

    size: Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE)] | Literal["native"] = Field(
        default="native", description="height and width, pixels; native: as in the files, where all images agree"
    )
    channels: Literal["keep", "grey", "rgb"] = Field(
        default="keep", description="keep: grey if all images are grey, else RGB; grey or rgb: converted"
    )
    resample: Literal["lanczos", "bicubic", "bilinear", "box", "nearest"] = Field(
        default="lanczos", description="filter with which an image of another size is resized"
    )


def shape_by_format(image: ImageFormat) -> ImageShape | None:
    """Shape of images in this format; None where it leaves size or channels to the data."""
    if image.size == "native" or image.channels == "keep":
        return None
    return (1 if image.channels == "grey" else 3, image.size, image.size)


class DataSpecBase(Spec):
    """What every data source has in common. Images are uint8, grey or RGB; the model sees them as [0, 1]."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"root", "download"})

    classes: tuple[ClassName, ...] | None = Field(
        default=None, min_length=1, description="classes to use, in label order; null: all that the source has"
    )
    train_per_class: int | None = Field(
        default=None, ge=1, description="training images per class at fraction 1 (the first n); null: all there are"
    )
    test_per_class: int | None = Field(
        default=None, ge=1, description="test images per class, the same at every fraction; null: all there are"
    )
    fraction: float = Field(
        default=1.0, gt=0, le=1, description="share of the training images: the first int(fraction * n) of each class"
    )
    imbalance: Imbalance | None = Field(default=None, description="unequal class sizes in training; null: balanced")

    @property
    def image_shape(self) -> ImageShape | None:
        """Shape of the images where the spec decides it; None where only the data can tell."""
        return (1, IMAGE_SIDE, IMAGE_SIDE)

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len(set(classes)) < len(classes):
            raise ValueError("a class is named twice")
        return classes
