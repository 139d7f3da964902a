"""`smoe-ray figure` draws every kind, alone and all at once, from results on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from smoe_ray.figures import FIGURES
from smoe_ray.results import Store, TrialFolder
from smoe_ray.spec import trial_with
from support.planted_folder import plant

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid large enough for a fitted surface, its supervised baseline, and one expert on one class and on several."""
    out = tmp_path_factory.mktemp("results")
    plant(out, "grid", objectives=("blend",), experts=(2, 4, 8, 16), per_class=(50, 200, 800), seeds=2)
    plant(out, "baseline", objectives=("blend",), experts=(3,), routing="supervised")
    for name, classes in (("alone", ("cat",)), ("several", ("cat", "eye", "pencil"))):
        for record in plant(out, name, objectives=("blend",), experts=(1,), class_names=classes):
            named = record.model_copy(update={"spec": trial_with(record.spec, {"data.classes": classes})})
            TrialFolder(Store(out), name, record.trial_id).write_record(named)
    return out


@pytest.fixture
def draw(smoe_ray: Command, results: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Run the command on the four studies together; the files that it wrote, which it also prints."""

    def run(*options: str, told: str = "") -> list[str]:
        others = [word for name in ("baseline", "alone", "several") for word in ("--with", name)]
        code, printed, error = smoe_ray("figure", results, "grid", *others, "--to", tmp_path / "figures", *options)
        assert code == 0
        assert error.startswith(told)
        assert bool(error) == bool(told)
        paths = list(map(Path, printed.split()))
        assert sorted(paths) == sorted((tmp_path / "figures").iterdir())
        assert all(path.stat().st_size > 1000 for path in paths)
        return [path.name for path in paths]

    return run


def files_of(kind: str) -> list[str]:
    return [f"grid-{kind.replace('_', '-')}.{ending}" for ending in ("svg", "png")]


ON_ONE_DATASET = [kind for kind in FIGURES if kind != "datasets"]


@pytest.mark.parametrize("kind", ON_ONE_DATASET)
def test_every_kind_is_drawn(draw: Callable[..., list[str]], kind: str) -> None:
    assert draw("--kind", kind) == files_of(kind)


def test_without_a_kind_all_are_drawn(draw: Callable[..., list[str]]) -> None:
    told = "not drawn: datasets: dataset verdict: all finished trials are on one dataset ('synthetic')"
    assert draw(told=told) == [name for kind in ON_ONE_DATASET for name in files_of(kind)]


def test_what_is_not_drawn_says_once_which_kind_and_what_to_do(
    smoe_ray: Command, results: Path, tmp_path: Path
) -> None:
    code, _, told = smoe_ray("figure", results, "grid", "--to", tmp_path / "figures")
    assert code == 0
    reasons = [line for line in told.splitlines() if line.startswith(("not drawn: comparison", "not drawn: homogen"))]
    assert len(reasons) == 2
    assert reasons[0].startswith("not drawn: comparison: all finished trials belong to one arm ('blend')")
    assert reasons[0].endswith("an axis of this one, e.g. objective.name: [blend, likelihood]")
    assert reasons[1].startswith(
        "not drawn: homogeneity: there are no finished trials of 1 expert on one and on several"
    )
    assert all(line.count(f"{line.split(': ')[1]}: ") == 1 for line in told.splitlines())
