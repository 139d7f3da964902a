"""Trackio reads back what is exported, and what follows a run. It needs an older pillow than the tested versions have,
so it is none of them: where it is installed, this runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from smoe_ray.export import tracker_for
from smoe_ray.results import read_results
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.study.live_log import LiveLog
from smoe_ray.testing.toy_training import Toy, toy_grid
from support.planted_folder import plant
from support.trackers import unreachable_internet

pytest.importorskip("trackio", reason="not among the tested versions")

Run = Callable[..., tuple[int, str, str]]


def test_it_reads_an_export_and_what_followed_a_run(
    smoe_ray: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One test, for Trackio keeps to the folder that it is imported with.
    out, kept = tmp_path / "out", tmp_path / "kept"
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    plant(out, "demo", embeddings=False, seeds=2, ends=[{"status": "failed", "error": "the loss diverged"}])
    with unreachable_internet(monkeypatch) as asked:
        assert smoe_ray("export", out, "demo", "--to", "trackio", kept) == (0, f"{kept / 'demo.db'}\n", "")
        code, _, error = smoe_ray("export", out, "demo", "--to", "trackio", kept)
        assert (code, "is there already" in error) == (1, True)
        study = toy_grid(seeds=[0, 1])
        for fit in (Toy(raise_seed=1), Toy()):  # the second goes on with the trial that failed
            with LiveLog([tracker_for("trackio:mine", study)]) as log:
                run_study(study, out, LocalExecutor(fit=fit), on_event=log)
    assert asked == []
    check("demo", "demo", read_results(out, "demo"))
    check("mine", study.name, read_results(out, study.name))


def check(project: str, group: str, results: pd.DataFrame) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    assert sorted(SQLiteStorage.get_runs(project)) == sorted(set(results["trial_id"]))
    for trial, rows in results.groupby("trial_id"):
        logs = SQLiteStorage.get_logs(project, str(trial))
        assert [row["test/reconstruction"] for row in logs] == rows["test.reconstruction"].tolist()
        assert [row["step"] for row in logs] == rows["epoch"].tolist()
        config = SQLiteStorage.get_run_config(project, str(trial))
        assert config is not None
        assert config["model.num_experts"] == rows["config.model.num_experts"].iloc[0]
        assert config["_Group"] == group
