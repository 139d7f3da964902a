"""What is unusual about data reaches the user: in `data info`, and in `run` before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_pictures import shifted, write_images

from smoe_ray.spec import ImageData
from smoe_ray.study import StudyPlan, StudyRun
from smoe_ray.study.events import Event, Notice
from smoe_ray.testing.toy_training import toy_grid

STUDY = """
name: case
question: does it read?
base:
  data: {source: images, root: ROOT}
  training: {budget: 1 epochs}
"""


@pytest.fixture
def faint(tmp_path: Path) -> Path:
    """A folder of faint images, with a class name that a terminal library might take for markup."""
    write_images(tmp_path / "set" / "[red]F", shifted(12) // 3)
    return tmp_path / "set"


def test_data_info_shows_notes_and_class_names_as_they_are(
    smoe_ray: Callable[..., tuple[int, str, str]], faint: Path, tmp_path: Path
) -> None:
    (tmp_path / "case.yaml").write_text(STUDY.replace("ROOT", str(faint)))
    code, printed, _ = smoe_ray("data", "info", tmp_path / "case.yaml")
    assert code == 0
    assert any(line.startswith("│ [red]F ") for line in printed.splitlines())
    assert "note: pixel values of the train images of class '[red]F' run from 0 to 85, not from 0 to 255" in printed


def test_a_run_is_told_of_notes_even_when_its_data_were_prepared_before(faint: Path, tmp_path: Path) -> None:
    for _ in range(2):
        events: list[Event] = []
        study = toy_grid(seeds=[0])
        run = StudyRun(StudyPlan(study), str(tmp_path / "out"), tmp_path / "cache", on_event=events.append)
        assert np.array_equal(run.source(ImageData(root=str(faint))).train.image_BHW[0], shifted(1)[0] // 3)
        told = [event.text for event in events if isinstance(event, Notice)]
        assert [text.split(" of ")[0] for text in told] == ["data: pixel values"] * 2
