"""The rehearsal's generator of pods against pods that KubeRay 1.7.0's own operator created from the same manifests."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from support.k8s.kuberay_pods import (
    probes,
    ray_command,
    ray_environment,
    submit_command,
    token_environment,
    wait_command,
)
from support.k8s.manifests import Built, Manifest, one

HEAD = "golden-487ecc38-vx9jj-head-svc.smoe-ray.svc.cluster.local"
OF_NO_EFFECT_HERE = {"RAY_CLUSTER_NAMESPACE", "KUBERAY_GEN_RAY_START_CMD", "RAY_USAGE_STATS_EXTRA_TAGS"}
"""Variables of the operator that nothing in the rehearsal reads: the autoscaler, a record of the command, telemetry."""


@pytest.fixture(scope="module")
def pods(shared_data: Path) -> dict[str, Manifest]:
    """The submitter, the worker and the head of a RayJob."""
    found = json.loads((shared_data / "kuberay/golden/local-rayjob-pods.json").read_text())["items"]
    return {pod["metadata"]["labels"].get("ray.io/node-type", "submitter"): pod for pod in found}


def command(container: Manifest) -> list[str]:
    """Without differences of white space, which a shell does not see."""
    return [" ".join(word.split()) for word in [*container["command"], *container["args"]]]


def environment(container: Manifest) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in container["env"]}


@pytest.mark.parametrize("role", ["head", "worker"])
def test_ray_starts_as_the_operator_starts_it(built: Built, pods: dict[str, Manifest], role: str) -> None:
    cluster = one(built["overlays/local"], "RayCluster")["spec"]
    is_head = role == "head"
    group = cluster["headGroupSpec"] if is_head else cluster["workerGroupSpecs"][0]
    container = pods[role]["spec"]["containers"][0]
    assert ray_command(group, head=is_head, head_address=HEAD) == command(container)

    theirs = environment(container)
    added = ray_environment(group, head=is_head, head_address=HEAD, pod="p", cluster="c") | token_environment("t")
    own = {each["name"] for each in group["template"]["spec"]["containers"][0]["env"]}
    assert set(theirs) - own - OF_NO_EFFECT_HERE == set(added)
    for name, value in added.items():
        assert theirs[name] in (None, value), name  # None: from a field of the pod, or a Secret


def probes_of(container: Manifest) -> Manifest:
    return {key: value for key, value in container.items() if key.endswith("Probe")}


@pytest.mark.parametrize("role", ["head", "worker"])
def test_the_operator_adds_probes_of_rays_container_alone(pods: dict[str, Manifest], role: str) -> None:
    spec = pods[role]["spec"]
    rays, *others = spec["containers"]
    assert probes(head=role == "head") == probes_of(rays)
    assert [probes_of(each) for each in [*others, *spec.get("initContainers", ())]] == [{}]


def test_a_worker_waits_for_the_head_as_the_operators_does(pods: dict[str, Manifest]) -> None:
    [waiting] = pods["worker"]["spec"]["initContainers"]
    assert [" ".join(word.split()) for word in wait_command(HEAD)] == command(waiting)


@pytest.mark.parametrize("name", ["prod-head", "prod-workers"])
def test_pods_of_the_overlay_production_have_the_same_probes(shared_data: Path, name: str) -> None:
    found = json.loads((shared_data / f"kuberay/golden/{name}.json").read_text())
    for pod in found.get("items", [found]):
        is_head = pod["metadata"]["labels"]["ray.io/node-type"] == "head"
        assert probes_of(pod["spec"]["containers"][0]) == probes(head=is_head)


@pytest.mark.parametrize("role", ["head", "worker"])
def test_the_operator_keeps_the_volumes_and_the_security_of_the_manifests(
    built: Built, pods: dict[str, Manifest], role: str
) -> None:
    cluster = one(built["overlays/local"], "RayCluster")["spec"]
    group = cluster["headGroupSpec"] if role == "head" else cluster["workerGroupSpecs"][0]
    ours, theirs = group["template"]["spec"], pods[role]["spec"]
    added = {"head": {"study", "ray-logs"}, "worker": set()}[role]
    names = {volume["name"] for volume in theirs["volumes"]}
    assert names == {volume["name"] for volume in ours["volumes"]} | added
    assert theirs["securityContext"] == ours["securityContext"]
    for container in [*theirs.get("initContainers", ()), theirs["containers"][0]]:
        assert container["securityContext"] == ours["containers"][0]["securityContext"]
    assert theirs["automountServiceAccountToken"] is False


def test_the_submitter_waits_and_submits_as_the_operators_does(built: Built, pods: dict[str, Manifest]) -> None:
    job = copy.deepcopy(one(built["jobs/study"], "RayJob"))
    job["spec"]["metadata"]["smoe_ray.study"] = "golden"
    container = pods["submitter"]["spec"]["containers"][0]
    assert submit_command(job, f"{HEAD}:8265", "golden-487ecc38-pq9gx") == command(container)
    template = job["spec"]["submitterPodTemplate"]["spec"]
    assert container["securityContext"] == template["containers"][0]["securityContext"]
    assert pods["submitter"]["spec"]["volumes"] == template["volumes"]
