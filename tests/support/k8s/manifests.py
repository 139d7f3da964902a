"""The manifests of k8s/, built by kubectl, and the pods that result from them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Manifest = dict[str, Any]
Built = dict[str, list[Manifest]]

K8S = Path(__file__).resolve().parents[3] / "k8s"
NAMESPACE = "smoe-ray"
S3 = ("s3.enabled=true", "out=s3://smoe-ray-results/out")
CHARTS: dict[str, tuple[str, ...]] = {
    "base": (),
    "gpu": ("gpu.enabled=true",),
    "s3": S3,
    "gpu-s3": ("gpu.enabled=true", *S3),
}
"""Values of the chart with which it is walked by the tests of manifests."""


class PodTemplate(NamedTuple):
    """A pod template, with the labels and containers that the operator adds."""

    name: str
    labels: dict[str, str]
    spec: Manifest

    @property
    def containers(self) -> list[Manifest]:
        """Init containers and containers."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


def program(name: str) -> str | None:
    """Path of a program: beside this Python, or on the PATH."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}")


def units() -> list[Path]:
    """Folders that can be applied."""
    return [K8S / "base", *sorted((K8S / "overlays").iterdir()), *sorted((K8S / "jobs").iterdir())]


def build(kubectl: str, folder: Path) -> list[Manifest]:
    """The objects of a kustomization."""
    ran = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{folder}: {ran.stderr}"
    assert not ran.stderr, f"{folder}: {ran.stderr}"  # deprecated fields are named there
    return list(yaml.load_all(ran.stdout, yaml.CSafeLoader))


def build_with_component(kubectl: str, component: Path, folder: Path) -> list[Manifest]:
    """The objects of a component's base, with the component."""
    over = "jobs/study" if component.name == "kueue" else "base"
    overlay = folder / component.name
    overlay.mkdir()
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": [os.path.relpath(K8S / over, overlay)],
        "components": [os.path.relpath(component, overlay)],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return build(kubectl, overlay)


def run_helm(helm: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    return subprocess.run([helm, *arguments], capture_output=True, text=True, check=False)


def build_chart(helm: str, *values: str) -> list[Manifest]:
    """The objects of the chart with some values (``key=value``)."""
    settings = [word for value in values for word in ("--set", value)]
    ran = run_helm(helm, "template", "smoe-ray", K8S / "chart", "--namespace", NAMESPACE, *settings)
    assert ran.returncode == 0, ran.stderr
    return [found for found in yaml.load_all(ran.stdout, yaml.CSafeLoader) if found]


def of_kind(objects: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    """The objects of these kinds."""
    return [found for found in objects if found["kind"] in kinds]


def one(objects: Iterable[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The only object of a kind (and name)."""
    [found] = [found for found in of_kind(objects, kind) if name in (None, found["metadata"]["name"])]
    return found


def title(found: Manifest) -> str:
    """Kind and name."""
    return f"{found['kind']}/{found['metadata']['name']}"


def ray_clusters(objects: Iterable[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Name and spec of every Ray cluster, including those of jobs."""
    for found in objects:
        name = found["metadata"]["name"]
        if found["kind"] == "RayCluster":
            yield name, found["spec"]
        for job in _ray_jobs(found):
            yield f"{name}-x2xzg", job["rayClusterSpec"]  # the operator adds five characters


def pod_templates(objects: Iterable[Manifest]) -> list[PodTemplate]:
    """Every pod template of the objects."""
    objects = list(objects)
    found = []
    for each in objects:
        match each["kind"]:
            case "Deployment" | "StatefulSet" | "Job":
                claims = each["spec"].get("volumeClaimTemplates", ())
                volumes = [{"name": claim["metadata"]["name"], "persistentVolumeClaim": {}} for claim in claims]
                pod = _template(title(each), each["spec"]["template"])
                found.append(pod._replace(spec={**pod.spec, "volumes": [*pod.spec.get("volumes", ()), *volumes]}))
            case "CronJob":
                found.append(_template(title(each), each["spec"]["jobTemplate"]["spec"]["template"]))
        found += [
            _template(f"{title(each)} submitter", job["submitterPodTemplate"])
            for job in _ray_jobs(each)
            if "submitterPodTemplate" in job
        ]
    for name, spec in ray_clusters(objects):
        found += _ray_pods(name, spec)
    return found


def _ray_jobs(found: Manifest) -> list[Manifest]:
    match found["kind"]:
        case "RayJob":
            return [found["spec"]]
        case "RayCronJob":
            return [found["spec"]["jobTemplate"]]
    return []


def _template(name: str, template: Manifest, labels: dict[str, str] | None = None) -> PodTemplate:
    return PodTemplate(name, template.get("metadata", {}).get("labels", {}) | (labels or {}), template["spec"])


def _ray_pods(name: str, spec: Manifest) -> Iterator[PodTemplate]:
    head = spec["headGroupSpec"]["template"]
    pod = _template(f"{name} head", head, _ray_labels(name, "head", "headgroup"))
    if spec.get("enableInTreeAutoscaling"):
        options = {
            key: value
            for key, value in spec.get("autoscalerOptions", {}).items()
            if key in ("resources", "securityContext", "env", "envFrom", "volumeMounts")
        }
        autoscaler = {"name": "autoscaler", "image": head["spec"]["containers"][0]["image"], **options}
        pod = pod._replace(spec={**pod.spec, "containers": [*pod.spec["containers"], autoscaler]})
    yield pod
    for group in spec["workerGroupSpecs"]:
        labels = _ray_labels(name, "worker", group["groupName"])
        yield _template(f"{name} {group['groupName']}", group["template"], labels)


def _ray_labels(cluster: str, node_type: str, group: str) -> dict[str, str]:
    """The operator's labels of pods, which override the template's (common/pod.go, labelPod)."""
    return {
        "ray.io/is-ray-node": "yes",
        "ray.io/cluster": cluster,
        "ray.io/node-type": node_type,
        "ray.io/group": group,
    }
