"""Fixtures of the tests of k8s/."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.k8s.manifests import CHARTS, K8S, Built, Manifest, build, build_chart, build_with_component, program, units


def required(name: str) -> str:
    """A program; tests that need it are skipped where it is absent."""
    path = program(name)
    if path is None:
        if os.environ.get("SMOE_RAY_REQUIRE_KUBECTL"):
            pytest.fail(f"{name} is absent; SMOE_RAY_REQUIRE_KUBECTL says that these tests must run")
        pytest.skip(f"{name} is absent; .ci/kubernetes-programs installs it")
    return path


@pytest.fixture(scope="session")
def kubectl() -> str:
    """Builds the manifests."""
    return required("kubectl")


@pytest.fixture(scope="session")
def helm() -> str:
    """Renders the chart."""
    return required("helm")


@pytest.fixture(scope="session")
def built(kubectl: str, helm: str, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All that can be applied (below k8s/, each component over what it is for, the chart): name -> objects."""
    folder = tmp_path_factory.mktemp("overlays")
    alone = {str(unit.relative_to(K8S)): build(kubectl, unit) for unit in units()}
    components = {
        f"components/{path.name}": build_with_component(kubectl, path, folder)
        for path in sorted((K8S / "components").iterdir())
    }
    charts = {f"chart/{name}": build_chart(helm, *values) for name, values in CHARTS.items()}
    return alone | components | charts


@pytest.fixture
def production(built: Built) -> list[Manifest]:
    """The overlay with nearly all components, and the jobs that run beside it."""
    return [*built["overlays/production"], *built["jobs/study"], *built["jobs/nightly"]]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return K8S.parent
