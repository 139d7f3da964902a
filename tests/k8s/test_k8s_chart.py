"""The Helm chart: object by object what kustomize builds, with values that say what they refuse.

tests/k8s/conftest.py adds its output to the manifests, so that the tests of schemas, pods and policies walk it, too.
"""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from smoe_ray.cli import app
from smoe_ray_k8s.chart import generate
from support.k8s.manifests import CHARTS, K8S, NAMESPACE, S3, Built, Manifest, build_chart, one, run_helm, title

CHART = K8S / "chart"
COMPONENTS = {"base": (), "gpu": ("gpu",), "s3": ("s3",), "gpu-s3": ("gpu", "s3")}


def by_title(objects: list[Manifest]) -> dict[str, Manifest]:
    return {title(found): found for found in objects}


@pytest.mark.parametrize("name", CHARTS)
def test_the_chart_is_what_kustomize_builds(built: Built, kubectl: str, name: str) -> None:
    chart = by_title(copy.deepcopy(built[f"chart/{name}"]))
    if "PersistentVolumeClaim/smoe-ray-results" in chart:
        annotations = chart["PersistentVolumeClaim/smoe-ray-results"]["metadata"].pop("annotations")
        assert annotations == {"helm.sh/resource-policy": "keep"}  # `helm uninstall` deletes no results
    assert chart == by_title(generate.built(COMPONENTS[name]))
    if name in ("base", "gpu"):
        folder = {"base": "base", "gpu": "overlays/gpu"}[name]
        theirs = by_title(built[folder])
        assert theirs.pop(f"Namespace/{NAMESPACE}")  # Helm's --create-namespace
        assert chart == theirs


@pytest.mark.parametrize(
    ("overlay", "values"),
    [
        ("eks", ("storage.className=efs-sc",)),
        ("gke", ("storage.className=standard-rwx", "storage.size=1Ti")),
    ],
)
def test_values_make_the_overlays_of_clouds(built: Built, helm: str, overlay: str, values: tuple[str, ...]) -> None:
    chart = by_title(build_chart(helm, "gpu.enabled=true", *values))
    del chart["PersistentVolumeClaim/smoe-ray-results"]["metadata"]["annotations"]
    theirs = by_title(built[f"overlays/{overlay}"])
    del theirs[f"Namespace/{NAMESPACE}"]
    assert chart == theirs


def test_the_templates_are_up_to_date(kubectl: str) -> None:
    generated = generate.templates()
    written = {path.name: path.read_text() for path in (CHART / "templates").glob("*.yaml")}
    assert written.pop("checks.yaml")  # the one that is written by hand
    assert written == generated, "run python k8s/chart/generate.py"


def test_helm_finds_no_fault(helm: str, tmp_path: Path) -> None:
    linted = run_helm(helm, "lint", "--strict", CHART)
    assert linted.returncode == 0, linted.stdout
    packed = run_helm(helm, "package", CHART, "--destination", tmp_path)
    assert packed.returncode == 0, packed.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["smoe-ray-0.1.0.tgz"]


def test_it_has_the_version_of_the_project(repository: Path) -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("worker.maxReplicas=2", "additional properties 'worker' not allowed"),
        ("gpu.enabled=yes", "got string, want boolean"),
        ("workers.minReplicas=9", "workers.minReplicas: 9 is more than maxReplicas, 8"),
        ("images.ray=registry.example.net/smoe-ray:latest", "images.ray: the tag latest is mutable"),
        ("images.ray=smoe-ray", "does not match pattern"),
        ("out=/tmp/results", "does not match pattern"),
        ("out=s3://bucket/out", "add --set s3.enabled=true"),
        ("s3.enabled=true", "give a bucket"),
        ("storage.accessMode=ReadOnlyMany", "must be one of"),
        ("head.resources.limits.memory=6 GB", "does not match pattern"),
    ],
)
def test_what_cannot_work_is_refused(helm: str, value: str, complaint: str) -> None:
    ran = run_helm(helm, "template", "smoe-ray", CHART, "--set", value)
    assert ran.returncode == 1
    assert complaint in ran.stderr


def test_values_reach_the_objects(helm: str) -> None:
    found = build_chart(
        helm,
        *S3,
        "gpu.enabled=true",
        "images.gpu=ghcr.io/team/smoe-ray-gpu:1",
        "imagePullSecrets[0].name=registry",
        r"serviceAccounts.annotations.eks\.amazonaws\.com/role-arn=arn:aws:iam::1:role/a",
        r"gpu.nodeSelector.cloud\.google\.com/gke-accelerator=nvidia-l4",
        "workers.maxReplicas=2",
        "dashboard.resources.limits.cpu=1",
    )
    cpu, gpu = one(found, "RayCluster")["spec"]["workerGroupSpecs"]
    assert (cpu["maxReplicas"], gpu["maxReplicas"]) == (2, 4)
    pod = gpu["template"]["spec"]
    assert pod["containers"][0]["image"] == "ghcr.io/team/smoe-ray-gpu:1"
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    for name in ("smoe-ray-head", "smoe-ray-worker", "smoe-ray-dashboard"):
        annotations = one(found, "ServiceAccount", name)["metadata"]["annotations"]
        assert annotations == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a"}
    assert "annotations" not in one(found, "ServiceAccount", "smoe-ray-submitter")["metadata"]


def test_every_value_is_used_and_every_value_that_is_used_is_there() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    leaves = {
        f"{key}.{name}" if isinstance(value, dict) else key
        for key, value in values.items()
        for name in (value if isinstance(value, dict) else [None])
    }
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir() if path.name != "checks.yaml")
    assert set(re.findall(r"\.Values\.(\w+(?:\.\w+)?)", text)) == leaves


def test_studies_are_submitted_to_what_the_chart_installed(helm: str, kubectl: str, tmp_path: Path) -> None:
    """As docs/kubernetes.md says: the chart's output is an overlay."""
    ran = run_helm(helm, "template", "smoe-ray", CHART, "--namespace", "team", "--set", "workers.maxReplicas=3")
    (tmp_path / "chart.yaml").write_text(ran.stdout)
    (tmp_path / "kustomization.yaml").write_text("resources: [chart.yaml]\n")
    study = K8S.parent / "studies/quickstart.yaml"
    done = CliRunner().invoke(app, ["k8s", "submit", str(study), "--overlay", str(tmp_path), "--dry-run"])
    assert done.exit_code == 0, done.output
    [files, job] = yaml.safe_load_all(done.stdout)
    assert files["metadata"]["namespace"] == job["metadata"]["namespace"] == "team"
    assert job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] == 3
