"""Every command of README, of docs/, of the studies and of benchmarks/results, run as it is written, on small results.

Those of a cluster are run by tests/cluster/test_docs_cluster.py, those of Kubernetes by tests/k8s, and the pages about
extending by tests/test_extending.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer.main
import yaml

from smoe_ray.cli import app
from smoe_ray.data.fetching import data_to_fetch
from smoe_ray.data.published_files import published_files
from smoe_ray.figures import FIGURES
from smoe_ray.spec import NamedDataBase, load_study
from smoe_ray.study import LocalExecutor, run_study
from support.planted_folder import plant
from support.published_sets import write_cifar10, write_mnist
from support.quick_probe import few_steps
from support.quickdraw_files import scribbles, write_sketchrnn
from support.released_checkpoint import write_released

ROOT = Path(__file__).resolve().parents[1]
CATEGORIES = ("face", "eye", "cat", "snowflake", "pencil", "flower", "banana")


def _check() -> ModuleType:
    """docs/check.py, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("docs_check", ROOT / "docs" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECK = _check()
ON_A_CLUSTER = {"submit", "jobs", "logs", "stop", "k8s"}
RUN_BY_TEST_EXTENDING = {ROOT / "docs" / "extending.md", ROOT / "examples" / "plugin" / "README.md"}
PLACES = {
    "OUT": "results",
    "DIR": "figures",
    "OTHER": "supervised",
    "KIND": "training_curves",
    "/mnt/results": "results",
}
"""What stands in a page for something of the reader's own, or of another machine."""


def is_run_here(words: list[str]) -> bool:
    """Not one of a cluster, and not the mere name of a verb or option."""
    mentioned = len(words) == 1 or words[1].startswith("-") or "..." in words
    in_tests_export = not {"--log-to", "mlflow", "trackio"}.isdisjoint(words)  # take long, or may be absent
    return not (mentioned or in_tests_export or words[0] in ON_A_CLUSTER or "$job" in words)


def documented() -> list[str]:
    """The commands that are run here, each once, in the order of the pages."""
    pages = [page for page in CHECK.PAGES if page not in RUN_BY_TEST_EXTENDING]
    found = [words for page in pages for words in CHECK.commands(page.read_text(encoding="utf-8"))]
    found += [words for study in CHECK.STUDIES for words in CHECK.commands_of_study(study.read_text(encoding="utf-8"))]
    return list(dict.fromkeys(shlex.join(words) for words in found if is_run_here(words)))


def test_commands_are_found_in_every_kind_of_page() -> None:
    found = documented()
    assert len(found) >= 30
    for expected in (
        "figure results how-many-experts --to figures",  # README
        "figure OUT drawings --to figures --kind comparison",  # docs/studies.md
        "figure results collapse-phase --kind phase_diagram --to figures",  # a study
        "table results drawings",  # benchmarks/results
        "table OUT STUDY --csv --epochs",  # between backquotes
    ):
        assert expected in found


def small(text: str) -> str:
    """A study of a few trials of one epoch, with all its keys."""
    tree: dict[str, Any] = yaml.safe_load(text)
    base = tree.setdefault("base", {})
    few = {"train_per_class": 60, "test_per_class": 12}
    base.setdefault("data", {"source": "synthetic"}).update(few)
    for data in tree.get("datasets", {}).values():
        data.update(few)
    if "family" not in base.get("model", {}):
        base["model"] = {**base.get("model", {}), "encoder": "lite"}
    base["training"] = {**base.get("training", {}), "budget": "1 epochs", "batch_size": 32}
    for path, values in tree.get("axes", {}).items():
        few_values = values[-1:] if "datasets" in tree else [values[0], values[-1]]
        tree["axes"][path] = values if path == "data" else few_values
        if path == "training.budget":
            tree["axes"][path] = ["1 epochs", "3 steps"]
    if "num_trials" in tree:
        tree["num_trials"] = 2
    else:
        tree["seeds"] = [0]
    return yaml.safe_dump(tree, sort_keys=False)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: the studies, made small; drawings, fetched before; results of studies of their names."""
    folder = tmp_path_factory.mktemp("checkout")
    for study in CHECK.STUDIES:
        copy = folder / study.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(small(study.read_text(encoding="utf-8")))
    [block] = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (folder / "study.yaml").write_text(small(block))
    [block] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.DOTALL)
    (folder / "released.yaml").write_text(small(block))
    write_released(folder / "vae_moe_model_final.pth", 10, encoder="lite")
    rng = np.random.default_rng(0)
    for place in (folder / "drawings", folder / "cache" / "quickdraw"):
        place.mkdir(parents=True)
        for category in CATEGORIES:
            np.save(place / f"{category}.npy", rng.integers(0, 256, (100, 784), dtype=np.uint8))
            write_sketchrnn(place / f"{category}.npz", scribbles(70), scribbles(15, seed=1))
    for name in ("mnist", "medmnist/pathmnist"):
        spec = data_to_fetch(name, "sketchrnn")
        assert isinstance(spec, NamedDataBase)
        (folder / "cache" / spec.source).mkdir()
        for file in published_files(spec):
            (folder / "cache" / spec.source / file.name).touch()
    write_mnist(folder / "cache" / "mnist", rng)
    write_cifar10(folder / "cache" / "cifar10", rng)
    results = folder / "results"
    for name in ("how-many-experts", "drawings", "quickstart"):
        plant(results, name, experts=(2, 4), seeds=2, embeddings=False)
    for name in ("paper-supervised", "supervised"):
        plant(results, name, experts=(4,), seeds=2, embeddings=False, routing="supervised", objectives=("blend",))
    drawn = [f"data.root={folder / 'drawings'}"]
    # Nothing planted has the axes of these.
    trained = dict.fromkeys(("supervised_weight", "routing_zoo", "routing_counts"), drawn)
    trained |= {name: [] for name in ("collapse_phase", "styles", "hierarchical", "clusters", "datasets")}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SMOE_RAY_CACHE", str(folder / "cache"))
        for name, overrides in trained.items():
            study = load_study(folder / "studies" / f"{name}.yaml", overrides)
            run_study(study, results, LocalExecutor(device="cpu"), cache=folder / "cache" / "data")
    for name in ("loss-surface", "paper-loss-surface"):
        plant(
            results, name, objectives=("likelihood",), experts=(2, 4, 8, 16), per_class=(50, 200, 800), seeds=2,
            embeddings=False,
        )  # fmt: skip
    return folder


@pytest.fixture
def reader(
    checkout: Path, smoe_ray: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Runs a command where a reader would."""
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("SMOE_RAY_CACHE", str(checkout / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return smoe_ray


FIRST_LINE = {
    "check": r"study +[a-z-]+ \(preset ",
    "run": r"arm +seed +status ",
    "import-checkpoint": r"arm +seed +status ",
    "table": r"arm +seed +status |arm,seed,|study,trial_id,",
    "figure": r"figures/[a-z0-9-]+\.svg$",
    "recommend": r"(At|[^:]+: at) 50,000 training images",
    "report": r"report/index\.html$",
    "status": r"[a-z-]+ in results$",
    "export": r"(exported|models)/[a-z-]+",
    "verify": r"read \d+ stud",
    "probe": r"[0-9a-f]{12} probed in \d+ s$",
    "data": r"(drawings|.*/quickdraw)/(face|cat)\.np[yz]$|.*/mnist/train-\S+$|.*/cifar10/\S+$|quickdraw( drawings)?$"
    r"| *quickdraw, fingerprint",
    "dashboard": r"smoe-ray: http://127\.0\.0\.1:\d+ serves results; press Ctrl-C to stop$",
}
"""What the first line of each verb's output looks like."""


@pytest.mark.parametrize(
    "command",
    [command for command in documented() if not command.startswith("dashboard")],
)
def test_a_documented_command_works(
    reader: Callable[..., tuple[int, str, str]], out: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb, *words = shlex.split(command)
    study = "study.yaml" if verb in ("check", "run", "data") else "how-many-experts"
    words = [study if word == "STUDY" else PLACES.get(word, word) for word in words]
    trial = next(Path("results", "how-many-experts", "trials").iterdir()).name
    words = [trial if word == "TRIAL" else word for word in words]
    if verb == "run":  # a Ray of its own takes a while to start, and other tests do that
        words += ["--executor", "local", "--device", "cpu"]
    if verb in ("run", "import-checkpoint"):
        words[words.index("--out") + 1] = str(out)  # what is planted stays as it is
    if verb == "probe":  # one trial, without Ray, in this process
        one = next(Path("results", words[1], "trials").iterdir()).name
        words += ["--trial", one, "--force", "--executor", "local", "--jobs", "1"]
        few_steps(monkeypatch)
    if verb == "verify":  # what is planted has no weights
        shutil.copytree(ROOT / "tests" / "golden" / "results", out)
        words = [{"results": str(out), "quickstart": "stored-grid"}.get(word, word) for word in words]
    code, printed, error = reader(verb, *words)
    assert code == 0, error
    assert "Traceback" not in error
    if "--json" in words:
        json.loads(printed)
        return
    assert re.match(FIRST_LINE[verb], printed.splitlines()[0]), printed


@pytest.mark.parametrize("command", [command for command in documented() if command.startswith("dashboard")])
def test_a_documented_dashboard_starts(checkout: Path, command: str) -> None:
    words = [word if "://" not in word or word.startswith("http") else "results" for word in shlex.split(command)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = subprocess.Popen(
        [sys.executable, "-m", "smoe_ray.cli", *words, "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=checkout,
    )  # fmt: skip
    try:
        assert program.stdout is not None
        assert re.match(FIRST_LINE["dashboard"], program.stdout.readline())
    finally:
        program.kill()
        program.communicate()


@pytest.mark.parametrize(
    "kind",
    list(FIGURES),
)
@pytest.mark.parametrize("study", ["loss-surface", "drawings"])
def test_every_kind_of_figure_is_drawn_or_says_why_not(
    reader: Callable[..., tuple[int, str, str]], kind: str, study: str
) -> None:
    code, printed, error = reader("figure", "results", study, "--kind", kind, "--to", "figures")
    if code == 0:
        assert printed.splitlines()[0] == f"figures/{study}-{kind.replace('_', '-')}.svg"
    else:
        assert (code, printed, error.count("\n")) == (1, "", 1)
        assert error.startswith("smoe-ray: ")
    of_loss_surface = {"phase_diagram", "homogeneity", "comparison", "datasets", "label_routing"}
    needs_more = of_loss_surface if study == "loss-surface" else set(FIGURES)
    assert code == 0 or kind in needs_more, error


def verbs(command: Any = None, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every verb, and every group of verbs, of the program."""
    command = command or typer.main.get_command(app)
    yield names
    for name, below in getattr(command, "commands", {}).items():
        yield from verbs(below, (*names, name))


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("names", list(verbs()), ids=" ".join)
def test_every_verb_has_help(reader: Callable[..., tuple[int, str, str]], names: tuple[str, ...], option: str) -> None:
    code, printed, error = reader(*names, option)
    assert (code, error) == (0, "")
    first = next(line for line in printed.splitlines() if line.strip())
    assert first.split()[:2] == ["Usage:", "smoe-ray"]
    assert first.split()[2 : 2 + len(names)] == list(names)


def test_every_verb_is_documented_or_needs_a_cluster() -> None:
    known = {command.split()[0] for command in documented()}
    for page in CHECK.PAGES:
        known |= {words[0] for words in CHECK.commands(page.read_text(encoding="utf-8"))}
    assert {names[0] for names in verbs() if names} <= known


def test_help_needs_no_terminal() -> None:
    env = {**os.environ, "COLUMNS": "40", "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(
        [sys.executable, "-m", "smoe_ray.cli", "run", "-h"], capture_output=True, env=env, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
