"""Fixtures of the study tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from smoe_ray.results import Timings, TrialRecord, Versions
from smoe_ray.results.record import now
from smoe_ray.spec import TrialSpec


@pytest.fixture
def make_record() -> Callable[..., TrialRecord]:
    def make(spec: TrialSpec, **changes: Any) -> TrialRecord:
        fields: dict[str, Any] = {
            "study": "demo",
            "trial_id": "aaaaaaaaaaaa",
            "status": "finished",
            "spec": spec,
            "host": "here",
            "versions": Versions.here(),
            "timings": Timings(started_at=now()),
        }
        return TrialRecord(**(fields | changes))

    return make
