"""Page, figure and table of a run that compares ways to route, in benchmarks/results/<study>.

python benchmarks/routing.py OUT supervised-weight     # OUT: the folder given to 'smoe-ray run studies/... --out'
python benchmarks/routing.py OUT routing-zoo
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pages
import pandas as pd

from smoe_ray.analysis import arm_summary, compare_arms, has_label_routing, label_routing, trial_summary
from smoe_ray.analysis.outcomes import loss_unit
from smoe_ray.figures import FIGURES, render
from smoe_ray.report.findings import verdict_sentence
from smoe_ray.results import to_csv

RESULTS = Path(__file__).parent / "results"
SHOWN = ("arm", "finished", "loss", "loss_soft", "active", "effective", "max_violation", "regret", "nmi")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="folder of the results")
    parser.add_argument("study", help="its name")
    parser.add_argument("--to", type=Path, help="benchmarks/results/<study> by default")
    arguments = parser.parse_args()
    to = arguments.to or RESULTS / arguments.study.replace("-", "_")
    to.mkdir(parents=True, exist_ok=True)
    results = pages.read_without_places(arguments.out, arguments.study)
    kinds = ["label_routing" if has_label_routing(results) else "comparison"]
    files = {
        "trials.csv": to_csv(trial_summary(results)).encode(),
        **{
            f"{kind.replace('_', '-')}.svg": render(FIGURES[kind].plot(FIGURES[kind].info(results)), "svg")
            for kind in kinds
        },
    }
    files["README.md"] = page(arguments.out, arguments.study, results, kinds).encode()
    for name, content in files.items():
        (to / name).write_bytes(content)
        print(to / name)


def page(out: str, study: str, results: pd.DataFrame, kinds: list[str]) -> str:
    """README.md of the results."""
    # ruff: noqa: E501 - lines of Markdown
    records = pages.finished(out, study)
    spec, data = records[0].spec, records[0].data
    assert data is not None
    arms = arm_summary(results)
    shown = SHOWN if arms["label_accuracy"].isna().all() else (*SHOWN, "label_accuracy")
    cost = trial_summary(results).groupby("arm", observed=True)["cost.flops"].mean() / 1e12
    arms = arms.assign(tera=arms["arm"].map(cost))
    if has_label_routing(results):
        sentences = label_routing(results).sentences
    else:
        compared = compare_arms(results)
        sentences = tuple(verdict_sentence(each, compared.measure, compared) for each in compared.differences)
    said = "\n".join(f"- {sentence}" for sentence in sentences)
    figures = "\n".join(f"![{kind.replace('_', ' ')}]({kind.replace('_', '-')}.svg)" for kind in kinds)
    table = pages.markdown(arms.sort_values("loss"), shown)
    head, line, *rows = table.splitlines()
    flops = [f"{value:.3g}" for value in arms.sort_values("loss")["tera"]]
    table = "\n".join(
        [
            f"{head} training TFLOPs |",
            f"{line} --- |",
            *(f"{row} {cell} |" for row, cell in zip(rows, flops, strict=True)),
        ]
    )
    seeds = ", ".join(str(seed) for seed in sorted(results["seed"].unique()))
    return f"""# {study}: results

{pages.made(records)}
[studies/{study.replace("-", "_")}.yaml](../../../studies/{study.replace("-", "_")}.yaml): {", ".join(data.class_names)}; E = {spec.model.num_experts}, {spec.model.encoder} encoder, {spec.training.budget}, seeds {seeds}, z = mu in evaluation.
Made from the results by `python benchmarks/routing.py OUT {study}`.

{said}

{table}

Mean ± s.d. over seeds, sorted by the test loss, hard gating: {loss_unit(results)}. [docs/metrics.md](../../../docs/metrics.md) has the
formulas, [docs/objectives.md](../../../docs/objectives.md) the routings. All columns: [trials.csv](trials.csv) (last epoch).

{figures}
"""


if __name__ == "__main__":
    main()
