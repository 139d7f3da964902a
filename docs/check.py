"""Checks the documentation against the program: links, commands and columns. `make check` runs it; exit code 1 on any.

- every relative link of a Markdown file leads to a file;
- every `smoe-ray` command of a page, or of the comments of a study, names a verb and options that exist, and study
  files that exist (`tests/test_documented_commands.py` runs them);
- every YAML block that is a study validates;
- docs/metrics.md describes every column of the results and of the report's tables, and every kind of figure; its tables
  of results columns are those of `smoe_ray.columns`: ``python docs/check.py --write`` renews them.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer.main

from smoe_ray import columns
from smoe_ray.cli import app
from smoe_ray.errors import SmoeRayError
from smoe_ray.figures import FIGURES
from smoe_ray.spec import parse_study

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / "benchmarks").rglob("*.md"),
    ]
)

STUDIES = sorted((ROOT / "studies").rglob("*.yaml"))


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Relative links that lead nowhere."""
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)|src=\"([^\"]+)\"", text):
        link = next(filter(None, target))
        if not re.match(r"[a-z]+:", link) and not (page.parent / link).exists():
            yield f"link to {link} leads nowhere"


def commands(text: str) -> Iterator[list[str]]:
    """Words after ``smoe-ray`` of every command in the code blocks and between the backquotes of a Markdown page."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if command := re.match(r"[$#>\s]*(?:[a-z]+=\$\()?(?:\.venv/bin/)?smoe-ray\s+([^)]*)", line):
            yield shlex.split(command[1], comments=True)
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for command in re.findall(r"`smoe-ray ([a-z][^`…]*)`", prose):
        yield shlex.split(command)


def commands_of_study(text: str) -> Iterator[list[str]]:
    """The same of the comments of a study file."""
    comments = "\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#"))
    for command in re.findall(r"^ +smoe-ray (.*)$", comments.replace("\\\n", " "), re.MULTILINE):
        yield shlex.split(command)


def wrong_commands(found: Iterable[list[str]]) -> Iterator[str]:
    """What is wrong with commands: a verb, an option or a study file that is not there."""
    program = typer.main.get_command(app)
    for words in found:
        yield from _wrong_words(program, list(words))


def _wrong_words(command: Any, words: list[str]) -> Iterator[str]:
    while hasattr(command, "commands"):  # a group of verbs; typer brings a click of its own, so no isinstance
        if not words:  # the group is only mentioned
            return
        name = words.pop(0)
        if name not in command.commands:
            yield f"no verb '{name}'"
            return
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--debug"}
    for word in words:
        if word.startswith("-") and word.partition("=")[0] not in known:
            yield f"smoe-ray {command.name} has no option {word}"
        if word.startswith("studies/") and not (ROOT / word).exists():
            yield f"study file {word} is not there"


def invalid_studies(text: str) -> Iterator[str]:
    """YAML blocks that begin as a study and are none."""
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        if block.startswith("kind:"):
            try:
                parse_study(block, origin="YAML block")
            except SmoeRayError as error:
                yield str(error)


def undescribed_columns(text: str) -> Iterator[str]:
    """Columns of the results, columns of the report and kinds of figures that docs/metrics.md does not name."""
    for what, names in (("column", columns.COLUMNS), ("figure", FIGURES)):
        for name in names:
            if f"`{name}`" not in text:
                yield f"{what} {name} is not described"
    if with_column_tables(text) != text:
        yield "its tables of results columns are not those of smoe_ray/columns.py: run 'python docs/check.py --write'"


def _meaning(column: columns.Column) -> str:
    """With the family of models, of a column that one has which is not the first."""
    return column.meaning if column.family in (None, "smoe_vae") else f"{column.family} models: {column.meaning}"


def with_column_tables(text: str) -> str:
    """docs/metrics.md with the tables between ``<!-- columns: NAME -->`` and ``<!-- end -->`` made anew."""

    def table(found: re.Match[str]) -> str:
        rows = ["| column | meaning | unit, range | source |", "|---|---|---|---|"]
        rows += [
            f"| `{column.name}` | {_meaning(column)} | {column.unit} | {column.source} |"
            for column in getattr(columns, found[1].upper())
        ]
        return f"<!-- columns: {found[1]} -->\n" + "\n".join(rows) + "\n<!-- end -->"

    return re.sub(r"<!-- columns: ([a-z]+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def main() -> None:
    """Print every problem; exit with 1 if there is one."""
    if sys.argv[1:] == ["--write"]:
        metrics = ROOT / "docs" / "metrics.md"
        metrics.write_text(with_column_tables(metrics.read_text(encoding="utf-8")), encoding="utf-8")
    problems = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found = [*broken_links(page, text), *wrong_commands(commands(text)), *invalid_studies(text)]
        if page.name == "metrics.md":
            found += undescribed_columns(text)
        problems += [f"{page.relative_to(ROOT)}: {problem}" for problem in found]
    for study in STUDIES:
        found = wrong_commands(commands_of_study(study.read_text(encoding="utf-8")))
        problems += [f"{study.relative_to(ROOT)}: {problem}" for problem in found]
    sys.stdout.write("\n".join([*problems, f"docs: {len(PAGES)} pages checked, {len(problems)} problems"]) + "\n")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
