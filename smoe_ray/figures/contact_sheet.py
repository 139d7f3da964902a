"""A contact sheet: the first images of each class, in their own colours and pixels, for a person to look at."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from smoe_ray.figures.pictures import pixels

if TYPE_CHECKING:
    from smoe_ray.data import Dataset, Splits

TRAIN_IMAGES, TEST_IMAGES = 10, 4
"""Images of each class."""
MOST_CLASSES = 100

_CELL = 72  # pixels: images are enlarged by a whole number to about this
_GAP, _BETWEEN, _MARGIN = 6, 28, 28
_WIDEST_LABEL = 260
_INK, _GREY, _HAIRLINE, _PAPER = "#1a1a1a", "#6b6b6b", "#c8c8c8", "#ffffff"


def contact_sheet(splits: Splits, title: str, subtitle: str) -> bytes:
    """A PNG: a row for each class, its first training images and, apart from them, its first test images."""
    from PIL import Image, ImageDraw

    names = splits.class_names[:MOST_CLASSES]
    _, height, width = splits.train.image_shape
    zoom = max(1, round(_CELL / max(height, width)))
    sets = {"training": (splits.train, TRAIN_IMAGES), "test": (splits.test, TEST_IMAGES)}
    rows = {what: [_first(data, label, most) for label in range(len(names))] for what, (data, most) in sets.items()}
    counts = [np.bincount(data.label_B, minlength=len(splits.class_names)) for data, _ in sets.values()]

    labels = [_shortened(name, _font(15)) for name in names]
    numbers = [f"{train:,} + {test:,}" for train, test in zip(*(number.tolist() for number in counts), strict=True)]
    wide = [*(_font(15).getlength(label) for label in labels), *(_font(12).getlength(text) for text in numbers)]
    left = _MARGIN + round(max(wide)) + 20
    across, down = width * zoom + _GAP, max(height * zoom, 36) + _GAP
    start, columns = left, {}
    for what, parts in rows.items():
        columns[what] = start
        start += max(map(len, parts)) * across - _GAP + _BETWEEN
    top = _MARGIN + 86
    right = max(start - _BETWEEN, _MARGIN + round(max(_font(20).getlength(title), _font(13).getlength(subtitle))))
    left_out = len(splits.class_names) - len(names)

    sheet = Image.new("RGB", (right + _MARGIN, top + len(names) * down + _MARGIN + 20 * (left_out > 0)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, _INK, _font(20))
    draw.text((_MARGIN, _MARGIN + 30), subtitle, _GREY, _font(13))
    for what, x in columns.items():
        draw.text((x, top - 10), what, _GREY, _font(13), anchor="ls")
    for row, (label, number) in enumerate(zip(labels, numbers, strict=False)):
        y = top + row * down
        middle = y + height * zoom // 2
        draw.text((_MARGIN, middle - 2), label, _INK, _font(15), anchor="ls")
        draw.text((_MARGIN, middle + 16), number, _GREY, _font(12), anchor="ls")
        for what, x in columns.items():
            for place, image in enumerate(rows[what][row]):
                at = (x + place * across, y)
                draw.rectangle((at[0] - 1, at[1] - 1, at[0] + width * zoom, at[1] + height * zoom), outline=_HAIRLINE)
                sheet.paste(Image.fromarray(image).resize((width * zoom, height * zoom), Image.Resampling.NEAREST), at)
    if left_out:
        draw.text((_MARGIN, sheet.height - _MARGIN), f"and {left_out:,} more classes", _GREY, _font(13), anchor="ls")
    drawn = io.BytesIO()
    sheet.save(drawn, "PNG")
    return drawn.getvalue()


def _first(data: Dataset, label: int, most: int) -> list[npt.NDArray[np.uint8]]:
    """The first images of a class, (H, W) or (H, W, 3)."""
    return list(np.ascontiguousarray(pixels(data.image_BHW[np.flatnonzero(data.label_B == label)[:most]])))


@cache
def _font(size: int) -> Any:
    """matplotlib's DejaVu Sans: a sheet looks the same on every machine."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _shortened(text: str, font: Any) -> str:
    length = font.getlength(text)
    if length <= _WIDEST_LABEL:
        return text
    text = text[: 4 * int(len(text) * _WIDEST_LABEL / length)]  # not one by one from the end of a very long name
    while font.getlength(f"{text}…") > _WIDEST_LABEL:
        text = text[:-1]
    return f"{text}…"
