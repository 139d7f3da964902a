"""Page, figure and table of `studies/collapse_phase.yaml` in benchmarks/results/collapse_phase: measured against theory.

python benchmarks/phase_diagram.py OUT     # OUT: the folder given to 'smoe-ray run studies/collapse_phase.yaml --out'
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pages

from smoe_ray.analysis import phase_diagram, trial_summary
from smoe_ray.analysis.curves import Curve
from smoe_ray.analysis.phase_diagrams import PhaseDiagram
from smoe_ray.figures import FIGURES, render
from smoe_ray.results import to_csv

STUDY = "collapse-phase"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="folder of the results")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "results" / STUDY.replace("-", "_"))
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    results = pages.read_without_places(arguments.out, STUDY)
    figure = FIGURES["phase_diagram"]
    files = {
        "trials.csv": to_csv(trial_summary(results)).encode(),
        "phase-diagram.svg": render(figure.plot(figure.info(results)), "svg"),
        "README.md": page(arguments.out, phase_diagram(results)).encode(),
    }
    for name, content in files.items():
        (arguments.to / name).write_bytes(content)
        print(arguments.to / name)


def page(out: str, info: PhaseDiagram) -> str:
    """README.md of the results."""
    # ruff: noqa: E501 - lines of Markdown
    records = pages.finished(out, STUDY)
    spec, data = records[0].spec, records[0].data
    assert data is not None
    seeds = ", ".join(str(seed) for seed in sorted({record.spec.seed for record in records}))
    active, effective = info.panels
    return f"""# {STUDY}: results

{pages.made(records)}
[studies/collapse_phase.yaml](../../../studies/collapse_phase.yaml): {data.train_images:,} synthetic sketches ({", ".join(data.class_names)}), {spec.model.encoder} encoder, {spec.training.budget}, λ_entropy 400, seeds {seeds}.
Made from the results by `python benchmarks/phase_diagram.py OUT`.

{active.title}:

{table(active.curves, info)}

{effective.title}:

{table(effective.curves)}

Mean ± s.d. over seeds at the end of training; rho = 2 λ_balance / λ_entropy. Theory: min(1, 0.60 rho), fitted to simulations of the gate
alone, without encoder and decoders: a prediction, not a fit to these trials. Its last row has the mean over rho of measured minus theory.
All columns: [trials.csv](trials.csv) (last epoch).

![phase diagram](phase-diagram.svg)
"""


def table(curves: tuple[Curve, ...], theory: PhaseDiagram | None = None) -> str:
    """Markdown: a row per rho, a column per number of experts, and the theory's prediction where it has one."""
    rho = curves[0].x
    rows = [
        [f"{value:g}", *(f"{curve.mean[row]:.2f} ± {curve.sd[row]:.2f}" for curve in curves)]
        for row, value in enumerate(rho)
    ]
    heads = ["rho", *(curve.label for curve in curves)]
    if theory is not None:
        predicted = np.interp(rho, theory.theory_rho, theory.theory_share)
        rows = [[*row, f"{share:.2f}"] for row, share in zip(rows, predicted, strict=True)]
        rows.append(["measured - theory", *(f"{np.mean(curve.mean - predicted):+.2f}" for curve in curves), ""])
        heads.append("theory")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


if __name__ == "__main__":
    main()
