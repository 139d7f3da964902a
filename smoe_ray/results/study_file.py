"""`study.yaml` as a run writes it: the study's YAML text, and in its last line, a comment, the SHA-256 of that text."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress

from smoe_ray.errors import SmoeRayError, StudyError
from smoe_ray.results.store import Store

_COMMENT = b"# sha256: "


def seal_study(text: bytes) -> bytes:
    """The content of `study.yaml`."""
    return text + _COMMENT + hashlib.sha256(text).hexdigest().encode() + b"\n"


def study_text(content: bytes, origin: str) -> str:
    """The YAML text in the content of a `study.yaml`; those of earlier versions have no checksum.

    Raises:
        StudyError: its checksum is another; the message begins with `origin`.
    """
    text, comment, _ = content.rpartition(_COMMENT)
    if not comment:
        return content.decode(errors="replace")
    if seal_study(text) != content:
        raise StudyError(f"{origin}: damaged (not what was written: its SHA-256 is another)")
    return text.decode(errors="replace")


def equivalence_margin(store: Store, study: str) -> float | None:
    """The margin that a study's `study.yaml` names; None if it names none or cannot be read.

    Found by the line that `dump_study` writes: to parse a file that anyone may have written takes long, or never ends.
    """
    try:
        text = read_study_text(store, study) or ""
    except SmoeRayError:
        return None
    found = re.search(r"^equivalence_margin: ([0-9.e+-]+)$", text, re.MULTILINE)
    with suppress(ValueError):
        return float(found[1]) if found else None
    return None


def read_study_text(store: Store, study: str) -> str | None:
    """The YAML text of a study in OUT; None if it has no `study.yaml`.

    Raises:
        StudyError: its checksum is another.
        ResultsError: it cannot be read.
    """
    name = f"{study}/study.yaml"
    content = store.read(name)
    return None if content is None else study_text(content, store.path(name))
