"""What is in the images (make sbom), and that no pinned version has a known advisory (.ci/advisories.py)."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from smoe_ray_k8s.images import sbom
from support.k8s.dockerfile import stages
from support.k8s.manifests import K8S

ADVISORIES = K8S.parent / ".ci" / "advisories.py"


def advisories(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ADVISORIES, file], capture_output=True, text=True, check=False)


def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("advisories", ADVISORIES)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_no_pinned_version_has_a_known_advisory(repository: Path) -> None:
    scanned = advisories(repository / "constraints.txt")
    assert (scanned.returncode, scanned.stderr) == (0, ""), scanned.stdout


def test_a_vulnerable_version_is_found(tmp_path: Path) -> None:
    (tmp_path / "pins.txt").write_text("# pins\nPillow==8.0.0\nPyYAML==5.3\nnumpy==2.3.0\n")
    scanned = advisories(tmp_path / "pins.txt")
    assert scanned.returncode == 1
    found = scanned.stdout.splitlines()
    assert any(line.startswith("pillow==8.0.0: pyup.io-40264 (CVE-2020-15999): Pillow 8.0.1 updates") for line in found)
    assert {line.partition("==")[0] for line in found} == {"pillow", "pyyaml"}


def test_an_accepted_advisory_is_not_reported_and_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = module()
    found = [line.split()[1] for line in scan.findings({"pyyaml": "5.3"})]
    assert found
    monkeypatch.setattr(scan, "ACCEPTED", dict.fromkeys(found, "only safe_load is used here"))
    assert list(scan.findings({"pyyaml": "5.3"})) == []
    assert list(scan.findings({"pyyaml": "6.0.2"})) == [
        f"{each}: accepted, and concerns no version any more: remove it" for each in sorted(found)
    ]


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sbom")
    sbom.main(folder)
    return {image: json.loads((folder / f"{image}.cdx.json").read_text()) for image in sbom.IMAGES}


def test_a_bill_lists_what_an_image_installs(bills: dict[str, dict[str, Any]], repository: Path) -> None:
    lines = (repository / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    names = {}
    for image, bill in bills.items():
        assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
        assert bill["metadata"]["component"]["name"] == "smoe-ray"
        found = {re.sub(r"[-_.]+", "-", each["name"]).lower(): each for each in bill["components"]}
        for name, each in found.items():
            assert each["version"].partition("+")[0] == pins[name], name
            assert each["purl"].lower().startswith(f"pkg:pypi/{name}@"), each["purl"]
        refs = {each["bom-ref"] for each in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
        assert {each["ref"] for each in bill["dependencies"]} == refs
        assert {ref for each in bill["dependencies"] for ref in each["dependsOn"]} <= refs
        names[image] = set(found)
    ray, dashboard = names["smoe-ray"], names["smoe-ray-dashboard"]
    assert {"torch", "ray", "s3fs", "gcsfs", "numpy", "aiohttp"} <= ray
    assert ray < dashboard
    assert {"streamlit", "plotly"} <= dashboard - ray
    assert dashboard & {"pytest", "ruff", "mypy", "cyclonedx-bom", "kubernetes-validate", "hypothesis"} == set()


def test_a_bill_is_of_the_extras_that_the_dockerfile_installs() -> None:
    found = stages(K8S / "images/Dockerfile")
    for image, stage in (("smoe-ray", "ray"), ("smoe-ray-dashboard", "dashboard-environment")):
        [extras] = re.findall(r"\.whl\)\[([\w,]+)\]", " ".join(found[stage].texts("RUN")))
        assert tuple(extras.split(",")) == sbom.IMAGES[image]


@pytest.mark.slow
def test_a_bill_is_valid_and_always_the_same(bills: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    sbom.main(tmp_path)
    again = {image: (tmp_path / f"{image}.cdx.json").read_text() for image in bills}
    assert {image: json.loads(text) for image, text in again.items()} == bills
    # The larger of the two: validation takes many seconds.
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(again["smoe-ray-dashboard"]) is None
