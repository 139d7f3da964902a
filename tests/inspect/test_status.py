"""How far a study is, told by planted results."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smoe_ray.errors import ResultsError
from smoe_ray.inspect.status import Best, study_status
from smoe_ray.results import Store, Timings, TrialFolder, TrialRecord
from smoe_ray.spec import GridStudy, SearchStudy, TrialSpec, dump_study, parse_study, trial_with
from smoe_ray.study import plan_grid

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GRID = "name: demo\nquestion: how far?\naxes: {model.num_experts: [2, 3, 4, 5, 6]}"
SEARCH = """
name: demo
question: how far?
space: {model.num_experts: {type: int, low: 2, high: 9}}
objectives: [{metric: experts.effective, direction: maximize}]
num_trials: 7
"""


Plant = Callable[..., None]


def plant_study(out: Path, text: str) -> GridStudy | SearchStudy:
    spec = parse_study(text)
    Store(out).write("demo/study.yaml", dump_study(spec).encode())
    return spec


def grid_trials(out: Path) -> list[TrialSpec]:
    study = plant_study(out, GRID)
    assert isinstance(study, GridStudy)
    return plan_grid(study)


@pytest.fixture
def plant(out: Path, make_record: Callable[..., TrialRecord]) -> Plant:
    """Plant a trial with its losses; it took an hour, unless it runs."""

    def trial(number: int, spec: TrialSpec, status: str, losses: tuple[float, ...] = (), hours: int = 0) -> None:
        started_at = MOMENT + timedelta(hours=hours)
        finished_at = None if status == "running" else started_at + timedelta(hours=1)
        timings = Timings(started_at=started_at, finished_at=finished_at)
        record = make_record(spec, trial_id=f"{number:012d}", status=status, timings=timings)
        folder = TrialFolder(Store(out), "demo", record.trial_id)
        folder.write_record(record)
        if losses:
            folder.write_epochs(
                [
                    {"epoch": epoch, "test.reconstruction": loss, "experts.effective": loss / 10}
                    for epoch, loss in enumerate(losses, 1)
                ]
            )

    return trial


def test_trials_of_a_grid_by_what_became_of_them(out: Path, plant: Plant) -> None:
    trials = grid_trials(out)
    plant(0, trials[0], "finished", (30.0, 20.0))
    plant(1, trials[1], "finished", (10.0, 25.0))  # its best epoch is not its last
    plant(2, trials[2], "failed", (1.0,), hours=5)
    plant(3, trials[3], "pruned", (2.0,))
    status = study_status(str(out), "demo")
    assert status is not None
    assert status[:6] == ("demo", 5, 2, 0, 1, 1)
    assert status.best == Best("test.reconstruction", 20.0, f"{0:012d}")
    assert status.updated_at == MOMENT + timedelta(hours=6)


def test_a_trial_that_runs_was_heard_of_when_it_last_wrote(out: Path, plant: Plant) -> None:
    [trial, *_] = grid_trials(out)
    plant(0, trial, "running", (30.0,))
    status = study_status(str(out), "demo")
    assert status is not None
    assert status[:6] == ("demo", 5, 0, 1, 0, 0)
    assert status.best is None
    assert status.updated_at is not None
    assert datetime.now(UTC) - status.updated_at < timedelta(hours=1)


def test_trials_of_earlier_versions_do_not_count(out: Path, plant: Plant) -> None:
    [trial, *_] = grid_trials(out)
    plant(0, trial_with(trial, {"training.learning_rate": 0.5}), "finished", (1.0,))
    plant(1, trial, "failed", hours=1)  # on other data than
    plant(2, trial, "finished", (5.0,), hours=2)
    status = study_status(str(out), "demo")
    assert status is not None
    assert status[:6] == ("demo", 5, 1, 0, 0, 0)
    assert status.best == Best("test.reconstruction", 5.0, f"{2:012d}")


def test_a_search_counts_towards_its_number_and_knows_its_objective(out: Path, plant: Plant) -> None:
    search = plant_study(out, SEARCH)
    for number, experts in enumerate((2, 3, 40)):  # 40 is outside the space
        trial = trial_with(search.base, {"model.num_experts": experts})
        plant(number, trial, "finished", (10.0 * (number + 1),))
    status = study_status(str(out), "demo")
    assert status is not None
    assert status[:6] == ("demo", 7, 2, 0, 0, 0)
    assert status.best == Best("experts.effective", 2.0, f"{1:012d}")


def test_nothing_there(out: Path) -> None:
    assert study_status(str(out), "demo") is None
    assert study_status(str(out), "../demo") is None
    plant_study(out, GRID)
    status = study_status(str(out), "demo")
    assert status is not None
    assert status[1:] == (5, 0, 0, 0, 0, None, None, (), ())


def test_a_broken_record_is_named(out: Path) -> None:
    plant_study(out, GRID)
    Store(out).write("demo/trials/000000000000/trial.json", b"{")
    with pytest.raises(ResultsError, match=r"trial\.json: damaged"):
        study_status(str(out), "demo")


def test_a_broken_record_beside_whole_ones_does_not_count_and_is_named(out: Path, plant: Plant) -> None:
    search = plant_study(out, SEARCH)
    for number in range(3):
        plant(number, trial_with(search.base, {"model.num_experts": 2 + number}), "finished", (10.0 + number,))
    Store(out).write(f"demo/trials/{1:012d}/epochs.parquet", b"PAR1")
    status = study_status(str(out), "demo")
    assert status is not None
    assert status[:3] == ("demo", 7, 2)
    assert [f"{1:012d}/epochs.parquet" in problem for problem in status.problems] == [True]


def test_the_time_of_a_file_behind_a_uri() -> None:
    store = Store("memory://status")
    store.write("a", b"1")
    moment = store.modified("a")
    assert moment is not None
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=5)
    assert store.modified("b") is None
