"""Payload and id of a job that runs a study on a cluster: the files it receives, and how its id is built."""

from __future__ import annotations

import hashlib
import json
import re

STUDY_FILE = "study.yaml"
JOB_FILE = "job.json"
DIGEST_LENGTH = 8
"""Hex digits."""


def files(text: str, out: str, strict: bool = False) -> dict[str, str]:
    """The files that a job receives, name -> content: the study (YAML), and OUT and `strict` (JSON)."""
    return {STUDY_FILE: text, JOB_FILE: json.dumps({"out": out} | ({"strict": True} if strict else {}))}


def out_of(job: str) -> str:
    """Where results go, from the content of `JOB_FILE`."""
    return str(json.loads(job)["out"])


def is_strict(job: str) -> bool:
    """Whether a diverged trial fails the job, from the content of `JOB_FILE`."""
    return bool(json.loads(job).get("strict", False))


def digest(text: str, out: str) -> str:
    """Hash of a study (YAML) and its OUT in `DIGEST_LENGTH` hex digits, by which their jobs are recognised."""
    return hashlib.sha256(json.dumps([text, out]).encode()).hexdigest()[:DIGEST_LENGTH]


def attempt_of(name: str, job: str) -> int | None:
    """Which submission `job` is, from 1, of the study whose first job is called `name`; None if it is not one of them.

    Submissions are called ``name``, ``name-2``, ``name-3`` and so on.
    """
    match = re.fullmatch(re.escape(name) + r"(?:-([0-9]+))?", job)
    return int(match[1] or 1) if match else None
