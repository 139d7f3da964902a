"""What a process prints, kept to what its user can read: any encoding of the terminal, no chatter of libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path


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
