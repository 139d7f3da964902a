"""What goes on in a namespace, in plain words: clusters, studies, and why pods wait."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray.k8s.manifests import Manifest
from smoe_ray.k8s.rayjob import study_of

if TYPE_CHECKING:
    from kubernetes.client import V1Pod

_WAITS = (
    (r"Insufficient [\w./-]*gpu", "no node has a free GPU; more nodes, or less resources.gpus"),
    (r"Insufficient (?:cpu|memory|ephemeral-storage)", "no node has so much CPU or memory free"),
    (r"persistentvolumeclaim|PersistentVolumeClaim", "its volume is not there yet; kubectl get pvc says why"),
    (r"untolerated taint", "the nodes that have room want a toleration (taint) that it has not"),
    (r"node affinity|node selector", "no node carries the labels that it asks for"),
    (r"ImagePullBackOff|ErrImagePull|InvalidImageName|ErrImageNeverPull", "its image cannot be pulled"),
    (r'secret "[^"]+" not found', "a Secret that it needs is not there; smoe-ray k8s init makes that of the token"),
    (r'configmap "[^"]+" not found', "a ConfigMap that it needs is not there"),
    (r"CreateContainerConfigError|CreateContainerError|RunContainerError", "its container cannot be made"),
    (r"CrashLoopBackOff", "it ends as soon as it has started; kubectl logs says why"),
    (r"SchedulingGated", "it waits in a queue for its turn"),
    (r"PodInitializing", "it waits for the head"),
    (r"ContainerCreating", "its container is being made"),
)

_PHASES = {
    "": "waits for the operator; does it run?",
    "Initializing": "its cluster is being made",
    "Waiting": "waits for its job to be submitted",
    "Running": "running",
    "Complete": "ended",
    "Failed": "failed",
    "Suspended": "suspended; a queue starts it, or somebody has stopped it",
    "Suspending": "being suspended",
    "Retrying": "failed, and is tried again on a new cluster",
    "ValidationFailed": "refused by the operator",
}


class Waiting(NamedTuple):
    """A pod that does not run."""

    pod: str
    why: str
    said: str
    """By Kubernetes, where it says anything."""


def cluster_line(cluster: Manifest) -> str:
    """A RayCluster in one line."""
    status: Manifest = cluster.get("status") or {}
    ready, wanted = status.get("readyWorkerReplicas", 0), status.get("desiredWorkerReplicas", 0)
    state = status.get("state") or "not up yet"
    most = status.get("maxWorkerReplicas")
    line = f"{cluster['metadata']['name']}: {state}, {ready} of {wanted} workers are up" + f" (at most {most})" * bool(
        most
    )
    failure = next((each for each in status.get("conditions", ()) if _is_failure(each)), None)
    said = failure["message"] if failure else status.get("reason")
    return f"{line}; {_one_line(said)}" if said else line


def job_line(job: Manifest) -> str:
    """A RayJob of a study in one line."""
    study, out = study_of(job)
    status: Manifest = job.get("status") or {}
    phase = status.get("jobDeploymentStatus", "")
    words = _PHASES.get(phase, phase)
    if phase in ("Complete", "Failed") and status.get("jobStatus"):
        words = f"{words} ({str(status['jobStatus']).lower()})"
    said = status.get("message") if phase in ("Failed", "ValidationFailed") else None
    failed = status.get("failed", 0)
    return (
        f"{job['metadata']['name']}: study {study} into {out}, "
        f"{words}" + f", {failed} tries failed" * bool(failed) + (f"; {_one_line(said)}" if said else "")
    )


def waiting(pods: Iterable[V1Pod]) -> Iterator[Waiting]:
    """The pods that should run and do not, and why."""
    for pod in pods:
        state: Any = pod.status
        if state.phase in ("Succeeded", "Failed") or pod.metadata.deletion_timestamp:  # type: ignore[union-attr]
            continue
        said = _said(state)
        if said is not None:
            why = next((words for pattern, words in _WAITS if re.search(pattern, said)), "see kubectl describe pod")
            yield Waiting(str(pod.metadata.name), why, _one_line(said))  # type: ignore[union-attr]


def _said(status: Any) -> str | None:
    """What Kubernetes says of a pod that does not run; None of one that does."""
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


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(" :")[:300]
