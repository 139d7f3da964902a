"""What a terminal, and what a log file, sees of a running study."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from smoe_ray.planning import plan_grid
from smoe_ray.results import TrialRecord
from smoe_ray.spec import GridStudy, SearchObjective, TrialSpec, first_objective, parse_study, trial_with
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.study import progress as progress_module
from smoe_ray.study.events import DataProgress, EpochDone, StudyStarted, TrialDeferred, TrialEnded, TrialStarted
from smoe_ray.study.progress import StudyProgress, Tally, describe, fraction_done
from smoe_ray.testing.toy_training import Toy, toy_grid

STUDY = toy_grid(
    **{
        "axes.model.num_experts": [2, 3],
        "axes.objective": [{"name": "blend"}],
        "axes.model.gate": ["mlp"],
        "seeds": [0],
    }
)


def shown(out: Path, terminal: bool, fit: Any) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200)
    with StudyProgress(STUDY, console) as show:
        run_study(STUDY, out, LocalExecutor(fit=fit), on_event=show)
    return text.getvalue()


def test_a_log_file_gets_one_plain_line_a_trial(tmp_path: Path) -> None:
    lines = shown(tmp_path, terminal=False, fit=Toy()).splitlines()
    assert "\x1b" not in "".join(lines)
    assert lines[0] == "toy: 2 trials, 0 of them done before"
    assert "num_experts=2 objective=blend gate=mlp seed=0 finished after" in lines[1]
    assert lines[2].startswith("[2/2 done, best test loss 3.")
    assert len(lines) == 3
    assert shown(tmp_path, terminal=False, fit=Toy()).splitlines() == ["toy: 2 trials, 2 of them done before"]


def test_a_terminal_sees_live_loss_and_active_experts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = shown(tmp_path, terminal=True, fit=Toy(pause=0.15))
    assert "epoch 3, loss " in text
    assert "active 2/2" in text
    assert "1/2 done, 1 running" in text
    assert "2/2 done" in text


def test_why_a_trial_failed_is_said_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for terminal in (True, False):
        text = shown(tmp_path / str(terminal), terminal, fit=Toy(raise_seed=0))
        assert text.count("the disk is on fire") == 2
        assert "0/2 done" in text
        assert "2 failed" in text


def test_time_left_comes_from_what_was_trained_here(
    monkeypatch: pytest.MonkeyPatch, make_record: Callable[..., TrialRecord]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    trial = trial_with(TrialSpec(), {"training.budget": "10 epochs"})
    rows = [{"epoch": epoch} for epoch in range(1, 11)]
    tally = Tally(first_objective(STUDY))
    tally.note(StudyStarted("demo", total=4, settled=1))
    tally.note(TrialStarted("a", trial))
    assert tally.seconds_left() is None
    now = 10.0
    tally.note(EpochDone("a", rows[:6]))  # five of them came from a checkpoint
    assert tally.done == pytest.approx(1.6)
    assert tally.seconds_left() == pytest.approx(10 * 2.4 / 0.1)
    now = 50.0
    tally.note(EpochDone("a", rows))
    tally.note(TrialEnded(make_record(trial, trial_id="a")))
    assert tally.seconds_left() == pytest.approx(50 * 2 / 0.5)
    assert tally.summary() == "2/4 done, 0:03:20 left"
    tally.note(TrialStarted("b", trial))
    tally.note(TrialDeferred("b"))
    tally.note(TrialStarted("b", trial))
    tally.note(TrialEnded(make_record(trial, trial_id="b", status="failed")))
    assert tally.summary().startswith("2/4 done, 1 failed, ")
    assert tally.done == 3


def test_the_best_and_the_collapsed_are_those_that_ended(make_record: Callable[..., TrialRecord]) -> None:
    trial = trial_with(TrialSpec(), {"training.budget": "2 epochs"})
    tally = Tally(SearchObjective(metric="experts.effective", direction="maximize"))
    assert (tally.best, tally.collapse_rate) == (None, None)
    trials = [
        ("a", 2.0, 0.4, "finished"),
        ("b", 3.0, 0.5, "finished"),
        ("c", 9.0, 0.1, "pruned"),
        ("d", 9.0, 0.9, None),
    ]
    for trial_id, effective, fraction, status in trials:
        tally.note(TrialStarted(trial_id, trial))
        row = {"epoch": 1, "experts.effective": effective, "experts.active_fraction": fraction}
        tally.note(EpochDone(trial_id, [row]))
        if status is not None:
            tally.note(TrialEnded(make_record(trial, trial_id=trial_id, status=status)))
    assert tally.best == 3.0
    assert tally.collapse_rate == pytest.approx(2 / 3)
    assert "1 running, 1 pruned, best effective 3.00, 67% of trials lost over half of their experts" in tally.summary()


def test_fractions_of_both_kinds_of_budget() -> None:
    epochs = trial_with(TrialSpec(), {"training.budget": "4 epochs"})
    steps = trial_with(TrialSpec(), {"training.budget": "200 steps"})
    rows = [{"epoch": 1, "cost.steps": 150}]
    assert fraction_done(epochs, rows) == 0.25
    assert fraction_done(steps, rows) == 0.75
    assert fraction_done(steps, []) == 0.0


def test_an_epoch_in_a_few_words() -> None:
    row = {"epoch": 2, "train.loss": 31.256, "test.reconstruction": None, "experts.active": None}
    assert describe(row) == "epoch 2, loss 31.26"
    row |= {"test.reconstruction": 30.0, "experts.active": 4, "experts.configured": 10}
    assert describe(row) == "epoch 2, loss 31.26, test 30.00, active 4/10"


def test_data_are_shown_while_they_are_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for terminal in (True, False):
        text = io.StringIO()
        with StudyProgress(STUDY, Console(file=text, force_terminal=terminal, width=100)) as show:
            show(DataProgress("cat.npz", 1, 2))
            show(DataProgress("cat.npz", 2, 2))
            show(DataProgress("eye.npz", 1, 2))
            show(StudyStarted("demo", 2, 0))
        assert "cat.npz" in text.getvalue()
        assert terminal or text.getvalue().splitlines()[:2] == ["cat.npz", "eye.npz"]


def test_a_trial_that_starts_again_has_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = io.StringIO()
    with StudyProgress(STUDY, Console(file=text, force_terminal=True, width=150)) as show:
        show(StudyStarted("toy", 2, 0))
        for _ in range(2):
            show(TrialStarted("abc", STUDY.base))
            show(EpochDone("abc", [{"epoch": 1, "train.loss": 1.0}]))
    assert text.getvalue().rpartition("\r")[2].count("abc") == 1


@pytest.mark.parametrize(
    ("axes", "labels"),
    [
        ("objective: [{name: blend}, {name: likelihood}]", {"objective=blend", "objective=likelihood"}),
        (
            "objective: [{name: blend, lambda_balance: 1}, {name: blend, lambda_balance: 2}]",
            {'objective={"name":"blend","lambda_balance":1.0}', 'objective={"name":"blend","lambda_balance":2.0}'},
        ),
        ("data: [{fraction: 0.5}, {fraction: 1.0}]", {"data=0.5", "data=1.0"}),
        ("training.learning_rate: [0.00012345, 0.00012346]", {"learning_rate=0.00012345", "learning_rate=0.00012346"}),
        ("model.gate_hidden: [[64, 32], [16]]", {"gate_hidden=[64,32]", "gate_hidden=[16]"}),
    ],
)
def test_labels_tell_the_trials_of_an_axis_apart(axes: str, labels: set[str]) -> None:
    study = parse_study(f"name: demo\nquestion: q\nbase: {{data: {{source: synthetic}}}}\naxes: {{{axes}}}\n")
    progress = StudyProgress(study)
    assert isinstance(study, GridStudy)
    assert {progress._label("id", trial) for trial in plan_grid(study)} == {f"id {label} seed=0" for label in labels}
