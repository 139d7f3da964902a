"""The published results in a section of their own, never in the same figure or table as results of this project."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pandas as pd

from smoe_ray.analysis import DatasetVerdict, dataset_verdict, loss_against_experts, recommend
from smoe_ray.figures import plot_best_experts, plot_dataset_verdict, plot_loss_against_experts
from smoe_ray.published import (
    SOURCE,
    UNIT_OF_OTHER_DATASETS,
    read_file,
    read_published,
    read_published_datasets,
)
from smoe_ray.report.sections import Exhibit, Section, reading

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def published_section() -> Section:
    """Results published in arXiv:2509.10025."""
    return Section(
        f"Published results of {SOURCE}, not of this study",
        reading("published"),
        (
            Exhibit("published-loss-against-experts", "Published: test loss at all the data", _figure),
            Exhibit("published-cells", "Published: test loss at all the data, by active experts", _cells),
            Exhibit("published-supervised", "Published: supervised baseline at all the data", _supervised),
            Exhibit(
                "published-best-experts",
                "Published data, this project's fit: best number of experts",
                lambda: plot_best_experts(recommend(read_published())),
            ),
            Exhibit(
                "published-datasets",
                f"Published files, never reported: MNIST and Fashion-MNIST, {UNIT_OF_OTHER_DATASETS}",
                lambda: plot_dataset_verdict(_other_datasets()),
            ),
            Exhibit(
                "published-dataset-verdicts",
                f"This project's verdicts on them, {UNIT_OF_OTHER_DATASETS}",
                lambda: _other_datasets().table.dropna(axis="columns", how="all"),
            ),
        ),
    )


def _other_datasets() -> DatasetVerdict:
    return dataset_verdict(read_published_datasets(), unit=UNIT_OF_OTHER_DATASETS)


def _figure() -> Figure:
    runs = read_published()
    return plot_loss_against_experts(loss_against_experts(runs[runs["config.data.fraction"] == 1]))


def _cells() -> pd.DataFrame:
    cells = pd.read_csv(io.BytesIO(read_file("loss_surface_cells.csv")))
    cells = cells[cells["fraction"] == 1].rename(columns={"mean": "loss", "std_sample": "loss_sd"})
    return cells[["active_experts", "loss", "loss_sd", "n"]].reset_index(drop=True)


def _supervised() -> pd.DataFrame:
    loss = pd.read_csv(io.BytesIO(read_file("supervised_test_loss.csv")))["test_recon_loss"]
    return pd.DataFrame({"loss": [loss.mean()], "loss_sd": [loss.std(ddof=1)], "n": [len(loss)]})
