"""A probe of a model that was trained on real drawings: its exciting inputs excite more than any drawing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smoe_ray.results import read_probe
from smoe_ray.spec import load_study
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.study.probe_run import plan_probes, probe_trial

STUDY = Path(__file__).resolve().parents[2] / "studies" / "drawings.yaml"


@pytest.mark.slow
def test_exciting_inputs_beat_the_best_drawing_and_are_specific(shared_data: Path, out: Path) -> None:
    study = load_study(
        STUDY,
        [
            f"data.root={shared_data / 'quickdraw'}",
            "data.train_per_class=500",
            "data.test_per_class=100",
            "model.num_experts=5",
            "training.budget=6 epochs",
            "training.batch_size=32",
            "seeds=[0]",
            'axes.objective=[{"name": "likelihood", "lambda_balance": 400}]',
        ],
    )
    run_study(study, out, LocalExecutor(device="cpu"))
    [task] = plan_probes(str(out), study.name).tasks
    assert probe_trial(task).error is None
    record, arrays = read_probe(out, study.name, task.trial_id)
    live = np.bincount(arrays["expert"], minlength=5) > 0
    assert live.sum() >= 3
    for target, name in enumerate(record.targets):
        best_E = arrays["exciting_value"][target].max(axis=1)
        assert (best_E > arrays["data_value"][target, :, 0])[live].mean() >= 0.9, name
        assert (arrays["cross"][target].argmax(axis=1) == np.arange(5))[live].mean() >= 0.9, name
