"""Results of strangers: whatever is in them, no page shows a traceback, hangs, or passes their text on as markup."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

from smoe_ray.results import Store, TrialFolder, TrialRecord, read_trials
from smoe_ray.spec import trial_with
from smoe_ray_dashboard.navigation import pages
from support.planted_folder import plant

Open = Callable[..., AppTest]
SCRIPT = "<script>alert(1)</script>"
MARKUP = (
    f'{SCRIPT}<img src=x onerror="alert(1)"> [click](javascript:alert(1)) ![p](http://evil/p.png) :red[x] $x$ `y` **b**'
)
SHOWN = [page.name for page in pages() if page.name != "submit"]  # Submit reads no results


def folder(out: Path, record: TrialRecord) -> Path:
    return out / record.study / "trials" / record.trial_id


def rewrite(out: Path, record: TrialRecord, **changes: Any) -> None:
    TrialFolder(Store(out), record.study, record.trial_id).write_record(record.model_copy(update=changes))


def markup(out: Path) -> None:
    """Markup wherever a record or a study holds free text."""
    records = plant(out, "demo", question=MARKUP, class_names=(MARKUP, "b", "c"))
    facts = records[0].data
    assert facts is not None
    facts = facts.model_copy(update={"style_names": (MARKUP,), "fingerprint": MARKUP})
    failure = {"error": MARKUP, "error_kind": MARKUP, "traceback": MARKUP}
    rewrite(out, records[0], status="failed", host=MARKUP, data=facts, **failure)
    rewrite(out, records[1], status="pruned", reason=MARKUP, data=facts)
    for record in records[2:]:
        drawings = {"data": {"source": "quickdraw", "classes": ["cat", "eye"], "root": MARKUP}}
        spec = trial_with(record.spec, drawings) if record is records[2] else record.spec
        rewrite(out, record, host=MARKUP, spec=spec, data=facts)


def wrong_schema(out: Path) -> None:
    """Parquet files of other people's making."""
    tables = [
        pa.table({"epoch": [1, 2], "test.reconstruction": ["a", SCRIPT]}),
        pa.table({"epoch": ["one"]}),
        pa.table({SCRIPT: [1.0]}),
        pa.table({"epoch": [1], "experts.usage": [[["deep"]]]}),
        pa.table({"epoch": pa.array([], pa.int64())}),
        pa.table(
            {"epoch": [1, 1, None], "test.reconstruction": [1.0, float("inf"), float("nan")], SCRIPT: [1.0, 2.0, 3.0]}
        ),
    ]
    for record, table in zip(plant(out, "demo"), tables, strict=False):
        pq.write_table(table, folder(out, record) / "epochs.parquet")


def missing_column(out: Path) -> None:
    """Every trial lacks what most pages are about."""
    for record in plant(out, "demo"):
        path = folder(out, record) / "epochs.parquet"
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["test.reconstruction", "experts.active", "experts.usage"]), path)


def half_written(out: Path) -> None:
    """Every file ends in its middle, or is empty."""
    for number, record in enumerate(plant(out, "demo")):
        for path in folder(out, record).iterdir():
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2] if number % 2 else b"")
    (out / "demo" / "study.yaml").write_bytes(b"name: demo\nquest")


def huge(out: Path) -> None:
    """Files that are too large to read, most of them holes."""
    for record in plant(out, "demo"):
        for path in folder(out, record).iterdir():
            with path.open("r+b") as file:
                file.truncate(20_000_000_000)
    for name in ("study.yaml", "optuna.journal"):
        with (out / "demo" / name).open("a+b") as file:
            file.truncate(20_000_000_000)


def wrong_embeddings(out: Path) -> None:
    """Arrays of shapes and types that do not belong together; a pickle among them; weights of another model."""
    records = plant(out, "demo", per_class=(100, 200))
    parts: list[dict[str, Any]] = [
        {"mu": np.zeros((3, 2)), "label": np.zeros(5, int), "expert": np.full(4, 99), "gate": np.zeros((3, 1))},
        {"mu": np.array([{"a": 1}], dtype=object)},
        {},
        {name: np.full((60, 2), np.nan, np.float32) for name in ("mu", "label", "expert", "gate", "image")},
    ]
    for number, record in enumerate(records):
        np.savez(folder(out, record) / "embeddings.npz", **parts[number % len(parts)])
        (folder(out, record) / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")


def empty_folders(out: Path) -> None:
    """Ten thousand folders with nothing in them, beside a study and in it."""
    plant(out, "demo", seeds=1)
    for number in range(10_000):
        (out / f"empty-{number}").mkdir()
        (out / "demo" / "trials" / f"empty-{number}").mkdir()


def strange_names(out: Path) -> None:
    """Folders and files where no study would put them, links that go round."""
    records = plant(out, "demo")
    shutil.copytree(out / "demo", out / SCRIPT.replace("/", ""))
    (out / "demo" / "trials" / "a-file").write_text(SCRIPT)
    (out / "demo" / "trials" / "round").symlink_to(out)
    folder(out, records[0]).rename(folder(out, records[0]).with_name("other"))
    (out / "notes").mkdir()
    (out / "notes" / "study.yaml").write_text("just: notes")


def wild_numbers(out: Path) -> None:
    """Numbers that no training gives: nothing finite, nothing positive, experts by the million."""
    for number, record in enumerate(plant(out, "demo")):
        rows = TrialFolder(Store(out), "demo", record.trial_id).read_rows()
        for row in rows:
            bad = [float("nan"), float("inf"), -1.0, 0.0][number % 4]
            row.update({name: bad for name in row if name.startswith(("test.", "train.")) and row[name] is not None})
            row.update({"experts.configured": 10**12, "experts.active": -5, "experts.usage": [bad] * 3})
        TrialFolder(Store(out), "demo", record.trial_id).write_epochs(rows)


def nothing_finished(out: Path) -> None:
    """A study of which every trial failed at once."""
    for record in plant(out, "demo"):
        rewrite(out, record, status="failed", error="no", data=None)
        (folder(out, record) / "epochs.parquet").unlink()


def wrong_journal(out: Path) -> None:
    """A search whose history is no journal."""
    plant(out, "demo")
    study = {
        "kind": "search",
        "name": "demo",
        "question": MARKUP,
        "space": {"model.num_experts": {"type": "int", "low": 2, "high": 9}},
        "objectives": [{"metric": "test.reconstruction", "direction": "minimize"}],
        "num_trials": 5,
    }
    (out / "demo" / "study.yaml").write_text(json.dumps(study))
    (out / "demo" / "optuna.journal").write_text(f'{{"op_code": 0, "study_name": "{SCRIPT}"}}\n[1]\n\x00')


HOSTILE = (
    markup,
    wrong_schema,
    missing_column,
    half_written,
    huge,
    wrong_embeddings,
    empty_folders,
    strange_names,
    wild_numbers,
    nothing_finished,
    wrong_journal,
)


@pytest.fixture(scope="module", params=HOSTILE, ids=lambda make: make.__name__)
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What is wrong, and OUT."""
    out = tmp_path_factory.mktemp("hostile") / "out"
    request.param(out)
    return request.param.__name__, out


@pytest.mark.parametrize("view", SHOWN)
def test_no_page_breaks(open_page: Open, hostile: tuple[str, Path], view: str) -> None:
    wrong, out = hostile
    lacks_parts = (wrong, view) == ("wild_numbers", "loss_surface")  # the logarithm of a negative loss
    at = open_page(view, out, study="demo", may_lack_parts=lacks_parts)  # which fails on a traceback on the page
    assert at.title
    sentences = [*at.markdown, *at.caption, *at.info, *at.warning, *at.error, *at.success, *at.title, *at.subheader]
    for sentence in sentences:
        assert not re.search(r"(?<!\\)(<script|<img|!\[|\]\(|:red\[|\*\*b)", sentence.value), sentence.value
        assert not getattr(sentence, "allow_html", False) or "alert" not in sentence.value
    for chart in at.get("plotly_chart"):
        spec = json.dumps(json.loads(chart.proto.spec))  # Plotly itself writes every < of any text as \\u003c
        assert "<script" not in spec
        assert "<img" not in spec
    for widget in (*at.radio, *at.get("button_group"), *at.checkbox, *at.toggle):
        assert "<script" not in str(widget.proto)


def test_markup_is_seen_as_text(open_page: Open, tmp_path: Path) -> None:
    markup(tmp_path / "out")
    failed = next(record for record in read_trials(tmp_path / "out", "demo") if record.status == "failed")
    escaped = r"\<script\>alert\(1\)\<\/script\>"  # for Markdown
    [error] = open_page("trial", tmp_path / "out", study="demo", trial=failed.trial_id).error
    assert error.value.count(escaped) == 2  # as the kind of the error, and in its message
    assert any(escaped in caption.value for caption in open_page("experts", tmp_path / "out", study="demo").caption)
    charts = open_page("routing", tmp_path / "out", study="demo").get("plotly_chart")
    assert any("&lt;script&gt;alert(1)&lt;/script&gt;" in str(json.loads(chart.proto.spec)) for chart in charts)
    shown_as_is = open_page("studies", tmp_path / "out", study="demo").text
    assert any(SCRIPT in text.value for text in shown_as_is)


@pytest.mark.parametrize("view", SHOWN)
def test_what_is_wrong_is_said(open_page: Open, tmp_path: Path, view: str, said: Callable[[AppTest], str]) -> None:
    half_written(tmp_path / "out")
    at = open_page(view, tmp_path / "out", study="demo")
    assert [one.label for one in at.expander if "cannot be read" in one.label]
    assert any("run the study again" in code.value for code in at.code)


@pytest.mark.parametrize("view", SHOWN)
def test_trials_whose_epochs_alone_are_broken_are_named(open_page: Open, tmp_path: Path, view: str) -> None:
    record, *_ = plant(tmp_path / "out", "demo")
    (folder(tmp_path / "out", record) / "epochs.parquet").write_bytes(b"PAR1")
    at = open_page(view, tmp_path / "out", study="demo")
    assert "1 file cannot be read: its trial is left out" in [one.label for one in at.expander]
    assert any(f"{record.trial_id}/epochs.parquet" in code.value for code in at.code)
