"""State of a namespace in plain words: clusters, studies, and why pods are pending."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray.k8s.manifests import Manifest
from smoe_ray.k8s.rayjob import study_of

if TYPE_CHECKING:
    from kubernetes.client import V1Pod

_WAITS = (
    (r"exceeded quota", "the quota of the namespace is used up"),
    (r"FailedMount|FailedAttachVolume", "its volume cannot be mounted"),
    (r"Insufficient [\w./-]*gpu", "no node has a free GPU; add nodes, or lower resources.gpus"),
    (r"Insufficient (?:cpu|memory|ephemeral-storage)", "no node has enough free CPU or memory"),
    (r"persistentvolumeclaim|PersistentVolumeClaim", "its volume is not bound yet; kubectl get pvc shows why"),
    (r"untolerated taint", "nodes with capacity have a taint for which it has no toleration"),
    (r"node affinity|node selector", "no node has the labels that it selects"),
    (r"ImagePullBackOff|ErrImagePull|InvalidImageName|ErrImageNeverPull", "its image cannot be pulled"),
    (r'secret "[^"]+" not found', "a Secret is missing; smoe-ray k8s init creates the one with the token"),
    (r'configmap "[^"]+" not found', "a ConfigMap is missing"),
    (r"CreateContainerConfigError|CreateContainerError|RunContainerError", "its container cannot be created"),
    (r"CrashLoopBackOff", "it crashes after it starts; kubectl logs shows why"),
    (r"SchedulingGated", "it is queued until Kueue admits it"),
    (r"PodInitializing", "it waits for the head"),
    (r"ContainerCreating", "its container is being created"),
)

_VAGUE = r"ContainerCreating|PodInitializing|Pending"
"""States of a pod whose reason is in its events only."""

_PHASES = {
    "": "not seen by the operator yet; check that KubeRay's operator runs",
    "Initializing": "its cluster is starting",
    "Waiting": "waiting for its job to be submitted",
    "Running": "running",
    "Complete": "ended",
    "Failed": "failed",
    "Suspended": "suspended: queued, or stopped by a user",
    "Suspending": "being suspended",
    "Retrying": "failed, retrying on a new cluster",
    "ValidationFailed": "rejected by the operator",
}


class Waiting(NamedTuple):
    """A pod that should run and does not."""

    pod: str
    why: str
    said: str
    """Kubernetes' own message; may be empty."""


def cluster_line(cluster: Manifest, warnings: Mapping[str, str]) -> str:
    """A RayCluster in one line, with its newest warning (`Cluster.warnings`) while it is not ready."""
    status: Manifest = cluster.get("status") or {}
    ready, wanted = status.get("readyWorkerReplicas", 0), status.get("desiredWorkerReplicas", 0)
    state = status.get("state") or "not ready yet"
    most = status.get("maxWorkerReplicas")
    line = f"{cluster['metadata']['name']}: {state}, {ready} of {wanted} workers ready" + f" (max {most})" * bool(most)
    failure = next((each for each in status.get("conditions", ()) if _is_failure(each)), None)
    said = failure["message"] if failure else status.get("reason")
    if not said and status.get("state") != "ready":
        said = warnings.get(cluster["metadata"]["name"])
    return f"{line}; {_one_line(said)}" if said else line


def job_line(job: Manifest) -> str:
    """A RayJob of a study in one line."""
    study, out = study_of(job)
    status: Manifest = job.get("status") or {}
    phase = status.get("jobDeploymentStatus", "")
    words = _PHASES.get(phase, phase)
    if phase in ("Complete", "Failed") and status.get("jobStatus"):
        words = f"{words} ({str(status['jobStatus']).lower()})"
    said = _failure(status) if phase in ("Failed", "Retrying", "ValidationFailed") else ""
    failed = status.get("failed", 0)
    return (
        f"{job['metadata']['name']}: study {study} into {out}, "
        f"{words}" + f", {failed} failed attempts" * bool(failed) + (f"; {said}" if said else "")
    )


def waiting(pods: Iterable[V1Pod], warnings: Mapping[str, str]) -> Iterator[Waiting]:
    """Pods that should run and do not, and why: by their status, or, where that is vague, their newest warning."""
    for pod in pods:
        state: Any = pod.status
        if state.phase in ("Succeeded", "Failed") or pod.metadata.deletion_timestamp:  # type: ignore[union-attr]
            continue
        said = _said(state)
        warning = warnings.get(str(pod.metadata.name))  # type: ignore[union-attr]
        if said is not None and warning is not None and re.match(_VAGUE, said):
            said = warning
        if said is not None:
            why = next((words for pattern, words in _WAITS if re.search(pattern, said)), "see kubectl describe pod")
            yield Waiting(str(pod.metadata.name), why, _one_line(said))  # type: ignore[union-attr]


def _said(status: Any) -> str | None:
    """Kubernetes' message about a pod that does not run; None for one that does."""
    for condition in status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{condition.reason}: {condition.message or ''}"
    for container in [*(status.init_container_statuses or ()), *(status.container_statuses or ())]:
        reason = container.state.waiting if container.state else None
        if reason is not None:
            return f"{reason.reason}: {reason.message or ''}"
    return None if status.phase == "Running" else f"{status.phase}: {status.message or ''}"


def _is_failure(condition: Manifest) -> bool:
    return condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"


def _failure(status: Manifest) -> str:
    """Why a RayJob failed: KubeRay's reason, unless the job itself failed, and the last line of the message.

    Of a failed job the message is the end of its log, whose last line is the error.
    """
    lines = [line for line in str(status.get("message") or "").splitlines() if line.strip()]
    reason = str(status.get("reason") or "")
    return ": ".join(filter(None, (reason if reason != "AppFailed" else "", _one_line(lines[-1]) if lines else "")))


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(" :")[:300]
