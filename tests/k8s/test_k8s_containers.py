"""Every command of every container exists in the program that it names, with its flags."""

from __future__ import annotations

import copy
import importlib
import ipaddress
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from ray._private import ray_constants

from smoe_ray.cluster.jobs import STOP_GRACE_S
from smoe_ray.spec import load_study
from support.k8s.command_lines import parse, ray_commands
from support.k8s.kuberay_pods import ray_command, submit_command
from support.k8s.manifests import Built, Manifest, of_kind, one, pod_templates, ray_clusters

OTHERS = {
    # https://valkey.io/topics/valkey.conf: any directive of valkey.conf, as an option
    "redis": {"--dir", "--appendonly", "--requirepass"},
    # https://oauth2-proxy.github.io/oauth2-proxy/configuration/overview
    "oauth2-proxy": {
        "--provider", "--http-address", "--upstream", "--reverse-proxy", "--cookie-secure", "--skip-provider-button",
        "--trusted-proxy-ip",
    },
}  # fmt: skip
"""Containers of programs that are not here: the options that their documentation has."""

OF_THE_OPERATOR = {"ray-head", "ray-worker", "autoscaler", "ray-job-submitter"}

VARIABLES = {"SMOE_RAY_OUT": "/mnt/results", "NIGHT": "nightly-29381280", "REDIS_PASSWORD": "secret"}


def command_of(container: Manifest) -> list[str]:
    """What a container runs, with its variables in place."""
    there = {variable["name"] for variable in container.get("env", ())}

    def value(match: re.Match[str]) -> str:
        assert match[1] in there, f"{container['name']}: {match[0]} is in no environment"
        return VARIABLES[match[1]]

    words = [*container.get("command", ()), *container.get("args", ())]
    return [re.sub(r"\$\((\w+)\)", value, word) for word in words]


def test_every_container_runs_something_that_exists(built: Built) -> None:
    seen = set()
    for objects in built.values():
        for pod in pod_templates(objects):
            for container in pod.containers:
                words = command_of(container)
                seen.add(container["name"])
                if container["name"] in OF_THE_OPERATOR:
                    assert not words
                elif container["name"] in OTHERS:
                    options = {word.partition("=")[0] for word in words if word.startswith("--")}
                    assert options <= OTHERS[container["name"]]
                else:
                    parse(words)
    assert seen == OF_THE_OPERATOR | set(OTHERS) | {"dashboard", "submit"}


FIXED_IN = {"oauth2-proxy": (7, 15, 6), "redis": (8, 1, 4)}
"""Of CVE-2026-40574 and CVE-2025-49844."""


def test_images_of_others_have_the_fixes_of_known_vulnerabilities(built: Built) -> None:
    pods = pod_templates(built["overlays/production"])
    containers = {container["name"]: container for pod in pods for container in pod.containers}
    for name, fixed in FIXED_IN.items():
        version = containers[name]["image"].rpartition(":")[2].removeprefix("v")
        assert tuple(map(int, version.split("."))) >= fixed
    words = command_of(containers["oauth2-proxy"])
    assert "--reverse-proxy=true" in words
    trusted = [word.partition("=")[2] for word in words if word.startswith("--trusted-proxy-ip=")]
    assert trusted
    assert all(ipaddress.ip_network(block).is_private or block == "100.64.0.0/10" for block in trusted)


def test_a_flag_that_smoe_ray_does_not_know_is_found() -> None:
    with pytest.raises(Exception, match="--hosts"):
        parse(["smoe-ray", "dashboard", "/mnt/results", "--hosts=0.0.0.0"])


def test_the_dashboard_is_told_of_out_and_of_the_head(built: Built) -> None:
    [container] = one(built["base"], "Deployment")["spec"]["template"]["spec"]["containers"]
    told = parse(command_of(container))
    assert (told["out"], told["host"], told["port"]) == ("/mnt/results", "0.0.0.0", 8501)
    cluster = one(built["base"], "RayCluster")["metadata"]["name"]
    assert told["address"] == f"http://{cluster}-head-svc:8265"  # the operator's Service


def test_every_night_has_a_study_of_its_own(built: Built, tmp_path: Path) -> None:
    [container] = one(built["jobs/nightly"], "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    told = parse(command_of(container))
    assert told["wait"]
    assert told["out"] == "/mnt/results"
    study = tmp_path / "study.yaml"
    study.write_text(one(built["jobs/nightly"], "ConfigMap")["data"]["study.yaml"])
    assert load_study(study, told["overrides"]).name == "nightly-29381280"


def test_every_night_of_the_option_has_a_study_of_its_own_too(built: Built) -> None:
    job = one(built["jobs/nightly-raycronjob"], "RayCronJob")["spec"]["jobTemplate"]
    line = subprocess.run(
        ["bash", "-c", f"echo {job['entrypoint']}"], capture_output=True, text=True, check=True
    ).stdout  # as the operator's submitter expands it
    told = parse(shlex.split(line))
    assert told["out"] == "/mnt/results"
    assert re.fullmatch(r"name=nightly-[0-9]{4}-[0-9]{2}-[0-9]{2}", "".join(told["overrides"]))
    assert told["strict"] is False  # a retry would repeat a diverged trial


def test_ray_starts_with_the_parameters_of_every_group(built: Built) -> None:
    for objects in built.values():
        for name, spec in ray_clusters(objects):
            groups = [(spec["headGroupSpec"], True), *((group, False) for group in spec["workerGroupSpecs"])]
            for group, is_head in groups:
                [words] = ray_commands(ray_command(group, head=is_head, head_address=f"{name}-head-svc")[-1])
                started = parse(words)
                assert started["head"] is is_head
                assert started["object_store_memory"] == int(group["rayStartParams"]["object-store-memory"])
                if is_head:
                    assert started["num_cpus"] == 0
                if group.get("groupName") == "gpu":
                    assert started["num_gpus"] == 1


def test_a_parameter_that_ray_does_not_know_is_found(built: Built) -> None:
    group = copy.deepcopy(one(built["base"], "RayCluster")["spec"]["headGroupSpec"])
    group["rayStartParams"]["num-cpu"] = "0"
    [words] = ray_commands(ray_command(group, head=True, head_address="head")[-1])
    with pytest.raises(click.NoSuchOption, match="num-cpu"):
        parse(words)


def test_the_operators_submitter_can_say_all_that_a_job_asks_for(built: Built) -> None:
    jobs = [(unit, found) for unit, objects in built.items() for found in of_kind(objects, "RayJob")]
    assert jobs
    for unit, job in jobs:
        ran = {words[2]: parse(words) for words in ray_commands(submit_command(job, "head:8265", "job-1")[-1])}
        assert set(ran) == {"status", "submit", "logs"}, unit
        submitted = ran["submit"]
        assert shlex.join(submitted["entrypoint"]) == job["spec"]["entrypoint"]
        assert json.loads(submitted["metadata_json"]) == job["spec"]["metadata"]
        environment = json.loads(submitted["runtime_env_json"])["env_vars"]
        assert environment == {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_GRACE_S)}


def test_a_jobs_entrypoint_reads_the_study_in_its_folder(built: Built, tmp_path: Path) -> None:
    words = shlex.split(one(built["jobs/study"], "RayJob")["spec"]["entrypoint"])
    here = [word.replace("/etc/smoe-ray/study", str(tmp_path)) for word in words]
    assert here != words
    here[here.index("python")] = sys.executable
    ran = subprocess.run(here, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.startswith("smoe-ray: study.yaml")) == (1, True), ran.stderr


def test_the_operators_autoscaler_is_part_of_our_ray() -> None:
    told = parse(["ray", "kuberay-autoscaler", "--cluster-name", "smoe-ray", "--cluster-namespace", "smoe-ray"])
    assert told["cluster_name"] == "smoe-ray"
    importlib.import_module("ray.autoscaler._private.kuberay.run_autoscaler")


def test_ray_knows_the_variable_of_its_drain() -> None:
    assert ray_constants.RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S > 0
