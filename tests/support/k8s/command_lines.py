"""Command lines, parsed by the programs that they name."""

from __future__ import annotations

import shlex
from typing import Any

import ray.scripts.scripts as ray_cli
import typer.main

from smoe_ray import cli


def parse(words: list[str]) -> dict[str, Any]:
    """The parameters of a command of `ray` or `smoe-ray`, by its own parser, which rejects unknown options."""
    program, *arguments = words
    command: Any = {"ray": ray_cli.cli, "smoe-ray": typer.main.get_command(cli.app)}[program]
    while hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]
    parameters: dict[str, Any] = command.make_context(command.name, arguments).params
    return parameters


def ray_commands(line: str) -> list[list[str]]:
    """The simple commands of `ray` in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if word in (";", "&&", "then", "do", "if", "!", "until", ">"):
            found.append([])
        else:
            found[-1].append(word)
    return [words for words in found if words[:1] == ["ray"]]
