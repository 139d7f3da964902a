"""One damaged trial never blocks a study, and no file of it is believed that is not what was written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from smoe_ray.cli import app
from smoe_ray.cluster.ray_executor import _sees
from smoe_ray.errors import DamagedError, ResultsError
from smoe_ray.inspect.integrity import scrub
from smoe_ray.inspect.status import study_status
from smoe_ray.report.evidence import Evidence
from smoe_ray.report.findings import findings
from smoe_ray.results import (
    Store,
    StudyReader,
    TrialFolder,
    TrialRecord,
    current_trials,
    read_embeddings,
    read_results,
    read_trials,
    read_weights,
)
from smoe_ray.results.study_file import study_text
from smoe_ray.spec import TrialSpec, dump_study
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.study.events import Notice
from smoe_ray.testing.toy_training import Toy, epochs_computed, table, toy_grid, toy_search

STUDY = toy_grid(seeds=[0, 1])


def run(out: Path | str, log: Path | None = None, study: Any = STUDY) -> list[str]:
    """Run the study; its notices."""
    events: list[Any] = []
    run_study(study, out, LocalExecutor(fit=Toy(log=log)), on_event=events.append)
    return [event.text for event in events if isinstance(event, Notice)]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def as_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def swap_with_other(file: Path) -> None:
    [other] = [folder for folder in file.parents[1].iterdir() if folder != file.parent]
    file.write_bytes((other / file.name).read_bytes())


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("trial.json", cut),
        ("trial.json", as_fifo),
        ("trial.json", swap_with_other),
        ("epochs.parquet", cut),
        ("epochs.parquet", Path.unlink),
        ("model.safetensors", swap_with_other),
        ("embeddings.npz", Path.unlink),
    ],
)
def test_a_damaged_trial_is_named_set_aside_and_trained_again(
    out: Path, log: Path, file: str, harm: Callable[[Path], None]
) -> None:
    run(out)
    expected, [first, second] = table(out, STUDY), [record.trial_id for record in read_trials(out, "toy")]
    harm(out / "toy/trials" / first / file)

    [problem] = scrub(out).problems
    assert f"{first}/{file}: " in problem
    in_table = file in ("model.safetensors", "embeddings.npz")  # which no row depends on
    results = read_results(out, "toy", skip_broken=True)
    assert set(results["trial_id"]) == ({first, second} if in_table else {second})
    assert in_table or f"{first}/{file}: " in results.attrs["problems"][0]
    if file == "model.safetensors":
        with pytest.raises(DamagedError, match="SHA-256 is another"):
            read_weights(out, "toy", first)

    [notice] = run(out, log)
    assert f"{first}/{file}: " in notice
    assert f"kept as {first}.damaged-" in notice
    assert "\n" not in notice
    assert {seed for seed, _ in epochs_computed(log)} == {
        int(expected.set_index("trial_id").loc[first, "seed"].iloc[0])
    }
    pd.testing.assert_frame_equal(table(out, STUDY), expected, check_exact=True)
    [kept] = (out / "toy/trials").glob(f"{first}.damaged-*")
    assert any(kept.iterdir())
    assert scrub(out).problems == []
    assert scrub(out).counts["set aside"] == 1


def test_readers_go_on_beside_a_cut_record(out: Path) -> None:
    run(out)
    first, second = (record.trial_id for record in read_trials(out, "toy"))
    cut(out / "toy/trials" / first / "trial.json")
    status = study_status(str(out), "toy")
    assert status is not None
    assert status.finished == 1
    assert first in status.problems[0]
    reader = StudyReader(out, "toy")
    reader.look()
    assert set(reader.table()["trial_id"]) == {second}
    assert first in reader.problems()[0]
    evidence = Evidence(out, ["toy"])
    assert set(evidence.results["trial_id"]) == {second}
    assert f"trials/{first}/trial.json: damaged" in next(findings(evidence)).sentences[0]


def test_missing_weights_are_noted_by_readers(out: Path) -> None:
    run(out)
    first = read_trials(out, "toy")[0].trial_id
    (out / "toy/trials" / first / "model.safetensors").unlink()
    reader = StudyReader(out, "toy")
    reader.look()
    assert len(set(reader.table()["trial_id"])) == 2
    for notices in (reader.notices(), read_results(out, "toy").attrs["notices"]):
        assert f"{first}/model.safetensors: damaged (missing)" in notices[0]


def test_damage_behind_a_uri_is_set_aside_there(tmp_path: Path) -> None:
    out = f"memory://{tmp_path.name}"
    run(out)
    expected, first = table(out, STUDY), read_trials(out, "toy")[0].trial_id  # type: ignore[arg-type]
    store = Store(out)
    store.write(f"toy/trials/{first}/epochs.parquet", b"PAR1")
    assert first in scrub(out).problems[0]
    assert "kept as" in run(out)[0]
    pd.testing.assert_frame_equal(table(out, STUDY), expected, check_exact=True)  # type: ignore[arg-type]
    [kept] = [name for name in store.folders("toy/trials") if ".damaged-" in name]
    assert store.read(f"toy/trials/{kept}/epochs.parquet") == b"PAR1"


def test_a_search_trains_its_damaged_trial_again(out: Path, log: Path) -> None:
    study = toy_search(num_trials=3)
    run(out, study=study)
    expected = table(out, study)
    victim = read_trials(out, "toy")[1]
    (out / "toy/trials" / victim.trial_id / "embeddings.npz").unlink()
    assert "kept as" in run(out, log, study)[0]
    assert {seed for seed, _ in epochs_computed(log)} == {victim.spec.seed}
    pd.testing.assert_frame_equal(table(out, study), expected, check_exact=True)


def embeddings_of(out: Path) -> tuple[TrialFolder, dict[str, Any], TrialRecord]:
    run(out)
    record = read_trials(out, "toy")[0].model_copy(update={"files": {}})  # as an earlier version wrote it
    folder = TrialFolder(Store(out), "toy", record.trial_id)
    folder.write_record(record)
    return folder, read_embeddings(out, "toy", record.trial_id), record


def test_embeddings_must_fit_their_record(out: Path) -> None:
    folder, arrays, record = embeddings_of(out)
    experts = record.spec.model.num_experts
    wrong: dict[str, dict[str, Any]] = {
        "'gate' is missing": {"gate": None},
        rf"'expert' has 1 to {experts}, not only 0 to {experts - 1}": {"expert": arrays["expert"] + 1},
        "'label' has -1": {"label": arrays["label"] - 1},
        "'mu' has shape": {"mu": arrays["mu"][:, 1:]},
        "'expert' is float64": {"expert": arrays["expert"] / 2},
        "'reconstruction' is of type <U1, not numbers": {"reconstruction": np.full(arrays["image"].shape, "x")},
        "more than the trial stores": {"more": np.zeros(4_000_000)},
    }
    for problem, change in wrong.items():
        folder.write_embeddings({name: array for name, array in (arrays | change).items() if array is not None})
        with pytest.raises(ResultsError, match=problem) as caught:
            read_embeddings(out, "toy", record.trial_id)
        assert "\n" not in str(caught.value)


def test_no_file_is_waited_for_or_read_without_end(out: Path) -> None:
    run(out)
    first = read_trials(out, "toy")[0].trial_id
    for file in ("epochs.parquet", "model.safetensors", "embeddings.npz"):
        path = out / "toy/trials" / first / file
        as_fifo(path)
        with pytest.raises(DamagedError, match="not a regular file"):
            Store(out).read(f"toy/trials/{first}/{file}")
        path.unlink()
        path.symlink_to("/dev/zero")
        with pytest.raises(DamagedError, match="not a regular file"):
            Store(out).digest(f"toy/trials/{first}/{file}")
    huge = out / "toy/trials" / first / "trial.json"
    with huge.open("r+b") as file_:
        file_.truncate(5_000_000_000)
    with pytest.raises(DamagedError, match="are not read"):
        TrialFolder(Store(out), "toy", first).read_record()


def test_trials_of_earlier_data_numerics_and_plugins_are_left_out(out: Path) -> None:
    run(out)
    records = read_trials(out, "toy")
    store = Store(out)

    def older(number: int, **changes: Any) -> None:
        """A copy of a trial as it was before something changed."""
        record = records[number]
        timings = record.timings.model_copy(update={"started_at": record.timings.started_at.replace(year=2001)})
        folder = TrialFolder(store, "toy", f"old{number}{len(changes)}")
        folder.write_epochs(TrialFolder(store, "toy", record.trial_id).read_rows())
        update = {"trial_id": folder.trial_id, "timings": timings, "files": {}, **changes}
        folder.write_record(record.model_copy(update=update))

    [data] = {record.data for record in records}
    assert data is not None
    older(0, data=data.model_copy(update={"fingerprint": "0" * 64}))
    older(1, versions=records[1].versions.model_copy(update={"numerics": 0}), host="elsewhere")
    ids = {record.trial_id for record in records}
    results = read_results(out, "toy")
    assert set(results["trial_id"]) == ids
    assert results.attrs["notices"] == [
        "toy: 1 older trial left out: the data have changed since",
        "toy: 1 older trial left out: another version of smoe-ray computed them, whose numbers differ "
        "(versions.numerics)",
    ]
    reader = StudyReader(out, "toy")
    reader.look()
    assert set(reader.table()["trial_id"]) == ids
    assert len(reader.notices()) == 2
    status = study_status(str(out), "toy")
    assert status is not None
    assert (status.finished, status.total) == (2, 2)
    shown = CliRunner().invoke(app, ["table", str(out), "toy"])
    assert "note: toy: 1 older trial left out: the data have changed since" in shown.stderr
    assert shown.stdout.count("finished") == 2


def test_a_trial_of_an_earlier_plugin_is_older(make_record: Callable[..., TrialRecord]) -> None:
    def trained_with(plugin: str, year: int) -> TrialRecord:
        record = make_record(TrialSpec())
        timings = record.timings.model_copy(update={"started_at": record.timings.started_at.replace(year=year)})
        versions = record.versions.model_copy(update={"plugins": {"p:q": plugin}})
        return record.model_copy(update={"versions": versions, "timings": timings})

    new, old = trained_with("b", 2002), trained_with("a", 2001)
    assert current_trials([new, old]) == ([new], ["1 older trial left out: a plug-in has changed since"])


def test_verify_says_what_it_found_and_repairs(out: Path) -> None:
    run(out)
    first = read_trials(out, "toy")[0].trial_id
    cli = CliRunner()
    good = cli.invoke(app, ["verify", str(out)])
    assert good.exit_code == 0
    assert good.stdout.startswith("read 1 study, 2 trials, ")
    (out / "toy/trials" / first / "model.safetensors").unlink()
    image = next((out / ".cache/data/prepared").glob("*/train.image_BHW.npy"))
    cut(image)
    bad = cli.invoke(app, ["verify", str(out)])
    assert bad.exit_code == 1
    assert isinstance(bad.exception, ResultsError)
    assert bad.stdout.count("damaged: ") == 2
    repaired = cli.invoke(app, ["verify", str(out), "--repair"])
    assert repaired.exit_code == 0
    assert repaired.stdout.count("set aside: ") == 2
    assert not image.exists()
    assert cli.invoke(app, ["verify", str(out)]).exit_code == 0
    assert run(out) == []
    assert len(read_trials(out, "toy")) == 2
    absent = cli.invoke(app, ["verify", str(out), "absent"])
    assert "no such study" in str(absent.exception)


def test_results_of_earlier_versions_are_whole_without_checksums(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "results"
    found = scrub(golden)
    assert found.problems == []
    assert found.counts["trials"] >= 6


def test_a_study_file_of_an_earlier_version_gets_its_checksum(tmp_path: Path) -> None:
    run(tmp_path)
    file = tmp_path / STUDY.name / "study.yaml"
    sealed = file.read_bytes()
    file.write_bytes(study_text(sealed, "it").encode())
    run(tmp_path)
    assert file.read_bytes() == sealed
    assert _sees(str(tmp_path), STUDY.name, dump_study(STUDY))  # as the other nodes of a cluster look for it
