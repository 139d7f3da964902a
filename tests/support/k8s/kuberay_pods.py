"""Commands and environment of the containers that KubeRay 1.7 creates for a RayCluster and a RayJob.

Follows ray-operator/controllers/ray/common/{pod,job}.go.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

Manifest = dict[str, Any]
BASH = ["/bin/bash", "-c", "--"]
MULTIPLES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 1e-3}


def ray_command(group: Manifest, *, head: bool, head_address: str, autoscaling: bool = True) -> list[str]:
    """The command of a Ray container: ``ray start`` with KubeRay's parameters and the group's."""
    limits = container(group["template"])["resources"]["limits"]
    added = {"dashboard-host": "0.0.0.0"} if head else {"address": f"{head_address}:6379"}
    if head and autoscaling:
        added["no-monitor"] = "true"
    added |= {
        "metrics-export-port": "8080",
        "dashboard-agent-listen-port": "52365",
        "num-cpus": str(math.ceil(quantity(limits["cpu"]))),
        "memory": str(int(quantity(limits["memory"]))),
    }
    gpus = [str(amount) for name, amount in limits.items() if name.endswith("gpu")]
    if gpus:
        added["num-gpus"] = gpus[0]
    parameters = added | group.get("rayStartParams", {}) | {"block": "true"}
    flags = [f"--{name}" if value == "true" else f"--{name}={value}" for name, value in sorted(parameters.items())]
    started = ["ulimit -n ${RAY_START_ULIMIT_OPEN_FILES:-65536}; ray start", *(["--head"] if head else []), *flags]
    return [*BASH, " ".join(started)]


def ray_environment(group: Manifest, *, head: bool, head_address: str, pod: str, cluster: str) -> dict[str, str]:
    """Environment variables that KubeRay adds to a Ray container (except the token)."""
    address = "127.0.0.1" if head else head_address
    added = {
        "RAY_CLUSTER_NAME": cluster,
        "RAY_CLOUD_INSTANCE_ID": pod,
        "RAY_NODE_TYPE_NAME": "headgroup" if head else group["groupName"],
        "RAY_PORT": "6379",
        "RAY_ADDRESS": f"{address}:6379",
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
    }
    if head:
        added["RAY_enable_autoscaler_v2"] = "true"
    else:
        added |= {"FQ_RAY_IP": address, "RAY_IP": address.split(".")[0]}
    return added


WAITING = """
SECONDS=0
while true; do
  if (( SECONDS <= 120 )); then
    if ray health-check --address {gcs} > /dev/null 2>&1; then
      echo "GCS is ready."
      break
    fi
    echo "$SECONDS seconds elapsed: Waiting for GCS to be ready."
  else
    if ray health-check --address {gcs}; then
      echo "GCS is ready. Any error messages above can be safely ignored."
      break
    fi
    echo "$SECONDS seconds elapsed: Still waiting for GCS to be ready. For troubleshooting, refer to the FAQ at {faq}."
  fi
  sleep 5
done
"""
FAQ = "https://docs.ray.io/en/master/cluster/kubernetes/troubleshooting.html"


def wait_command(head_address: str) -> list[str]:
    """The command of a worker's init container: wait for the head."""
    return [*BASH, WAITING.format(gcs=f"{head_address}:6379", faq=FAQ)]


def probes(*, head: bool) -> dict[str, Manifest]:
    """The probes of a Ray container; the agent of the node answers, without asking for a token."""
    common = {
        "httpGet": {"path": "/api/healthz", "port": 52365, "scheme": "HTTP"},
        "periodSeconds": 5,
        "successThreshold": 1,
        "timeoutSeconds": 5 if head else 2,
    }
    return {
        "livenessProbe": {**common, "initialDelaySeconds": 30, "failureThreshold": 120},
        "readinessProbe": {**common, "initialDelaySeconds": 10, "failureThreshold": 10},
    }


def submit_command(job: Manifest, dashboard: str, job_id: str) -> list[str]:
    """The command of the submitter pod of a RayJob (K8sJobMode)."""
    import yaml

    spec = job["spec"]
    address = f"http://{dashboard}"
    healthy = (
        f"import urllib.request; r=urllib.request.urlopen('{address}/api/gcs_healthz', timeout=10); "
        "exit(0 if b'success' in r.read() else 1)"
    )
    words = [
        f'until python -c "{healthy}" >/dev/null 2>&1 ; do',
        f'echo "Waiting for Ray Dashboard GCS to become healthy at {address} ..." ; sleep 2 ; done ;',
        "if ! ray job status --address",
        address,
        job_id,
        ">/dev/null 2>&1 ; then ray job submit --address",
        address,
    ]
    words += ["--no-wait"]
    if "runtimeEnvYAML" in spec:
        words += ["--runtime-env-json", quote(_go_json(yaml.safe_load(spec["runtimeEnvYAML"])))]
    if "metadata" in spec:
        words += ["--metadata-json", quote(_go_json(spec["metadata"]))]
    words += ["--submission-id", job_id, "--", spec["entrypoint"].strip(), "; fi ;"]
    words += ["ray job logs --address", address, "--follow", job_id]
    return ["/bin/bash", "-ce", "--", " ".join(words)]


def _go_json(value: Any) -> str:
    """Go's json.Marshal of maps: compact, with sorted keys."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def token_environment(token: str) -> dict[str, str]:
    """Environment that `authOptions: {mode: token}` adds to Ray's containers and to the submitter."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def own_environment(template: Manifest, config_maps: Mapping[str, Mapping[str, str]], pod: str) -> dict[str, str]:
    """The environment of a pod template's first container; optional Secrets are taken as absent."""
    found: dict[str, str] = {}
    for source in container(template).get("envFrom", ()):
        if "configMapRef" in source:
            found |= config_maps[source["configMapRef"]["name"]]
        else:
            assert source["secretRef"]["optional"], source
    for variable in container(template).get("env", ()):
        if "value" in variable:
            found[variable["name"]] = variable["value"]
            continue
        [(kind, reference)] = variable["valueFrom"].items()
        if kind == "configMapKeyRef":
            found[variable["name"]] = config_maps[reference["name"]][reference["key"]]
        elif kind == "secretKeyRef":
            assert reference["optional"], variable
        else:
            assert kind == "fieldRef", variable
            assert reference["fieldPath"] == "metadata.name", variable
            found[variable["name"]] = pod
    return found


def container(template: Manifest) -> Manifest:
    """The first container: Ray's."""
    return template["spec"]["containers"][0]


def quantity(text: Any) -> float:
    """A Kubernetes quantity as a number."""
    text = str(text)
    for suffix, factor in MULTIPLES.items():
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text)


def quote(text: str) -> str:
    """Go's strconv.Quote, for the characters that occur here."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
