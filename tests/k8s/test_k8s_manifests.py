"""Everything in k8s/ builds, documents its purpose, and is accepted by Kubernetes and KubeRay."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from smoe_ray.spec import load_study
from support.k8s.kuberay_pods import quantity
from support.k8s.kuberay_validation import crd_errors, ray_errors
from support.k8s.manifests import (
    CHARTS,
    K8S,
    NAMESPACE,
    Built,
    Manifest,
    build,
    of_kind,
    one,
    pod_templates,
    title,
    units,
)
from support.k8s.network_policies import selects

VERSIONS = ("1.35", "1.36", "1.37")
CUSTOM = ("ray.io", "monitoring.coreos.com", "kueue.x-k8s.io", "cilium.io")
CLUSTER_WIDE = ("Namespace",)
SECRETS = {
    "smoe-ray-token",
    "smoe-ray-dashboard-login",
    "smoe-ray-storage",
    "smoe-ray-redis",
    "smoe-ray-oidc",
    "smoe-ray-tls",
}
"""Made by hand or by `smoe-ray k8s init`, never part of a manifest."""


def group(found: Manifest) -> str:
    return found["apiVersion"].rpartition("/")[0]


def test_every_folder_builds(built: Built) -> None:
    names = {"base", *(f"overlays/{name}" for name in ("local", "gpu", "eks", "gke", "production"))}
    names |= {"jobs/study", "jobs/nightly", "jobs/nightly-raycronjob"}
    components = ["gpu", "s3", "gcs-fault-tolerance", "monitoring", "kueue", "ingress"]
    components += ["eks-pod-identity", "gke-workload-identity", "cilium", "tenant", "researchers", "quota"]
    charts = {f"chart/{name}" for name in CHARTS}
    assert set(built) == names | {f"components/{name}" for name in components} | charts
    assert all(built.values())


def test_every_kustomization_opens_with_its_purpose() -> None:
    found = sorted(K8S.rglob("kustomization.yaml"))
    assert len(found) >= len(units())
    assert [path for path in found if not path.read_text().startswith("# Purpose: ")] == []


def test_what_does_not_build_is_an_error(kubectl: str, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [absent.yaml]\n")
    with pytest.raises(AssertionError, match="absent"):
        build(kubectl, tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_every_object(built: Built, version: str) -> None:
    seen: dict[str, Manifest] = {}
    for objects in built.values():
        seen |= {json.dumps(found, sort_keys=True): found for found in objects if group(found) not in CUSTOM}
    assert len(seen) > 30
    for found in seen.values():
        kubernetes_validate.validate(found, version, strict=True)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda found: found["spec"].update(replica=1),
        lambda found: found["spec"]["template"]["spec"]["containers"][0].update(ports="8501"),
        lambda found: found["spec"].pop("selector"),
        lambda found: found["spec"]["template"]["spec"]["containers"][0]["securityContext"].update(runAsNonRot=True),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_would_refuse_a_slip(built: Built, break_it: Callable[[Manifest], Any], version: str) -> None:
    found = copy.deepcopy(one(built["base"], "Deployment"))
    break_it(found)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(found, version, strict=True)


def test_kuberay_accepts_every_object(built: Built, shared_data: Path) -> None:
    found = [each for objects in built.values() for each in objects if group(each) == "ray.io"]
    assert {each["kind"] for each in found} == {"RayCluster", "RayJob", "RayCronJob"}
    for each in found:
        assert crd_errors(each, shared_data) == [], title(each)


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda spec: spec.update(autoscaling=True), "autoscaling"),
        (lambda spec: spec["authOptions"].update(mode="tokens"), "tokens"),
        (lambda spec: spec["workerGroupSpecs"][0].pop("groupName"), "groupName"),
        (lambda spec: spec["workerGroupSpecs"][0].update(maxReplicas="8"), "8"),
        (lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}), "0 is not of type"),
        (lambda spec: spec["headGroupSpec"]["template"]["spec"].update(restartPolice="Never"), "restartPolice"),
        (lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0].update(mounts=[]), "mounts"),
    ],
)
def test_kuberay_would_refuse_a_slip(
    built: Built, shared_data: Path, break_it: Callable[[Manifest], Any], complaint: str
) -> None:
    found = copy.deepcopy(one(built["base"], "RayCluster"))
    break_it(found["spec"])
    assert complaint in " ".join(crd_errors(found, shared_data))


def test_nothing_in_base_and_overlays_is_refused_by_the_operator_or_needs_an_alpha_gate(built: Built) -> None:
    for name, objects in built.items():
        for found in of_kind(objects, "RayCluster", "RayJob", "RayCronJob"):
            gate = ["RayCronJob: its feature gate is off"] if name == "jobs/nightly-raycronjob" else []
            assert ray_errors(found) == gate, f"{name} {title(found)}"


HEAD = ("headGroupSpec", "template", "spec")


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda found: found["metadata"].update(name="1st"), "name"),
        (lambda found: found["metadata"].update(name="s" * 54), "name"),
        (lambda found: found["metadata"].update(annotations={"ray.io/ft-enabled": "true"}), "annotation"),
        (lambda found: found["spec"].pop("rayVersion"), "rayVersion"),
        (lambda found: found["spec"].update(rayVersion="2.51.3"), "rayVersion"),
        (lambda found: found["spec"][HEAD[0]]["template"]["spec"].update(restartPolicy="Always"), "restartPolicy"),
        (lambda found: head_environment(found, "RAY_enable_autoscaler_v2"), "RAY_enable_autoscaler_v2"),
        (lambda found: head_environment(found, "RAY_REDIS_ADDRESS"), "RAY_REDIS_ADDRESS"),
        (lambda found: found["spec"][HEAD[0]]["rayStartParams"].update({"redis-password": "x"}), "redis-password"),
        (lambda found: found["spec"][HEAD[0]].update(resources={"CPU": "0"}), "exclude one another"),
        (lambda found: found["spec"][HEAD[0]]["rayStartParams"].update(labels="a=b"), "labels"),
        (lambda found: found["spec"]["workerGroupSpecs"][0].update(suspend=True), "suspend"),
        (lambda found: found["spec"].update(networkPolicy={"mode": "DenyAll"}), "networkPolicy"),
        (lambda found: found["spec"].update(gcsFaultToleranceOptions={"backend": "rocksdb"}), "embedded"),
    ],
)
def test_the_operator_would_refuse_such_a_cluster(
    built: Built, break_it: Callable[[Manifest], Any], complaint: str
) -> None:
    found = copy.deepcopy(one(built["base"], "RayCluster"))
    break_it(found)
    [error] = ray_errors(found)
    assert complaint in error


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"submissionMode": "K8SJobMode"}, "submissionMode"),
        ({"clusterSelector": {"ray.io/cluster": "smoe-ray"}, "backoffLimit": 0}, "exactly one"),
        ({"clusterSelector": {"ray.io/cluster": "smoe-ray"}, "rayClusterSpec": None}, "backoffLimit"),
        ({"deletionStrategy": {"deletionRules": [{"policy": "DeleteCluster"}]}}, "exclude one another"),
        ({"shutdownAfterJobFinishes": False}, "ttlSecondsAfterFinished"),
        ({"shutdownAfterJobFinishes": False, "suspend": True, "ttlSecondsAfterFinished": 0}, "suspend"),
        (
            {
                "shutdownAfterJobFinishes": False,
                "ttlSecondsAfterFinished": 0,
                "deletionStrategy": {"deletionRules": [{"policy": "DeleteWorkers"}]},
            },
            "DeleteWorkers",
        ),
        ({"submissionMode": "SidecarMode"}, "SidecarMode"),
        ({"entrypoint": "cd /etc/smoe-ray/study && python -m smoe_ray.cluster.job_entry"}, "line of shell"),
        ({"runtimeEnvYAML": "env_vars"}, "runtimeEnvYAML"),
    ],
)
def test_the_operator_would_refuse_such_a_job(built: Built, change: Manifest, complaint: str) -> None:
    found = copy.deepcopy(one(built["jobs/study"], "RayJob"))
    found["spec"] |= change
    [error] = ray_errors(found)
    assert complaint in error


def head_environment(found: Manifest, name: str) -> None:
    container = found["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": name, "value": "1"})


def test_kueue_can_count_what_a_job_will_need(built: Built) -> None:
    queue = one(built["components/kueue"], "LocalQueue")
    assert (queue["apiVersion"], set(queue["spec"])) == ("kueue.x-k8s.io/v1beta2", {"clusterQueue"})
    job = one(built["components/kueue"], "RayJob")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]
    assert job["spec"]["suspend"]
    assert job["spec"]["shutdownAfterJobFinishes"]
    assert not job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]
    for workers in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] > 0


# --- what belongs together --------------------------------------------------------------------------------------------


def test_all_objects_lie_in_the_namespace_and_say_what_they_are_part_of(built: Built) -> None:
    for name, objects in built.items():
        titles = [title(found) for found in objects]
        assert len(titles) == len(set(titles)), name
        for found in objects:
            metadata = found["metadata"]
            if found["kind"] not in CLUSTER_WIDE:
                assert metadata.get("namespace") == NAMESPACE, f"{name} {title(found)}"
            assert metadata["labels"]["app.kubernetes.io/part-of"] == NAMESPACE, f"{name} {title(found)}"


def test_volumes_of_clouds_name_a_class_that_many_nodes_can_mount(built: Built) -> None:
    for cloud, storage_class in (("eks", "efs-sc"), ("gke", "standard-rwx")):
        claim = one(built[f"overlays/{cloud}"], "PersistentVolumeClaim")["spec"]
        assert (claim["accessModes"], claim["storageClassName"]) == (["ReadWriteMany"], storage_class)
    assert claim["resources"]["requests"]["storage"] == "1Ti"  # Filestore's smallest


@pytest.mark.parametrize(
    "unit", ["base", *(f"overlays/{name}" for name in ("local", "gpu", "eks", "gke", "production"))]
)
def test_what_is_named_is_there(built: Built, unit: str) -> None:
    objects = [*built[unit], *built["jobs/study"], *built["jobs/nightly"]]
    there = {(found["kind"], found["metadata"]["name"]) for found in objects} | {("Secret", name) for name in SECRETS}
    there |= {("ConfigMap", "kube-root-ca.crt")}  # Kubernetes puts it into every namespace
    for kind, name in named_in(objects):
        if unit == "overlays/production" and (kind, name) == ("PersistentVolumeClaim", "smoe-ray-results"):
            continue  # a job of the template writes to the volume; results of this overlay lie in a bucket
        assert (kind, name) in there, f"{unit}: {kind} {name} is named, and not there"


def named_in(objects: Any) -> set[tuple[str, str]]:
    """Objects that others refer to by name."""
    keys = {
        "configMapKeyRef": "ConfigMap", "configMapRef": "ConfigMap", "configMap": "ConfigMap",
        "secretKeyRef": "Secret", "secretRef": "Secret",
    }  # fmt: skip
    found: set[tuple[str, str]] = set()
    if isinstance(objects, list):
        return found.union(*map(named_in, objects))
    if isinstance(objects, dict):
        for key, value in objects.items():
            if key in keys and isinstance(value, dict):
                found.add((keys[key], value["name"]))
            elif key == "secretName":
                found.add(("Secret", value))
            elif key == "claimName":
                found.add(("PersistentVolumeClaim", value))
            elif key == "serviceAccountName":
                found.add(("ServiceAccount", value))
            elif key == "service" and isinstance(value, dict):
                found.add(("Service", value["name"]))
            found |= named_in(value)
    return found


def test_a_name_that_is_not_there_is_found() -> None:
    [deployment] = yaml.safe_load_all("{spec: {volumes: [{secret: {secretName: absent}}]}}")
    assert named_in(deployment) == {("Secret", "absent")}


def test_in_object_storage_nobody_asks_for_the_volume(built: Built) -> None:
    for unit in ("components/s3", "overlays/production"):
        assert of_kind(built[unit], "PersistentVolumeClaim") == []
        assert "smoe-ray-results" not in json.dumps(built[unit]).replace("s3://smoe-ray-results", "")
        assert one(built[unit], "ConfigMap", "smoe-ray")["data"]["OUT"].startswith("s3://")


def test_every_selector_selects_the_pods_that_it_is_for(built: Built) -> None:
    for unit, objects in built.items():
        if unit.startswith("jobs"):
            continue
        pods = pod_templates(objects)
        for found in of_kind(objects, "Deployment", "StatefulSet"):
            [selected] = [pod.name for pod in pods if selects(found["spec"]["selector"], pod.labels)]
            assert selected == title(found), unit
        for found in of_kind(objects, "Service"):
            [pod] = [pod for pod in pods if selects({"matchLabels": found["spec"]["selector"]}, pod.labels)]
            ports = {port["name"] for container in pod.containers for port in container.get("ports", ())}
            assert {port["targetPort"] for port in found["spec"]["ports"]} <= ports, unit
        for found in of_kind(objects, "PodDisruptionBudget"):
            everybody = [*pods, *pod_templates(built["jobs/study"])]
            selected = [pod.name for pod in everybody if selects(found["spec"]["selector"], pod.labels)]
            assert selected == ["smoe-ray head", "quickstart-x2xzg head"], unit
            # A percentage or maxUnavailable needs a scale subresource, which a RayCluster does not have.
            assert found["spec"]["minAvailable"] >= 1000


def test_every_policy_selects_somebody(production: list[Manifest]) -> None:
    pods = pod_templates(production)
    for found in of_kind(production, "NetworkPolicy"):
        assert any(selects(found["spec"]["podSelector"], pod.labels) for pod in pods), title(found)


def test_the_ingress_leads_through_tls_to_the_login(built: Built) -> None:
    ingress = one(built["overlays/production"], "Ingress")
    [rule] = ingress["spec"]["rules"]
    assert [tls["hosts"] for tls in ingress["spec"]["tls"]] == [[rule["host"]]]
    [path] = rule["http"]["paths"]
    service = one(built["overlays/production"], "Service", path["backend"]["service"]["name"])
    assert path["backend"]["service"]["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    login = one(built["overlays/production"], "Deployment", "smoe-ray-login")
    assert selects(login["spec"]["selector"], service["spec"]["selector"])
    redirect = one(built["overlays/production"], "ConfigMap", "smoe-ray-login")["data"]["OAUTH2_PROXY_REDIRECT_URL"]
    assert redirect == f"https://{rule['host']}/oauth2/callback"


def test_the_studies_of_the_templates_are_studies(built: Built, tmp_path: Path) -> None:
    out = one(built["base"], "ConfigMap", "smoe-ray")["data"]["OUT"]
    for unit in ("jobs/study", "jobs/nightly"):
        [files] = [found["data"] for found in of_kind(built[unit], "ConfigMap")]
        (tmp_path / "study.yaml").write_text(files["study.yaml"])
        study = load_study(tmp_path / "study.yaml")
        if unit == "jobs/study":
            job = one(built[unit], "RayJob")
            assert json.loads(files["job.json"]) == {"out": out}
            assert job["spec"]["metadata"] == {
                "smoe_ray.study": study.name,
                "smoe_ray.out": out,
                "smoe_ray.note": "",
            }
            assert job["metadata"]["labels"]["smoe-ray/study"] == study.name
            assert job["metadata"]["annotations"]["smoe-ray/out"] == out


def test_a_tenant_does_not_touch_the_namespace(built: Built) -> None:
    rest = [title(found) for found in built["base"] if found["kind"] != "Namespace"]
    assert [title(found) for found in built["components/tenant"]] == rest


def test_a_quota_has_room_for_the_base_and_a_study_with_all_its_workers(built: Built) -> None:
    quota = one(built["components/quota"], "ResourceQuota")["spec"]["hard"]
    pods = {pod.name: pod for pod in pod_templates([*built["base"], *built["jobs/study"]])}
    needed = [
        "Deployment/smoe-ray-dashboard",
        "RayJob/quickstart submitter",
        *2 * ["smoe-ray head"],
        *8 * ["smoe-ray cpu"],
    ]
    for resource in ("cpu", "memory"):
        for kind in ("requests", "limits"):
            total = sum(
                quantity(container["resources"][kind][resource])
                for name in needed
                for container in pods[name].containers
            )
            assert total <= quantity(quota[f"{kind}.{resource}"]), f"{kind}.{resource}"
    [limits] = one(built["components/quota"], "LimitRange")["spec"]["limits"]
    for pod in pods.values():
        for container in pod.containers:
            for resource, most in limits["max"].items():
                assert quantity(container["resources"]["limits"][resource]) <= quantity(most), pod.name


def test_cilium_lets_heads_call_the_kubernetes_api(built: Built) -> None:
    policy = one(built["components/cilium"], "CiliumNetworkPolicy")
    assert policy["apiVersion"] == "cilium.io/v2"
    pods = pod_templates([*built["base"], *built["jobs/study"]])
    selected = [pod.name for pod in pods if selects(policy["spec"]["endpointSelector"], pod.labels)]
    assert selected == ["smoe-ray head", "quickstart-x2xzg head"]
    [rule] = policy["spec"]["egress"]
    assert rule["toEntities"] == ["kube-apiserver"]


def test_a_job_that_does_not_start_fails_in_time(built: Built) -> None:
    jobs = [one(built["jobs/study"], "RayJob")["spec"]]
    jobs += [one(built["jobs/nightly-raycronjob"], "RayCronJob")["spec"]["jobTemplate"]]
    for spec in jobs:
        assert 600 <= spec["preRunningDeadlineSeconds"] <= 3600  # a GPU node and its image take minutes


def test_a_job_has_the_same_pods_as_the_standing_cluster(built: Built) -> None:
    standing = one(built["base"], "RayCluster")["spec"]
    own = copy.deepcopy(one(built["jobs/study"], "RayJob")["spec"]["rayClusterSpec"])
    head = own["headGroupSpec"]["template"]["spec"]
    assert head["volumes"].pop()["configMap"]["name"] == "study-quickstart"
    assert head["containers"][0]["volumeMounts"].pop()["mountPath"] == "/etc/smoe-ray/study"
    assert own == standing
