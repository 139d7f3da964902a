"""Security, resources and configuration of every pod."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from support.k8s.kuberay_pods import quantity
from support.k8s.manifests import Built, Manifest, PodTemplate, of_kind, one, pod_templates, ray_clusters, title
from support.k8s.pod_security import pod_errors

BYTES = {"Mi": 2**20, "Gi": 2**30}


def bytes_of(quantity: str) -> int:
    return int(quantity[:-2]) * BYTES[quantity[-2:]]


def test_every_kind_of_pod_is_looked_at(built: Built) -> None:
    seen = {pod.name for objects in built.values() for pod in pod_templates(objects)}
    assert seen == {
        "Deployment/smoe-ray-dashboard",
        "Deployment/smoe-ray-login",
        "StatefulSet/smoe-ray-redis",
        "CronJob/nightly",
        "RayJob/quickstart submitter",
        "RayCronJob/nightly submitter",
        "smoe-ray head",
        "smoe-ray cpu",
        "smoe-ray gpu",
        "quickstart-x2xzg head",
        "quickstart-x2xzg cpu",
        "nightly-x2xzg head",
        "nightly-x2xzg cpu",
    }
    [head] = [pod for pod in pod_templates(built["base"]) if pod.name == "smoe-ray head"]
    assert [container["name"] for container in head.containers] == ["ray-head", "autoscaler"]


def test_every_pod_is_locked_down(built: Built) -> None:
    for objects in built.values():
        for pod in pod_templates(objects):
            assert pod_errors(pod) == []


def security(pod: PodTemplate, container: int = 0) -> Manifest:
    return pod.spec["containers"][container]["securityContext"]


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda pod: pod.spec["securityContext"].pop("runAsNonRoot"), "may run as root"),
        (lambda pod: pod.spec["securityContext"].update(runAsUser=0), "may run as root"),
        (lambda pod: pod.spec["securityContext"].pop("seccompProfile"), "seccomp"),
        (lambda pod: pod.spec.pop("automountServiceAccountToken"), "token of the Kubernetes API is mounted"),
        (lambda pod: pod.spec.pop("enableServiceLinks"), "services"),
        (lambda pod: pod.spec.update(hostNetwork=True), "hostNetwork"),
        (lambda pod: pod.spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "kind that is not allowed"),
        (lambda pod: pod.spec["volumes"].append({"name": "x", "emptyDir": {}}), "disk"),
        (lambda pod: pod.spec["containers"][0].update(image="smoe-ray:latest"), "not pinned"),
        (lambda pod: pod.spec["containers"][0].update(image="smoe-ray"), "not pinned"),
        (lambda pod: pod.spec["containers"][0].update(image="smoe-ray:0.1"), "not pinned"),
        (lambda pod: security(pod).pop("allowPrivilegeEscalation"), "escalate"),
        (lambda pod: security(pod).update(privileged=True), "escalate"),
        (lambda pod: security(pod)["capabilities"].update(add=["NET_ADMIN"]), "capabilities"),
        (lambda pod: security(pod).pop("capabilities"), "capabilities"),
        (lambda pod: security(pod).update(readOnlyRootFilesystem=False), "root file system"),
        (lambda pod: security(pod).update(runAsUser=0), "may run as root"),
        (lambda pod: pod.spec["containers"][0]["resources"].pop("limits"), "no limits of"),
        (lambda pod: pod.spec["containers"][0]["resources"]["requests"].pop("memory"), "no requests of memory"),
        (lambda pod: pod.spec["containers"][1].pop("resources"), "autoscaler"),
        (lambda pod: security(pod, 1).pop("readOnlyRootFilesystem"), "autoscaler"),
        (lambda pod: pod.spec["containers"][0]["env"].append({"name": "A_TOKEN", "value": "x"}), "in the manifest"),
        (lambda pod: pod.spec["containers"][0]["volumeMounts"].pop(1), "home cannot be written"),
        (lambda pod: pod.spec["containers"][0]["volumeMounts"].append({"name": "x", "mountPath": "/x"}), "no volume"),
        (lambda pod: pod.spec["containers"][0]["ports"][0].update(hostPort=6379), "port of the node"),
        (
            lambda pod: pod.spec["containers"][0]["volumeMounts"].append(
                {"name": "kubernetes-api", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
            ),
            "ray-head: has a token",
        ),
    ],
)
def test_a_pod_that_is_not_would_be_found(built: Built, break_it: Callable[[PodTemplate], Any], complaint: str) -> None:
    pod = copy.deepcopy(pod_templates(built["base"])[-2])
    assert pod.name == "smoe-ray head"
    break_it(pod)
    errors = pod_errors(pod)
    assert errors
    assert all(complaint in error for error in errors)


def test_nobody_has_a_token_of_the_kubernetes_api_but_the_autoscaler(built: Built) -> None:
    for unit, objects in built.items():
        for account in of_kind(objects, "ServiceAccount"):
            assert account["automountServiceAccountToken"] is False, title(account)
        if unit != "components/researchers":
            assert of_kind(objects, "Role", "RoleBinding") == []
        assert of_kind(objects, "ClusterRole", "ClusterRoleBinding") == []


def test_researchers_are_people_who_cannot_read_the_token(built: Built) -> None:
    binding = one(built["components/researchers"], "RoleBinding")
    assert [subject["kind"] for subject in binding["subjects"]] == ["Group"]
    rules = one(built["components/researchers"], "Role")["rules"]
    granted = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert not {(resource, verb) for resource, verb in granted if resource in ("secrets", "*") or verb == "*"}
    # What `smoe-ray k8s submit`, `status`, `logs`, `stop` and `wait` request.
    assert granted >= {("rayjobs", verb) for verb in ("create", "get", "list", "delete")}
    assert granted >= {("configmaps", "create"), ("pods", "list"), ("pods/log", "get"), ("rayclusters", "list")}


def test_the_namespace_admits_no_other_pods(built: Built) -> None:
    labels = one(built["base"], "Namespace")["metadata"]["labels"]
    for mode in ("enforce", "warn", "audit"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


def test_every_ray_cluster_asks_for_the_token(built: Built) -> None:
    for objects in built.values():
        for name, spec in ray_clusters(objects):
            assert spec["authOptions"] == {"mode": "token", "secretName": "smoe-ray-token"}, name


def test_clients_of_the_head_read_the_token_from_a_file(built: Built) -> None:
    clients = [one(built["base"], "Deployment"), one(built["jobs/nightly"], "CronJob")["spec"]["jobTemplate"]]
    for client in clients:
        pod = client["spec"]["template"]["spec"]
        [container] = pod["containers"]
        environment = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert environment["RAY_AUTH_MODE"] == "token"
        folder, _, file = environment["RAY_AUTH_TOKEN_PATH"].rpartition("/")
        assert file == "auth_token"  # the key that the operator reads, too
        [mount] = [mount for mount in container["volumeMounts"] if mount["mountPath"] == folder]
        [volume] = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
        assert volume["secret"]["secretName"] == "smoe-ray-token"


def test_the_head_trains_nothing_and_workers_come_and_go(built: Built) -> None:
    for unit, objects in built.items():
        for name, spec in ray_clusters(objects):
            assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", name
            if unit == "components/kueue":
                continue
            assert spec["enableInTreeAutoscaling"]
            assert spec["autoscalerOptions"]["version"] == "v2"
            assert spec["autoscalerOptions"]["idleTimeoutSeconds"] >= 300
            for group in spec["workerGroupSpecs"]:
                assert group["minReplicas"] == 0
                assert group["maxReplicas"] > 0
                assert "replicas" not in group  # the autoscaler's to say


def test_the_object_store_fits_into_shared_memory_and_that_into_the_pod(built: Built) -> None:
    for objects in built.values():
        for name, spec in ray_clusters(objects):
            for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
                pod = group["template"]["spec"]
                [container] = pod["containers"]
                [mount] = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
                [volume] = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
                assert volume["emptyDir"]["medium"] == "Memory", name
                shared = bytes_of(volume["emptyDir"]["sizeLimit"])
                assert int(group["rayStartParams"]["object-store-memory"]) < shared, name
                assert 2 * shared < bytes_of(container["resources"]["limits"]["memory"]), name


def test_a_laptop_has_room_for_the_persistent_cluster_and_a_study_with_two_workers(built: Built) -> None:
    pods = {pod.name: pod for pod in pod_templates([*built["overlays/local"], *built["jobs/study"]])}
    needed = ["Deployment/smoe-ray-dashboard", "RayJob/quickstart submitter"]
    needed += 2 * ["smoe-ray head"] + 2 * ["smoe-ray cpu"]  # a study's own cluster has the overlay's pods
    requests = [container["resources"]["requests"] for name in needed for container in pods[name].containers]
    system_cpus, system_bytes = 0.95, 0.3 * 2**30  # kube-system of kind
    assert sum(quantity(each["cpu"]) for each in requests) + system_cpus <= 4
    assert sum(quantity(each["memory"]) for each in requests) + system_bytes <= 7.5 * 2**30  # of Docker Desktop's 8 GiB


def test_a_worker_has_time_to_end_its_trials_epochs(built: Built) -> None:
    for objects in built.values():
        for name, spec in ray_clusters(objects):
            for group in spec["workerGroupSpecs"]:
                pod = group["template"]["spec"]
                environment = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
                drain = int(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
                assert drain >= 60, name
                assert pod["terminationGracePeriodSeconds"] >= drain + 30, name
                assert "lifecycle" not in pod["containers"][0]  # `ray stop` would cut the drain short


def test_gpus_are_asked_for_where_they_are(built: Built) -> None:
    [group] = [
        group
        for group in one(built["components/gpu"], "RayCluster")["spec"]["workerGroupSpecs"]
        if group["groupName"] == "gpu"
    ]
    pod = group["template"]["spec"]
    resources = pod["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
    assert "nodeSelector" not in pod  # nvidia.com/gpu.present is set by NVIDIA's GPU operator only, not on EKS or GKE
    assert "affinity" not in pod
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert pod["containers"][0]["image"].startswith("smoe-ray-gpu:")


def test_the_dashboard_cannot_write_results(built: Built) -> None:
    pod = one(built["base"], "Deployment")["spec"]["template"]["spec"]
    [mount] = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "results"]
    assert mount["readOnly"] is True
