"""Where images come from, and which of them are used."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Tag, field_validator, model_validator

from smoe_ray import plugins
from smoe_ray.spec.architectures import MAX_SIDE, MIN_SIDE, ImageShape
from smoe_ray.spec.base import NAME_PATTERN, Spec
from smoe_ray.spec.plugin import BUILT_IN, PLUGIN, PluginReference, choose

IMAGE_SIDE = 28
"""Height and width of drawings that this package rasterises, in pixels."""

CLASS_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}$"
"""Names of Quick, Draw! categories: they become file names and parts of addresses."""

MAX_CLASS_NAME = 255
"""Characters of a class name, which may be the name of a folder."""


def normalised(name: str) -> str:
    """A class name in Unicode form NFC: the same name is the same text, whichever system wrote it."""
    return unicodedata.normalize("NFC", name)


def _category(name: str) -> str:
    if not re.fullmatch(CLASS_PATTERN, name):
        raise ValueError(f"'{name}' cannot be a Quick, Draw! category; see https://quickdraw.withgoogle.com/data")
    return name


def _class_name(name: str) -> str:
    if not 0 < len(name) <= MAX_CLASS_NAME or not name.isprintable() or name.startswith(".") or set(name) & {*"/\\"}:
        allowed = f"1 to {MAX_CLASS_NAME} printable characters without / and \\, not beginning with a dot"
        raise ValueError(f"{name!r} cannot be the name of a class: {allowed}")
    return normalised(name)


Category = Annotated[str, AfterValidator(_category)]
ClassName = Annotated[str, AfterValidator(_class_name)]
CombinedClassName = Annotated[str, Field(max_length=MAX_CLASS_NAME + 64), AfterValidator(normalised)]
DrawingColours = Literal["black_on_white", "white_on_black"]

_ALLOW_CONSTANT = "accept classes most of whose images are blank or copies of each other"


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


class SyntheticData(DataSpecBase):
    """Sketches drawn by this package: families with named styles and continuous parameters, all recorded."""

    source: Literal["synthetic"] = "synthetic"
    classes: tuple[Literal["face", "eye", "cat", "snowflake", "pencil"], ...] = Field(
        default=("face", "eye", "cat", "snowflake", "pencil"), min_length=1, description="families, in label order"
    )
    train_per_class: int = Field(
        default=2000, ge=1, le=1_000_000, description="training images per class at fraction 1"
    )
    test_per_class: int = Field(default=500, ge=1, le=1_000_000, description="test images per class")
    jitter: float = Field(
        default=1.0, ge=0, le=3, description="hand tremor, in pixels of the 56x56 canvas; 0 draws exact lines"
    )
    drawing_seed: int = Field(default=0, ge=0, description="seed of the drawings (not of the training)")
    ink: DrawingColours = Field(default="black_on_white", description="what the model sees")


class QuickDrawData(DataSpecBase):
    """Google's Quick, Draw! drawings: sketch-rnn ``<class>.npz`` (rasterised here) or ``<class>.npy`` bitmaps."""

    hashed_unless_default: ClassVar[frozenset[str]] = frozenset({"allow_constant"})

    source: Literal["quickdraw"] = "quickdraw"
    classes: tuple[Category, ...] = Field(
        default=("face", "eye", "cat", "snowflake", "pencil"), min_length=1, description="categories, in label order"
    )
    train_per_class: int = Field(default=70_000, ge=1, description="training drawings per class at fraction 1")
    test_per_class: int = Field(default=2_500, ge=1, description="test drawings per class")
    layout: Literal["sketchrnn", "bitmap"] = Field(
        default="sketchrnn", description="sketchrnn: vector drawings in .npz; bitmap: Google's 28x28 .npy"
    )
    ink: DrawingColours = Field(default="black_on_white", description="what the model sees, whatever the files hold")
    root: str | None = Field(default=None, description="folder or URI with the files; null: the download cache")
    download: bool = Field(default=False, description="fetch absent categories from Google's public bucket")
    allow_constant: bool = Field(default=False, description=_ALLOW_CONSTANT)


class ImageData(DataSpecBase):
    """Labelled images from disk: MNIST-format IDX files, an ``.npz`` with x and y, or a folder of image files."""

    hashed_unless_default: ClassVar[frozenset[str]] = frozenset(
        {"image", "ink", "background", "transpose", "allow_constant"}
    )

    source: Literal["images"] = "images"
    root: str = Field(description="folder with IDX files or class folders, or an .npz file; a path or a URI")
    layout: Literal["auto", "idx", "npz", "folder"] = Field(
        default="auto", description="auto: decided by what root holds"
    )
    image: ImageFormat = Field(default=ImageFormat(), description="size and colours of the images")
    ink: DrawingColours | None = Field(
        default=None, description="line drawings: what the model sees, whatever the files hold; null: as in the files"
    )
    background: Literal["white", "black"] = Field(default="white", description="what is put behind transparent pixels")
    transpose: bool = Field(
        default=False, description="images are stored column by column (EMNIST; implied by its own file names)"
    )
    allow_constant: bool = Field(default=False, description=_ALLOW_CONSTANT)

    @property
    def image_shape(self) -> ImageShape | None:
        """See `DataSpecBase.image_shape`."""
        return shape_by_format(self.image)


class PluginData(PluginReference, DataSpecBase):
    """A source that a plug-in brings; keys that are not common to all sources are its own.

    A parameter that is a path or URI is to be called `root`: a submitted study's `root` is made absolute, and the
    dashboard's Submit page checks it.
    """

    model_config = ConfigDict(extra="allow")

    kind: ClassVar[plugins.Kind] = "source"
    tag: ClassVar[str] = "source"
    where: ClassVar[str] = "data"

    source: str = Field(description="package.module:name, or a short name that an installed package registers")

    @property
    def image_shape(self) -> ImageShape | None:
        """See `DataSpecBase.image_shape`; imports the plug-in."""
        spec: DataSpecBase = self.resolve()[1]
        return spec.image_shape

    @classmethod
    def _base(cls) -> type[BaseModel]:
        return DataSpecBase


LeafData = Annotated[
    Annotated[SyntheticData | QuickDrawData | ImageData, Field(discriminator="source"), Tag(BUILT_IN)]
    | Annotated[PluginData, Tag(PLUGIN)],
    choose(PluginData, ("synthetic", "quickdraw", "images", "combined")),
]


class CombinedData(DataSpecBase):
    """Several sources as one: labels distinct, classes named ``<part>/<class>``; `classes` may choose among them."""

    source: Literal["combined"] = "combined"
    classes: tuple[CombinedClassName, ...] | None = Field(
        default=None, min_length=1, description="classes to use, as <part>/<class>; null: all"
    )
    parts: dict[Annotated[str, Field(pattern=NAME_PATTERN)], LeafData] = Field(
        min_length=1, description="name of a part: its source"
    )

    @property
    def image_shape(self) -> ImageShape | None:
        """See `DataSpecBase.image_shape`: the one that all parts agree on."""
        shapes = {part.image_shape for part in self.parts.values()}
        return shapes.pop() if len(shapes) == 1 else None


BuiltInData = SyntheticData | QuickDrawData | ImageData | CombinedData

DataSpec = Annotated[
    Annotated[BuiltInData, Field(discriminator="source"), Tag(BUILT_IN)] | Annotated[PluginData, Tag(PLUGIN)],
    choose(PluginData, ("synthetic", "quickdraw", "images", "combined")),
]


def drawing_ink(data: DataSpec) -> DrawingColours | None:
    """How the drawings of a source are inked; None where its spec does not say (images without `ink`, mixed parts)."""
    if isinstance(data, PluginData):
        return None
    if isinstance(data, CombinedData):
        inks = {drawing_ink(part) for part in data.parts.values()}
        return inks.pop() if len(inks) == 1 else None
    return data.ink
