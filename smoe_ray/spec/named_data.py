"""Image sets that are chosen by name, what each holds as its documentation says, and parquet files of images.

Class names, shapes and splits: https://docs.pytorch.org/vision/stable/datasets.html,
https://www.tensorflow.org/datasets/catalog, https://www.cs.toronto.edu/~kriz/cifar.html and
https://github.com/MedMNIST/MedMNIST/blob/main/medmnist/info.py (version 3.0.2).
"""

from __future__ import annotations

import difflib
import string
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from smoe_ray.spec.architectures import ImageShape
from smoe_ray.spec.data_base import ALLOW_CONSTANT, DataSpecBase, ImageFormat, shape_by_format


class ImageSet(NamedTuple):
    """What a set holds, in its files."""

    title: str
    image_shape: ImageShape
    class_names: tuple[str, ...]
    """In the order of the labels."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_DIGITS = tuple(string.digits)
_GREY, _RGB = (1, 28, 28), (3, 32, 32)

SETS = {
    "mnist": ImageSet("MNIST", _GREY, _DIGITS),
    "fashion_mnist": ImageSet(
        "Fashion-MNIST",
        _GREY,
        ("T-shirt/top", *_words("Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag"), "Ankle boot"),
    ),
    "kmnist": ImageSet("Kuzushiji-MNIST", _GREY, _words("o ki su tsu na ha ma ya re wo")),
    "cifar10": ImageSet("CIFAR-10", _RGB, _words("airplane automobile bird cat deer dog frog horse ship truck")),
    "svhn": ImageSet("SVHN", _RGB, _DIGITS),
}
"""Sets that need no choice."""

_FINE = _words(
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
_COARSE = _words(
    "aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices "
    "household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes "
    "large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees "
    "vehicles_1 vehicles_2"
)

# arXiv:1702.05373, table 2: in the merged sets these capitals and small letters are one class, named by the capital.
_MERGED = frozenset("cijklmopsuvwxyz")
_BY_CLASS = (*string.digits, *string.ascii_uppercase, *string.ascii_lowercase)
_BY_MERGE = tuple(name for name in _BY_CLASS if name not in _MERGED)
EMNIST_CLASSES = {
    "balanced": _BY_MERGE,
    "byclass": _BY_CLASS,
    "bymerge": _BY_MERGE,
    "digits": _DIGITS,
    "letters": tuple(string.ascii_lowercase),
    "mnist": _DIGITS,
}
"""Class names of each split."""

_ORGANS = _words(
    "bladder femur-left femur-right heart kidney-left kidney-right liver lung-left lung-right pancreas spleen"
)
_MEDMNIST: dict[str, tuple[int, tuple[str, ...]]] = {
    "bloodmnist": (
        3,
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
    ),
    "breastmnist": (1, ("malignant", "normal, benign")),
    "dermamnist": (
        3,
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
    ),
    "octmnist": (1, ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal")),
    "organamnist": (1, _ORGANS),
    "organcmnist": (1, _ORGANS),
    "organsmnist": (1, _ORGANS),
    "pathmnist": (
        3,
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
    ),
    "pneumoniamnist": (1, ("normal", "pneumonia")),
    "retinamnist": (3, tuple("01234")),
    "tissuemnist": (
        1,
        (
            "Collecting Duct, Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
    ),
}


class NamedDataBase(DataSpecBase):
    """What the sets have in common that are chosen by name."""

    source: str
    classes: tuple[Annotated[str, Field(max_length=255)], ...] | None = Field(
        default=None, min_length=1, description="classes to use, in label order; null: all that the set has"
    )
    root: str | None = Field(
        default=None, description="folder, archive or .npz with the set, a path or a URI; null: the download cache"
    )
    download: bool = Field(default=False, description="fetch the set from its publisher where it is absent")
    image: ImageFormat = Field(default=ImageFormat(), description="size and colours of the images")

    @property
    def image_set(self) -> ImageSet:
        """What the set holds."""
        raise NotImplementedError

    @property
    def image_format(self) -> ImageFormat:
        """`image` with nothing left to the data: size and channels are those of the set where `image` keeps them."""
        channels, height, _ = self.image_set.image_shape
        kept: dict[str, object] = {}
        if self.image.size == "native":
            kept["size"] = height
        if self.image.channels == "keep":
            kept["channels"] = "grey" if channels == 1 else "rgb"
        return self.image.model_copy(update=kept)

    @property
    def image_shape(self) -> ImageShape | None:
        """See `DataSpecBase.image_shape`."""
        return shape_by_format(self.image_format)

    @model_validator(mode="after")
    def _known_classes(self) -> Self:
        known = self.image_set.class_names
        for name in self.classes or ():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(known)}"
                raise ValueError(f"{self.image_set.title} has no class '{name}'; {hint}")
        return self


class NamedData(NamedDataBase):
    """MNIST, Fashion-MNIST, Kuzushiji-MNIST, CIFAR-10 or SVHN, split into training and test images as published."""

    source: Literal["mnist", "fashion_mnist", "kmnist", "cifar10", "svhn"]

    @property
    def image_set(self) -> ImageSet:
        """See `NamedDataBase.image_set`."""
        return SETS[self.source]


class EmnistData(NamedDataBase):
    """EMNIST, handwritten characters (arXiv:1702.05373); stored transposed, read upright."""

    source: Literal["emnist"] = "emnist"
    split: Literal["balanced", "byclass", "bymerge", "digits", "letters", "mnist"] = Field(
        default="balanced", description="which of the six sets; letters: capital and small letters are one class"
    )

    @property
    def image_set(self) -> ImageSet:
        """See `NamedDataBase.image_set`."""
        return ImageSet(f"EMNIST {self.split}", _GREY, EMNIST_CLASSES[self.split])


class Cifar100Data(NamedDataBase):
    """CIFAR-100: 100 classes in 20 groups."""

    source: Literal["cifar100"] = "cifar100"
    labels: Literal["fine", "coarse"] = Field(default="fine", description="fine: 100 classes; coarse: their 20 groups")

    @property
    def image_set(self) -> ImageSet:
        """See `NamedDataBase.image_set`."""
        return ImageSet("CIFAR-100", _RGB, _FINE if self.labels == "fine" else _COARSE)


MedMnistName = Literal[
    "bloodmnist", "breastmnist", "dermamnist", "octmnist", "organamnist", "organcmnist", "organsmnist", "pathmnist",
    "pneumoniamnist", "retinamnist", "tissuemnist",
]  # fmt: skip


class MedMnistData(NamedDataBase):
    """One of the two-dimensional MedMNIST sets with one label per image, with its published test set."""

    source: Literal["medmnist"] = "medmnist"
    name: MedMnistName = Field(description="which set, as the MedMNIST package names it")
    size: Literal[28, 64, 128] = Field(default=28, description="height and width of the stored images, pixels")

    @field_validator("name", mode="before")
    @classmethod
    def _one_label_per_image(cls, name: Any) -> Any:
        if name == "chestmnist":
            raise ValueError("chestmnist has 14 labels per image; a class per image is needed: choose another set")
        if isinstance(name, str) and name.endswith("3d"):
            raise ValueError(f"{name} has volumes, not images; choose a set of images")
        return name

    @property
    def image_set(self) -> ImageSet:
        """See `NamedDataBase.image_set`."""
        channels, class_names = _MEDMNIST[self.name]
        return ImageSet(self.name, (channels, self.size, self.size), class_names)


class ParquetData(DataSpecBase):
    """Parquet files of encoded images and labels, as Hugging Face publishes image sets; read from disk alone."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"root"})

    source: Literal["parquet"] = "parquet"
    root: str = Field(
        description="folder with train-*.parquet and test-*.parquet (also below data/), or one file; a path or a URI"
    )
    image: ImageFormat = Field(default=ImageFormat(), description="size and colours of the images")
    image_column: str = Field(
        default="image", min_length=1, description="column with the images: {bytes, path}, or their bytes"
    )
    label_column: str = Field(default="label", min_length=1, description="column with the labels: numbers or words")
    background: Literal["white", "black"] = Field(default="white", description="what is put behind transparent pixels")
    allow_constant: bool = Field(default=False, description=ALLOW_CONSTANT)

    @property
    def image_shape(self) -> ImageShape | None:
        """See `DataSpecBase.image_shape`."""
        return shape_by_format(self.image)
