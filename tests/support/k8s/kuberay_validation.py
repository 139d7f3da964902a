"""Validation of objects of KubeRay 1.7: by its CustomResourceDefinitions, and by the rules of its operator.

`crd_errors` is as strict as ``kubectl apply --validate=strict``. `ray_errors` lists what the operator rejects or
silently reinterprets although the CRDs allow it (ray-operator/controllers/ray/utils/validation.go).
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

Schema = dict[str, Any]
Manifest = dict[str, Any]

MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
ALPHA = ("networkPolicy", "tlsOptions", "historyServerOptions")
"""Fields of a cluster whose feature gate is off."""
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_REDIS = ("REDIS_PASSWORD", "REDIS_USERNAME", "RAY_REDIS_ADDRESS")


def crd_errors(found: dict[str, Any], shared_data: Path) -> list[str]:
    """Errors in an object of ray.io/v1, unknown fields included."""
    assert found["apiVersion"] == "ray.io/v1", found["apiVersion"]
    errors = _validator(shared_data / "kuberay" / f"ray.io_{found['kind'].lower()}s.yaml.gz").iter_errors(found)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


@cache
def _validator(path: Path) -> Draft202012Validator:
    definition = yaml.load(gzip.decompress(path.read_bytes()), yaml.CSafeLoader)
    [schema] = [
        version["schema"]["openAPIV3Schema"] for version in definition["spec"]["versions"] if version["name"] == "v1"
    ]
    root = _strict(schema)
    root["properties"]["metadata"] = {"type": "object"}  # validated by Kubernetes, not by the CRD
    root["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return Draft202012Validator(root)


def _strict(schema: Schema) -> Schema:
    """The schema as plain JSON Schema without additional properties."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"], **{key: schema[key] for key in ("pattern",) if key in schema}}
    strict = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    properties = schema.get("properties", {})
    strict["properties"] = {name: _strict(inner) for name, inner in properties.items()}
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    if "required" in schema:  # the server fills in defaults before it validates
        strict["required"] = [name for name in schema["required"] if "default" not in properties.get(name, {})]
    if isinstance(schema.get("additionalProperties"), dict):
        strict["additionalProperties"] = _strict(schema["additionalProperties"])
    elif not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict["additionalProperties"] = False
    return strict


def ray_errors(found: Manifest) -> list[str]:
    """Errors in a RayCluster, RayJob or RayCronJob."""
    longest = {"RayCluster": 53, "RayJob": 47, "RayCronJob": 47}[found["kind"]]
    name = found["metadata"]["name"]
    errors = [] if _LABEL.fullmatch(name) and len(name) <= longest else [f"name {name}: no label of {longest} at most"]
    spec = found["spec"]
    match found["kind"]:
        case "RayCluster":
            errors += _cluster(spec)
            annotations = found["metadata"].get("annotations", {})
            errors += [
                f"annotation {key}: use gcsFaultToleranceOptions"
                for key in ("ray.io/ft-enabled", "ray.io/external-storage-namespace")
                if key in annotations
            ]
        case "RayJob":
            errors += _job(spec)
        case "RayCronJob":
            errors += ["RayCronJob: its feature gate is off", *_job(spec["jobTemplate"])]
    return errors


def _cluster(spec: Manifest) -> Iterator[str]:
    if spec.get("authOptions", {}).get("mode") == "token":
        version = tuple(int(part) for part in spec.get("rayVersion", "0").split(".")[:2])
        if version < (2, 52):
            yield "authOptions.mode token: needs rayVersion 2.52 or later"
    head = spec["headGroupSpec"]
    groups = [head, *spec.get("workerGroupSpecs", ())]
    if spec.get("enableInTreeAutoscaling") and spec.get("autoscalerOptions", {}).get("version", "v2") == "v2":
        for group in groups:
            if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
                yield "restartPolicy: the autoscaler v2 wants Never"
        if "RAY_enable_autoscaler_v2" in _environment(head):
            yield "RAY_enable_autoscaler_v2: autoscalerOptions.version says it"
    for group in groups:
        parameters = group.get("rayStartParams", {})
        if "resources" in group and {"num-cpus", "num-gpus", "memory", "resources"} & set(parameters):
            yield "resources and rayStartParams exclude one another"
        if "labels" in parameters:
            yield "rayStartParams.labels: use labels"
        if group.get("suspend") and spec.get("enableInTreeAutoscaling"):
            yield "suspend: not with autoscaling"
        yield from (f"rayStartParams.{key}: use gcsFaultToleranceOptions" for key in parameters if "redis" in key)
    yield from (f"{name}: use gcsFaultToleranceOptions" for name in _REDIS if name in _environment(head))
    yield from (f"{field}: its feature gate is off" for field in ALPHA if field in spec)
    options = spec.get("gcsFaultToleranceOptions", {})
    if options.get("backend", "redis") != "redis" or "storage" in options:
        yield "gcsFaultToleranceOptions: embedded storage needs a feature gate"


def _job(spec: Manifest) -> Iterator[str]:
    mode = spec.get("submissionMode", "K8sJobMode")
    if mode not in MODES:
        yield f"submissionMode {mode}: none of {', '.join(MODES)}"
    selector, cluster = spec.get("clusterSelector"), spec.get("rayClusterSpec")
    if bool(selector) == bool(cluster):
        yield "exactly one of rayClusterSpec and clusterSelector"
    shutdown = spec.get("shutdownAfterJobFinishes", False)
    rules = spec.get("deletionStrategy", {}).get("deletionRules")
    if rules and shutdown:
        yield "deletionRules and shutdownAfterJobFinishes exclude one another"
    if spec.get("ttlSecondsAfterFinished") and not shutdown:
        yield "ttlSecondsAfterFinished: needs shutdownAfterJobFinishes"
    autoscaling = (cluster or {}).get("enableInTreeAutoscaling", False)
    if autoscaling and any(rule.get("policy") == "DeleteWorkers" for rule in rules or ()):
        yield "DeleteWorkers: not with autoscaling"
    if spec.get("suspend") and (not shutdown or selector):
        yield "suspend: needs shutdownAfterJobFinishes and a cluster of its own"
    if spec.get("backoffLimit") and selector:
        yield "backoffLimit: not with clusterSelector"
    if mode == "SidecarMode":
        if "submitterPodTemplate" in spec or selector:
            yield "SidecarMode: neither submitterPodTemplate nor clusterSelector"
        if cluster and cluster["headGroupSpec"]["template"]["spec"].get("restartPolicy") != "Never":
            yield "SidecarMode: the head's restartPolicy must be Never"
    if mode == "K8sJobMode" and re.search(r"[;&|<>\n]", spec.get("entrypoint", "").strip()):
        yield "entrypoint: K8sJobMode writes it into a line of shell, which ends at such a character"
    if not isinstance(yaml.safe_load(spec.get("runtimeEnvYAML", "{}")), dict):
        yield "runtimeEnvYAML: no mapping"
    if cluster:
        yield from _cluster(cluster)


def _environment(group: Manifest) -> set[str]:
    return {variable["name"] for each in group["template"]["spec"]["containers"] for variable in each.get("env", ())}
