"""A study on pods that are not Kubernetes', from the manifests that are: head, workers, submitter and dashboard.

What the operator would make of the overlay `local` and of the RayJob of `smoe-ray k8s submit` runs as processes in
namespaces: the same commands, environment, user, read-only root and volumes. Not rehearsed: images, scheduling, the
autoscaler's container, NetworkPolicies, and what Kubernetes does with the answer of a probe.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import expect, sync_playwright

from smoe_ray.k8s import manifests
from smoe_ray.k8s.rayjob import StudyJob, study_job
from smoe_ray.results import read_trials
from smoe_ray.spec import parse_study
from support.k8s.kuberay_pods import (
    Manifest,
    container,
    own_environment,
    probes,
    ray_command,
    ray_environment,
    submit_command,
    token_environment,
    wait_command,
)
from support.k8s.pods import Node, Pod, node
from support.processes import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ATTEMPTS = 5
WAIT_S = 900
PODS = ("head", "worker-1", "worker-2", "worker-3", "worker-4", "submitter", "dashboard")
CHROMIUM = Path("/usr/bin/chromium")
DRAIN_S = 15
"""Instead of the manifest's 90 s, which a worker would wait in full."""

EPOCHS = 300
STUDY = f"""
name: rehearsal
question: Does a study survive what happens to pods?
base:
  data: {{source: synthetic, classes: [eye, pencil], train_per_class: 200, test_per_class: 20}}
  model: {{num_experts: 2, encoder: lite}}
  training: {{budget: {EPOCHS} epochs, batch_size: 32}}
seeds: [0, 1]
"""


class Rehearsal:
    """The pods of a RayJob, made as the operator would make them."""

    def __init__(self, machine: Node, study: str) -> None:
        self.machine = machine
        rendered = manifests.render("local")
        self.objects = manifests.objects(rendered)
        overlay = manifests.read(rendered)
        spec = parse_study(study)
        template = StudyJob(*manifests.job_template())
        self.job = study_job(spec, [spec.base.resources], overlay, template)
        self.cluster: Manifest = self.job.job["spec"]["rayClusterSpec"]
        self.token = "a" * 64
        self.config_maps = {each["metadata"]["name"]: each["data"] for each in self.kind("ConfigMap")}
        machine.files[self.job.name] = self.job.files["data"]
        machine.files[overlay.token_secret] = {manifests.TOKEN_KEY: self.token}
        # The head's Service is called after the cluster; that of the standing cluster, which the dashboard asks, too.
        self.service = f"{self.job.name}-x7k2p-head-svc"
        self.head_address = f"{self.service}.{overlay.namespace_name}.svc.cluster.local"
        machine.aliases |= dict.fromkeys((self.service, self.head_address, "smoe-ray-head-svc"), "head")
        self.out = machine.claim("smoe-ray-results")

    def kind(self, kind: str) -> list[Manifest]:
        return [each for each in self.objects if each["kind"] == kind]

    def start_head(self) -> Pod:
        return self._start_ray("head", self.cluster["headGroupSpec"], head=True)

    def start_worker(self, name: str) -> Pod:
        [group] = self.cluster["workerGroupSpecs"]
        return self._start_ray(name, group, head=False)

    def _start_ray(self, name: str, group: Manifest, *, head: bool) -> Pod:
        pod = self.machine.pod(name, group["template"])
        environment = (
            own_environment(group["template"], self.config_maps, name)
            | ray_environment(group, head=head, head_address=self.head_address, pod=name, cluster="rehearsal-x7k2p")
            | token_environment(self.token)
        )
        if not head:
            environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = str(DRAIN_S)
            assert "GCS is ready." in pod.run(wait_command(self.head_address), environment, WAIT_S)
        command = ray_command(group, head=head, head_address=self.head_address)
        for _ in range(ATTEMPTS):  # Ray gives up after 30 s on a busy machine, and the operator makes a new pod
            process = pod.start(command, environment)
            wait_until(lambda: process.poll() is not None or is_ready(pod, head=head), f"{name} is ready", 300, 1)  # noqa: B023
            with suppress(subprocess.TimeoutExpired):
                process.wait(3)  # it looks once a second whether all of its processes live
            if process.poll() is None:
                return pod
        raise AssertionError(pod.log.read_text())

    def start_submitter(self) -> tuple[Pod, subprocess.Popen[bytes]]:
        template = self.job.job["spec"]["submitterPodTemplate"]
        pod = self.machine.pod("submitter", template)
        environment = (
            own_environment(template, self.config_maps, "submitter")
            | token_environment(self.token)
            | {"PYTHONUNBUFFERED": "1", "RAY_DASHBOARD_ADDRESS": f"{self.head_address}:8265"}
        )
        command = submit_command(self.job.job, f"{self.head_address}:8265", "rehearsal-abcde")
        return pod, pod.start(command, environment)

    def start_dashboard(self) -> Pod:
        [deployment] = self.kind("Deployment")
        template = deployment["spec"]["template"]
        pod = self.machine.pod("dashboard", template)
        environment = own_environment(template, self.config_maps, "dashboard")
        words = [
            expanded(word, environment) for key in ("command", "args") for word in container(template).get(key, ())
        ]
        pod.start(words, environment)
        return pod

    def rows(self) -> dict[str, pd.DataFrame]:
        """Trial: its rows so far."""
        found = {}
        for file in self.out.glob("rehearsal/trials/*/epochs.parquet"):
            with suppress(OSError, ValueError):  # replaced at this moment
                found[file.parent.name] = pd.read_parquet(file)
        return found

    def hosts(self) -> dict[str, str]:
        """Trial: the pod that has it."""
        return {record.trial_id: record.host for record in read_trials(self.out, "rehearsal") if record.host}


def expanded(word: str, environment: Mapping[str, str]) -> str:
    for name, value in environment.items():
        word = word.replace(f"$({name})", value)
    return word


@pytest.fixture
def rehearsal(tmp_path: Path) -> Any:
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nsenter", "unshare", "setpriv", "kubectl"))):
        pytest.skip("pods of our own need root, ip, nsenter, unshare, setpriv and kubectl")
    program = Path(sys.executable).absolute()
    beside = str(program.with_name("ray"))
    reads = subprocess.run(["setpriv", "--reuid=1000", "--clear-groups", "test", "-r", beside], check=False)
    if reads.returncode or any(program.is_relative_to(volume) for volume in ("/tmp", "/dev/shm", "/home/ray")):
        pytest.skip(f"{program} is out of the pods' reach: their user may not read it, or their volumes lie over it")
    with node(tmp_path, PODS) as machine:
        yield Rehearsal(machine, STUDY)


def test_a_study_survives_what_happens_to_its_pods(rehearsal: Rehearsal) -> None:
    def log_of(pod: str) -> str:
        return "".join(
            each.log.read_text() for each in rehearsal.machine.pods if each.name == pod and each.log.exists()
        )

    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(rehearsal.start_worker, "worker-1")  # before there is a head: it waits
        wait_until(lambda: early.done() or "Waiting for GCS to be ready." in log_of("worker-1"), "it waits", 120, 0.2)
        head = rehearsal.start_head()
        workers = {"worker-1": early.result()}
    workers["worker-2"] = rehearsal.start_worker("worker-2")
    dashboard = rehearsal.start_dashboard()
    submitter, submitting = rehearsal.start_submitter()

    def one_each() -> bool:
        assert submitting.poll() is None, submitter.log.read_text()
        rows = rehearsal.rows()
        return len(rows) == 2 and min(map(len, rows.values())) >= 3 and len(set(rehearsal.hosts().values())) == 2

    wait_until(one_each, "a trial on each worker", 300, 0.2)

    # A pod is asked to go: its trial goes on and stores every epoch until the pod does go, in time.
    leaving, lost = workers["worker-2"], workers["worker-1"]
    trial_of = {host: trial for trial, host in rehearsal.hosts().items()}
    before = rehearsal.rows()[trial_of["worker-2"]]
    assert b"ray" in Path(f"/proc/{leaving.main_process()}/cmdline").read_bytes()  # bash would not pass a signal on
    asked_at = time.monotonic()
    os.kill(leaving.main_process(), signal.SIGTERM)
    leaving.started[-1].wait(leaving.template["spec"]["terminationGracePeriodSeconds"])
    took_s = time.monotonic() - asked_at
    leaving.kill()
    # And a node is lost without a word.
    lost.kill()
    stored = rehearsal.rows()
    sys.stdout.write(f"leaving took {took_s:.1f} s, {len(stored[trial_of['worker-2']]) - len(before)} epochs\n")
    assert DRAIN_S <= took_s < DRAIN_S + 30
    assert len(before) < len(stored[trial_of["worker-2"]]) < EPOCHS
    assert len(stored[trial_of["worker-1"]]) < EPOCHS

    # Other pods take their trials, at the epochs that were stored.
    for name in ("worker-3", "worker-4"):
        rehearsal.start_worker(name)
    assert submitting.wait(1500) == 0, submitter.log.read_text()
    records = read_trials(rehearsal.out, "rehearsal")
    assert [record.status for record in records] == ["finished"] * 2
    assert {record.host for record in records} <= {"worker-3", "worker-4"}
    for trial, rows in rehearsal.rows().items():
        assert len(rows) == EPOCHS
        # The same to the wall clock: none of them was trained again.
        pd.testing.assert_frame_equal(rows.head(len(stored[trial])), stored[trial])
    job = rehearsal_job(head, rehearsal)
    assert job["status"] == "SUCCEEDED"
    assert job["metadata"]["smoe_ray.study"] == "rehearsal"
    assert "2/2 done" in submitter.log.read_text()

    assert "ok" in get(dashboard, "http://127.0.0.1:8501/_stcore/health")
    assert_a_browser_sees("rehearsal", f"http://{dashboard.address}:8501")


ASK = """
import sys, urllib.request
headers = dict(header.split("=", 1) for header in sys.argv[2:])
print(urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=headers)).read().decode())
"""


def is_ready(pod: Pod, *, head: bool) -> bool:
    """Whether the container's readiness probe succeeds: Kubernetes asks without Ray's token."""
    probe = probes(head=head)["readinessProbe"]
    asked = probe["httpGet"]
    try:
        get(pod, f"http://127.0.0.1:{asked['port']}{asked['path']}")
    except AssertionError:
        return False
    return True


def get(pod: Pod, url: str, *headers: str) -> str:
    """What a URL answers inside a pod."""
    return pod.run(["python", "-c", ASK, url, *headers], {"HOME": "/tmp"})


def assert_a_browser_sees(text: str, url: str) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"everything but the browser's view: {CHROMIUM} is not there")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(url)
        expect(page.get_by_text(text).first).to_be_attached(timeout=60_000)  # its tables are drawings
        browser.close()


def rehearsal_job(head: Pod, rehearsal: Rehearsal) -> Any:
    said = get(head, "http://127.0.0.1:8265/api/jobs/rehearsal-abcde", f"Authorization=Bearer {rehearsal.token}")
    return json.loads(said)
