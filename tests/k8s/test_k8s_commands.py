"""`smoe-ray k8s …` with the real kubectl and the real client against a small API server; and the messages."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from smoe_ray import job_payload
from smoe_ray.errors import ClusterError, DataError, SmoeRayError, StudyError
from smoe_ray.job_payload import attempt_of
from smoe_ray.k8s import manifests
from smoe_ray.k8s.kubectl import kubectl as kubectl_program
from smoe_ray.k8s.rayjob import NAME_LIMIT, STUDY_LABEL, StudyJob, job_name, study_job, study_of
from smoe_ray.spec import NAME_PATTERN, ResourcesSpec, dump_study, load_study, parse_study
from support.k8s.api_server import ApiServer, api_server, storage_class
from support.k8s.command_lines import parse
from support.k8s.kuberay_validation import crd_errors, ray_errors
from support.k8s.manifests import pod_templates
from support.k8s.pod_security import pod_errors

Run = Callable[..., tuple[int, str, str]]

RAY_MESSAGE = """\
Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):
2026-11-29 23:59:12,001\tINFO worker.py:1832 -- Connecting to existing Ray cluster at address: 10.244.0.7:6379...
2026-11-29 23:59:12,020\tINFO worker.py:2003 -- Connected to Ray cluster. View the dashboard at http://10.244.0.7:8265
tiny: 2 trials, 0 of them done before
data: 2 categories drawn
0123456789ab failed after epoch 1: out of memory
smoe-ray: 1 of 2 trials failed, the first (0123456789ab) with: out of memory
"""
"""Of Ray 2.60 (job_supervisor.py): the end of the log, after a first line."""

STUDY = {
    "name": "tiny",
    "question": "Is it $(touch pwned) `touch pwned` what was asked?",
    "base": {
        "data": {"source": "synthetic", "classes": ["eye", "pencil"], "train_per_class": 40, "test_per_class": 10},
        "model": {"num_experts": 2, "encoder": "lite"},
        "training": {"budget": "2 epochs", "batch_size": 16},
    },
}

pytestmark = pytest.mark.usefixtures("kubectl")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with api_server(tmp_path) as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig))
        monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "cache"))
        yield running


@pytest.fixture
def smoe_ray(smoe_ray: Run) -> Run:
    """Run `smoe-ray k8s` in this process: (exit code, standard output, standard error)."""
    return partial(smoe_ray, "k8s")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


def done(answer: tuple[int, str, str]) -> str:
    code, printed, error = answer
    assert code == 0, error
    return printed


def refused(answer: tuple[int, str, str]) -> str:
    """The one line of an error."""
    code, _, error = answer
    assert code == 1
    [line] = error.splitlines()
    return line.removeprefix("smoe-ray: ")


# --- init -------------------------------------------------------------------------------------------------------------


def test_init_makes_a_namespace_and_a_token_that_it_neither_shows_nor_replaces(
    smoe_ray: Run, server: ApiServer
) -> None:
    printed = done(smoe_ray("init", "local"))
    [namespace] = server.of("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    [secret] = server.of("Secret")
    assert (secret["metadata"]["namespace"], secret["metadata"]["name"]) == ("smoe-ray", "smoe-ray-token")
    token = base64.b64decode(secret["data"]["auth_token"]).decode()
    assert re.fullmatch("[0-9a-f]{64}", token)

    again = done(smoe_ray("init", "local"))
    assert "left unchanged" in again
    assert server.of("Secret") == [secret]
    assert token not in printed + again

    done(smoe_ray("init", "local", "--namespace", "team-b"))
    assert len({each["data"]["auth_token"] for each in server.of("Secret")}) == 2


def test_init_names_a_secret_that_is_there_and_is_none(smoe_ray: Run, server: ApiServer) -> None:
    done(smoe_ray("init"))
    server.of("Secret")[0]["data"] = {"other": ""}
    assert "has no key auth_token" in refused(smoe_ray("init"))


# --- render and apply -------------------------------------------------------------------------------------------------


def test_render_prints_what_kubectl_builds(smoe_ray: Run, tmp_path: Path) -> None:
    assert manifests.overlays() == ["eks", "gke", "gpu", "local", "production"]
    plain = done(smoe_ray("render", "local"))
    assert plain == done(smoe_ray("render", manifests.folder() / "overlays" / "local"))

    new = "registry.example:5000/team/smoe-ray@sha256:" + "a" * 64
    changed = done(smoe_ray("render", "local", "--namespace", "team-a", "--image", f"smoe-ray={new}"))
    found = manifests.read(changed)
    assert (found.namespace_name, found.out) == ("team-a", "/mnt/results")
    assert found.cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] == new
    assert {each["metadata"].get("namespace") for each in manifests.objects(changed)} == {"team-a", None}
    assert "image: smoe-ray:0.1.0" not in changed
    assert "image: smoe-ray-dashboard:0.1.0" in changed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "use eks, gke, gpu, local, production"),
        (("./nowhere",), "not a folder with a kustomization.yaml"),
        (("../local",), "not a folder with a kustomization.yaml"),
        (("local", "--namespace", "Team;A"), "lower-case letters"),
        (("local", "--image", "smoe-ray=reg/x:latest"), "the tag latest is mutable"),
        (("local", "--image", "smoe-ray=reg/x"), "write NAME=registry/name:tag"),
        (("local", "--image", "reg/x:1"), "write NAME=registry/name:tag"),
        (
            ("local", "--image", "smoe_ray=reg/x:1"),
            "--image smoe_ray: the overlay has no such image; it has smoe-ray, smoe-ray-dashboard",
        ),
    ],
)
def test_render_refuses_what_cannot_be(smoe_ray: Run, arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(smoe_ray("render", *arguments))


def test_apply_checks_everything_before_it_changes_anything(
    smoe_ray: Run, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(smoe_ray("init", "local"))
    server.heard.clear()
    printed = done(smoe_ray("apply", "local", "--dry-run"))
    assert "  ray.io.v1.RayCluster.smoe-ray.smoe-ray\n" in printed  # too much to show it line by line
    assert re.search(r"^[0-9]+ objects, all valid; [0-9]+ new or changed$", printed, re.MULTILINE)
    assert server.changed() == []

    printed = done(smoe_ray("apply", "local"))
    assert "applied" in printed
    rendered = manifests.objects(manifests.render("local"))
    assert {(each["kind"], each["metadata"]["name"]) for each in rendered} <= {
        (each["kind"], each["metadata"]["name"]) for each in server.objects.values()
    }
    asked = [path for method, path, _ in server.heard if method == "PATCH"]
    first_real = next(number for number, path in enumerate(asked) if "dryRun=All" not in path)
    assert len({path.partition("?")[0] for path in asked[:first_real]}) == len(rendered)
    assert all("fieldManager=smoe-ray" in path for path in asked)
    assert all("force=true" in path for path in asked)  # what kubectl scale or the autoscaler set is set right again
    assert all("fieldValidation=Strict" in path for path in asked if "dryRun" not in path)

    server.heard.clear()
    assert "0 new or changed" in done(smoe_ray("apply", "local"))
    assert server.changed() == []

    monkeypatch.setenv("KUBECTL_EXTERNAL_DIFF", "true")  # what a user has chosen for other uses
    printed = done(smoe_ray("apply", "local", "--image", "smoe-ray-dashboard=reg/dashboard:2"))
    assert "+        image: reg/dashboard:2" in printed
    assert "1 new or changed" in printed
    assert len(server.changed()) == len(rendered)


def test_apply_refuses_a_volume_that_the_storage_class_cannot_share(smoe_ray: Run, server: ApiServer) -> None:
    done(smoe_ray("init", "gpu"))
    server.heard.clear()
    shared = "storage class standard (rancher.io/local-path) cannot be shared by several nodes (ReadWriteMany)"
    assert shared in refused(smoe_ray("apply", "gpu"))
    missing = "storage class efs-sc does not exist (there are: standard); set storageClassName"
    assert missing in refused(smoe_ray("apply", "eks"))
    assert server.changed() == []

    server.put(storage_class("efs-sc", "efs.csi.aws.com"))
    assert "objects, all valid" in done(smoe_ray("apply", "eks", "--dry-run"))
    server.forbidden.add("storageclasses")  # users of a single namespace may not list them
    assert "objects, all valid" in done(smoe_ray("apply", "gpu", "--dry-run"))


def test_apply_stops_when_the_server_refuses_one_object(smoe_ray: Run, server: ApiServer) -> None:
    done(smoe_ray("init", "local"))
    server.heard.clear()
    server.forbidden.add("networkpolicies")
    assert "ask the cluster's administrator" in refused(smoe_ray("apply", "local"))
    assert server.changed() == []


# --- submit -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ready(server: ApiServer, smoe_ray: Run) -> ApiServer:
    done(smoe_ray("init", "local"))
    server.heard.clear()
    return server


def test_a_submitted_study_is_what_the_operator_takes(
    smoe_ray: Run, ready: ApiServer, study: Path, shared_data: Path
) -> None:
    options = ("--retries", 5, "--ttl", 60, "--start-timeout", 90)
    name = done(smoe_ray("submit", study, "--set", "training.budget=3 epochs", *options)).strip()
    assert re.fullmatch("tiny-[0-9a-f]{8}", name)
    [job], [files] = ready.of("RayJob"), ready.of("ConfigMap")
    assert crd_errors(sent(ready, "rayjobs"), shared_data) == []
    assert ray_errors(job) == []
    assert [error for pod in pod_templates([job]) for error in pod_errors(pod)] == []
    spec = job["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"], spec["submissionMode"]) == (5, 60, "K8sJobMode")
    assert spec["preRunningDeadlineSeconds"] == 90
    assert {group["groupName"] for group in spec["rayClusterSpec"]["workerGroupSpecs"]} == {"cpu"}

    [owner] = files["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("RayJob", name, job["metadata"]["uid"])
    assert files["immutable"] is True
    assert files["data"]["study.yaml"] == dump_study(load_study(study, ["training.budget=3 epochs"]))
    assert json.loads(files["data"]["job.json"]) == {"out": "/mnt/results"}
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    [volume] = [each for each in head["volumes"] if "configMap" in each]
    assert volume["configMap"]["name"] == name
    [mount] = [each for each in head["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    assert mount["mountPath"] in spec["entrypoint"]
    assert "pwned" not in json.dumps(job)  # what a user wrote is in the file alone

    paths = [path.partition("?")[0].rpartition("/")[2] for method, path, _ in ready.heard if method == "POST"]
    assert paths == ["configmaps", "rayjobs", "rayjobs", "configmaps"]
    assert [("POST", path) for path in ("rayjobs", "configmaps")] == [
        (method, path.rpartition("/")[2]) for method, path in ready.changed()
    ]


def test_a_diverged_trial_fails_a_job_only_if_it_is_strict(smoe_ray: Run, study: Path) -> None:
    for options, strict in (((), False), (("--strict",), True)):
        files, job = manifests.objects(done(smoe_ray("submit", study, *options, "--dry-run")))
        assert job_payload.is_strict(files["data"]["job.json"]) is strict
        assert job["spec"]["preRunningDeadlineSeconds"] == 1800


def sent(server: ApiServer, plural: str) -> Any:
    """The body of the last request that made one."""
    return next(body for method, path, body in reversed(server.heard) if method == "POST" and f"/{plural}?" in path)


def test_a_study_that_runs_is_not_started_twice_and_one_that_ended_is(
    smoe_ray: Run, ready: ApiServer, study: Path
) -> None:
    first = done(smoe_ray("submit", study)).strip()
    code, printed, error = smoe_ray("submit", study)
    assert (code, printed.strip()) == (0, first)
    assert "already running" in error
    assert len(ready.of("RayJob")) == 1

    other = done(smoe_ray("submit", study, "--out", "/mnt/results/elsewhere")).strip()
    assert other != first

    for state, second in (("Failed", f"{first}-2"), ("Complete", f"{first}-3")):
        for job in ready.of("RayJob"):
            job["status"] = {"jobDeploymentStatus": state}
        assert done(smoe_ray("submit", study)).strip() == second
        assert smoe_ray("submit", study)[1].strip() == second
    assert len(ready.of("RayJob")) == len(ready.of("ConfigMap")) == 4


def test_submit_leaves_nothing_behind_when_the_files_cannot_be_made(
    smoe_ray: Run, ready: ApiServer, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubernetes.client import ApiException, CoreV1Api

    create = CoreV1Api.create_namespaced_config_map

    def only_rehearse(self: Any, *arguments: Any, **options: Any) -> Any:
        if "dry_run" not in options:
            raise ApiException(status=403, reason="quota")
        return create(self, *arguments, **options)

    monkeypatch.setattr(CoreV1Api, "create_namespaced_config_map", only_rehearse)
    assert "quota" in refused(smoe_ray("submit", study))
    assert ready.of("RayJob") == []


@pytest.mark.parametrize("mode", ["K8sJobMode", "HTTPMode"])
def test_a_dry_run_prints_the_objects_and_speaks_to_no_cluster(
    smoe_ray: Run, server: ApiServer, study: Path, shared_data: Path, mode: str
) -> None:
    printed = done(smoe_ray("submit", study, "--dry-run", "--mode", mode, "--namespace", "team-a", "--context", "dead"))
    files, job = manifests.objects(printed)
    assert (files["kind"], job["kind"]) == ("ConfigMap", "RayJob")
    assert files["metadata"]["namespace"] == job["metadata"]["namespace"] == "team-a"
    assert crd_errors(job, shared_data) == []
    assert ray_errors(job) == []
    assert ("submitterPodTemplate" in job["spec"]) == (mode == "K8sJobMode")
    assert server.heard == []


@pytest.mark.parametrize(
    ("overlay", "image"),
    [("local", "smoe-ray"), ("gpu", "smoe-ray"), ("production", "registry.example.org/smoe-ray")],
)
def test_every_pod_of_a_study_has_the_image_that_was_given(
    smoe_ray: Run, study: Path, overlay: str, image: str
) -> None:
    asked = ("--overlay", overlay, "--image", f"{image}=reg.example/smoe-ray:9", "--dry-run")
    place = ("--out", "s3://team/results") if overlay == "production" else ()
    printed = done(smoe_ray("submit", study, *asked, *place))
    assert f"image: {image}:0.1.0" not in printed
    assert printed.count("image: reg.example/smoe-ray:9") >= 3  # head, worker, submitter


@pytest.mark.parametrize(("overlay", "gpus", "groups", "limit"), [
    ("gpu", 0, {"cpu"}, None), ("gpu", 0.5, {"cpu", "gpu"}, "1"), ("gpu", 2, {"cpu", "gpu"}, "2"),
])  # fmt: skip
def test_gpus_are_asked_for_when_the_study_does(
    smoe_ray: Run, study: Path, overlay: str, gpus: float, groups: set[str], limit: str | None
) -> None:
    printed = done(smoe_ray("submit", study, "--overlay", overlay, "--set", f"base.resources.gpus={gpus}", "--dry-run"))
    _, job = manifests.objects(printed)
    found = {group["groupName"]: group for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    assert set(found) == groups
    if limit is not None:
        resources = found["gpu"]["template"]["spec"]["containers"][0]["resources"]
        assert {resources[kind]["nvidia.com/gpu"] for kind in ("limits", "requests")} == {limit}
    assert ray_errors(job) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "base.resources.gpus=1"), "no worker of the overlay has any; use --overlay gpu"),
        (("--set", "base.resources.cpus=64"), "a trial requests 64 CPUs"),
        (("--out", "/home/me/results"), "not on a volume of the pods (they have /mnt/results)"),
        (("--out", "/mnt/results-2"), "not on a volume of the pods"),
        (("--out", "/mnt/results/../../etc"), "a path or URI of letters"),
        (("--out", "results"), "a path or URI of letters"),
        (("--out", "file:///home/me/results"), "not on a volume of the pods"),
        (("--out", "memory://results"), "not on a volume of the pods"),
        (("--out", "s3://bucket/$(touch pwned)"), "a path or URI of letters"),
        (("--out", 's3://bucket/"'), "a path or URI of letters"),
        (
            ("--set", "base.data={source: images, root: /home/me/drawings}"),
            "data.root /home/me/drawings: no pod can read it",
        ),
        (("--set", "base.data={source: quickdraw, root: drawings}"), "data.root drawings: no pod can read it"),
        (("--set", "base.data={source: images, root: file:///home/x}"), "data.root file:///home/x: no pod can read it"),
        (
            (
                *("--set", "kind=search", "--set", "num_trials=2"),
                *("--set", "objectives=[{metric: test.psnr, direction: maximize}]"),
                *("--set", "base.data={source: images, root: s3://a/b}"),
                *("--set", "space={data.root: {type: categorical, choices: [s3://a/b, drawings]}}"),
            ),
            "data.root drawings: no pod can read it",
        ),
        (("--out", "s3://bucket/results"), "block object storage; add the component s3"),
        (("--out", "s3://AKIA:s3cret@bucket/results"), "--out s3://…@bucket/results: credentials in a URI"),
        (
            ("--set", "base.data={source: images, root: 's3://AKIA:s3cret@bucket/x'}"),
            "data.root s3://…@bucket/x: credentials in a URI",
        ),
        (
            ("--set", "base.data={source: quickdraw, root: /mnt/results/x, classes: [eye, cat], download: true}"),
            "data.download: the NetworkPolicies of the overlay block the internet",
        ),
        (
            (
                *("--set", "base.data={source: quickdraw, root: /mnt/results/x, classes: [eye, cat]}"),
                *("--set", "axes={data.download: [false, true]}"),
            ),
            "data.download: the NetworkPolicies",
        ),
        (
            ("--set", "base.resources={workers: 3}"),
            "needs 3 workers of 1 CPUs and 0 GPUs at once, and the overlay has room for 2 at most",
        ),
        (("--set", "base.resources={workers: {min: 3, max: 9}}"), "room for 2 at most"),
        (
            ("--overlay", "gpu", "--set", "base.resources={workers: 9, gpus: 0.5}"),
            "needs 9 workers of 1 CPUs and 0.5 GPUs at once, and the overlay has room for 8 at most",
        ),
        (("--overlay", "production"), "placeholders of the overlay: "),
        (("--overlay", "production"), "s3://smoe-ray-results/out"),
        (("--overlay", "production"), "registry.example.org/smoe-ray:0.1.0"),
        (("--overlay", "production", "--out", "s3://team/results"), "placeholders of the overlay: registry.example"),
        (("--set", "base.modle=1"), "modle"),
        (("--with", "examples/plugin"), "--with examples/plugin: a RayJob carries no packages; install it in an image"),
    ],
)
def test_submit_refuses_what_cannot_run_before_it_speaks_to_a_cluster(
    smoe_ray: Run, server: ApiServer, study: Path, arguments: tuple[str, ...], words: str
) -> None:
    line = refused(smoe_ray("submit", study, *arguments))
    assert words in line
    assert "s3cret" not in line
    assert server.heard == []


def test_apply_refuses_placeholders(smoe_ray: Run, server: ApiServer) -> None:
    line = refused(smoe_ray("apply", "production", "--dry-run"))
    for placeholder in ("s3://smoe-ray-results/out", "registry.example.org/smoe-ray:0.1.0", "login.example.org"):
        assert placeholder in line
    assert server.heard == []


@pytest.mark.parametrize("name", ["s3://smoe-ray-results-b/out", "https://myexample.org", "registry.example.organic/x"])
def test_a_name_like_a_placeholder_is_none(name: str) -> None:
    manifests.refuse_placeholders(f"out: {name}\n")
    with pytest.raises(ClusterError, match=r"placeholders of the overlay: s3://smoe-ray-results/out;"):
        manifests.refuse_placeholders("out: s3://smoe-ray-results/out\nagain: s3://smoe-ray-results/out\n")


def test_as_many_workers_as_the_overlay_has_room_for_are_fine(smoe_ray: Run, study: Path) -> None:
    for overlay, resources in (("local", "{workers: 2}"), ("gpu", "{workers: 8, gpus: 0.5}")):
        done(smoe_ray("submit", study, "--overlay", overlay, "--set", f"base.resources={resources}", "--dry-run"))


def test_egress_is_what_the_policies_allow() -> None:
    egress = {name: manifests.read(manifests.render(name)).workers_have_egress for name in manifests.overlays()}
    assert egress == {"eks": False, "gke": False, "gpu": False, "local": False, "production": True}
    local = manifests.read(manifests.render("local"))
    assert local._replace(policies=()).workers_have_egress
    dns = [policy for policy in local.policies if policy["metadata"]["name"] == "dns"]
    assert not local._replace(policies=tuple(dns)).workers_have_egress  # link-local addresses are not the internet


def test_a_label_does_not_end_with_a_dash_and_the_study_may(smoe_ray: Run, study: Path) -> None:
    files, job = manifests.objects(done(smoe_ray("submit", study, "--set", "name=tiny--", "--dry-run")))
    assert files["metadata"]["labels"][STUDY_LABEL] == job["metadata"]["labels"][STUDY_LABEL] == "tiny"
    assert study_of(job) == ("tiny--", "/mnt/results")


def test_data_on_the_volume_or_in_a_bucket_are_fine(smoe_ray: Run, study: Path) -> None:
    for root in ("/mnt/results/drawings", "s3://bucket/drawings"):
        data = f"base.data={{source: images, root: '{root}'}}"
        assert root in done(smoe_ray("submit", study, "--set", data, "--dry-run"))


def test_a_study_that_no_config_map_can_hold_is_refused() -> None:
    overlay = manifests.read(manifests.render("local"))
    template = StudyJob(*manifests.job_template())
    spec = parse_study(yaml.safe_dump(STUDY)).model_copy(update={"axes": {"data.root": ("s3://" + "x" * 1_000_000,)}})
    with pytest.raises(StudyError, match="a ConfigMap holds 1 MiB: split it"):
        study_job(spec, [ResourcesSpec()], overlay, template)


def test_in_object_storage_there_is_no_volume_to_name(study: Path) -> None:
    overlay = manifests.read(manifests.render("production"))
    template = StudyJob(*manifests.job_template())
    spec = load_study(study)
    made = study_job(spec, [spec.base.resources], overlay, template)
    assert json.loads(made.files["data"]["job.json"])["out"] == overlay.out
    assert str(overlay.out).startswith("s3://")
    assert "gcsFaultToleranceOptions" not in made.job["spec"]["rayClusterSpec"]
    with pytest.raises(SmoeRayError, match="they have none"):
        study_job(spec, [spec.base.resources], overlay, template, out="/mnt/results")
    local = load_study(study, ["base.data={source: images, root: /mnt/results/x}"])
    with pytest.raises(DataError, match="they have none"):
        study_job(local, [spec.base.resources], overlay, template)


@example("9" * 63, "", 999)
@example("a" * 63, "", 1)
@given(st.from_regex(NAME_PATTERN, fullmatch=True), st.text(), st.integers(1, 999))
def test_every_study_has_a_name_that_kubernetes_takes(study: str, text: str, attempt: int) -> None:
    first, name = job_name(study, text, "/out"), job_name(study, text, "/out", attempt)
    assert len(name) <= NAME_LIMIT
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)  # a label of RFC 1035, as KubeRay wants it
    assert attempt_of(first, name) == attempt
    assert attempt_of(first, f"{first}-x") is None
    assert len({first, job_name(study, f"{text}.", "/out"), job_name(study, text, "/other")}) == 3


# --- status and port-forward ------------------------------------------------------------------------------------------


def pod(name: str, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "smoe-ray"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}, "status": status}


def unscheduled(message: str, reason: str = "Unschedulable") -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def waits_for(reason: str, message: str = "") -> dict[str, Any]:
    container = {"name": "a", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    return {
        "phase": "Pending",
        "containerStatuses": [container | {"state": {"waiting": {"reason": reason, "message": message}}}],
    }


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (unscheduled("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."), "no node has a free GPU"),
        (unscheduled("0/3 nodes are available: 3 Insufficient cpu."), "no node has enough free CPU or memory"),
        (unscheduled("0/1 nodes are available: 1 node(s) had untolerated taint {a: b}."), "toleration"),
        (unscheduled("0/1 nodes: didn't match Pod's node affinity/selector"), "no node has the labels"),
        (unscheduled("pod has unbound immediate PersistentVolumeClaims"), "its volume is not bound yet"),
        (unscheduled("", "SchedulingGated"), "it is queued"),
        (waits_for("ImagePullBackOff", 'Back-off pulling image "smoe-ray:0.1.0"'), "its image cannot be pulled"),
        (waits_for("CreateContainerConfigError", 'secret "smoe-ray-token" not found'), "smoe-ray k8s init"),
        (waits_for("CrashLoopBackOff", "back-off 5m0s"), "it crashes after it starts"),
        (waits_for("PodInitializing"), "it waits for the head"),
        (waits_for("SomethingNew", "in 2030"), "see kubectl describe pod [SomethingNew: in 2030]"),
        ({"phase": "Pending"}, "see kubectl describe pod"),
    ],
)
def test_status_says_why_a_pod_waits(smoe_ray: Run, server: ApiServer, status: dict[str, Any], words: str) -> None:
    server.put(pod("worker", **status))
    server.put(pod("fine", phase="Running"))
    server.put(pod("ended", phase="Succeeded"))
    [line] = [line for line in done(smoe_ray("status")).splitlines() if line.startswith("pending: ")]
    assert line.startswith("pending: worker: ")
    assert words in line


def event(of: str, reason: str, message: str, at: str, kind: str = "Pod") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{of}.{at}", "namespace": "smoe-ray"},
        "involvedObject": {"kind": kind, "name": of},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": f"2026-11-30T00:{at}:00Z",
    }


def test_status_reads_the_events_of_what_is_not_ready(smoe_ray: Run, ready: ApiServer) -> None:
    done(smoe_ray("apply", "local"))
    ready.put(pod("mounting", **waits_for("ContainerCreating")))
    ready.put(pod("pulling", **waits_for("ImagePullBackOff", "Back-off")))
    ready.put(pod("fine", phase="Running"))
    ready.put(event("mounting", "FailedMount", 'MountVolume.SetUp failed: secret "a" not found', "02"))
    ready.put(event("mounting", "FailedScheduling", "no node was ready", "01"))  # older
    ready.put(event("pulling", "Failed", "another reason", "02"))  # its status is more precise
    ready.put(event("fine", "Unhealthy", "Readiness probe failed", "02"))
    quota = 'pods "smoe-ray-head" is forbidden: exceeded quota: team'
    ready.put(event("smoe-ray", "FailedToCreateHeadPod", quota, "03", "RayCluster"))
    printed = done(smoe_ray("status"))
    assert "pending: mounting: its volume cannot be mounted [FailedMount: MountVolume" in printed
    assert "pending: pulling: its image cannot be pulled [ImagePullBackOff: Back-off]" in printed
    assert "fine" not in printed
    assert f"smoe-ray: not ready yet, 0 of 0 workers ready; FailedToCreateHeadPod: {quota}" in printed
    ready.forbidden.add("events")
    assert "pending: mounting: its container is being created" in done(smoe_ray("status"))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, "not seen by the operator yet"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "running"),
        (
            {"jobDeploymentStatus": "Retrying", "failed": 1},
            "failed, retrying on a new cluster, 1 failed attempts",
        ),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "ended (succeeded)"),
        (
            {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "\x1b[2J no\nway\x1b[2J\n"},
            "failed (failed); way [2J",
        ),
        (
            {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": RAY_MESSAGE},
            "failed (failed); smoe-ray: 1 of 2 trials failed, the first (0123456789ab) with: out of memory\n",
        ),
        (
            {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded", "message": "The RayJob has passed 1800 s"},
            "failed; DeadlineExceeded: The RayJob has passed 1800 s",
        ),
        ({"jobDeploymentStatus": "Unheard"}, "Unheard"),
    ],
)
def test_status_says_how_a_study_is(
    smoe_ray: Run, ready: ApiServer, study: Path, tmp_path: Path, status: dict[str, Any], words: str
) -> None:
    name = done(smoe_ray("submit", study)).strip()
    ready.of("RayJob")[0]["status"] = status
    printed = done(smoe_ray("status"))
    assert f"{name}: study tiny into /mnt/results, {words}" in printed
    assert "\x1b" not in printed


def test_status_says_that_a_namespace_does_not_exist(smoe_ray: Run, ready: ApiServer) -> None:
    assert "clusters: none in smoe-ray" in done(smoe_ray("status"))
    missing = "namespace nowhere: does not exist; smoe-ray k8s init creates it"
    assert refused(smoe_ray("status", "--namespace", "nowhere")) == missing


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            'The PersistentVolumeClaim "smoe-ray-results" is invalid: spec: Forbidden: spec is immutable after '
            "creation except resources.requests and volumeAttributesClassName for bound claims",
            'PersistentVolumeClaim "smoe-ray-results": the change is to a field that is immutable after creation',
        ),
        (
            'The Deployment "a" is invalid: spec.selector: Invalid value: {"matchLabels":{}}: field is immutable',
            'Deployment "a": the change is to a field that is immutable',
        ),
        (
            'Error from server (Forbidden): rayclusters.ray.io "smoe-ray" is forbidden: User "me" cannot patch '
            'resource "rayclusters" in API group "ray.io" in the namespace "smoe-ray"',
            'permission denied: User "me" cannot patch resource',
        ),
        (
            'Error from server (Forbidden): pods "head" is forbidden: exceeded quota: small, requested: cpu=1',
            'refused by the cluster\'s policy: pods "head" is forbidden: exceeded quota',
        ),
    ],
)
def test_a_refusal_of_the_server_says_what_kind_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, words: str
) -> None:
    (tmp_path / "said").write_text(said)
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/said >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ClusterError, match="^" + re.escape(words)):
        kubectl_program(["apply"])


def test_status_reads_the_results_where_it_can(smoe_ray: Run, ready: ApiServer, study: Path, tmp_path: Path) -> None:
    from smoe_ray.study import LocalExecutor, run_study

    done(smoe_ray("submit", study))
    assert "no results in" in done(smoe_ray("status", "--out", tmp_path / "out"))
    run_study(load_study(study), tmp_path / "out", LocalExecutor(device="cpu"))
    assert "1 of 1 trials finished, best test loss" in done(smoe_ray("status", "--out", tmp_path / "out"))
    assert "trials" not in done(smoe_ray("status"))  # the pods' folder is not here


def test_status_tells_of_a_cluster_and_of_what_keeps_its_pods_from_being_made(smoe_ray: Run, ready: ApiServer) -> None:
    assert "clusters: none in smoe-ray" in done(smoe_ray("status"))
    done(smoe_ray("apply", "local"))
    [cluster] = ready.of("RayCluster")
    cluster["status"] = {
        "state": "ready",
        "readyWorkerReplicas": 1,
        "desiredWorkerReplicas": 2,
        "maxWorkerReplicas": 2,
        "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}],
    }
    assert "smoe-ray: ready, 1 of 2 workers ready (max 2); exceeded quota" in done(smoe_ray("status"))


def test_port_forward_opens_a_port_for_this_machine_alone(
    smoe_ray: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    done(smoe_ray("port-forward", "--context", "test"))
    done(smoe_ray("port-forward", "head", "--port", 9000, "--namespace", "team-a"))
    _, dashboard, _, head = (tmp_path / "said").read_text().splitlines()
    assert dashboard == (
        "--context=test port-forward --namespace=smoe-ray --address=127.0.0.1 service/smoe-ray-dashboard 8501:8501"
    )
    assert head == "port-forward --namespace=team-a --address=127.0.0.1 service/smoe-ray-head-svc 9000:8265"


def test_port_forward_says_what_is_missing(smoe_ray: Run, ready: ApiServer) -> None:
    assert 'services "smoe-ray-dashboard" not found' in refused(smoe_ray("port-forward"))


def named(kind: str, name: str, version: str = "v1", **fields: Any) -> dict[str, Any]:
    metadata = {"name": name} | fields.pop("metadata", {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def operator(tag: str) -> dict[str, Any]:
    containers = [{"name": "operator", "image": f"quay.io/kuberay/operator:{tag}"}]
    labels = {"app.kubernetes.io/name": "kuberay-operator"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    metadata = {"namespace": "ray", "labels": labels}
    return named("Deployment", "kuberay-operator", "apps/v1", metadata=metadata, spec=spec)


def gpu_node(driver: str) -> dict[str, Any]:
    labels = {"nvidia.com/cuda.driver-version.major": driver}
    return named("Node", "node-1", metadata={"labels": labels}, status={"allocatable": {"nvidia.com/gpu": "8"}})


def quota(used: str) -> dict[str, Any]:
    status = {"hard": {"requests.cpu": "8"}, "used": {"requests.cpu": used}}
    return named("ResourceQuota", "team", metadata={"namespace": "smoe-ray"}, status=status)


def test_doctor_finds_a_cluster_that_is_ready(smoe_ray: Run, ready: ApiServer) -> None:
    for found in (operator("v1.7.0"), gpu_node("580"), quota("2"), storage_class("efs-sc", "efs.csi.aws.com")):
        ready.put(found)
    lines = done(smoe_ray("doctor", "eks")).splitlines()
    assert len(lines) == 8
    assert all(line.startswith("ok    ") for line in lines)
    ready.forbidden |= {"nodes", "resourcequotas"}
    assert "?     permission denied: nodes is forbidden" in done(smoe_ray("doctor", "eks"))


def test_doctor_says_what_to_do(smoe_ray: Run, server: ApiServer) -> None:
    code, printed, error = smoe_ray("doctor", "eks")
    assert (code, error) == (1, "smoe-ray: 3 checks failed; see above\n")
    for words in (
        "KubeRay's operator does not run; helm install",
        "namespace smoe-ray: does not exist; smoe-ray k8s init",
        "storage class efs-sc does not exist",
    ):
        assert f"FAIL  {words}" in printed or f"FAIL  PersistentVolumeClaim smoe-ray-results: {words}" in printed
    done(smoe_ray("init"))
    server.put(operator("v1.4.2"))
    server.put(gpu_node("570"))
    server.put(quota("8"))
    server.put(pod("head", **waits_for("ErrImagePull", "not found")))
    _, printed, _ = smoe_ray("doctor", "gpu")
    for words in (
        "KubeRay's operator in ray is quay.io/kuberay/operator:v1.4.2; needs 1.7 or later",
        "node node-1: NVIDIA driver 570; CUDA 13 needs 580 or later",
        "head: its image cannot be pulled; push it",
        "ResourceQuota team is used up (requests.cpu)",
    ):
        assert f"FAIL  {words}" in printed
    del server.kinds["ray.io/v1"]
    assert "FAIL  the cluster does not know ray.io/v1: KubeRay is not installed" in smoe_ray("doctor")[1]


def test_a_tenant_needs_no_right_to_namespaces(smoe_ray: Run, server: ApiServer, study: Path, tmp_path: Path) -> None:
    place = tmp_path / "tenant"
    place.mkdir()
    above = os.path.relpath(manifests.folder(), place)
    (place / "kustomization.yaml").write_text(
        f"namespace: team-a\nresources: [{above}/overlays/local]\ncomponents: [{above}/components/tenant]\n"
    )
    server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}})
    server.refuses_namespace_objects = True
    assert "namespace team-a: not part of the overlay" in done(smoe_ray("init", place))
    done(smoe_ray("apply", place))
    done(smoe_ray("submit", study, "--overlay", place))
    assert "study tiny into /mnt/results" in done(smoe_ray("status", "--namespace", "team-a"))


def test_a_queued_study_is_suspended_until_kueue_admits_it(smoe_ray: Run, study: Path, shared_data: Path) -> None:
    _, job = manifests.objects(done(smoe_ray("submit", study, "--queue", "team", "--dry-run")))
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert job["spec"]["suspend"] is True
    assert (crd_errors(job, shared_data), ray_errors(job)) == ([], [])
    _, job = manifests.objects(done(smoe_ray("submit", study, "--dry-run")))
    assert "suspend" not in job["spec"]


def test_wait_tells_how_a_study_ended(smoe_ray: Run, ready: ApiServer, study: Path) -> None:
    name = done(smoe_ray("submit", study)).strip()
    [job] = ready.of("RayJob")
    job["status"] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    assert "ended (succeeded)" in done(smoe_ray("wait", name))
    job["status"] = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": RAY_MESSAGE}
    assert refused(smoe_ray("wait", name)).endswith("with: out of memory")
    for verb in ("wait", "stop", "logs"):
        assert refused(smoe_ray(verb, "other")).startswith("other: no such study in smoe-ray; smoe-ray k8s status")


def test_stop_deletes_the_rayjob_alone(smoe_ray: Run, ready: ApiServer, study: Path) -> None:
    name = done(smoe_ray("submit", study)).strip()
    other = done(smoe_ray("submit", study, "--out", "/mnt/results/other")).strip()
    assert done(smoe_ray("stop", name)).strip() == f"{name}: deleted; its results are kept"
    assert [job["metadata"]["name"] for job in ready.of("RayJob")] == [other]


def test_logs_are_those_of_the_submitter_and_results_are_read_where_they_are(
    smoe_ray: Run, ready: ApiServer, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = done(smoe_ray("submit", study)).strip()
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    done(smoe_ray("logs", name, "--follow"))
    done(smoe_ray("results", name, "--csv"))
    # The label is Kubernetes' own, of the pods of a Job; the operator names the Job after the RayJob (golden pods).
    shown, table = (tmp_path / "said").read_text().splitlines()
    assert shown == f"logs --namespace=smoe-ray --selector=job-name={name} --tail=-1 --follow"
    before, _, words = table.partition(" -- ")
    assert before == "exec --namespace=smoe-ray deployment/smoe-ray-dashboard"
    told = parse(words.split())
    assert (told["out"], told["study"], told["csv"]) == ("/mnt/results", "tiny", True)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_gets_from_an_empty_cluster_to_the_dashboard_in_ten_commands(repository: Path) -> None:
    page = (repository / "docs" / "kubernetes.md").read_text()
    first = re.search(r"```bash\n(.*?)```", page, re.DOTALL)
    assert first is not None
    commands = first[1].splitlines()
    assert len(commands) <= 10
    verbs = [command.split()[2] for command in commands if command.startswith("smoe-ray k8s")]
    assert verbs == ["init", "apply", "submit", "status", "port-forward"]


@pytest.mark.parametrize(("heading", "overlay"), [("On EKS", "eks"), ("On GKE", "gke")])
def test_the_page_gets_a_study_onto_a_cloud_in_ten_commands(
    smoe_ray: Run, server: ApiServer, repository: Path, heading: str, overlay: str
) -> None:
    section = (repository / "docs" / "kubernetes.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    assert "**Not run on the cloud itself.**" in section
    commands = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[0].splitlines()
    assert len(commands) <= 10
    registry = commands[0].removeprefix("REGISTRY=")
    server.put(storage_class("efs-sc", "efs.csi.aws.com"))
    server.put(storage_class("standard-rwx", "filestore.csi.storage.gke.io"))
    ours = [
        command.replace("$REGISTRY", registry).split()[2:] for command in commands if command.startswith("smoe-ray")
    ]
    assert [words[0] for words in ours] == ["init", "apply", "submit"]
    for words in ours:
        done(smoe_ray(*words))
    assert f"{registry}/smoe-ray:0.1.0" in json.dumps(server.of("RayJob"))
    [claim] = server.of("PersistentVolumeClaim")
    assert claim["spec"]["storageClassName"] == {"eks": "efs-sc", "gke": "standard-rwx"}[overlay]


def test_the_overlays_of_the_page_build(repository: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(resources: .*?)```", (repository / "docs" / "kubernetes.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        place = tmp_path / str(number)
        place.mkdir()
        overlay = os.path.relpath(repository / "k8s", place)
        (place / "kustomization.yaml").write_text(block.replace("../smoe-ray/k8s", overlay))
        manifests.refuse_placeholders(manifests.render(str(place)))


# --- what may be missing ----------------------------------------------------------------------------------------------


def test_without_kuberay(smoe_ray: Run, ready: ApiServer, study: Path) -> None:
    del ready.kinds["ray.io/v1"]
    for arguments in (("apply", "local"), ("submit", study), ("status",)):
        line = refused(smoe_ray(*arguments))
        assert "KubeRay is not installed there; helm install" in line
    assert ready.changed() == []


def test_without_what_a_component_needs(smoe_ray: Run, ready: ApiServer) -> None:
    del ready.kinds["policy/v1"]
    line = refused(smoe_ray("apply", "local"))
    assert 'the cluster does not know "PodDisruptionBudget" in version "policy/v1": install its' in line


def test_without_a_namespace(smoe_ray: Run, server: ApiServer, study: Path) -> None:
    for arguments in (("apply", "local"), ("submit", study)):
        assert refused(smoe_ray(*arguments)) == "namespace smoe-ray: does not exist; smoe-ray k8s init creates it"


def test_without_a_cluster(smoe_ray: Run, server: ApiServer, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = (("init",), ("apply", "local"), ("submit", study), ("status",), ("port-forward",))
    for arguments in commands:
        assert refused(smoe_ray(*arguments, "--context", "dead")).startswith(
            "no Kubernetes API server answers (127.0.0.1:1)"
        )
        assert refused(smoe_ray(*arguments, "--context", "none")).startswith("context none: not in the kubeconfig")
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert "set KUBECONFIG" in refused(smoe_ray("status"))


def test_without_kubectl(smoe_ray: Run, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for arguments in (("render", "local"), ("apply", "local"), ("init",), ("submit", study), ("port-forward",)):
        assert refused(smoe_ray(*arguments)).startswith("kubectl: not on the PATH; see https://kubernetes.io/")


def test_without_the_client(smoe_ray: Run, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert "pip install '.[k8s]'" in refused(smoe_ray("status"))
