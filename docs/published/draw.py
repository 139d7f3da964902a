"""Draw the figures of this folder from the published data of arXiv:2509.10025: not results of this project.

python docs/published/draw.py --data DIR    (DIR contains embeddings_10_experts/; the losses come from the package)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from smoe_ray.analysis import (
    Recommendations,
    coloured_map,
    latent_map,
    loss_against_experts,
    loss_surface,
    recommend,
    routing,
)
from smoe_ray.figures import (
    plot_best_experts,
    plot_loss_against_experts,
    plot_loss_surface,
    plot_map,
    plot_routing,
    plot_surface_fit,
    save,
)
from smoe_ray.published import SOURCE, read_published

HERE = Path(__file__).parent
CLASSES = tuple(f"class {label}" for label in range(5))  # the released files contain numbers, not names
EXPERTS = 10


def draw_losses() -> None:
    """Loss against experts with the supervised baseline, the loss surface, its fit, and the best number of experts."""
    runs = read_published()
    at_all_data = runs[runs["config.data.fraction"] == 1]
    found: Recommendations = recommend(runs)
    for name, figure in {
        "loss-against-experts": plot_loss_against_experts(loss_against_experts(at_all_data)),
        "loss-surface": plot_loss_surface(loss_surface(runs)),
        "surface-fit": plot_surface_fit(found.fitted()),
        "best-experts": plot_best_experts(found.fitted()),
    }.items():
        save(figure, HERE, name)


def draw_embeddings(folder: Path) -> None:
    """Experts against classes of one published run with ten experts, and a map of its latent space."""
    mu_BZ, label_B, expert_B = (
        np.load(folder / f"{name}.npy") for name in ("latent_vectors", "labels", "selected_experts")
    )
    label_B, expert_B = label_B.astype(np.int64), expert_B.astype(np.int64)
    save(plot_routing(routing(expert_B, label_B, EXPERTS, CLASSES)), HERE, "routing")
    save(plot_map(coloured_map(latent_map(mu_BZ), expert_B, label_B, CLASSES)), HERE, "map")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=f"Draw figures from the data of {SOURCE}.")
    parser.add_argument("--data", type=Path, required=True, help="folder with embeddings_10_experts/")
    data = parser.parse_args().data
    draw_losses()
    draw_embeddings(data / "embeddings_10_experts")
