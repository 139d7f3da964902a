"""Where images come from, and which of them are used."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Tag, model_validator

from smoe_ray import plugins
from smoe_ray.spec.architectures import ImageShape
from smoe_ray.spec.base import NAME_PATTERN
from smoe_ray.spec.data_base import (
    ALLOW_CONSTANT,
    MAX_CLASS_NAME,
    DataSpecBase,
    DrawingColours,
    ImageFormat,
    normalised,
    shape_by_format,
)
from smoe_ray.spec.named_data import Cifar100Data, EmnistData, MedMnistData, NamedData, ParquetData
from smoe_ray.spec.plugin import BUILT_IN, PLUGIN, PluginReference, choose

CLASS_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}$"
"""Names of Quick, Draw! categories: they become file names and parts of addresses."""


def _category(name: str) -> str:
    if not re.fullmatch(CLASS_PATTERN, name):
        raise ValueError(f"'{name}' cannot be a Quick, Draw! category; see https://quickdraw.withgoogle.com/data")
    return name


Category = Annotated[str, AfterValidator(_category)]
CombinedClassName = Annotated[str, Field(max_length=MAX_CLASS_NAME + 64), AfterValidator(normalised)]


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

    hashed_unless_default: ClassVar[frozenset[str]] = frozenset({"allow_constant", "recognized_only"})

    source: Literal["quickdraw"] = "quickdraw"
    classes: tuple[Category, ...] = Field(
        default=("face", "eye", "cat", "snowflake", "pencil"), min_length=1, description="categories, in label order"
    )
    train_per_class: int = Field(default=70_000, ge=1, description="training drawings per class at fraction 1")
    test_per_class: int = Field(default=2_500, ge=1, description="test drawings per class")
    layout: Literal["sketchrnn", "bitmap", "ndjson"] = Field(
        default="sketchrnn",
        description="sketchrnn: vector drawings in .npz; ndjson: raw or simplified ones, one per line of .ndjson; "
        "bitmap: Google's 28x28 .npy",
    )
    ink: DrawingColours = Field(default="black_on_white", description="what the model sees, whatever the files hold")
    root: str | None = Field(default=None, description="folder or URI with the files; null: the download cache")
    download: bool = Field(default=False, description="fetch absent categories from Google's public bucket")
    recognized_only: bool = Field(
        default=False, description="ndjson: leave out drawings that the game did not recognise"
    )
    allow_constant: bool = Field(default=False, description=ALLOW_CONSTANT)

    @model_validator(mode="after")
    def _recognised_is_in_ndjson(self) -> Self:
        if self.recognized_only and self.layout != "ndjson":
            raise ValueError("'recognized_only' needs layout: ndjson; the other files do not say which were recognised")
        return self


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
    allow_constant: bool = Field(default=False, description=ALLOW_CONSTANT)

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


BUILT_IN_SOURCES = (
    "synthetic", "quickdraw", "images", "combined", "mnist", "fashion_mnist", "kmnist", "cifar10", "svhn", "emnist",
    "cifar100", "medmnist", "parquet",
)  # fmt: skip
_Named = NamedData | EmnistData | Cifar100Data | MedMnistData | ParquetData

LeafData = Annotated[
    Annotated[SyntheticData | QuickDrawData | ImageData | _Named, Field(discriminator="source"), Tag(BUILT_IN)]
    | Annotated[PluginData, Tag(PLUGIN)],
    choose(PluginData, BUILT_IN_SOURCES),
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


BuiltInData = SyntheticData | QuickDrawData | ImageData | CombinedData | _Named

DataSpec = Annotated[
    Annotated[BuiltInData, Field(discriminator="source"), Tag(BUILT_IN)] | Annotated[PluginData, Tag(PLUGIN)],
    choose(PluginData, BUILT_IN_SOURCES),
]


def drawing_ink(data: DataSpec) -> DrawingColours | None:
    """How the drawings of a source are inked; None where its spec does not say (images without `ink`, mixed parts)."""
    if isinstance(data, CombinedData):
        inks = {drawing_ink(part) for part in data.parts.values()}
        return inks.pop() if len(inks) == 1 else None
    return data.ink if isinstance(data, (SyntheticData, QuickDrawData, ImageData)) else None
