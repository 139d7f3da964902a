"""Draw docs/figures/synthetic.png: example sketches of every style. Run: python docs/figures/synthetic.py."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from PIL import Image

from smoe_ray.data.sources.synthetic import FAMILIES, draw
from smoe_ray.spec import SyntheticData

ROWS, COLUMNS = 2, 6


def montage(image_BHW: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The first ROWS x COLUMNS images side by side."""
    padded_BHW = np.pad(image_BHW[: ROWS * COLUMNS], ((0, 0), (2, 2), (2, 2)), constant_values=255)
    rows_RHW = [np.hstack(list(row_BHW)) for row_BHW in np.split(padded_BHW, ROWS)]
    return np.vstack(rows_RHW)


def main() -> None:
    """Write the figure next to this script."""
    mpl.use("agg")
    train, _, style_names, _ = draw(SyntheticData(train_per_class=4 * ROWS * COLUMNS, test_per_class=1))
    columns = max(len(styles) for styles in FAMILIES.values())
    figure, axes = plt.subplots(len(FAMILIES), columns, figsize=(12, 6.2), layout="constrained")
    for family_axes, (family, styles) in zip(axes, FAMILIES.items(), strict=True):
        for axis in family_axes:
            axis.set_axis_off()
        for axis, style in zip(family_axes, styles, strict=False):
            name = f"{family}/{style}"
            axis.imshow(
                montage(train.image_BHW[train.style_B == style_names.index(name)]), cmap="gray", interpolation="nearest"
            )
            axis.set_title(name, fontsize=10)
    figure.set_dpi(110)
    figure.canvas.draw()
    grey = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("L")
    grey.quantize(16).save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
