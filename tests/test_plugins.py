"""Plug-ins: names, the allow-list, what is imported when, and what a user reads when something is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from smoe_ray import plugins
from smoe_ray.errors import PluginError, StudyError
from smoe_ray.planning import plan_grid
from smoe_ray.results import TrialRecord, read_embeddings, read_results, read_trials
from smoe_ray.spec import TrialSpec, dump_study, parse_study, trial_id, trial_with
from smoe_ray.spec.architectures import ENCODERS
from smoe_ray.study import LocalExecutor, run_study
from support.plugin_packages import RINGS, importable, write_package

SOURCE = "ring_data.rings:Rings"
ENTRY_POINTS = f"[smoe_ray.sources]\nrings = {SOURCE}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose packages can be imported; none of them are allowed."""
    folder = tmp_path / "site"
    folder.mkdir()
    with importable(folder, "ring_data", "traps"):
        yield folder


def trial(**fields: object) -> TrialSpec:
    return TrialSpec.model_validate(fields)


def study(name: str = "rings", **changes: object) -> str:
    base = {"data": {"source": SOURCE}, "model": {"num_experts": 2, "encoder": "lite", "latent_dim": 4}}
    base |= {"training": {"budget": "2 epochs", "batch_size": 16}}
    return yaml.safe_dump({"name": name, "question": "Does it run?", "base": base} | changes, sort_keys=False)


# --- references in specs ----------------------------------------------------------------------------------------------

EVERYWHERE = {
    "data": {
        "source": "absent_data.a:Source",
        "classes": ["a"],
        "root": "/x",
        "shade": 0.5,
        "nested": {"list": [1, 2]},
    },
    "model": {"encoder": "absent.b:Encoder", "decoder": {"name": "absent.b:Decoder", "width": 3}},
    "objective": {"name": "absent.c:Objective", "weight": 2},
}


def test_a_trial_with_plug_ins_that_are_not_installed_can_be_read() -> None:
    spec = trial(**EVERYWHERE)
    tree = spec.model_dump(mode="json")
    assert TrialSpec.model_validate_json(json.dumps(tree)) == spec
    assert (tree["data"]["shade"], tree["data"]["classes"]) == (0.5, ["a"])
    assert tree["model"]["encoder"] == "absent.b:Encoder"
    assert tree["model"]["decoder"] == {"name": "absent.b:Decoder", "width": 3}
    assert tree["objective"] == {"name": "absent.c:Objective", "weight": 2}
    assert not any(name.startswith("absent") for name in sys.modules)


def test_parameters_are_part_of_the_identity_and_a_root_is_not() -> None:
    spec = trial(**EVERYWHERE)
    for path, value in (
        ("data.shade", 0.6),
        ("data.nested.list", [1]),
        ("objective.weight", 3),
        ("model.decoder.width", 4),
        ("model.encoder.width", 4),
        ("data.fraction", 0.5),
    ):
        assert trial_with(spec, {path: value}).identity() != spec.identity(), path
    assert trial_with(spec, {"data.root": "/elsewhere"}).identity() == spec.identity()


def test_a_study_with_plug_ins_is_written_and_read_back() -> None:
    spec = parse_study(study(base=EVERYWHERE, axes={"objective.weight": [1, 2], "data.shade": [0.1]}))
    assert parse_study(dump_study(spec)) == spec
    assert [one.objective.parameters for one in plan_grid(spec)] == [{"weight": 1}, {"weight": 2}]


def test_axes_and_searches_reach_the_parameters_of_plug_ins() -> None:
    axes = {"objective.name": ["absent.c:Objective"], "objective.weight": [1, 2], "model.encoder": ["lite", "a:E"]}
    grid = plan_grid(parse_study(study(base={}, axes=axes)))
    assert [(one.model_dump()["objective"], one.model_dump()["model"]["encoder"]) for one in grid] == [
        ({"name": "absent.c:Objective", "weight": weight}, encoder) for weight in (1, 2) for encoder in ("lite", "a:E")
    ]
    search = {
        "space": {
            "objective.name": {"type": "categorical", "choices": ["blend", "absent.c:Objective"]},
            "objective.weight": {
                "type": "float", "low": 1, "high": 2, "when": {"objective.name": "absent.c:Objective"},
            },
        },
        "objectives": [{"metric": "test.reconstruction"}],
        "num_trials": 2,
    }  # fmt: skip
    assert parse_study(study(base={}, **search)).space["objective.weight"].type == "float"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"base": {"objective": {"name": "blent"}}}, "'blent' is none of blend, expected, likelihood"),
        ({"base": {"data": {"source": "sinthetic"}}}, "did you mean 'synthetic'?"),
        ({"base": {"model": {"encoder": "lit"}}}, f"'lit' is none of {', '.join(ENCODERS)}; did you mean 'lite'"),
        ({"base": {"model": {"encoder": "lit"}}}, "model.encoder: 'lit' is"),
        ({"base": {"objective": {"name": "a b:C"}}}, "a plug-in is written package.module:name, not 'a b:C'"),
        ({"base": {"objective": {"name": "a:C", "w": float("nan")}}}, "'w' needs a finite number"),
        ({"axes": {"objective.weight": [1]}}, "axes.objective.weight: unknown key"),
        ({"axes": {"objective.name": ["a:C"], "objectiv.weight": [1]}}, "axes.objectiv.weight: unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_reference_is_one_line(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(StudyError) as raised:
        parse_study(study(**changes))
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_short_name_means_what_an_installed_package_registers(folder: Path) -> None:
    write_package(folder, "ring_data", {"rings": RINGS}, "1.2", ENTRY_POINTS)
    spec = parse_study(study(base={"data": {"source": "rings", "width": 3}}, axes={"data.width": [3, 4]}))
    assert spec.base.data.source == SOURCE
    assert "ring_data" not in sys.modules
    with pytest.raises(StudyError, match=r"'rinks' is none of .*, parquet, rings; did you mean 'rings'\?$"):
        parse_study(study(base={"data": {"source": "rinks"}}))
    again = trial_with(spec.base, {"data.source": "rings"})  # the same plug-in by another name keeps its parameters
    assert again == spec.base


def test_two_packages_with_one_short_name_are_refused(folder: Path) -> None:
    write_package(folder, "ring_data", {}, "1.2", ENTRY_POINTS)
    write_package(folder, "traps", {}, "1.0", ENTRY_POINTS.replace("ring_data", "traps"))
    with pytest.raises(StudyError, match="'rings' is registered by several packages"):
        parse_study(study(base={"data": {"source": "rings"}}))


# --- the allow-list ---------------------------------------------------------------------------------------------------


@pytest.fixture
def trap(folder: Path, tmp_path: Path) -> Path:
    """The file that appears when `traps` is imported."""
    sprung = tmp_path / "sprung"
    write_package(folder, "traps", {"__init__": f"import pathlib; pathlib.Path({str(sprung)!r}).touch()"})
    return sprung


def test_what_is_not_allowed_is_refused_before_it_is_imported(smoe_ray, trap: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    for base in (
        {"data": {"source": "traps:Source"}},
        {"objective": {"name": "traps.deeper:Objective"}},
        {"model": {"encoder": "traps:Encoder"}},
        {"model": {"decoder": {"name": "traps:Decoder", "width": 1}}},
    ):
        path.write_text(study(base=base))
        for command in (["check", path], ["run", path, "--out", tmp_path / "out", "--executor", "local"]):
            code, _, error = smoe_ray(*command)
            assert code == 1
            assert error.count("\n") == 1
            assert "is not allowed here" in error
            assert "--allow-plugins traps" in error
    assert not trap.exists()
    assert not (tmp_path / "out").exists()
    smoe_ray("check", path, "--allow-plugins", "traps")
    assert trap.exists()  # so the trap works


@pytest.mark.parametrize(
    ("listed", "allowed"),
    [
        ("", False),
        ("other", False),
        ("ring", False),
        ("ring_data", True),
        ("ring_data.rings", True),
        ("ring_data.ring", False),
        (SOURCE, True),
        ("ring_data.rings:Other", False),
        ("other, ring_data", True),
    ],
)
def test_the_allow_list_names_packages_modules_and_objects(
    listed: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plugins.ALLOWED, listed)
    assert plugins.is_allowed("source", SOURCE) == allowed


def test_an_entry_point_allows_what_it_names_and_nothing_else(folder: Path) -> None:
    write_package(folder, "ring_data", {"rings": RINGS}, "1.2", ENTRY_POINTS)
    assert plugins.is_allowed("source", SOURCE)
    assert not plugins.is_allowed("objective", SOURCE)
    assert not plugins.is_allowed("source", "ring_data.rings:draw")


def test_allowing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.ALLOWED, "first")
    with plugins.allowing(["ring_data"]):
        assert plugins.is_allowed("source", SOURCE)
        assert plugins.is_allowed("source", "first:X")
    assert not plugins.is_allowed("source", SOURCE)
    with pytest.raises(PluginError, match=r"--allow-plugins os; rm: write a package"), plugins.allowing(["os; rm"]):
        pass


# --- running ----------------------------------------------------------------------------------------------------------


def test_a_study_on_a_source_of_a_plug_in(folder: Path, out: Path) -> None:
    with_channel = RINGS.replace("astype(np.uint8)", "astype(np.uint8)[:, None]")
    write_package(folder, "ring_data", {"rings": with_channel}, "1.2", ENTRY_POINTS)
    spec = parse_study(study(axes={"data.width": [1, 3]}))
    records = run_study(spec, out, LocalExecutor(device="cpu"))
    assert [record.status for record in records] == ["finished", "finished"]
    [facts, _] = [record.data for record in records]
    assert (facts.train_images, facts.test_images, facts.class_names) == (80, 20, ("small", "large"))
    assert facts.image_shape == (1, 28, 28)
    assert read_embeddings(out, "rings", records[0].trial_id)["image"].shape == (20, 28, 28)
    assert records[0].versions.plugins[SOURCE].startswith("1.2, sha256 ")
    table = read_results(out, "rings")
    assert set(table["config.data.width"]) == {1, 3}


def test_results_are_read_without_the_plug_in(folder: Path, out: Path) -> None:
    write_package(folder, "ring_data", {"rings": RINGS}, "1.2", ENTRY_POINTS)
    run_study(parse_study(study()), out, LocalExecutor(device="cpu"))
    before = read_results(out, "rings")
    for file in sorted(folder.rglob("*.*")):
        if file.is_file():
            file.unlink()
    for module in ("ring_data.rings", "ring_data"):
        sys.modules.pop(module)
    plugins._loaded.clear()
    assert read_results(out, "rings").equals(before)
    assert read_trials(out, "rings")[0].spec.data.source == SOURCE
    assert "ring_data" not in sys.modules


def test_the_trial_id_follows_the_version_and_the_source(folder: Path, tmp_path: Path) -> None:
    def identifier(place: str, version: str, source: str) -> str:
        write_package(tmp_path / place, "ring_data", {"rings": source}, version, ENTRY_POINTS)
        with importable(tmp_path / place, "ring_data"):
            plugins._loaded.clear()
            sys.modules.pop("ring_data.rings", None), sys.modules.pop("ring_data", None)
            return trial_id(trial(data={"source": SOURCE}), "0" * 64)

    ids = [
        identifier("a", "1.2", RINGS),
        identifier("b", "1.2", RINGS),
        identifier("c", "1.3", RINGS),
        identifier("d", "1.2", RINGS + "# edited\n"),
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_the_identity_is_that_of_the_code_in_memory(folder: Path) -> None:
    package = write_package(folder, "ring_data", {"rings": RINGS}, "1.2", ENTRY_POINTS)
    before = plugins.load("source", SOURCE).identity
    (package / "rings.py").write_text(RINGS + "# edited\n")
    assert plugins.load("source", SOURCE).identity == before


def test_records_without_plug_ins_are_written_as_before(out: Path, folder: Path) -> None:
    write_package(folder, "ring_data", {"rings": RINGS}, "1.2", ENTRY_POINTS)
    [record] = run_study(parse_study(study()), out, LocalExecutor(device="cpu"))
    versions = json.loads(record.model_dump_json())["versions"]
    assert list(versions.pop("plugins")) == [SOURCE]
    plain = record.model_copy(update={"versions": record.versions.model_copy(update={"plugins": {}})})
    assert json.loads(plain.model_dump_json())["versions"] == versions
    assert TrialRecord.model_validate_json(plain.model_dump_json()) == plain


def test_a_machine_with_another_version_refuses_the_trial(folder: Path, out: Path) -> None:
    write_package(folder, "ring_data", {"rings": RINGS}, "1.2", ENTRY_POINTS)

    class Elsewhere(LocalExecutor):
        """Where the trial is trained, the plug-in is another."""

        def run(self, *arguments: object, **named: object):  # type: ignore[no-untyped-def]
            started = super().run(*arguments, **named)
            [key] = plugins._loaded
            plugins._loaded[key] = plugins._loaded[key]._replace(version="2.0")
            return started

    [record] = run_study(parse_study(study()), out, Elsewhere(device="cpu"))
    assert record.status == "failed"
    assert "has another version of it (2.0, sha256" in record.error
    assert "planned with (1.2, sha256" in record.error


# --- what is wrong, in one line ---------------------------------------------------------------------------------------


@pytest.fixture
def checked(smoe_ray, folder: Path, tmp_path: Path) -> Callable[..., str]:
    """What `smoe-ray check` says of a data source that is wrong."""

    def check(source: str, name: str = SOURCE, **parameters: object) -> str:
        write_package(folder, "ring_data", {"rings": source})
        path = tmp_path / "study.yaml"
        path.write_text(study(base={"data": {"source": name, **parameters}}))
        code, _, error = smoe_ray("check", path, "--allow-plugins", "ring_data", "--allow-plugins", "no_such_package")
        assert code == 1
        assert error.count("\n") == 1
        return error

    return check


SPEC = "from smoe_ray.spec import DataSpecBase as B\nclass Rings:\n    class Spec(B):\n        width: int = 2\n"


@pytest.mark.parametrize(
    ("source", "name", "parameters", "expected"),
    [
        (RINGS, "no_such_package.a:B", {}, "no_such_package.a:B: package 'no_such_package' is not installed here"),
        (RINGS, "ring_data.absent:B", {}, "package 'ring_data' has no module 'ring_data.absent'"),
        ("import no_such_library", SOURCE, {}, "needs the package 'no_such_library', which is not installed here"),
        (RINGS, "ring_data.rings:Ring", {}, "module 'ring_data.rings' has no 'Ring'; did you mean 'Rings'?"),
        ("class Rings: pass", SOURCE, {}, "has no attribute 'Spec', the pydantic model of its parameters"),
        (RINGS, SOURCE, {"widht": 3}, f"data ({SOURCE}): widht: unknown key (value 3); did you mean 'width'?"),
        (RINGS, SOURCE, {"width": "wide"}, f"data ({SOURCE}): width: needs a whole number"),
        ("\n\n1 / 0", SOURCE, {}, "rings.py:3: ZeroDivisionError: division by zero"),
        ("def", SOURCE, {}, "rings.py:1: SyntaxError: invalid syntax"),
        (SPEC, SOURCE, {}, "a data source needs a method 'read'"),
        (SPEC + "    def requirements(self, spec):\n        raise OSError('no\\ndisk')\n    def read(self): pass",
         SOURCE, {}, f"plug-in {SOURCE} failed at "),
        ("import pydantic\nclass Rings:\n    class Spec(pydantic.BaseModel): pass", SOURCE, {},
         "its 'Spec' is no subclass of smoe_ray.spec.data_base.DataSpecBase"),
    ],
)  # fmt: skip
def test_a_wrong_plug_in_is_one_line(
    checked: Callable[..., str], source: str, name: str, parameters: dict[str, object], expected: str
) -> None:
    assert expected in checked(source, name, **parameters)


@pytest.mark.parametrize(
    ("replaced", "by", "expected"),
    [
        ("astype(np.uint8)", "astype(float)", "train images that are no array of uint8"),
        ("astype(np.uint8)", "astype(np.uint8)[..., None].repeat(3, axis=-1)",
         "train images of shape (80, 28, 28, 3); needed: (B, H, W) or (B, C, H, W) with C = 1 or 3, height and width "
         "from 8 to 128: return image.transpose(0, 3, 1, 2)"),
        ("astype(np.uint8)", "astype(np.uint8)[:, :7]", "train images of shape (80, 7, 28); needed: (B, H, W)"),
        ("astype(np.uint8)", "astype(np.uint8)[:, None].repeat(2, axis=1)", "shape (80, 2, 28, 28); needed: (B, H, W)"),
        ("label_B)\n", "label_B[::-1].copy())\n", "training images that are not sorted by label"),
        ("label_B)\n", "label_B + 1)\n", "labels that are no indices into its 2 class_names"),
        ("label_B)\n", "label_B[1:])\n", "train labels that are no array of 80 whole numbers"),
        ('("small", "large")', '("small", "la\\x1brge")', "'la\\x1brge' in its class_names; needed: printable"),
        ("return Content(", "return (", "read() returned tuple, not a smoe_ray.data.Content"),
        ("return Content(", "return Content(1 / 0, ", "rings.py:15: ZeroDivisionError: division by zero"),
    ],
)  # fmt: skip
def test_what_a_source_returns_is_checked(folder: Path, out: Path, replaced: str, by: str, expected: str) -> None:
    assert replaced in RINGS
    write_package(folder, "ring_data", {"rings": RINGS.replace(replaced, by)}, "1.2", ENTRY_POINTS)
    with pytest.raises(PluginError) as raised:
        run_study(parse_study(study()), out, LocalExecutor(device="cpu"))
    assert expected in str(raised.value)
    assert SOURCE in str(raised.value)
