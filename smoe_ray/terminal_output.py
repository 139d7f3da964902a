"""What a process prints, kept to what its user can read: any encoding of the terminal, no chatter of libraries, and no
characters that command the terminal, whoever wrote the text: a study's question, a class, a log, an answer.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.segment import Segment

_COMMANDS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
"""Controls of ASCII and Latin-1 but tab and line feed, and those that turn the direction of writing."""
_COMMAND = re.compile(f"[{_COMMANDS}]")
_COMMAND_OR_BREAK = re.compile(f"[{_COMMANDS}\t\n\u2028\u2029]")


def printable(text: str) -> str:
    """Foreign text on one line and without control characters: there is a space for each."""
    return _COMMAND_OR_BREAK.sub(" ", text)


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text, perhaps foreign and of several lines, without control characters; on standard error if `err`."""
    typer.echo(_COMMAND.sub(" ", str(text)), err=err, nl=nl)


class PlainConsole(Console):
    """A console of rich that prints no control characters but its own."""

    def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:
        """Segments of what is printed."""
        for segment in super().render(*arguments, **options):
            yield segment if segment.control else Segment(_COMMAND.sub(" ", segment.text), segment.style)


def print_whatever_the_encoding() -> None:
    r"""Write characters that the output's encoding lacks as ``\u03bb``: printing never raises, and stays distinct.

    Encodings without them are those of LC_ALL=C, of ISO-8859 locales and of redirected output on Windows; UTF-8 lacks
    the undecodable bytes of file names. A standard stream that is closed is replaced by one that discards.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # open to the end
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def keep_libraries_quiet() -> None:
    """Print no warnings and log records of libraries: what a user must know, our own messages say."""
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())  # else Python prints records that no handler takes


def discard_stdout() -> None:
    """Discard what is still buffered for standard output, which the interpreter would try to write at its end."""
    with suppress(OSError, ValueError):  # a stream without a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
