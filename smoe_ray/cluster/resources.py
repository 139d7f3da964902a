"""What a trial occupies, whether a cluster can host it, and how many of its kind at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from smoe_ray.errors import StudyError
from smoe_ray.spec import ResourcesSpec

if TYPE_CHECKING:
    from ray.tune import PlacementGroupFactory

Node = dict[str, float]
"""Resource -> amount, of one node, e.g. ``{"CPU": 8, "GPU": 1}``."""

_DRIVER = {"memory": 1.0}
"""Of the function that drives a data-parallel trial: next to nothing, for its workers reserve their own, and a part of
a CPU would keep them from the last one. Tune takes no bundle of zeros."""


def placement(resources: ResourcesSpec) -> PlacementGroupFactory:
    """What Tune reserves for a trial."""
    from ray.tune import PlacementGroupFactory

    return PlacementGroupFactory([_DRIVER if resources.is_distributed else _worker(resources)])


def alive_nodes() -> list[dict[str, Any]]:
    """What Ray knows of each node that is there."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def cluster_nodes() -> list[Node]:
    """The nodes that a cluster has, or may have: its autoscaler's too, where it has one."""
    from ray._private.state import state

    alive = [_amounts(node["Resources"]) for node in alive_nodes()]
    config = state.get_cluster_config()  # what the autoscaler may start; Ray has no public function for it
    groups = config.node_group_configs if config is not None else ()
    possible = [_amounts(group.resources) for group in groups for _ in range(_most(group.max_count))]
    return max(alive, possible, key=len)


def room(resources: ResourcesSpec, nodes: Iterable[Node]) -> int:
    """How many trials fit at once on empty nodes, each with the fewest workers that it takes."""
    worker = _worker(resources)
    return sum(_fits(worker, node) for node in nodes) // _fewest_workers(resources)


def refuse_infeasible(asked: Iterable[ResourcesSpec], nodes: Sequence[Node]) -> None:
    """Raise StudyError when the nodes, were they all free, could not host a trial."""
    for resources in asked:
        if room(resources, nodes) < 1:
            raise StudyError(
                f"resources: a trial asks for {_asked(resources)}, but the cluster has {describe(nodes)}; "
                "lower resources of the study or add nodes"
            )


def describe(nodes: Sequence[Node]) -> str:
    """The nodes of a cluster in a few words, e.g. ``2 nodes (2 x 4 CPUs and 1 GPU)``."""
    if not nodes:
        return "no nodes"
    kinds = Counter(_said(node) for node in nodes)
    return f"{len(nodes)} node{'s' * (len(nodes) > 1)} ({', '.join(f'{n} x {kind}' for kind, n in kinds.items())})"


def _worker(resources: ResourcesSpec) -> Node:
    worker: Node = {"CPU": float(resources.cpus)}
    if resources.gpus:
        worker["GPU"] = resources.gpus
    return worker


def _fewest_workers(resources: ResourcesSpec) -> int:
    return resources.workers if isinstance(resources.workers, int) else resources.workers.min


def _fits(worker: Node, node: Node) -> int:
    return min(_times(amount, node.get(name, 0)) for name, amount in worker.items())


def _times(asked: float, available: float) -> int:
    if asked < 1:  # shares of one GPU do not reach over to the next
        return int(available) * int(1 / asked + 1e-9)
    return int(available // asked)


def _amounts(resources: Iterable[tuple[str, float]] | dict[str, float]) -> Node:
    amounts = dict(resources)
    return {name: float(amounts.get(name, 0)) for name in ("CPU", "GPU")}


def _most(max_count: int) -> int:
    return max_count if max_count >= 0 else 1000  # -1: without limit


def _asked(resources: ResourcesSpec) -> str:
    workers = _fewest_workers(resources)
    return _said(_worker(resources)) + (f" for each of {workers} workers" if workers > 1 else "")


def _said(amounts: Node) -> str:
    cpus, gpus = amounts["CPU"], amounts.get("GPU", 0)
    parts = [f"{cpus:g} CPU{'s' * (cpus != 1)}"] + [f"{gpus:g} GPU{'s' * (gpus != 1)}"] * bool(gpus)
    return " and ".join(parts)
