"""Security requirements of every pod: the restricted Pod Security Standard, and more.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from support.k8s.manifests import PodTemplate

PINNED = re.compile(r"[a-z0-9./-]+(:v?[0-9]+\.[0-9]+\.[0-9]+|@sha256:[0-9a-f]{64})")
VOLUMES = {"configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SECRET = re.compile(r"TOKEN|PASSWORD|SECRET|ACCESS_KEY")
API_TOKEN = "serviceAccountToken"


def pod_errors(pod: PodTemplate) -> list[str]:
    """Violations of a pod."""
    found = [f"{pod.name}: {what}" for what in _pod(pod.spec)]
    readers = _readers_of_tokens(pod.spec)
    for container in pod.containers:
        found += [f"{pod.name}/{container['name']}: {what}" for what in _container(container, pod.spec)]
        if container["name"] in readers and container["name"] != "autoscaler":
            found.append(f"{pod.name}/{container['name']}: has a token of the Kubernetes API")
    return found


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    security = spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield "may run as root"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccomp profile is not RuntimeDefault"
    if spec.get("automountServiceAccountToken") is not False:
        yield "a token of the Kubernetes API is mounted"
    if spec.get("enableServiceLinks") is not False:
        yield "services of the namespace are written into its environment"
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is on"
    for volume in spec.get("volumes", ()):
        if not set(volume) - {"name"} <= VOLUMES:
            yield f"volume {volume['name']} is of a kind that is not allowed"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} may fill the node's disk"


def _container(container: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    if not PINNED.fullmatch(container["image"]):
        yield f"image {container['image']} is not pinned to a version or digest"
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "may escalate its privileges"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "may write to its root file system"
    if security.get("runAsUser") == 0 or security.get("runAsNonRoot") is False:
        yield "may run as root"
    resources = container.get("resources", {})
    for kind in ("requests", "limits"):
        for resource in {"cpu", "memory"} - set(resources.get(kind, {})):
            yield f"has no {kind} of {resource}"
    for variable in container.get("env", ()):
        if SECRET.search(variable["name"]) and "value" in variable and not variable["name"].endswith("_PATH"):
            yield f"{variable['name']} stands in the manifest"
        if (variable["name"], variable.get("value")) == ("HOME", "/tmp") and not _is_scratch("/tmp", container, spec):
            yield "its home cannot be written"
    if any("hostPort" in port for port in container.get("ports", ())):
        yield "takes a port of the node"
    for mount in container.get("volumeMounts", ()):
        if mount["name"] not in {volume["name"] for volume in spec.get("volumes", ())}:
            yield f"mounts {mount['name']}, which is no volume"


def _is_scratch(path: str, container: dict[str, Any], spec: dict[str, Any]) -> bool:
    names = {mount["name"] for mount in container.get("volumeMounts", ()) if mount["mountPath"] == path}
    return any(volume["name"] in names and "emptyDir" in volume for volume in spec.get("volumes", ()))


def _readers_of_tokens(spec: dict[str, Any]) -> set[str]:
    """Names of the containers that mount a projected token of the Kubernetes API."""
    volumes = {
        volume["name"]
        for volume in spec.get("volumes", ())
        if any(API_TOKEN in source for source in volume.get("projected", {}).get("sources", ()))
    }
    return {
        container["name"]
        for container in [*spec.get("initContainers", ()), *spec["containers"]]
        if volumes & {mount["name"] for mount in container.get("volumeMounts", ())}
    }
