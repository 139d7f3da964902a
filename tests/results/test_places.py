"""Places for results as people mistype them: refused in one line that says how to write it, and no folder is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoe_ray.errors import ResultsError
from smoe_ray.results import Store, check_place

WRONG = {
    "s3:/bucket/x": "a URI is written s3://bucket/x",
    "s3:bucket/x": "a URI is written s3://bucket/x",
    "s3//bucket/x": "a URI is written s3://bucket/x",
    "s3:///bucket/x": "a URI is written s3://bucket/x",
    "S3://bucket/x": "a URI is written s3://bucket/x",
    "gs:/bucket": "a URI is written gs://bucket",
    "Gs//bucket": "a URI is written gs://bucket",
    "file:/tmp/x": "a URI is written file:///tmp/x",
    "head:/mnt/results": "a URI is written head://mnt/results",
    "s3://": "a URI names a bucket or a folder",
    "$HOME/results": r"the shell has left \$HOME as it is",
    "${HOME}/results": r"the shell has left \$\{HOME\} as it is",
    "results/$RUN": r"the shell has left \$RUN as it is",
    "%USERPROFILE%/results": "the shell has left %USERPROFILE% as it is",
    r"C:\results": "a path of Windows",
    "c:/results": "a path of Windows",
    r"\\server\share": "a path of Windows",
    "": "empty text: names no place for results",
    "  ": "names no place for results",
    "results\nmore": "a path or URI is one line of text",
}


@pytest.mark.parametrize("out", WRONG)
def test_a_mistyped_place_is_refused(out: str) -> None:
    with pytest.raises(ResultsError, match=WRONG[out]) as caught:
        Store(out)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "out",
    [
        "results", "./results", "../a//b", "/mnt/results", "a:b", "run 12:30/x", "costs$", "a $(b)", "5$/x", "100%",
        "s3", "s3/x", "data//x", "~/results", "file:///tmp/x", "memory://x", "mémoire/猫", Path("results"),
    ],
)  # fmt: skip
def test_paths_and_uris_are_taken_as_they_are(out: str | Path) -> None:
    check_place(out)
    assert Store(out).out == str(out)


@pytest.mark.parametrize("out", ["s3:/bucket/x", "$HOME/results", "gs//b"])
@pytest.mark.parametrize(
    "command",
    [
        ("run", "{study}", "--executor", "local", "--jobs", 0, "--out", "{out}"),
        ("submit", "{study}", "--address", "http://127.0.0.1:9", "--out", "{out}"),
        ("table", "{out}", "tiny"),
        ("status", "tiny", "--out", "{out}"),
        ("report", ".", "--to", "{out}"),
        ("figure", ".", "tiny", "--to", "{out}"),
        ("data", "fetch", "cat", "--to", "{out}"),
        ("dashboard", "{out}"),
    ],
    ids=lambda command: command[0],
)
def test_no_command_makes_a_folder_of_it(
    smoe_ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...], out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").mkdir()
    Path("tiny/study.yaml").write_text("name: tiny\nquestion: q\n")
    before = sorted(tmp_path.rglob("*"))
    words = [out if word == "{out}" else "tiny/study.yaml" if word == "{study}" else word for word in command]
    code, printed, error = smoe_ray(*words)
    assert (code, printed) == (1, "")
    assert error.startswith(f"smoe-ray: {out}: ")
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_figures_and_downloads_are_for_a_folder_of_this_machine(smoe_ray, tmp_path: Path) -> None:
    for command in (("figure", tmp_path, "tiny"), ("data", "fetch", "cat")):
        code, _, error = smoe_ray(*command, "--to", "s3://bucket/x")
        assert (code, error) == (
            1,
            "smoe-ray: --to s3://bucket/x: give a folder of this machine; copy from there to a URI\n",
        )
