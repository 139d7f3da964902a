"""Fixtures of the tests of k8s/."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.k8s.manifests import K8S, Built, Manifest, build, build_with_component, program, units


@pytest.fixture(scope="session")
def kubectl() -> str:
    """The program; tests that need it are skipped where it is absent."""
    path = program("kubectl")
    if path is None:
        if os.environ.get("SMOE_RAY_REQUIRE_KUBECTL"):
            pytest.fail("kubectl is absent; SMOE_RAY_REQUIRE_KUBECTL says that these tests must run")
        pytest.skip("kubectl is absent: manifests cannot be built")
    return path


@pytest.fixture(scope="session")
def built(kubectl: str, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Everything below k8s/ that can be applied, and every component over what it is for: name -> objects."""
    folder = tmp_path_factory.mktemp("overlays")
    alone = {str(unit.relative_to(K8S)): build(kubectl, unit) for unit in units()}
    components = {
        f"components/{path.name}": build_with_component(kubectl, path, folder)
        for path in sorted((K8S / "components").iterdir())
    }
    return alone | components


@pytest.fixture
def production(built: Built) -> list[Manifest]:
    """The overlay with nearly all components, and the jobs that run beside it."""
    return [*built["overlays/production"], *built["jobs/study"], *built["jobs/nightly"]]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return K8S.parent
