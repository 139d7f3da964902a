"""The main job on real drawings: a study file goes in; trained models, a table and figures come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smoe_ray.analysis.summary import trial_summary
from smoe_ray.figures import FIGURES, save
from smoe_ray.results import read_embeddings, read_results, read_weights
from smoe_ray.spec import load_study
from smoe_ray.study import LocalExecutor, run_study

STUDY = Path(__file__).resolve().parents[2] / "studies" / "drawings.yaml"


@pytest.mark.parametrize("latent", ["mean", "sample"])
def test_the_drawings_study_small(shared_data: Path, tmp_path: Path, latent: str) -> None:
    study = load_study(
        STUDY,
        [
            f"data.root={shared_data / 'quickdraw'}",
            "data.train_per_class=120",
            "data.test_per_class=40",
            "model.num_experts=3",
            "training.budget=6 epochs",
            "training.batch_size=32",
            "seeds=[0]",
            f"evaluation.latent={latent}",
        ],
    )
    records = run_study(study, tmp_path / "out", LocalExecutor(device="cpu"))
    assert [record.status for record in records] == ["finished", "finished"]

    results = read_results(tmp_path / "out", study.name)
    first, last = (results[results.epoch == epoch]["test.reconstruction"] for epoch in (1, 6))
    assert (last.to_numpy() < first.to_numpy()).all()  # it learns

    summary = trial_summary(results)
    assert list(summary["arm"]) == ["blend", "likelihood"]
    np.testing.assert_allclose(summary["gap"], summary["test.reconstruction"] - summary["test.reconstruction_soft"])

    reached = summary.set_index("trial_id")
    for trial_id in reached.index:
        kept = read_embeddings(tmp_path / "out", study.name, trial_id)
        error = ((kept["image"] / 255.0 - kept["reconstruction"].astype(float)) ** 2).sum(axis=(1, 2)).mean()
        assert abs(error - reached.loc[trial_id, "test.reconstruction"]) < 0.05  # reconstructions are kept as float16
        usage = np.bincount(kept["expert"], minlength=3) / len(kept["expert"])
        np.testing.assert_allclose(usage, reached.loc[trial_id, "experts.usage"])
        weights = read_weights(tmp_path / "out", study.name, trial_id)
        assert sum(array.size for array in weights.values()) == reached.loc[trial_id, "cost.params_total"]

    for kind in ("training_curves", "usage_over_epochs", "loss_against_experts"):
        paths = save(FIGURES[kind].plot(FIGURES[kind].info(results)), tmp_path / "figures", kind)
        assert all(path.stat().st_size > 5000 for path in paths)
