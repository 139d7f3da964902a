"""Every executor of this project keeps the contract, and an executor that trains nothing does not."""

from __future__ import annotations

import pytest

from smoe_ray.cluster.ray_executor import RayExecutor
from smoe_ray.study import LocalExecutor
from smoe_ray.testing.executors import ExecutorContract, MakeExecutor

pytest_plugins = ["pytester"]

EXECUTORS: dict[str, MakeExecutor] = {
    "local-in-process": lambda fit: LocalExecutor(fit=fit),
    "local-2-jobs": lambda fit: LocalExecutor(jobs=2, fit=fit),
    "ray": lambda fit: RayExecutor(fit=fit),
}


class TestExecutor(ExecutorContract):
    @pytest.fixture(params=EXECUTORS)
    def make_executor(self, request: pytest.FixtureRequest) -> MakeExecutor:
        if request.param == "ray":
            request.getfixturevalue("private_ray")
        return EXECUTORS[request.param]


IDLE = """
import pytest
from smoe_ray.testing.executors import ExecutorContract

class Idle:
    def __getattr__(self, method):
        return lambda *arguments: (record for record in ())

class TestIdle(ExecutorContract):
    @pytest.fixture
    def make_executor(self):
        return lambda fit: Idle()
"""


def test_an_executor_that_trains_nothing_fails_every_test_of_the_contract(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(IDLE)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-q")
    contract = [name for name in vars(ExecutorContract) if name.startswith("test_")]
    result.assert_outcomes(failed=len(contract))
    assert len(contract) == 19
