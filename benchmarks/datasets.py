"""The dataset verdict of a run of studies/datasets.yaml: page, figures and tables in benchmarks/results/datasets.

python benchmarks/datasets.py OUT               # OUT: the folder given to 'smoe-ray run studies/datasets.yaml --out'
python benchmarks/datasets.py OUT --to FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pages
import pandas as pd

from smoe_ray.analysis import DatasetVerdict, dataset_names, dataset_verdict, training_curves, trial_summary
from smoe_ray.analysis.datasets import of_dataset
from smoe_ray.analysis.summary import epoch_summary
from smoe_ray.figures import plot_dataset_verdict, plot_training_curves, render
from smoe_ray.published import SOURCE, UNIT_OF_OTHER_DATASETS, read_published_datasets
from smoe_ray.results import to_csv

RESULTS = Path(__file__).parent / "results" / "datasets"
SHOWN = (
    "dataset", "arm", "best", "best_low", "best_high", "loss", "active", "label", "estimate", "low", "high", "change",
    "verdict", "recommended",
)  # fmt: skip
SHOWN_OF_PUBLISHED = (
    "dataset", "best", "best_low", "best_high", "loss", "label", "estimate", "low", "high", "change", "verdict",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="folder of the results")
    parser.add_argument("--study", default="datasets")
    parser.add_argument("--to", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    results = pages.read_without_places(arguments.out, arguments.study)
    found = dataset_verdict(results)
    published = dataset_verdict(read_published_datasets(), unit=UNIT_OF_OTHER_DATASETS)
    files = {
        "verdicts.csv": to_csv(found.table).encode(),
        "trials.csv": to_csv(trial_summary(results)).encode(),
        "epochs.csv": to_csv(epoch_summary(results)).encode(),
        "datasets.svg": render(plot_dataset_verdict(found), "svg"),
        "published-datasets.svg": render(plot_dataset_verdict(published), "svg"),
    }
    for name in found.datasets:
        curves = training_curves(of_dataset(results, name))
        files[f"training-curves-{name}.svg"] = render(plot_training_curves(curves), "svg")
    files["README.md"] = page(arguments.out, arguments.study, results, found, published).encode()
    for name, content in files.items():
        (arguments.to / name).write_bytes(content)
        print(arguments.to / name)


def page(out: str, study: str, results: pd.DataFrame, found: DatasetVerdict, published: DatasetVerdict) -> str:
    """README.md of the results."""
    # ruff: noqa: E501 - lines of Markdown
    records = pages.finished(out, study)
    spec = records[0].spec
    trials = results.drop_duplicates("trial_id").assign(
        dataset=lambda rows: rows["trial_id"].map(dataset_names(results))
    )
    amounts = trials.groupby("dataset").agg(
        images=("data.train_images", "max"), image_shape=("data.image_shape", "first")
    )
    data = "; ".join(
        f"{name}: {row.images:,.0f} training images of {row.image_shape}" for name, row in amounts.iterrows()
    )
    seeds = f"seeds {', '.join(map(str, sorted(trials['seed'].unique())))}"
    sentences = "\n".join(f"- {verdict.sentence}" for verdict in found.verdicts)
    caution = f"\n{found.caution}.\n" if found.caution else ""
    curves = "\n".join(f"![training curves, {name}](training-curves-{name}.svg)" for name in found.datasets)
    return f"""# Does more than one expert pay off on drawings, digits and photographs?

{pages.made(records)}
[studies/datasets.yaml](../../../studies/datasets.yaml), reduced as its header says: one amount of data, {seeds}, {spec.training.budget};
{data}. Made from the results by `python benchmarks/datasets.py OUT`.

{sentences}
{caution}
{pages.markdown(found.table, SHOWN)}

best: configured count with the lowest mean test loss, and its 95 % interval; differences against E = 1, at most 5 % chance of
any false verdict within a dataset (Holm); recommended: needs several amounts of data. [docs/metrics.md](../../../docs/metrics.md)
has the formulas. Losses of different datasets have no common scale: compare shapes, not levels. All columns:
[verdicts.csv](verdicts.csv), [trials.csv](trials.csv) (last epoch), [epochs.csv](epochs.csv).

![each dataset alone](datasets.svg)
{curves}

## Published, not of this project

Runs that the authors of {SOURCE} released and never reported, {UNIT_OF_OTHER_DATASETS}
([source](../../../smoe_ray/published/README.md)); the verdicts are this project's analysis of them.

{pages.markdown(published.table, SHOWN_OF_PUBLISHED)}

![published runs](published-datasets.svg)
"""


if __name__ == "__main__":
    main()
