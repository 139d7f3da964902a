"""Page of `studies/clusters.yaml` in benchmarks/results/clusters: experts as clusters of digits, beside published methods.

python benchmarks/clusters.py OUT     # OUT: the folder given to 'smoe-ray run studies/clusters.yaml --out'
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pages
import pandas as pd

from smoe_ray.analysis import Agreement, routing, trial_summary
from smoe_ray.columns import COLUMNS, format_cell
from smoe_ray.results import TrialRecord, read_embeddings, to_csv

STUDY = "clusters"
MEASURES = ("matched_accuracy", "nmi", "test.reconstruction", "experts.active", "experts.effective")
PUBLISHED = (
    ("MoE-Sim-VAE (published, doi:10.1371/journal.pcbi.1009086)", "0.975", "0.935"),
    ("VaDE (published, arXiv:1611.05148)", "0.945", "-"),
)
"""Accuracy and NMI that others report for the 60,000 training digits: name, accuracy, NMI."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="folder of the results")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "results" / STUDY)
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    trials = trial_summary(pages.read_without_places(arguments.out, STUDY))
    agreement = {each.trial_id: _agreement(arguments.out, each) for each in pages.finished(arguments.out, STUDY)}
    for name in ("matched_accuracy", "nmi"):
        trials[name] = trials["trial_id"].map({trial: getattr(each, name) for trial, each in agreement.items()})
    files = {"trials.csv": to_csv(trials), "README.md": page(arguments.out, trials)}
    for name, content in files.items():
        (arguments.to / name).write_text(content)
        print(arguments.to / name)


def _agreement(out: str, record: TrialRecord) -> Agreement:
    stored = read_embeddings(out, STUDY, record.trial_id)
    assert record.data is not None
    return routing(stored["expert"], stored["label"], record.spec.model.num_experts, record.data.class_names).agreement


def page(out: str, trials: pd.DataFrame) -> str:
    """README.md of the results."""
    # ruff: noqa: E501 - lines of Markdown
    records = pages.finished(out, STUDY)
    data, spec = records[0].data, records[0].spec
    assert data is not None
    median = trials[trials["status"] == "finished"].groupby("arm", observed=True)[list(MEASURES)].median()
    rows = [
        [str(arm), *(format_cell(name, row[name]) for name in MEASURES)]
        for arm, row in median.sort_values(MEASURES[0], ascending=False).iterrows()
    ]
    rows += [[name, accuracy, nmi, "-", "-", "-"] for name, accuracy, nmi in PUBLISHED]
    heads = ["objective", *(COLUMNS[name].heading for name in MEASURES)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))
    seeds = ", ".join(map(str, sorted(trials["seed"].unique())))
    return f"""# Experts as clusters of digits

{pages.made(records)}
[studies/clusters.yaml](../../../studies/clusters.yaml): MNIST, {data.train_images:,} training and {data.test_images:,} test images, E = {spec.model.num_experts}, {spec.model.encoder} encoder,
{spec.training.budget}, seeds {seeds}; no objective sees a label. Made by `python benchmarks/clusters.py OUT`.

{table}

Medians over seeds. Matched accuracy: the share of test images whose expert is matched to their digit, experts and digits one to
one. The published methods were made to cluster, and were trained and measured on 60,000 or 70,000 digits: the data differ.
All columns: [trials.csv](trials.csv) (last epoch).
"""


if __name__ == "__main__":
    main()
