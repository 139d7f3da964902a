"""Checks of a Kubernetes cluster before studies run on it: one finding per line, with what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from smoe_ray.errors import ClusterError
from smoe_ray.k8s.cluster import Cluster
from smoe_ray.k8s.describe import waiting
from smoe_ray.k8s.manifests import Manifest, Rendered, objects

_KUBERAY = (1, 7)
_DRIVER = 580
"""NVIDIA driver that CUDA 13, and hence PyTorch in the GPU image, needs."""
_GPU = "nvidia.com/gpu"
_DRIVER_LABELS = ("nvidia.com/cuda.driver-version.major", "nvidia.com/cuda.driver.major")
"""Set by NVIDIA's GPU feature discovery, new and old."""


class Finding(NamedTuple):
    """The outcome of a check."""

    is_ok: bool | None
    """None: unknown, since the user has no permission to look."""
    text: str


def examine(cluster: Cluster, overlay: Rendered, rendered: str) -> Iterator[Finding]:
    """Check a cluster for an overlay.

    Args:
        cluster: the cluster.
        overlay: from `manifests.read`.
        rendered: its manifests.
    """
    namespace = overlay.namespace_name
    checks: list[Callable[[], Iterable[Finding]]] = [
        lambda: _crds(cluster, namespace),
        lambda: _operator(cluster),
        lambda: _token(cluster, overlay),
        lambda: _storage(cluster, rendered),
        lambda: _dns(cluster),
        lambda: _gpus(cluster, overlay.cluster),
        lambda: _images(cluster, namespace),
        lambda: _quotas(cluster, namespace),
    ]
    for check in checks:
        try:
            yield from check()
        except ClusterError as error:
            yield Finding(None if "permission denied" in str(error) else False, str(error))


def _crds(cluster: Cluster, namespace: str) -> Iterator[Finding]:
    cluster.ray_jobs(namespace)
    yield Finding(True, "KubeRay's CustomResourceDefinitions are installed")


def _operator(cluster: Cluster) -> Iterator[Finding]:
    found = cluster.deployments("app.kubernetes.io/name=kuberay-operator")
    if not found:
        yield Finding(False, "KubeRay's operator does not run; helm install kuberay-operator (docs/kubernetes.md)")
    for each in found:
        image = str(each.spec.template.spec.containers[0].image)
        version = re.search(r":v?([0-9]+)\.([0-9]+)", image)
        is_ok = version is None or (int(version[1]), int(version[2])) >= _KUBERAY
        wanted = "" if is_ok else f"; needs {'.'.join(map(str, _KUBERAY))} or later: helm upgrade, CRDs first"
        yield Finding(is_ok, f"KubeRay's operator in {each.metadata.namespace} is {image}{wanted}")


def _token(cluster: Cluster, overlay: Rendered) -> Iterator[Finding]:
    cluster.require_namespace(overlay.namespace_name)
    there = cluster.has_secret(overlay.namespace_name, overlay.token_secret)
    yield Finding(there, f"Secret {overlay.token_secret} {'exists' if there else 'is missing; smoe-ray k8s init'}")


def _storage(cluster: Cluster, rendered: str) -> Iterator[Finding]:
    for claim in objects(rendered):
        if claim["kind"] == "PersistentVolumeClaim":
            cluster.check_storage(claim)
            yield Finding(True, f"PersistentVolumeClaim {claim['metadata']['name']} has a storage class")


def _dns(cluster: Cluster) -> Iterator[Finding]:
    labels = {str((pod.metadata.labels or {}).get("k8s-app")) for pod in cluster.pods("kube-system")}  # type: ignore[union-attr]
    found = sorted(labels & {"kube-dns", "node-local-dns"})
    if found:
        yield Finding(True, f"DNS is served by {' and '.join(found)}, which the NetworkPolicies allow")
    else:
        yield Finding(
            True, "no DNS pods in kube-system: the NetworkPolicies allow 169.254.20.10 and 169.254.169.254 only"
        )


def _gpus(cluster: Cluster, ray_cluster: Manifest) -> Iterator[Finding]:
    groups = ray_cluster["spec"].get("workerGroupSpecs", ())
    if not any(_GPU in each["template"]["spec"]["containers"][0]["resources"]["limits"] for each in groups):
        return
    nodes = [node for node in cluster.nodes() if int((node.status.allocatable or {}).get(_GPU, 0))]
    if not nodes:
        yield Finding(
            True, f"no node offers {_GPU} now; fine if a node autoscaler adds one, else check the device plugin"
        )
    for node in nodes:
        labels: dict[str, Any] = node.metadata.labels or {}
        driver = next((labels[label] for label in _DRIVER_LABELS if label in labels), None)
        if driver is not None and int(driver) < _DRIVER:
            yield Finding(False, f"node {node.metadata.name}: NVIDIA driver {driver}; CUDA 13 needs {_DRIVER} or later")
        else:
            known = f"NVIDIA driver {driver}" if driver else f"driver not labelled; CUDA 13 needs {_DRIVER} or later"
            yield Finding(True, f"node {node.metadata.name} has {node.status.allocatable[_GPU]} GPUs, {known}")


def _images(cluster: Cluster, namespace: str) -> Iterator[Finding]:
    pods = [pod for pod in waiting(cluster.pods(namespace), {}) if "image" in pod.why]
    for pod in pods:
        yield Finding(False, f"{pod.pod}: {pod.why}; push it, use --image, or add imagePullSecrets [{pod.said}]")
    if not pods:
        yield Finding(True, "no pod waits for its image")


def _quotas(cluster: Cluster, namespace: str) -> Iterator[Finding]:
    for quota in cluster.quotas(namespace):
        used, hard = quota.status.used or {}, quota.status.hard or {}
        full = sorted(name for name in hard if used.get(name) == hard[name] and hard[name] != "0")
        text = f"is used up ({', '.join(full)}); raise it, or stop studies" if full else "has room"
        yield Finding(not full, f"ResourceQuota {quota.metadata.name} {text}")
