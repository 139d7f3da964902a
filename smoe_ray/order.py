"""A study on its way to a cluster: the files that it travels as, and what tells its jobs from others."""

from __future__ import annotations

import hashlib
import json
import re

STUDY_FILE = "study.yaml"
ORDER_FILE = "job.json"
DIGEST_LENGTH = 8


def files(text: str, out: str) -> dict[str, str]:
    """What the job reads, name -> content: the study (YAML) and where its results go."""
    return {STUDY_FILE: text, ORDER_FILE: json.dumps({"out": out})}


def out_of(order: str) -> str:
    """Where results go, by the content of `ORDER_FILE`."""
    return str(json.loads(order)["out"])


def digest(text: str, out: str) -> str:
    """Tells a study (YAML) into an OUT from every other: 8 hex digits."""
    return hashlib.sha256(json.dumps([text, out]).encode()).hexdigest()[:DIGEST_LENGTH]


def attempt_of(name: str, job: str) -> int | None:
    """Which submission of the study whose first job is called `name` a job is, from 1; None for one of another study.

    They are called ``name``, ``name-2``, ``name-3`` and so on.
    """
    match = re.fullmatch(re.escape(name) + r"(?:-([0-9]+))?", job)
    return int(match[1] or 1) if match else None
