"""How many trials a cluster has room for, and how it is said that there is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoe_ray.cluster.resources import capacity, describe, note_on_memory, refuse_infeasible
from smoe_ray.errors import StudyError
from smoe_ray.spec import ResourcesSpec

NODES = [{"CPU": 4.0, "GPU": 0.0}, {"CPU": 16.0, "GPU": 2.0}]


@pytest.mark.parametrize(
    ("asked", "fit"),
    [
        ({"cpus": 1}, 20),
        ({"cpus": 3}, 6),
        ({"cpus": 5}, 3),  # the CPUs of two nodes do not add up for one worker
        ({"cpus": 17}, 0),
        ({"gpus": 1}, 2),
        ({"gpus": 0.5}, 4),
        ({"gpus": 0.3}, 6),  # three on each GPU: a share does not reach over to the next
        ({"gpus": 0.1}, 16),  # the CPUs end first
        ({"gpus": 2}, 1),
        ({"gpus": 4}, 0),
        ({"cpus": 4, "workers": 5}, 1),  # but the workers of one trial may be on several nodes
        ({"cpus": 4, "workers": 6}, 0),
        ({"cpus": 8, "workers": {"min": 1, "max": 9}}, 2),
    ],
)
def test_capacity(asked: dict[str, object], fit: int) -> None:
    resources = ResourcesSpec.model_validate(asked)
    assert capacity(resources, NODES) == fit
    if fit:
        refuse_infeasible([resources], NODES)
    else:
        with pytest.raises(StudyError, match=r"the cluster has 2 nodes \(1 x 4 CPUs, 1 x 16 CPUs and 2 GPUs\)"):
            refuse_infeasible([ResourcesSpec(), resources], NODES)


@given(st.integers(1, 9), st.integers(0, 40), st.sampled_from([0.0, 0.2, 0.25, 0.5, 1.0, 2.0]), st.integers(0, 8))
def test_what_fits_does_not_exceed_what_there_is(cpus: int, cpu: int, gpus: float, gpu: int) -> None:
    fit = capacity(ResourcesSpec(cpus=cpus, gpus=gpus), [{"CPU": float(cpu), "GPU": float(gpu)}])
    assert fit * cpus <= cpu
    assert fit * gpus <= gpu + 1e-9


def test_an_empty_cluster_is_called_so() -> None:
    assert describe([]) == "no nodes"


def test_memory_of_nodes_is_compared_with_what_trials_need_at_once() -> None:
    GB = 10**9
    nodes = [{"CPU": 4.0, "GPU": 0.0, "memory": 8.0 * GB}, {"CPU": 64.0, "GPU": 0.0}]  # of one it is not known
    assert note_on_memory(2 * GB, [ResourcesSpec()], nodes, jobs=None) is None
    note = note_on_memory(3 * GB, [ResourcesSpec()], nodes, jobs=None)
    assert note is not None
    assert "each needs about 3.0 GB, and a node with room for 4 at once has 8.0 GB; lower --jobs" in note
    assert note_on_memory(3 * GB, [ResourcesSpec()], nodes, jobs=2) is None
    assert note_on_memory(3 * GB, [ResourcesSpec(cpus=2)], nodes, jobs=None) is None
    with pytest.raises(StudyError, match=r"a trial needs about 11\.0 GB of memory, and the largest node has 8\.0 GB"):
        note_on_memory(11 * GB, [ResourcesSpec()], nodes, jobs=1)
    assert note_on_memory(11 * GB, [ResourcesSpec()], nodes[1:], jobs=None) is None
