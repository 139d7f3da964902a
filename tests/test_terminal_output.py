"""What is printed reaches any terminal, pipe and file: every encoding, every width, and a disk that is full."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.text import Text

from smoe_ray.results import Store
from smoe_ray.terminal_output import PlainConsole, printable
from support.planted_folder import plant

ARM = "λ_balance"
"""A letter of the arms' labels is in no Western 8-bit encoding."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    plant(out, "demo", seeds=2, embeddings=False)
    return out


def command(*arguments: object, stdout: int | None = subprocess.PIPE, **settings: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "PYTHONUTF8", "LC_ALL")}
    return subprocess.run(
        [sys.executable, "-m", "smoe_ray.cli", *map(str, arguments)],
        stdout=stdout, stderr=subprocess.PIPE, env=kept | settings, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "shift_jis"])
def test_letters_that_the_output_lacks_are_written_as_their_codes(tmp_path: Path, encoding: str) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("name: demo\nquestion: 'Is λ ≤ 1 for 猫 and 😀?'\n", encoding="utf-8")
    ended = command("check", study, PYTHONUTF8="0", PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert r"\U0001f600" in ended.stdout.decode(encoding)


COMMANDS = "\x1b[31m\x1b]0;title\x07\x9b2J\b\r\u202e\x7f"
"""Colour, title and erasure of a terminal, and text written backwards."""


def test_foreign_text_does_not_command_the_terminal(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(json.dumps({"name": "demo", "question": f"a{COMMANDS}b\n<b>[red]c", "axes": {"seed": [1]}}))
    refused = command("check", study)
    study.write_text(json.dumps({"name": "demo", "question": f"a{COMMANDS}b\n<b>[red]c"}))
    shown = command("check", study)
    study.write_text(json.dumps({"name": "demo", "question": "Q?", COMMANDS: 1}))
    unknown = command("check", study)
    assert [ended.returncode for ended in (shown, refused, unknown)] == [0, 1, 1]
    assert "<b>[red]c" in shown.stdout.decode()
    for ended in (shown, refused, unknown):
        assert not set((ended.stdout + ended.stderr).decode()) & set(COMMANDS) - set("[]0123;mtitleJ")
    assert unknown.stderr.count(b"\n") == 1


def test_colours_and_bars_are_our_own() -> None:
    out = io.StringIO()
    console = PlainConsole(file=out, force_terminal=True, width=60, color_system="truecolor")
    console.print(Text(f"a{COMMANDS}b", style="red"))
    assert re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()) == "a [31m ]0;title 2J  b\n"  # rich itself drops some
    assert "\x1b[31ma" in out.getvalue()
    assert printable(f"a\nb\t{COMMANDS}é猫") == "a b  [31m ]0;title  2J    é猫"


def test_an_error_is_one_line_in_any_encoding(tmp_path: Path) -> None:
    ended = command("check", tmp_path / "猫.yaml", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert ended.returncode == 1
    assert ended.stderr.count(b"\n") == 1
    assert ended.stderr.endswith(b".yaml: no such study file\n")


def test_a_file_name_that_is_no_text_is_printed(tmp_path: Path) -> None:
    ended = command("check", os.fsdecode(bytes(tmp_path) + b"/\xff.yaml"), PYTHONIOENCODING="utf-8")
    assert ended.returncode == 1
    assert ended.stderr.count(b"\n") == 1
    assert ended.stderr.endswith(b".yaml: no such study file\n")


@pytest.mark.parametrize("form", [(), ("--csv",), ("--json",)])
def test_a_full_disk_behind_the_output_is_one_line(results: Path, form: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = command("table", results, "demo", *form, stdout=full.fileno())
    assert ended.returncode == 1
    assert ended.stderr.decode() == (
        "smoe-ray: the output cannot be written: No space left on device; make room, or send it elsewhere\n"
    )


def test_a_closed_output_is_no_error(results: Path) -> None:
    line = f"{sys.executable} -m smoe_ray.cli table {results} demo --csv >&-"
    ended = subprocess.run(line, shell=True, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_csv_with_a_byte_order_mark(results: Path) -> None:
    ended = command("table", results, "demo", "--csv", "--bom", PYTHONUTF8="0", PYTHONIOENCODING="cp1252")
    assert ended.stdout.startswith(b"\xef\xbb\xbfarm,seed,")
    assert ended.stdout.count(b"\xef\xbb\xbf") == 1
    assert len(ended.stdout.decode("utf-8-sig").splitlines()) == 9
    assert command("table", results, "demo", "--csv").stdout.startswith(b"arm,seed,")
    assert command("table", results, "demo", "--bom").returncode == 1


def on_terminal(columns: int, *arguments: object) -> list[str]:
    """What a command prints on a terminal of so many columns."""
    ours, its = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    program = subprocess.Popen(
        [sys.executable, "-m", "smoe_ray.cli", *map(str, arguments)], stdout=its, stderr=subprocess.DEVNULL, env=env
    )
    os.close(its)
    text = b""
    try:
        while piece := os.read(ours, 65536):
            text += piece
    except OSError:  # the other end is closed: how a pseudo-terminal says that it is all
        pass
    os.close(ours)
    assert program.wait() == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).splitlines()


@pytest.mark.parametrize("columns", [30, 60, 80, 95, 200])
def test_a_narrow_terminal_keeps_the_arm_and_leaves_out_from_the_right(results: Path, columns: int) -> None:
    head, *rows = on_terminal(columns, "table", results, "demo")
    full = ["arm", "seed", "status", "epoch", "experts", "active", "effective", "test loss", "soft loss", "gap"]
    shown = [heading for heading in full if heading in head]
    assert shown == full[: len(shown)]
    assert head.startswith("arm")
    assert max(map(len, [head, *rows])) <= columns
    assert {row.split(",")[0] for row in rows if "," in row} == {"blend", "likelihood"}
    assert "…" not in "".join(rows)
    if columns == 80:
        assert "test loss" in head
    if columns == 200:
        assert "trial" in head


def test_colours_in_ci_make_no_narrow_terminal(results: Path) -> None:
    ended = command("table", results, "demo", FORCE_COLOR="1")
    assert b"trial" in ended.stdout.splitlines()[0]
    assert b"b" in ended.stdout


def test_what_is_left_out_is_said(results: Path) -> None:
    ended = command("table", results, "demo", COLUMNS="60")
    assert ended.stderr.startswith(b"not shown in 60 columns of text: ")
    assert ended.stderr.rstrip().endswith(b"trial, test KL, active latents, PSNR")


DAMAGE = {
    "cut epochs": ("epochs.parquet", lambda content: content[: len(content) // 2]),
    "empty epochs": ("epochs.parquet", lambda _: b""),
    "cut record": ("trial.json", lambda content: content[:-20]),
    "zeros for a record": ("trial.json", lambda content: bytes(len(content))),
    "another file as record": ("trial.json", lambda _: b"<html>moved</html>"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_one_damaged_file_blocks_nothing(smoe_ray, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    first, *others = plant(out, "demo", seeds=2, embeddings=False)
    file, harm = DAMAGE[damage]
    path = out / "demo" / "trials" / first.trial_id / file
    path.write_bytes(harm(path.read_bytes()))
    for arguments in (
        ("table", out, "demo", "--json"),
        ("status", "demo", "--out", out),
        ("figure", out, "demo", "--to", tmp_path / "figures", "--kind", "training_curves"),
        ("recommend", out, "demo"),
        ("report", out, "demo", "--to", tmp_path / "report"),
    ):
        code, printed, error = smoe_ray(*arguments)
        assert code == 0, (arguments, error)
        [told] = [line for line in error.splitlines() if line.startswith("left out: ")]
        assert str(path) in told
        assert told.index("copy it again") < told.index("run the study again")
        if arguments[0] == "table":
            assert {row["trial_id"] for row in json.loads(printed)} == {record.trial_id for record in others}
    page = (tmp_path / "report" / "index.html").read_text()
    assert str(path) in page
    assert len(pd.read_csv(tmp_path / "report" / "tables" / "arms.csv")) == 4


def test_where_nothing_is_readable_that_is_an_error(smoe_ray, out: Path) -> None:
    for record in plant(out, "demo", seeds=1, embeddings=False):
        Store(out).write(f"demo/trials/{record.trial_id}/epochs.parquet", b"PAR1")
    for arguments in (("table", out, "demo"), ("status", "demo", "--out", out)):
        code, printed, error = smoe_ray(*arguments)
        assert (code, printed) == (1, "")
        assert "copy it again" in error


@pytest.mark.parametrize("content", [b"", b"name: de", b"\xff\xfe", b"kind: grid\nname: demo\nquest"])
def test_a_damaged_study_file_leaves_the_counts(smoe_ray, out: Path, content: bytes) -> None:
    plant(out, "demo", seeds=1, embeddings=False)
    Store(out).write("demo/study.yaml", content)
    code, printed, error = smoe_ray("status", "demo", "--out", out)
    assert code == 0
    assert "4 finished" in printed
    assert "study.yaml" in error
    assert "copy it again" in error
