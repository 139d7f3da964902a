"""A Ray of the tests' own: one a module, two CPUs, on this machine alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from smoe_ray.cluster.runtime import connected, environment

TESTS = str(Path(__file__).resolve().parent)


def seeing_tests() -> dict[str, str]:
    """Environment in which the processes of a Ray find the modules of the tests."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH"))))}


@pytest.fixture(scope="module")
def private_ray() -> Iterator[None]:
    with environment(seeing_tests()), connected(None, num_cpus=2):
        yield
