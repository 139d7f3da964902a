"""What importing a package loads, and that model and training run with little installed. Each in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import smoe_ray

ROOT = Path(__file__).resolve().parents[1]


def python(program: str) -> str:
    """Output of a program in a fresh interpreter where warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in `sys.modules` after a statement."""
    program = (
        f"import json, sys\n{statement}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    )
    return set(json.loads(python(program)))


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("smoe_ray", {"torch", "ray", "pandas", "matplotlib", "numpy", "pydantic", "pyarrow", "yaml"}),
        ("smoe_ray.errors", {"pydantic", "numpy"}),
        ("smoe_ray.spec", {"torch", "ray", "pandas", "numpy", "yaml"}),
        ("smoe_ray.data", {"torch", "ray", "pandas", "matplotlib", "PIL", "requests", "yaml"}),
        ("smoe_ray.results", {"torch", "ray", "pandas", "matplotlib"}),
        ("smoe_ray.analysis", {"torch", "ray", "matplotlib", "streamlit", "optuna"}),
        ("smoe_ray.figures", {"torch", "ray", "streamlit", "optuna"}),
        ("smoe_ray.planning", {"torch", "ray", "pandas", "numpy", "pyarrow", "optuna"}),
        (
            "smoe_ray.inspect.preview, smoe_ray.inspect.status, smoe_ray.inspect.journal",
            {"torch", "ray", "pandas", "matplotlib", "streamlit", "optuna"},
        ),
        ("smoe_ray.published", {"torch", "ray", "pandas", "matplotlib", "numpy"}),
        ("smoe_ray.report", {"torch", "ray", "sklearn", "statsmodels", "streamlit", "optuna"}),
        ("smoe_ray.study", {"ray", "matplotlib", "streamlit"}),
        ("smoe_ray.k8s", {"torch", "ray", "kubernetes", "pandas", "numpy", "yaml"}),
    ],
)
def test_importing_a_package_loads_nothing_heavy_that_it_can_do_without(package: str, absent: set[str]) -> None:
    loaded = loaded_by(f"import {package}")
    assert "smoe_ray" in loaded
    assert not loaded & absent


def test_public_names_are_resolved_when_first_used() -> None:
    program = """
import json, sys
import smoe_ray
smoe_ray.load_study, smoe_ray.read_results
before = "torch" in sys.modules
resolved = all(getattr(smoe_ray, name) is not None for name in smoe_ray.__all__)
print(json.dumps([before, resolved, "torch" in sys.modules, "ray" in sys.modules]))
"""
    assert json.loads(python(program)) == [False, True, True, False]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        smoe_ray.nothing  # noqa: B018


def with_dependencies(names: set[str]) -> set[str]:
    """Distributions and everything that they require, extras aside."""
    found: set[str] = set()
    waiting = {name.lower() for name in names}
    while waiting:
        name = waiting.pop()
        found.add(name)
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # required on another platform only
            continue
        for requirement in requirements:
            if "extra ==" not in requirement:
                required = requirement.replace(";", " ").replace("[", " ").split()[0]
                waiting |= {required.rstrip("()<>=!~,.0123456789").lower().replace("_", "-")} - found
    return found


def refused_packages(installed: set[str]) -> set[str]:
    """Top-level modules that come only from distributions other than these and what they require."""
    allowed = {name.replace("_", "-") for name in with_dependencies(installed)} | {"smoe-ray"}
    return {
        module
        for module, distributions in metadata.packages_distributions().items()
        if not allowed & {name.lower().replace("_", "-") for name in distributions}
    }


BARE = """
import sys

class Bare:
    # Finds what the usual finders find, save what a bare machine lacks.
    refused, finders = {refused!r}, list(sys.meta_path)

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.refused:
            return None
        return next(filter(None, (finder.find_spec(name, path, target) for finder in self.finders)), None)

sys.meta_path[:] = [Bare()]
"""

FIT = """
import numpy as np
import smoe_ray.model
from smoe_ray.data.dataset import Dataset, Splits
from smoe_ray.spec import TrialSpec, trial_with
from smoe_ray.training import Runtime, fit

def images(count):
    rng = np.random.default_rng(0)
    return Dataset(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count) % 2)

trial = trial_with(TrialSpec(), {"model.encoder": "lite", "model.num_experts": 2, "training.budget": "2 epochs"})
data = Splits(images(8), images(4), ("a", "b"), "0" * 64)
for epoch in fit(trial, data, Runtime(device="cpu")):
    epoch.checkpoint(), epoch.weights(), epoch.embeddings()
print(epoch.epoch, epoch.row["test.reconstruction"] > 0)
"""


def test_model_and_training_run_where_only_torch_numpy_pydantic_and_pyarrow_are_installed() -> None:
    refused = refused_packages({"torch", "numpy", "pydantic", "pyarrow"})
    assert {"pandas", "matplotlib", "yaml", "PIL", "requests", "scipy", "sklearn", "safetensors"} <= refused
    assert not {"torch", "numpy", "pydantic", "pyarrow", "sympy", "pydantic_core", "smoe_ray"} & refused
    assert python(BARE.format(refused=refused) + FIT).split() == ["2", "True"]


def test_the_absent_are_really_absent() -> None:
    program = "\nimport smoe_ray.spec\ntry: import yaml\nexcept ModuleNotFoundError as error: print(error)"
    assert python(BARE.format(refused={"yaml"}) + program).strip() == "No module named 'yaml'"
