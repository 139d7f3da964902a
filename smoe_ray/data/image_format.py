"""Pictures of any size and kind as arrays of one shape: as they are, or as `data.image` says.

Every reader of images comes here: `arrays_in_format` for arrays, `pictures_in_format` for image files. Both take all
images of a source, because whether it is grey and which size it has is a matter of all of them.

Shapes: N images, H W pixels, C channels.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from smoe_ray.columns import count
from smoe_ray.data.checks import ClassImages, Images, as_they_are, some
from smoe_ray.data.files import one_line
from smoe_ray.errors import DataError
from smoe_ray.spec import MAX_SIDE, MIN_SIDE, ImageFormat, ImageShape

Background = Literal["white", "black"]

MAX_PIXELS = 50_000_000
"""A larger picture is refused. Reducing one takes 7 (RGB) to 12 (RGBA) bytes per pixel."""

FILE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""Formats that are decoded, whatever a file is called: Pillow would hand PostScript to another program."""

_USUAL_SIDES = (8, 16, 28, 32, 48, 64, 96, 128)
_BLOCK = 512  # images of an array that are converted at a time

logging.getLogger("PIL").addHandler(logging.NullHandler())  # a damaged file ends in our own line, not in Pillow's


@dataclass(frozen=True)
class Chosen:
    """Some images of an array (M, H, W), or (M, H, W, C) with C = 1, 3 or 4; not yet copied."""

    image: Images
    index_N: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index_N)


class ImageContent(Protocol):
    """The content of an image file that is no file of its own; as text, its name in messages."""

    @property
    def content(self) -> bytes:
        """May be read from disk at each use."""


class EncodedImage(NamedTuple):
    """An `ImageContent` in memory."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


Picture = Path | ImageContent
Size = tuple[int, int]
"""Width and height, as users and Pillow write them."""

_Part = TypeVar("_Part")


class Formatted(NamedTuple):
    """Images in one format."""

    images: list[Images]
    """Of each split: (N, H, W) or (N, 3, H, W), class by class."""
    classes: list[list[ClassImages]]
    """Of each split and class, as views of `images`."""
    transparent: int
    """Number of images with transparent pixels."""
    notes: tuple[str, ...]
    """One line each: what the user should know."""


def arrays_in_format(
    splits: Sequence[Sequence[Chosen]], image: ImageFormat, where: str, background: Background = "white"
) -> Formatted:
    """Arrays of images as `image` says: uint8, (N, H, W) where all of them are grey, else (N, 3, H, W).

    Args:
        splits: of each split (training, test) the images of each class.
        image: size and colours.
        where: file or folder, for messages.
        background: what is put behind transparent pixels.

    Raises:
        DataError: the images have several sizes, or one that is not allowed, and `image` does not choose one.
    """
    sizes: Counter[Size] = Counter()
    for part in _each(splits):
        height, width = part.image.shape[1:3]
        sizes[width, height] += len(part)
    maker = _Maker(image, background, splits)
    if not all(maker.takes(size) for size in sizes):
        raise _size_error(sizes, where)
    for part in _each(splits):
        for start in range(0, len(part), _BLOCK):
            maker.add_block(np.take(part.image, part.index_N[start : start + _BLOCK], axis=0))
    return maker.made()


def pictures_in_format(
    splits: Sequence[Sequence[Sequence[Picture]]],
    image: ImageFormat,
    where: str,
    background: Background = "white",
    step: Callable[[], None] = lambda: None,
) -> Formatted:
    """Image files as `image` says, upright as their EXIF data say: see `arrays_in_format`; `step` is called after each.

    Raises:
        DataError: also where a file is damaged or not an 8-bit image.
    """
    maker = _Maker(image, background, splits)
    pictures = [picture for part in _each(splits) for picture in part]
    several_frames = []
    for picture in pictures:
        with _opened(picture) as opened:
            fits = maker.takes(_upright_size(opened))
            if fits:
                maker.add(_upright(opened))
            if getattr(opened, "is_animated", False):
                several_frames.append(Path(str(picture)).name)
        if not fits:
            raise _size_error(Counter(map(_size_in_header, pictures)), where)
        step()
    notes = [f"only the first frame is used of files with several ({some(several_frames)})"] if several_frames else []
    return maker.made(notes)


def picture_of_shape(
    picture: Picture, shape: ImageShape, image: ImageFormat, background: Background = "white"
) -> Images:
    """One image file, upright, as an image of the given shape (C, H, W): (H, W), or (3, H, W) in colour.

    Args:
        picture: of any size and colours.
        shape: what it becomes, its aspect not kept.
        image: names the filter; its size and channels do not count.
        background: what is put behind transparent pixels.

    Raises:
        DataError: the file is damaged or not an 8-bit image.
    """
    channels, height, width = shape
    image = image.model_copy(update={"channels": "grey" if channels == 1 else "rgb"})
    maker = _Maker(image, background, [[[picture]]], (width, height))
    with _opened(picture) as opened:
        maker.add(_upright(opened))
    image_HW: Images = maker.made().images[0][0]
    return image_HW


def _each(splits: Sequence[Sequence[_Part]]) -> Iterator[_Part]:
    return (part for parts in splits for part in parts)


# --- making the arrays ------------------------------------------------------------------------------------------------


class _Maker:
    """Fills one array with the images of all splits, which is grey until the first coloured image comes."""

    def __init__(
        self,
        image: ImageFormat,
        background: Background,
        splits: Sequence[Sequence[Sized]],
        size: Size | None = None,
    ) -> None:
        self._format = image
        self._background = background
        self._size = size if size or image.size == "native" else (image.size, image.size)
        self._counts = [[len(part) for part in parts] for parts in splits]
        self._total = sum(map(sum, self._counts))
        self._image: Images | None = None
        self._low_NC = np.empty((self._total, 3), np.uint8)
        self._high_NC = np.empty((self._total, 3), np.uint8)
        self._filled = 0
        self._transparent = 0

    def takes(self, size: Size) -> bool:
        """Whether images of this width and height fit to those before and to the format."""
        if self._format.size != "native":
            return True
        if self._size is None and all(MIN_SIDE <= side <= MAX_SIDE for side in size):
            self._size = size
        return self._size == size

    def add_block(self, block: Images) -> None:
        """Add images (N, H, W), or (N, H, W, C) with C = 1, 3 or 4."""
        from PIL import Image

        if block.ndim == 4 and (block.shape[3] == 1 or self._may_be_grey(block)):
            block = block[..., 0]
        is_as_it_stays = block.ndim == 3 or (block.shape[3] == 3 and self._format.channels != "grey")
        if is_as_it_stays and (block.shape[2], block.shape[1]) == self._size:
            self._put(block)
        else:
            for image in block:
                self.add(Image.fromarray(np.ascontiguousarray(image)))

    def add(self, image: Any) -> None:
        """Add a PIL image.

        Raises:
            ValueError: its pixels are not of 8 bits.
        """
        from PIL import Image

        image = self._opaque(image)
        if image.mode == "RGB" and (self._format.channels == "grey" or self._may_be_grey(np.asarray(image))):
            image = image.convert("L")
        extrema = np.array(image.getextrema(), np.uint8).reshape(-1, 2)
        if image.size != self._size:
            image = image.resize(self._size, Image.Resampling[self._format.resample.upper()])
        self._put(np.asarray(image)[None], extrema)

    def _may_be_grey(self, image: Images) -> bool:
        """Whether RGB images (..., 3) can be kept as grey ones, as far as is known."""
        if (
            self._format.channels != "keep"
            or image.shape[-1] != 3
            or (self._image is not None and self._image.ndim == 4)
        ):
            return False
        return all(np.array_equal(image[..., 0], image[..., channel]) for channel in (1, 2))

    def _opaque(self, image: Any) -> Any:
        """A PIL image of mode L or RGB, over the background where it was transparent."""
        from PIL import Image

        if image.mode.startswith(("I", "F")):
            raise ValueError(f"pixels of mode {image.mode}; only 8-bit images are read: convert it to 8 bits")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema()[0] < 255:
                self._transparent += 1
            image = Image.alpha_composite(Image.new("RGBA", image.size, self._background), image)
        return image.convert("L" if image.mode in ("1", "L") else "RGB")

    def _put(self, block: Images, extrema: Images | None = None) -> None:
        """Store images (N, H, W) or (N, H, W, 3) of the right size.

        `extrema`: lowest and highest value of each channel, (C, 2), of one image that was resized.
        """
        if block.ndim == 4:
            block = np.moveaxis(block, 3, 1)
        if self._image is None:
            channels = (3,) if self._format.channels == "rgb" or block.ndim == 4 else ()
            self._image = np.empty((self._total, *channels, *block.shape[-2:]), np.uint8)
        if block.ndim == 4 and self._image.ndim == 3:  # the first image in colour: those before it become RGB as well
            grey_NHW = self._image
            self._image = np.empty((self._total, 3, *block.shape[-2:]), np.uint8)
            self._image[: self._filled] = grey_NHW[: self._filled, None]
        new = slice(self._filled, self._filled + len(block))
        self._image[new] = block if block.ndim == self._image.ndim else block[:, None]
        if extrema is None:
            _, self._low_NC[new], self._high_NC[new] = as_they_are(self._image[new])
        else:
            self._low_NC[new], self._high_NC[new] = extrema.T
        self._filled = new.stop

    def made(self, notes: Iterable[str] = ()) -> Formatted:
        """What was added, which must be all that was announced."""
        assert self._image is not None
        assert self._filled == self._total
        images, classes, end = [], [], 0
        for counts in self._counts:
            first, parts = end, []
            for number in counts:
                start, end = end, end + number
                parts.append(ClassImages(*(each[start:end] for each in (self._image, self._low_NC, self._high_NC))))
            images.append(self._image[first:end])
            classes.append(parts)
        return Formatted(images, classes, self._transparent, tuple(notes))


# --- files ------------------------------------------------------------------------------------------------------------

_EXIF_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF 2.32, tag 274


@contextmanager
def _opened(picture: Picture) -> Iterator[Any]:
    """A PIL image whose pixels are not yet decoded, whatever goes wrong while it is used being a DataError."""
    from PIL import Image, UnidentifiedImageError

    def open_it() -> Any:
        file = picture if isinstance(picture, Path) else io.BytesIO(picture.content)
        return Image.open(file, formats=FILE_FORMATS)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd but readable files
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_it() as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read")
                if image.format == "PNG":
                    image.verify()  # the checksums, which decoding alone does not compare to the end
            with open_it() as image:
                yield image
    except UnidentifiedImageError:
        problem = f"its content is none of {', '.join(FILE_FORMATS)}"
        raise DataError(f"{picture}: not a readable image ({problem}); mend or remove it") from None
    except Exception as error:  # every format has exceptions of its own
        raise DataError(f"{picture}: not a readable image ({one_line(error)}); mend or remove it") from None


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _upright_size(image: Any) -> Size:
    width, height = image.size
    return (height, width) if image.getexif().get(_EXIF_ORIENTATION) in _ON_ITS_SIDE else (width, height)


def _size_in_header(picture: Picture) -> Size:
    with _opened(picture) as image:
        return _upright_size(image)


def nearest_side(width: int, height: int) -> int:
    """Of the usual sides, that of the square which is nearest in area."""
    return min(_USUAL_SIDES, key=lambda side: abs(math.log(side / math.sqrt(width * height))))


def _size_error(sizes: Counter[Size], where: str) -> DataError:
    """Which sizes there are, and what to write."""
    shown = some((f"{width}x{height} ({count(number, 'image')})" for (width, height), number in sizes.most_common()), 4)
    side = nearest_side(*sizes.most_common(1)[0][0])
    if len(sizes) > 1:
        found = f"images of {len(sizes):,} sizes (width x height): {shown}"
    else:
        found = f"images of {shown}; sides of {MIN_SIDE} to {MAX_SIDE} pixels are taken as they are"
    return DataError(f"{where}: {found}; choose one size for all: data.image: {{size: {side}}}")
