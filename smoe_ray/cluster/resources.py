"""Resource requests of trials: what Tune reserves, and how many trials fit on a cluster at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from smoe_ray.errors import StudyError
from smoe_ray.inspect.machine import in_gb, refuse_beyond
from smoe_ray.spec import ResourcesSpec

if TYPE_CHECKING:
    from ray.tune import PlacementGroupFactory

Node = dict[str, float]
"""Resources of one node, name -> amount, e.g. ``{"CPU": 8, "GPU": 1}``; with ``memory`` (bytes) where it is known."""

_DRIVER = {"memory": 1.0}
"""Request of the function that drives a data-parallel trial: almost nothing, since its workers reserve their own
resources, and a fraction of a CPU here could keep the last worker from starting. Tune rejects an empty bundle."""


def placement(resources: ResourcesSpec) -> PlacementGroupFactory:
    """The placement group that Tune reserves for a trial."""
    from ray.tune import PlacementGroupFactory

    return PlacementGroupFactory([_DRIVER if resources.is_distributed else _worker(resources)])


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's description of each node that is alive."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def cluster_nodes() -> list[Node]:
    """The nodes of a cluster, including those that its autoscaler, if it has one, may still start."""
    from ray._private.state import state

    alive = [_amounts(node["Resources"]) for node in alive_nodes()]
    config = state.get_cluster_config()  # Ray has no public function for the autoscaler's limits
    groups = config.node_group_configs if config is not None else ()
    possible = [_amounts(group.resources) for group in groups for _ in range(_node_limit(group.max_count))]
    return max(alive, possible, key=len)


def capacity(resources: ResourcesSpec, nodes: Iterable[Node]) -> int:
    """How many trials fit at once on empty nodes, each with its minimum number of workers."""
    worker = _worker(resources)
    return sum(_fits(worker, node) for node in nodes) // _fewest_workers(resources)


def refuse_infeasible(requests: Iterable[ResourcesSpec], nodes: Sequence[Node]) -> None:
    """Raise StudyError if one of the requests does not fit on the nodes even when they are all empty."""
    for resources in requests:
        if capacity(resources, nodes) < 1:
            raise StudyError(
                f"resources: a trial asks for {_describe_request(resources)}, but the cluster has {describe(nodes)}; "
                "lower resources of the study or add nodes"
            )


def note_on_memory(peak: int, requests: Iterable[ResourcesSpec], nodes: Sequence[Node], jobs: int | None) -> str | None:
    """What to lower where as many trials as a node has CPUs for need more memory than it has; else None.

    Args:
        peak: estimated memory of each worker of a trial, bytes.
        requests: the resource requests of the study's trials.
        nodes: of the cluster; those whose memory is not known are left out.
        jobs: concurrent trials at most.

    Raises:
        StudyError: not even one fits on the node with the most memory.
    """
    known = [node for node in nodes if node.get("memory")]
    if not known:
        return None
    refuse_beyond(peak, int(max(node["memory"] for node in known)), "the largest node")
    workers = [_worker(request) for request in requests]
    for node in known:
        most = max(_fits(worker, node) for worker in workers)
        at_once = most if jobs is None else min(most, jobs)
        if at_once * peak > node["memory"]:
            return (
                f"trials may run out of memory: each needs about {in_gb(peak)}, and a node with room for {at_once} at "
                f"once has {in_gb(int(node['memory']))}; lower --jobs, training.batch_size or model.num_experts, or "
                "raise resources.cpus"
            )
    return None


def describe(nodes: Sequence[Node]) -> str:
    """The nodes of a cluster in a few words, e.g. ``2 nodes (2 x 4 CPUs and 1 GPU)``."""
    if not nodes:
        return "no nodes"
    kinds = Counter(_describe_amounts(node) for node in nodes)
    return f"{len(nodes)} node{'s' * (len(nodes) > 1)} ({', '.join(f'{n} x {kind}' for kind, n in kinds.items())})"


def _worker(resources: ResourcesSpec) -> Node:
    worker: Node = {"CPU": float(resources.cpus)}
    if resources.gpus:
        worker["GPU"] = resources.gpus
    return worker


def _fewest_workers(resources: ResourcesSpec) -> int:
    return resources.workers if isinstance(resources.workers, int) else resources.workers.min


def _fits(worker: Node, node: Node) -> int:
    return min(_multiples(amount, node.get(name, 0)) for name, amount in worker.items())


def _multiples(requested: float, available: float) -> int:
    if requested < 1:  # a fractional request is served by a single GPU
        return int(available) * int(1 / requested + 1e-9)
    return int(available // requested)


def _amounts(resources: Iterable[tuple[str, float]] | dict[str, float]) -> Node:
    amounts = dict(resources)
    memory = {"memory": amounts["memory"]} if "memory" in amounts else {}
    return {name: float(amounts.get(name, 0)) for name in ("CPU", "GPU")} | memory


def _node_limit(max_count: int) -> int:
    return max_count if max_count >= 0 else 1000  # -1: without limit


def _describe_request(resources: ResourcesSpec) -> str:
    workers = _fewest_workers(resources)
    return _describe_amounts(_worker(resources)) + (f" for each of {workers} workers" if workers > 1 else "")


def _describe_amounts(amounts: Node) -> str:
    cpus, gpus = amounts["CPU"], amounts.get("GPU", 0)
    parts = [f"{cpus:g} CPU{'s' * (cpus != 1)}"] + [f"{gpus:g} GPU{'s' * (gpus != 1)}"] * bool(gpus)
    return " and ".join(parts)
