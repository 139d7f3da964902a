"""How long the analysis of one trial takes: routing, separability with its controls, map. Prints a table.

    python benchmarks/analysis.py                                    # planted embeddings, 12,500 x 32, 10 experts
    python benchmarks/analysis.py --embeddings trial/embeddings.npz  # those of a trial
    python benchmarks/analysis.py --write                            # also benchmarks/results/analysis.md

Wall seconds are what a user waits; CPU seconds, of all threads, tell them apart from what else the machine was doing.
"""

from __future__ import annotations

import argparse
import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np

from smoe_ray.analysis.expert_routing import routing, routing_within_classes
from smoe_ray.analysis.latent_separability import separability
from smoe_ray.analysis.maps import coloured_map, latent_map

CLASSES, STYLES = 5, 4
RESULTS = Path(__file__).parent / "results"


def planted(images: int, latent: int, experts: int) -> dict[str, Any]:
    """Overlapping clouds, one per style of each class, and the nearest of as many random centres as experts."""
    rng = np.random.default_rng(0)
    style_B = rng.permutation(images) % (CLASSES * STYLES)
    centre_SZ = rng.normal(size=(CLASSES * STYLES, latent)) + 0.8 * np.repeat(
        rng.normal(size=(CLASSES, latent)), STYLES, axis=0
    )
    mu_BZ = (0.6 * centre_SZ[style_B] + rng.normal(size=(images, latent))).astype(np.float32)
    gate_BE = mu_BZ @ rng.normal(size=(latent, experts))
    return {"mu": mu_BZ, "label": style_B // STYLES, "style": style_B, "expert": gate_BE.argmax(axis=1)}


def read(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in ("mu", "label", "style", "expert") if name in arrays}


def analyse(embeddings: dict[str, Any], measure: Callable[[str, Callable[[], Any]], Any]) -> None:
    expert, label, style = embeddings["expert"], embeddings["label"], embeddings.get("style")
    experts = int(expert.max()) + 1
    classes = [f"class {label}" for label in range(label.max() + 1)]
    styles = [] if style is None else [f"style {style}" for style in range(style.max() + 1)]
    measure("routing against classes", lambda: routing(expert, label, experts, classes))
    if style is not None:
        measure("routing against styles", lambda: routing(expert, style, experts, styles))
        measure(
            "routing within classes", lambda: routing_within_classes(expert, label, style, experts, classes, styles)
        )
    measure("separability and controls", lambda: separability(embeddings["mu"], label, expert))
    mapped = measure("map and trustworthiness", lambda: latent_map(embeddings["mu"]))
    measure("colouring", lambda: coloured_map(mapped, expert, label, classes, style, styles))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embeddings", type=Path, help="embeddings.npz of a trial, instead of planted ones")
    parser.add_argument("--images", type=int, default=12_500)
    parser.add_argument("--latent", type=int, default=32)
    parser.add_argument("--experts", type=int, default=10)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/analysis.md")
    arguments = parser.parse_args()
    if arguments.embeddings:
        embeddings = read(arguments.embeddings)
    else:
        embeddings = planted(arguments.images, arguments.latent, arguments.experts)
    rows: list[tuple[str, float, float]] = []

    def measure(part: str, compute: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        value = compute()
        rows.append((part, time.perf_counter() - wall, time.process_time() - cpu))
        return value

    analyse(embeddings, measure)
    rows.append(("total", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    images, latent = embeddings["mu"].shape
    experts = len(np.unique(embeddings["expert"]))
    text = report(rows, f"{images:,} images, Z = {latent}, {experts} active experts")
    print(text)
    if arguments.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "analysis.md").write_text(text)


def report(rows: list[tuple[str, float, float]], case: str) -> str:
    load = f"{os.getloadavg()[0]:.1f}"
    lines = [
        "# Analysis of one trial",
        "",
        f"{datetime.date.today()}, {machine.cpu()}, load {load} at the end, commit {machine.commit()}.",
        f"{case}. Command: `python benchmarks/analysis.py --write`",
        "",
        "| part | wall s | CPU s |",
        "|---|---|---|",
        *(f"| {part} | {wall:.1f} | {cpu:.1f} |" for part, wall, cpu in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
