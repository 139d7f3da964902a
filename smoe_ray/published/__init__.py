"""Published results of arXiv:2509.10025, for comparison: not results of this project.

>>> from smoe_ray.published import read_published
>>> from smoe_ray.analysis import loss_against_experts
>>> loss_against_experts(read_published()).baselines[0].n
5
"""

from __future__ import annotations

import io
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "arXiv:2509.10025"
TABLES = ("test_loss_per_epoch.csv", "loss_surface_cells.csv", "supervised_test_loss.csv", "other_datasets.csv")
"""Files of this package; its README.md describes their columns."""

UNIT_OF_OTHER_DATASETS = "in a unit that its authors do not name"
"""Of `read_published_datasets`: the size of its losses suggests binary cross-entropy."""

_IMAGES = 350_000
"""Training images at fraction 1: 70,000 per category, five categories."""
_BATCH = 128
_EPOCHS = 20


def read_file(name: str) -> bytes:
    """Content of one of `TABLES`, unchanged."""
    return (resources.files(__name__) / name).read_bytes()


def read_published() -> pd.DataFrame:
    """The published runs as a table of `read_results`: one row per (trial, epoch), only the last for the baseline.

    Unpublished columns (other measures, most of the config) are absent; steps follow from images and batch size.
    """
    import pandas as pd

    runs = pd.read_csv(io.BytesIO(read_file("test_loss_per_epoch.csv")))
    cell = runs["fraction"].astype(str) + "-" + runs["active_experts"].astype(str)
    routed = pd.DataFrame(
        {
            "trial_id": cell + "-" + runs["run"].astype(str),
            "seed": runs["run"],
            "epoch": runs["epoch"],
            "config.routing": "unsupervised",
            "config.objective.name": "blend",
            "config.data.fraction": runs["fraction"],
            "test.reconstruction": runs["test_recon_loss"],
            "experts.active": runs["active_experts"],
        }
    )
    baseline = pd.read_csv(io.BytesIO(read_file("supervised_test_loss.csv")))
    supervised = pd.DataFrame(
        {
            "trial_id": "supervised-" + baseline["run"].astype(str),
            "seed": baseline["run"],
            "epoch": _EPOCHS,
            "config.routing": "supervised",
            "config.data.fraction": 1.0,
            "test.reconstruction": baseline["test_recon_loss"],
            "experts.active": 5,
        }
    )
    table = pd.concat([routed, supervised], ignore_index=True).assign(study=SOURCE, status="finished")
    table["data.image_shape"] = "1x28x28"
    images = (table["config.data.fraction"] * _IMAGES).round().astype(int)
    return table.assign(**{"data.train_images": images, "cost.steps": -(-images // _BATCH) * table["epoch"]})


def read_published_datasets() -> pd.DataFrame:
    """The authors' runs on MNIST and Fashion-MNIST, which they released and did not report, as a table of
    `read_results`: the last epoch of each run.

    Their losses are not squared errors (`UNIT_OF_OTHER_DATASETS`): compare shapes, not levels. Amounts of data, epochs
    and active experts are unknown. Runs of different counts are not known to share seeds: each has one of its own.
    """
    import pandas as pd

    runs = pd.read_csv(io.BytesIO(read_file("other_datasets.csv")))
    return pd.DataFrame(
        {
            "trial_id": runs["dataset"] + "-" + runs["experts"].astype(str) + "-" + runs["run"].astype(str),
            "study": SOURCE,
            "status": "finished",
            "seed": runs.index,
            "epoch": 1,
            "config.dataset": runs["dataset"].str.replace("_", "-"),
            "config.routing": "unsupervised",
            "config.model.num_experts": runs["experts"],
            "experts.configured": runs["experts"],
            "test.reconstruction": runs["test_recon_loss"],
        }
    )
