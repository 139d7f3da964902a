"""The Dockerfile as instructions, and its stages executed on this machine: a folder per stage serves as its root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import NamedTuple

_ABSOLUTE = re.compile(r"(?<![\w.:/$}])/(?=(?:home|opt|src|tmp)\b)")
_PASSED = ("PIP_", "SSL_", "REQUESTS_", "HTTP", "http", "NO_PROXY", "no_proxy")


class Stage(NamedTuple):
    """A FROM and the instructions after it, as (instruction, text)."""

    name: str
    base: str
    steps: list[tuple[str, str]]

    def texts(self, instruction: str) -> list[str]:
        """The texts of one kind of instruction."""
        return [text for kind, text in self.steps if kind == instruction]


def stages(dockerfile: Path) -> dict[str, Stage]:
    """The stages by name."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, Stage] = {}
    current: Stage | None = None
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            current = found[name] = Stage(name, base, [])
        elif current is not None:
            current.steps.append((instruction, rest.strip()))
    return found


def execute(stage: Stage, folder: Path, context: Path, arguments: Mapping[str, str]) -> dict[str, str]:
    """Execute a stage in ``folder/<stage>``; returns its environment. Stages that it copies from must be there.

    A fresh virtual environment of this Python replaces the base image.
    """
    root = folder / stage.name
    subprocess.run([sys.executable, "-m", "venv", root / "base"], check=True)
    environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
    environment |= {"PATH": f"{root}/base/bin:/usr/bin:/bin", "HOME": str(root), "LANG": "C.UTF-8"}
    here = root

    def placed(text: str) -> str:
        return _ABSOLUTE.sub(f"{root}/", text)

    for instruction, text in stage.steps:
        match instruction:
            case "ARG":
                name, _, default = text.partition("=")
                environment[name] = arguments.get(name, default)
            case "ENV":
                for setting in text.split():
                    name, _, value = setting.partition("=")
                    environment[name] = Template(placed(value)).safe_substitute(environment)
            case "WORKDIR":
                here = Path(placed(text))
                here.mkdir(parents=True, exist_ok=True)
            case "COPY":
                *options, target = [word for word in text.split() if not word.startswith("--chown")]
                source = context
                if options[0].startswith("--from="):
                    source = folder / options.pop(0).removeprefix("--from=")
                for each in options:
                    _copy(source / each.lstrip("/"), here / placed(target), into=target.endswith("/"))
            case "RUN":
                subprocess.run(["sh", "-euc", placed(text)], cwd=here, env=environment, check=True)
    return environment


def _copy(source: Path, target: Path, into: bool) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target / source.name if into else target)
