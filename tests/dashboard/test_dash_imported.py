"""A trial that was imported, on the pages about one trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

from smoe_ray.spec import parse_study
from smoe_ray.study.importing import import_checkpoint
from support.released_checkpoint import write_released

STUDY = """
name: released
question: What do the released weights reach?
base:
  data: {source: synthetic, classes: [face, cat], train_per_class: 20, test_per_class: 12}
  model: {num_experts: 3, encoder: lite}
"""


def test_it_says_where_it_is_from_and_shows_its_experts(
    open_page: Callable[..., AppTest], out: Path, tmp_path: Path
) -> None:
    write_released(tmp_path / "it.pth", 3, encoder="lite")
    record = import_checkpoint(tmp_path / "it.pth", parse_study(STUDY), out, device="cpu")
    assert record.imported is not None
    of_trial = {"study": "released", "trial": record.trial_id}
    facts = dict(open_page("trial", out, **of_trial).dataframe[0].value.itertuples(index=False, name=None))
    assert facts["imported from"] == f"it.pth, SHA-256 {record.imported.sha256}"
    assert len(open_page("experts", out, **of_trial).get("image")) > 0
