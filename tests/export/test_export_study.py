"""Exports of studies, each read back by the reader of its own tool."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smoe_ray.export.history import read_history
from smoe_ray.results import TrialRecord, read_results, read_trials
from smoe_ray.spec import SearchObjective, SearchStudy, load_study
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.testing.toy_training import Toy, toy_grid
from support.planted_folder import EPOCHS, plant
from support.trackers import read_wandb, unreachable_internet

Run = Callable[..., tuple[int, str, str]]

LOSS = "test.reconstruction"


@pytest.fixture(scope="module")
def records(planted: Path) -> list[TrialRecord]:

    return read_trials(planted, "demo")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight trials, of which one failed after two epochs; the variance is a key of one objective alone."""
    out = tmp_path_factory.mktemp("out")
    plant(out, "demo", seeds=2, embeddings=False, ends=[{"status": "failed", "error": "the loss diverged"}])
    return out


@pytest.fixture
def losses(planted: Path) -> dict[str, list[float]]:
    """Test loss of every epoch, by trial."""
    results = read_results(planted, "demo")
    return {str(trial): rows[LOSS].tolist() for trial, rows in results.groupby("trial_id")}


@pytest.fixture
def export(smoe_ray: Run, planted: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Export the study by the command; the path that it prints."""

    def run(kind: str) -> Path:
        code, printed, error = smoe_ray("export", planted, "demo", "--to", kind, tmp_path / "exported")
        assert (code, error) == (0, "")
        return Path(printed.strip())

    return run


def test_parquet_has_the_whole_study_with_its_configuration(
    export: Callable[[str], Path], losses: dict[str, list[float]], records: list[TrialRecord]
) -> None:
    import pyarrow.parquet as pq

    path = export("parquet")
    frame = pd.read_parquet(path)
    assert {trial: rows[LOSS].tolist() for trial, rows in frame.groupby("trial_id")} == losses
    assert set(frame["config.model.num_experts"]) == {4, 8}
    assert frame["arm"].nunique() == 4
    assert [list(usage) for usage in frame["experts.usage"].head(2)] == [
        list(usage) for usage in frame.sort_index()["experts.usage"].head(2)
    ]
    said = {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}
    assert "question:" in said["smoe_ray.study"]
    again = [TrialRecord.model_validate(record) for record in json.loads(said["smoe_ray.trials"])]
    assert again == records
    assert export("parquet") == path  # replaces the older file


def test_optuna_reads_a_grid_with_what_varies(
    export: Callable[[str], Path], losses: dict[str, list[float]], records: list[TrialRecord]
) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = optuna.load_study(study_name="demo", storage=JournalStorage(JournalFileBackend(str(export("optuna")))))
    by_id = {trial.user_attrs["trial_id"]: trial for trial in study.trials}
    assert set(by_id) == set(losses)
    for record in records:
        trial = by_id[record.trial_id]
        assert trial.intermediate_values == dict(enumerate(losses[record.trial_id], 1))
        assert trial.params["model.num_experts"] == record.spec.model.num_experts
        assert trial.params["objective.name"] == record.spec.objective.name
        if record.status == "failed":
            assert (trial.state.name, trial.user_attrs["why"]) == ("FAIL", "the loss diverged")
        else:
            assert trial.value == losses[record.trial_id][-1]
    assert study.best_value == min(of_trial[-1] for of_trial in losses.values() if len(of_trial) == EPOCHS)
    assert "data.source" not in study.best_params  # the same in all
    assert "seed" not in study.best_params


def test_tensorboard_reads_scalars_and_hyperparameters(
    export: Callable[[str], Path], losses: dict[str, list[float]], records: list[TrialRecord]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    place = export("tensorboard")
    assert {run.name for run in place.iterdir()} == set(losses)
    for record in records[:3]:
        events = EventAccumulator(str(place / record.trial_id)).Reload()
        scalars = events.Scalars("test/reconstruction")
        assert [event.step for event in scalars] == list(range(1, len(scalars) + 1))
        np.testing.assert_allclose([event.value for event in scalars], losses[record.trial_id], rtol=1e-6)
        assert scalars[0].wall_time == record.timings.started_at.timestamp()
        content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        hparams = HParamsPluginData.FromString(content).session_start_info.hparams
        assert hparams["model.num_experts"].number_value == record.spec.model.num_experts
        assert hparams["objective.name"].string_value == record.spec.objective.name
        assert hparams["seed"].number_value == record.spec.seed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries below MLflow
def test_mlflow_reads_runs_with_metrics_and_parameters(
    export: Callable[[str], Path], losses: dict[str, list[float]], records: list[TrialRecord], smoe_ray: Run,
    planted: Path,
) -> None:  # fmt: skip
    path = export("mlflow")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{path}")
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    runs = {run.data.tags["trial_id"]: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == set(losses)
    for record in records:
        run = runs[record.trial_id]
        assert run.info.status == {"finished": "FINISHED", "failed": "FAILED"}[record.status]
        assert run.data.params["model.num_experts"] == str(record.spec.model.num_experts)
        history = sorted(client.get_metric_history(run.info.run_id, LOSS), key=lambda metric: metric.step)
        assert [metric.value for metric in history] == losses[record.trial_id]
    code, _, error = smoe_ray("export", planted, "demo", "--to", "mlflow", path.parent)
    assert (code, error.count("\n")) == (1, 1)
    assert "has an experiment 'demo' already" in error


@pytest.mark.slow
def test_wandb_reads_runs_with_metrics_and_configuration(
    smoe_ray: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, name = tmp_path / "out", "drawn"
    finished, failed = plant(
        out, name, objectives=("likelihood",), experts=(4,), seeds=2, embeddings=False,
        ends=[{"status": "finished"}, {"status": "failed", "error": "the loss diverged"}],
    )  # fmt: skip
    with unreachable_internet(monkeypatch) as asked:
        code, printed, error = smoe_ray("export", out, name, "--to", "wandb", tmp_path / "exported")
        assert (code, error) == (0, "")
        runs = {run["run_id"]: run for run in map(read_wandb, Path(printed.strip()).rglob("*.wandb"))}
    assert asked == []
    assert set(runs) == {f"{name}-{record.trial_id}" for record in (finished, failed)}
    for record in (finished, failed):
        run = runs[f"{name}-{record.trial_id}"]
        rows = read_results(out, name).query(f"trial_id == '{record.trial_id}'")
        assert [row["test/reconstruction"] for row in run["history"]] == rows[LOSS].tolist()
        assert [row["_step"] for row in run["history"]] == [row["epoch"] for row in run["history"]]
        assert run["config"]["model.num_experts"] == 4
        assert run["config"]["seed"] == record.spec.seed
        assert (run["project"], run["run_group"], run["summary"]["status"]) == (name, name, record.status)
        assert run["exit_code"] == (record.status == "failed")
    assert runs[f"{name}-{failed.trial_id}"]["summary"]["why"] == "the loss diverged"
    code, _, error = smoe_ray("export", out, name, "--to", "wandb", tmp_path / "exported")
    assert (code, "is there already" in error) == (1, True)


def test_a_second_export_is_not_added_to_the_first(
    export: Callable[[str], Path], smoe_ray: Run, planted: Path, tmp_path: Path
) -> None:
    place = tmp_path / "exported" / "demo"
    place.mkdir(parents=True)
    code, printed, error = smoe_ray("export", planted, "demo", "--to", "tensorboard", place.parent)
    assert (code, printed) == (1, "")
    assert error == f"smoe-ray: {place}: is there already; delete it, or choose another folder\n"


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow", "wandb", "trackio"])
def test_an_absent_tool_names_the_extra(
    smoe_ray: Run, planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == kind else find(name, *more))
    code, _, error = smoe_ray("export", planted, "demo", "--to", kind, tmp_path)
    extra = "trackio" if kind == "trackio" else "export"
    assert (code, error) == (
        1, f"smoe-ray: --to {kind} needs the extra '{extra}': in the repository, pip install '.[{extra}]'\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("--to", "parket", "{to}"),
            "--to parket: none of parquet, tensorboard, optuna, mlflow, wandb, trackio; did you mean",
        ),
        (("--to", "parquet"), "--to parquet: give a folder for it: smoe-ray export"),
        (("--to", "parquet", "s3://bucket/x"), "give a folder of this machine"),
        (("--to", "parquet", "/proc/x"), "/proc/x: cannot be written"),
        (("--to", "{to}", "--model", "ffff"), "demo: no trial 'ffff'; 'smoe-ray table "),
        (("--to", "{to}", "--model", "000000040000"), "is failed; only a finished one has a model"),
        (("--to", "{to}", "--model", "ffff", "{to}"), "with --model give the folder once, as --to DIR"),
    ],
)
def test_a_mistake_is_one_line(
    smoe_ray: Run, planted: Path, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    to = tmp_path / "to"
    code, printed, error = smoe_ray("export", planted, "demo", *(word.format(to=to) for word in words))
    assert (code, printed, error.count("\n")) == (1, "", 1)
    assert expected in error
    assert not to.exists()


def test_a_search_keeps_its_space_and_objectives_in_optuna(smoe_ray: Run, tmp_path: Path) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    results = Path(__file__).resolve().parents[1] / "golden" / "results"
    code, printed, error = smoe_ray("export", results, "stored-search", "--to", "optuna", tmp_path)
    assert code == 0, error
    stored = optuna.load_study(study_name="stored-search", storage=JournalStorage(JournalFileBackend(printed.strip())))
    spec = load_study(results / "stored-search" / "study.yaml")
    assert isinstance(spec, SearchStudy)
    assert len(stored.trials) == len(read_trials(results, "stored-search"))
    assert {path for trial in stored.trials for path in trial.params} <= set(spec.space)
    assert [direction.name.lower() for direction in stored.directions] == [one.direction for one in spec.objectives]
    assert stored.user_attrs["objectives"] == [one.metric for one in spec.objectives]


def test_trials_on_several_datasets_are_judged_by_the_psnr(tmp_path: Path) -> None:
    few = {"classes": ["eye", "cat"], "train_per_class": 20, "test_per_class": 5}
    study = toy_grid(datasets={"smooth": {**few, "jitter": 0}, "rough": {**few, "jitter": 2}}, seeds=[0])
    run_study(study, tmp_path, LocalExecutor(fit=Toy()))
    assert read_history(tmp_path, study.name).objective == SearchObjective(metric="test.psnr", direction="maximize")
