"""Places for results as people type them: a misspelt URI or an unexpanded variable is refused, not made a folder."""

from __future__ import annotations

import re
from pathlib import Path

from smoe_ray.errors import ResultsError

_STORES = frozenset(
    {"s3", "s3a", "s3n", "gs", "gcs", "az", "abfs", "abfss", "adl", "hdfs", "oss", "http", "https", "file"}
)
"""Protocols that are recognised without ``://``; others may be the beginning of a folder's name."""

_VARIABLE = re.compile(r"\$\{?[A-Za-z_][A-Za-z0-9_]*\}?|^%[A-Za-z_]+%")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_COLON = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*):(?P<slashes>/*)(?P<rest>.*)")
_NO_COLON = re.compile(r"(?P<protocol>[A-Za-z0-9]+)//+(?P<rest>.*)")


def check_place(out: str | Path) -> None:
    """Raise ResultsError for a text that is neither a path nor a URI, and say how it is meant to be written."""
    text = str(out)
    if problem := _problem(text):
        shown = "".join(letter if letter.isprintable() else "?" for letter in text)
        raise ResultsError(f"{shown.strip() or 'empty text'}: {problem}")


def _problem(text: str) -> str | None:
    if not text.strip():
        return "names no place for results; give a folder or a URI"
    if set(text) & set("\n\r\t\0"):
        return "a path or URI is one line of text"
    if variable := _VARIABLE.search(text):
        return f"the shell has left {variable[0]} as it is: write it outside single quotes"
    if _WINDOWS.match(text):
        return "a path of Windows; give a folder of this machine, or a URI"
    if (found := _NO_COLON.fullmatch(text)) and found["protocol"].lower() in _STORES:
        return _as_uri(found)
    if (found := _COLON.fullmatch(text)) is None:
        return None
    protocol, slashes, rest = found["protocol"], found["slashes"], found["rest"]
    if not slashes and protocol.lower() not in _STORES:  # a folder's name may have a colon
        return None
    if len(slashes) != 2 and not (slashes == "///" and protocol in ("file", "memory")):
        return _as_uri(found)
    if protocol != protocol.lower():
        return _as_uri(found)
    return None if rest else f"a URI names a bucket or a folder: {protocol}://..."


def _as_uri(found: re.Match[str]) -> str:
    protocol = found["protocol"].lower()
    return f"a URI is written {protocol}://{'/' if protocol == 'file' else ''}{found['rest']}"
