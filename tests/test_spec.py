"""Studies and trials: what is refused and with which words, what presets fill in, and what a trial's id depends on."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from smoe_ray.errors import StudyError
from smoe_ray.spec import (
    MAX_STUDY_BYTES,
    SCALAR_METRICS,
    Blend,
    Budget,
    Cifar100Data,
    CombinedData,
    EmnistData,
    Expected,
    GridStudy,
    ImageData,
    Imbalance,
    Likelihood,
    MedMnistData,
    ModelSpec,
    NamedData,
    ParquetData,
    QuickDrawData,
    SearchStudy,
    Spec,
    Supervised,
    SyntheticData,
    TrialSpec,
    assign,
    dotted_keys,
    dump_study,
    first_objective,
    load_study,
    merge,
    parse_study,
    trial_id,
    trial_with,
    value_at,
)
from smoe_ray.spec.decoders import CPDecoderSpec, SharedDecoderSpec
from smoe_ray.spec.gates import BuiltInGate, MLPGateSpec
from smoe_ray.spec.modifiers import ModifiersSpec
from smoe_ray.spec.objectives import BuiltInObjective, DecoderLikelihoodSpec
from smoe_ray.spec.paths import models_in

FINGERPRINT = "0" * 64
STUDIES = Path(__file__).resolve().parents[1] / "studies"
HEAD: dict[str, Any] = {"name": "demo", "question": "why?"}
SEARCH: dict[str, Any] = {
    **HEAD,
    "space": {
        "model.num_experts": {"type": "int", "low": 2, "high": 12},
        "training.learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    },
    "objectives": [{"metric": "test.reconstruction"}],
    "num_trials": 4,
}


def parse(tree: dict[str, Any], *overrides: str) -> GridStudy | SearchStudy:
    return parse_study(yaml.safe_dump(tree), overrides, origin="demo.yaml")


def complaint(tree: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(StudyError) as caught:
        parse(tree, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- one line: file, dotted key, value, nearest valid key -------------------------------------------------------------

COMBINED = {"source": "combined", "parts": {"ours": {"source": "synthetic", "jiter": 2}}}


@pytest.mark.parametrize(
    ("tree", "key", "value", "nearest"),
    [
        ({"axis": {"seed": [1]}}, "axis", "{'seed': [1]}", "axes"),
        ({"base": {"modle": 7}}, "base.modle", "7", "model"),
        ({"base": {"model": {"num_expert": 7}}}, "base.model.num_expert", "7", "num_experts"),
        ({"base": {"training": {"learning_rat": 7}}}, "base.training.learning_rat", "7", "learning_rate"),
        ({"base": {"evaluation": {"evry": 7}}}, "base.evaluation.evry", "7", "every"),
        ({"base": {"resources": {"cpu": 7}}}, "base.resources.cpu", "7", "cpus"),
        ({"collapse": {"min_efective": 2}}, "collapse.min_efective", "2", "min_effective"),
        ({"base": {"objective": {"variance_begin": 7}}}, "base.objective.variance_begin", "7", "variance_end"),
        (
            {"base": {"objective": {"name": "blend", "lamda_entropy": 7}}},
            "base.objective.lamda_entropy",
            "7",
            "lambda_entropy",
        ),
        (
            {"base": {"data": {"source": "quickdraw", "clases": ["cat"]}}},
            "base.data.clases",
            "['cat']",
            "classes",
        ),
        (
            {"base": {"data": {"source": "synthetic", "imbalance": {"exponents": 7}}}},
            "base.data.imbalance.exponents",
            "7",
            "exponent",
        ),
        ({"base": {"data": COMBINED}}, "base.data.parts.ours.jiter", "2", "jitter"),
        (SEARCH | {"num_trial": 7}, "num_trial", "7", "num_trials"),
        (SEARCH | {"sampler": {"sed": 7}}, "sampler.sed", "7", "seed"),
        (SEARCH | {"pruner": {"grace_epoch": 7}}, "pruner.grace_epoch", "7", "grace_epochs"),
        (
            SEARCH | {"objectives": [{"metric": "test.kl", "direktion": "minimize"}]},
            "objectives.0.direktion",
            "'minimize'",
            "direction",
        ),
        (
            SEARCH | {"space": {"model.num_experts": {"type": "int", "low": 1, "high": 2, "setp": 1}}},
            "space.model.num_experts.setp",
            "1",
            "step",
        ),
    ],
)
def test_an_unknown_key_is_named_with_file_value_and_nearest_key(
    tree: dict[str, Any], key: str, value: str, nearest: str
) -> None:
    expected = f"demo.yaml: {key}: unknown key (value {value}); did you mean '{nearest}'?"
    assert complaint(HEAD | tree) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"base": {"resources": {"gpus": 1.5}}}, "base.resources.gpus: more than one GPU must be a whole number"),
        ({"base": {"resources": {"workers": 0}}}, "base.resources.workers: must be at least 1"),
        ({"base": {"resources": {"workers": {"min": 3, "max": 2}}}}, "base.resources.workers: min 3 is above max 2"),
        ({"collapse": {"grace_epochs": 2}}, "collapse: give 'min_active_fraction', 'min_effective' or both"),
        ({"max_concurrent_trials": 0}, "max_concurrent_trials: must be at least 1"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_do(changes: dict[str, Any], expected: str) -> None:
    assert complaint(HEAD | changes).startswith(f"demo.yaml: {expected}")


def test_an_unknown_key_near_none_lists_the_valid_ones() -> None:
    assert complaint(HEAD | {"base": {"resources": {"zzz": 1}}}).endswith("; valid here: cpus, gpus, workers")


@pytest.mark.parametrize(
    ("tree", "parts"),
    [
        ({"base": {"model": {"num_experts": 0}}}, ["base.model.num_experts", "(value 0)"]),
        ({"base": {"model": {"num_experts": 2.5}}}, ["base.model.num_experts", "(value 2.5)"]),
        ({"base": {"model": {"num_experts": True}}}, ["base.model", "'num_experts' needs a number, not true"]),
        ({"base": {"model": {"gate_hidden": [True]}}}, ["base.model.gate_hidden.0", "(value True)"]),
        ({"base": {"model": {"decoder": "lit"}}}, ["base.model.decoder", "'lit'", "did you mean 'lite'?"]),
        ({"base": {"training": {"learning_rate": float("inf")}}}, ["base.training.learning_rate", "(value inf)"]),
        ({"base": {"training": {"beta": float("nan")}}}, ["base.training.beta", "(value nan)"]),
        ({"base": {"training": {"budget": 20}}}, ["base.training.budget", "'20 epochs' or '5000 steps'", "(value 20)"]),
        ({"base": {"data": {"source": "quickdrw"}}}, ["base.data.source", "'quickdrw'", "did you mean 'quickdraw'?"]),
        ({"base": {"data": {"jitter": 1}}}, ["base.data.source: required"]),
        ({"base": {"data": {"source": "images"}}}, ["base.data.root: required"]),
        ({"base": {"data": {"source": "synthetic", "fraction": 1.5}}}, ["base.data.fraction", "(value 1.5)"]),
        ({"base": {"data": {"source": "quickdraw", "classes": ["../up"]}}}, ["base.data.classes.0", "'../up'"]),
        ({"base": {"data": {"source": "quickdraw", "classes": ["a", "a"]}}}, ["base.data.classes", "named twice"]),
        ({"base": {"data": {"source": "synthetic", "imbalance": {}}}}, ["base.data.imbalance", "exactly one of"]),
        ({"base": {"objective": None}}, ["base", "unsupervised routing needs an objective"]),
        ({"base": {"seed": 2**31}}, ["base.seed", f"(value {2**31})"]),
        ({"preset": "paper"}, ["preset", "'paper'", "did you mean 'paper_text'?"]),
        ({"preset": ["paper_text"]}, ["preset", "paper_text"]),
        ({"kind": "grit"}, ["kind", "'grit'", "did you mean 'grid'?"]),
        ({"name": "../up"}, ["name", "(value '../up')"]),
        ({"name": "a" * 64}, ["name"]),
        ({"question": ""}, ["question"]),
        ({"seeds": [1, 1]}, ["seeds: a seed is named twice"]),
        ({"seeds": []}, ["seeds"]),
        ({"seeds": [True]}, ["seeds.0", "(value True)"]),
        ({"axes": {"model.num_expert": [1]}}, ["axes.model.num_expert: unknown key", "'model.num_experts'"]),
        ({"axes": {"seed": [1]}}, ["axes.seed: seeds are set by 'seeds'"]),
        ({"axes": {"model.num_experts": []}}, ["axes.model.num_experts: no values"]),
        ({"axes": [1]}, ["axes"]),
        ({"base": 3}, ["base", "(value 3)"]),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(tree: dict[str, Any], parts: list[str]) -> None:
    message = complaint(HEAD | tree)
    assert message.startswith("demo.yaml: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize("field", ["name", "question"])
def test_name_and_question_are_required(field: str) -> None:
    assert complaint({key: value for key, value in HEAD.items() if key != field}) == (
        f"demo.yaml: {field}: required, but not given"
    )


words = st.sampled_from(
    [*sorted(dotted_keys(TrialSpec)), *HEAD, "kind", "preset", "base", "axes", "space", "seeds", "objectives", "type"]
)
scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["", "x", "grid", "search"])
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words | scalars, inner, max_size=3)
)


@given(st.dictionaries(words, trees, max_size=4), st.lists(st.tuples(words, trees), max_size=2))
def test_whatever_the_text_says_it_is_a_study_or_a_one_line_error(
    tree: dict[str, Any], overrides: list[tuple[str, Any]]
) -> None:
    sets = [f"{key}={json.dumps(value, default=str)}" for key, value in overrides if not _has_odd_keys(value)]
    message = ""
    try:
        parse(HEAD | tree, *sets)
    except StudyError as error:
        message = str(error)
    assert "\n" not in message


def _has_odd_keys(value: Any) -> bool:
    if isinstance(value, dict):
        return any(not isinstance(key, str) or _has_odd_keys(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(_has_odd_keys, value))


# --- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "objective", "learning_rate", "beta", "latent"),
    [
        ("paper_text", Blend(lambda_balance=200, lambda_entropy=400, balance_form="paper_text"), 1e-4, 0.1, "sample"),
        (
            "released_code",
            Blend(lambda_balance=200, lambda_entropy=400, balance_form="released_code", gating="soft"),
            1e-3,
            0.01,
            "sample",
        ),
        ("recommended", Likelihood(lambda_balance=400, variance_start=8, variance_end=1), 1e-3, 0.01, "mean"),
    ],
)
def test_the_numbers_of_each_preset(
    preset: str, objective: Blend | Likelihood, learning_rate: float, beta: float, latent: str
) -> None:
    base = parse(HEAD | {"preset": preset}).base
    assert base.objective == objective
    assert (base.training.learning_rate, base.training.beta) == (learning_rate, beta)
    assert (base.training.batch_size, base.training.budget) == (128, Budget(20, "epochs"))
    assert (base.evaluation.gating, base.evaluation.latent) == ("hard", latent)
    assert base.model == ModelSpec(latent_dim=32, encoder="medium", decoder="lite", gate_hidden=(64, 32))
    assert base.routing == "unsupervised"


def test_the_defaults_of_a_trial_are_the_recommended_preset() -> None:
    assert parse(HEAD).base == TrialSpec()
    assert parse(HEAD | {"preset": "recommended"}).base == TrialSpec()


def test_base_goes_over_the_preset_key_by_key() -> None:
    base = {"objective": {"lambda_entropy": 7}, "training": {"beta": 0.5}}
    trial = parse(HEAD | {"preset": "released_code", "base": base}).base
    assert trial.objective == Blend(lambda_balance=200, lambda_entropy=7)
    assert (trial.training.beta, trial.training.learning_rate) == (0.5, 1e-3)


def test_naming_another_objective_replaces_the_presets() -> None:
    # Merged, the likelihood would inherit lambda_entropy (an unknown key there) and lambda_balance 200.
    trial = parse(HEAD | {"preset": "released_code", "base": {"objective": {"name": "likelihood"}}}).base
    assert trial.objective == Likelihood()
    assert trial.objective.lambda_balance == 400


# --- dotted paths and merging -----------------------------------------------------------------------------------------


def test_merge_by_hand() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": 3, "o": {"name": "blend", "l": 1}}
    assert merge(base, {"a": {"y": 5}, "c": 6}) == {"a": {"x": 1, "y": 5}, "b": 3, "c": 6, "o": base["o"]}
    assert merge(base, {"a": 1})["a"] == 1
    assert merge(base, {"o": {"name": "blend", "m": 2}})["o"] == {"name": "blend", "l": 1, "m": 2}
    assert merge(base, {"o": {"name": "expected", "m": 2}})["o"] == {"name": "expected", "m": 2}
    assert base == {"a": {"x": 1, "y": 2}, "b": 3, "o": {"name": "blend", "l": 1}}


def test_assign_sets_tags_first_whatever_the_order() -> None:
    tree = {"objective": {"name": "likelihood", "variance_end": 1}}
    values = {"objective.lambda_entropy": 9, "objective.name": "blend", "model.num_experts": 3}
    expected = {"objective": {"name": "blend", "lambda_entropy": 9}, "model": {"num_experts": 3}}
    assert assign(tree, values) == expected
    assert assign(tree, dict(reversed(values.items()))) == expected


def test_trial_with_replaces_fields_at_dotted_paths() -> None:
    trial = trial_with(
        TrialSpec(),
        {"objective.lambda_entropy": 5, "objective.name": "blend", "data": {"source": "images", "root": "x"}},
    )
    assert trial.objective == Blend(lambda_entropy=5)
    assert trial.data == ImageData(root="x")
    assert trial.model == TrialSpec().model
    assert value_at(trial, "objective.lambda_entropy") == 5.0
    assert value_at(trial, "training.budget") == "20 epochs"
    with pytest.raises(KeyError):
        value_at(trial, "objective.variance_end")


def test_trial_with_reaches_into_the_parts_of_combined_data() -> None:
    trial = TrialSpec(data=CombinedData(parts={"a": SyntheticData(), "b": ImageData(root="x")}))
    changed = trial_with(trial, {"data.parts.a.jitter": 2.0})
    assert isinstance(changed.data, CombinedData)
    assert changed.data.parts == {"a": SyntheticData(jitter=2.0), "b": ImageData(root="x")}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.num_expert": 3}, "trial.model.num_expert: unknown key; did you mean 'model.num_experts'?"),
        ({"model.num_experts": 0}, "trial with model.num_experts=0: model.num_experts: "),
        # A field of another objective is a known path, but not one of this trial's.
        (
            {"objective.lambda_entropy": 3},
            "trial with objective.lambda_entropy=3: objective.lambda_entropy: unknown key",
        ),
        (
            {"objective.likelihood": "bernouli"},
            "trial with objective.likelihood='bernouli': objective.likelihood: 'bernouli' is none of gaussian, "
            "bernoulli, laplace; did you mean 'bernoulli'?",
        ),
        (
            {"objective.variance_end": True},
            "trial with objective.variance_end=True: objective: 'variance_end' needs a number, not true",
        ),
    ],
)
def test_trial_with_refuses_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError) as caught:
        trial_with(TrialSpec(), values)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrialSpec().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "steps", "shown"),
    [("3 epochs", 30, "3 epochs"), ("1 epoch", 10, "1 epochs"), ("7 steps", 7, "7 steps"), ("1 step", 1, "1 steps")],
)
def test_budgets_in_steps(text: str, steps: int, shown: str) -> None:
    assert Budget.parse(text).steps(steps_per_epoch=10) == steps
    assert str(Budget.parse(text)) == shown
    assert Budget.parse(shown) == Budget.parse(text)


@pytest.mark.parametrize(
    "text", ["0 epochs", "-1 epochs", "1.5 epochs", "epochs", "3", "3  steps", "3 steps ", 3, None]
)
def test_other_budgets_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="a budget is written '20 epochs' or '5000 steps'"):
        Budget.parse(text)


# --- trial_id ---------------------------------------------------------------------------------------------------------


def test_the_id_of_the_default_trial_is_known() -> None:
    assert trial_id(TrialSpec(), FINGERPRINT) == "274f41e85c6f", (
        "the id of every trial has changed, so no stored trial is found again. If the same spec now trains to other "
        "numbers, raise NUMERICS_VERSION; if a field was added or a default changed on purpose, accept the new id here"
    )


OTHER: dict[str, Any] = {
    "dataset": "digits",
    "seed": 1,
    "routing": "supervised",
    "weights": "imported",
    "model.num_experts": 11,
    "model.latent_dim": 31,
    "model.encoder": "lite",
    "model.decoder": "medium",
    "model.gate_hidden": [64],
    "training.budget": "20 steps",
    "training.batch_size": 64,
    "training.learning_rate": 0.01,
    "training.beta": 0.1,
    "training.precision": "bf16",
    "training.compile": True,
    "evaluation.gating": "soft",
    "evaluation.latent": "sample",
    "evaluation.every": 2,
    "evaluation.save_embeddings": False,
    "resources.cpus": 2,
    "resources.gpus": 0.5,
    "resources.workers": {"min": 1, "max": 4},
}
OF_DATA: dict[str, Any] = {
    "classes": ["cat"],
    "train_per_class": 3,
    "test_per_class": 3,
    "fraction": 0.5,
    "imbalance": {"exponent": 1.0},
    "jitter": 0.5,
    "drawing_seed": 1,
    "ink": "white_on_black",
    "background": "black",
    "transpose": True,
    "allow_constant": True,
    "recognized_only": True,
    "root": "elsewhere",
    "download": True,
    "split": "letters",
    "labels": "coarse",
    "name": "octmnist",
    "size": 64,
    "image_column": "img",
    "label_column": "fine_label",
}
CLASSES_OF = {NamedData: ["cat"], EmnistData: ["7"], Cifar100Data: ["bear"], MedMnistData: ["normal"]}
NAMED = (NamedData(source="cifar10"), EmnistData(), Cifar100Data(), MedMnistData(name="pneumoniamnist"))
LAYOUTS = {QuickDrawData: "bitmap", ImageData: "npz"}
NOT_IDENTITY = {
    "dataset",
    "data.root",
    "data.download",
    "resources.cpus",
    "resources.gpus",
    "resources.workers",
    "evaluation.save_embeddings",
}


def _other_value(spec: Spec, field: str) -> Any:
    """A valid value of a number or of a choice that is not its default."""
    default, annotation = getattr(spec, field), type(spec).model_fields[field].annotation
    if get_origin(annotation) is Literal:
        return next(choice for choice in get_args(annotation) if choice != default)
    return 30.0 if default is None else next(filter(partial(_is_other, spec, field), (default / 2, default + 1)))


def _is_other(spec: Spec, field: str, value: float) -> bool:
    try:
        changed = type(spec).model_validate({**spec.model_dump(), field: value})
    except ValidationError:
        return False
    return changed != spec


def _single_changes() -> list[tuple[TrialSpec, str, Any]]:
    changes: list[tuple[TrialSpec, str, Any]] = [(TrialSpec(), path, value) for path, value in OTHER.items()]
    for objective in (objective() for objective in get_args(BuiltInObjective)):
        for field in sorted(type(objective).model_fields.keys() - {"name"}):
            changes += [(TrialSpec(objective=objective), f"objective.{field}", _other_value(objective, field))]
    for gate in (gate() for gate in get_args(BuiltInGate)):
        changes += [(TrialSpec(), "model.gate", gate.model_dump())] * (gate != MLPGateSpec())
        for field in sorted(type(gate).model_fields.keys() - {"name"}):
            trial = TrialSpec(model=ModelSpec(gate=gate))
            changes += [(trial, f"model.gate.{field}", _other_value(gate, field))]
    for name, field in ModifiersSpec.model_fields.items():
        modifier = next(models_in(field.annotation))()
        linear = ModelSpec(gate_hidden=())  # which coupling needs, and the others do not mind
        trial = TrialSpec(model=linear, objective=Blend(), modifiers=ModifiersSpec(**{name: modifier}))
        changes += [(TrialSpec(model=linear), f"modifiers.{name}", modifier.model_dump())]
        for parameter in sorted(type(modifier).model_fields):
            changes += [(trial, f"modifiers.{name}.{parameter}", _other_value(modifier, parameter))]
    cp = TrialSpec(model=ModelSpec(decoder=CPDecoderSpec()))
    shared = TrialSpec(model=ModelSpec(decoder=SharedDecoderSpec()))
    changes += [(TrialSpec(), "model.decoder", "cp"), (cp, "model.decoder.layers", "medium")]
    changes += [(cp, "model.decoder.rank", 8), (cp, "model.decoder", "shared")]
    changes += [(shared, "model.decoder.layers", "medium")]
    files = (QuickDrawData(layout="ndjson"), ImageData(root="here"), ParquetData(root="here"), *NAMED)
    for data in (SyntheticData(), *files):
        for field in sorted(type(data).model_fields.keys() - {"source", "image"}):
            value = LAYOUTS[type(data)] if field == "layout" else OF_DATA[field]
            value = CLASSES_OF.get(type(data), value) if field == "classes" else value
            changes += [(TrialSpec(data=data), f"data.{field}", value)]
    combined = TrialSpec(data=CombinedData(parts={"a": SyntheticData(), "b": QuickDrawData()}))
    changes += [
        (combined, "data.parts.a.jitter", 0.5),
        (combined, "data.parts.b.root", "elsewhere"),
        (combined, "data.classes", ["a/cat"]),
    ]
    image = {"size": 16, "channels": "rgb", "resample": "box"}
    changes += [
        (TrialSpec(data=ImageData(root="here")), f"data.image.{field}", image[field]) for field in sorted(image)
    ]
    weights = TrialSpec(data=SyntheticData(imbalance=Imbalance(weights={"cat": 0.5})))
    exponent = TrialSpec(data=SyntheticData(imbalance=Imbalance(exponent=1.0)))
    changes += [(weights, "data.imbalance.weights.cat", 0.25), (exponent, "data.imbalance.exponent", 2.0)]
    for first, second in ((Blend(), Expected()), (Expected(), Likelihood())):
        changes += [(TrialSpec(objective=first), "objective", second.model_dump())]
    return changes


@pytest.mark.parametrize(
    ("trial", "path", "value"),
    [pytest.param(*change, id=f"{i}-{change[1]}") for i, change in enumerate(_single_changes())],
)
def test_the_id_depends_on_what_can_change_the_numbers_and_on_nothing_else(
    trial: TrialSpec, path: str, value: Any
) -> None:
    tree = assign(trial.model_dump(mode="json"), {path: value})
    changed = TrialSpec.model_validate(tree)
    assert changed != trial
    place = path.replace("data.parts.b.", "data.")
    assert (trial_id(changed, FINGERPRINT) == trial_id(trial, FINGERPRINT)) == (place in NOT_IDENTITY)


def test_every_leaf_of_a_trial_was_changed() -> None:
    keys = dotted_keys(TrialSpec)
    leaves = {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}
    changed = {path for _, path, _ in _single_changes()}
    choices = {"data.source", "objective.name", "model.gate.name", "model.decoder.name"}  # changed with their mapping
    under_names = {"data.parts", "data.imbalance.weights"}  # changed below a name
    elastic = {"resources.workers.min", "resources.workers.max"}  # with a mapping in place of a number
    assert leaves - changed == choices | under_names | elastic


def test_the_id_depends_on_data_and_numerics_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = trial_id(TrialSpec(), FINGERPRINT)
    assert trial_id(TrialSpec(), "1" * 64) != before
    monkeypatch.setattr("smoe_ray.spec.trial.NUMERICS_VERSION", -1)
    assert trial_id(TrialSpec(), FINGERPRINT) != before


# --- routing by label -------------------------------------------------------------------------------------------------


def test_supervised_trials_drop_the_objective() -> None:
    written = [{}, *({"objective": objective} for objective in (Blend(), Expected(), None, {"name": "likelihood"}))]
    trials = [TrialSpec.model_validate({"routing": "supervised", **fields}) for fields in written]
    assert [trial.objective for trial in trials] == [Supervised()] * 5
    assert len({trial_id(trial, FINGERPRINT) for trial in trials}) == 1


def test_a_supervised_trial_keeps_the_likelihood_of_the_objective_that_it_drops() -> None:
    written = {"name": "blend", "likelihood": "bernoulli"}
    trial = TrialSpec.model_validate({"routing": "supervised", "objective": written})
    varied = trial_with(TrialSpec(objective=Blend(likelihood="bernoulli")), {"routing": "supervised"})
    assert trial.objective == varied.objective == Supervised(likelihood="bernoulli")
    assert trial.identity()["objective"] == {"likelihood": "bernoulli"}
    wrong = {"routing": "supervised", "objective": {"name": "blend", "likelihood": "beta"}}
    assert "objective.likelihood: " in complaint(HEAD | {"base": wrong})


def test_every_built_in_objective_offers_the_likelihoods_and_hashes_none_at_its_default() -> None:
    for objective in get_args(BuiltInObjective):
        assert issubclass(objective, DecoderLikelihoodSpec)
        assert "likelihood" not in objective().identity()
        assert objective(likelihood="laplace").identity()["likelihood"] == "laplace"


def test_the_weight_of_a_supervised_trial_makes_its_id_and_the_default_is_null() -> None:
    # Supervised trials had the objective null before it had a weight.
    assert TrialSpec.model_validate({"routing": "supervised"}).identity()["objective"] is None
    weighted = TrialSpec.model_validate({"objective": {"name": "supervised", "cross_entropy_weight": 50}})
    assert weighted.routing == "supervised"
    assert weighted.identity()["objective"] == {"cross_entropy_weight": 50.0}
    assert TrialSpec.model_validate(weighted.model_dump(mode="json")) == weighted


@pytest.mark.parametrize(
    ("preset", "base", "weight"),
    [
        ("released_code", {"routing": "supervised"}, 200),
        ("released_code", {"routing": "supervised", "objective": None}, 200),
        ("released_code", {"routing": "supervised", "objective": {"name": "blend", "lambda_balance": 3}}, 200),
        ("released_code", {"objective": {"name": "supervised"}}, 200),
        ("released_code", {"routing": "supervised", "objective": {"cross_entropy_weight": 50}}, 50),
        ("released_code", {"objective": {"name": "supervised", "cross_entropy_weight": 1}}, 1),
        ("paper_text", {"routing": "supervised"}, 1),
        ("recommended", {"routing": "supervised"}, 1),
    ],
)
def test_a_preset_has_its_weight_of_the_cross_entropy(preset: str, base: dict[str, Any], weight: float) -> None:
    study = parse(HEAD | {"preset": preset, "base": base})
    assert study.base.routing == "supervised"
    assert study.base.objective == Supervised(cross_entropy_weight=weight)
    assert parse_study(dump_study(study)) == study


@pytest.mark.parametrize(
    ("base", "values", "weight"),
    [
        ({}, {"routing": "supervised"}, 200),
        ({}, {"objective.name": "supervised"}, 200),
        ({}, {"objective": {"name": "supervised"}}, 200),
        ({}, {"objective": {"name": "supervised", "cross_entropy_weight": 1}}, 1),
        ({}, {"routing": "supervised", "objective.cross_entropy_weight": 7}, 7),
        ({}, {"routing": "supervised", "objective.name": "expected"}, 200),
        ({"objective": {"name": "supervised", "cross_entropy_weight": 50}}, {"routing": "supervised"}, 50),
        ({"objective": {"name": "supervised", "cross_entropy_weight": 50}}, {"objective": {"name": "blend"}}, 50),
        ({"objective": {"name": "supervised", "cross_entropy_weight": 50}}, {"objective.cross_entropy_weight": 2}, 2),
    ],
)
def test_axes_and_spaces_that_route_by_label_keep_the_presets_weight(
    base: dict[str, Any], values: dict[str, Any], weight: float
) -> None:
    trial = parse(HEAD | {"preset": "released_code", "base": base}).trial_with(values)
    assert trial.routing == "supervised"
    assert trial.objective == Supervised(cross_entropy_weight=weight)


@pytest.mark.parametrize(
    ("base", "values", "message"),
    [
        ({}, {"routing": "unsupervised", "objective.name": "supervised"}, "unsupervised routing needs an objective"),
        ({"routing": "supervised"}, {"routing": "unsupervised"}, "unsupervised routing needs an objective"),
        ({"routing": "supervised"}, {"objective.name": "suprvised"}, "did you mean 'supervised'"),
        ({"routing": "supervised"}, {"objective.lambda_balance": 3}, "objective.lambda_balance: unknown key"),
    ],
)
def test_a_contradiction_of_routing_and_objective_is_one_line(
    base: dict[str, Any], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        parse(HEAD | {"base": base}).trial_with(values)
    assert "\n" not in str(caught.value)


def test_equal_numbers_have_equal_ids_however_they_are_written() -> None:
    written = [200, 200.0, 2e2]
    assert len({trial_id(TrialSpec(objective=Blend(lambda_balance=x)), FINGERPRINT) for x in written}) == 1
    weights = [{"cat": 0.5, "eye": 0.1}, {"eye": 0.1, "cat": 0.5}]
    trials = [TrialSpec(data=SyntheticData(imbalance=Imbalance(weights=w))) for w in weights]
    assert trial_id(trials[0], FINGERPRINT) == trial_id(trials[1], FINGERPRINT)


# --- overrides --------------------------------------------------------------------------------------------------------


def test_overrides_reach_study_base_axes_and_space() -> None:
    base = {"data": {"source": "quickdraw"}}
    study = parse(
        HEAD | {"base": base, "axes": {"data.fraction": [1.0]}},
        "data.root=/drawings",
        "base.model.num_experts=4",
        "training.budget=30 steps",
        "seeds=[3, 4]",
        "preset=released_code",
        "axes.model.latent_dim=[8, 16]",
        "objective.name=expected",
    )
    assert isinstance(study, GridStudy)
    assert study.base.data == QuickDrawData(root="/drawings")
    assert (study.base.model.num_experts, study.base.training.budget) == (4, Budget(30, "steps"))
    assert study.seeds == (3, 4)
    assert study.axes == {"data.fraction": (1.0,), "model.latent_dim": (8, 16)}
    assert study.base.evaluation.latent == "sample"  # the preset's
    assert study.base.objective == Expected()
    wider = parse(SEARCH, "space.model.num_experts={type: int, low: 1, high: 99}", "num_trials=9")
    assert isinstance(wider, SearchStudy)
    assert wider.space["model.num_experts"].high == 99  # type: ignore[union-attr]
    assert len(wider.space) == 2
    assert wider.num_trials == 9


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds", "--set seeds: write key=value"),
        ("=3", "--set =3: write key=value"),
        ("modle.num_experts=3", "unknown key 'modle.num_experts'; did you mean 'model.num_experts'?"),
        ("model.num_expert=3", "demo.yaml: base.model.num_expert: unknown key (value 3); did you mean 'num_experts'?"),
        ("seeds=[1", "--set seeds=[1:1: not valid YAML"),
    ],
)
def test_wrong_overrides_are_refused(override: str, message: str) -> None:
    assert message in complaint(HEAD, override)


_AXIS = HEAD | {"axes": {"model.num_experts": [1, 3]}}
_AXES = HEAD | {"axes": {"objective": [{"name": "blend", "lambda_balance": 2}, {"name": "likelihood"}]}}


@pytest.mark.parametrize(
    ("tree", "override", "advice"),
    [
        (_AXIS, "model.num_experts=3", "is an axis of this study; write --set axes.model.num_experts='[3]'"),
        (_AXIS, "base.model.num_experts=3", "is an axis of this study; write --set axes.model.num_experts='[3]'"),
        (_AXIS, "model={num_experts: 3}", "is replaced by every value of axes.model.num_experts; change that instead"),
        (_AXIS, "seed=3", "is set by the seeds of this study; write --set seeds='[3]'"),
        (_AXES, "objective.name=blend", "is replaced by every value of axes.objective; change that instead"),
        (
            SEARCH,
            "model.num_experts=3",
            "is in the space of this study; write --set space.model.num_experts='{type: categorical, choices: [3]}'",
        ),
    ],
)
def test_an_override_that_no_trial_would_have_is_refused(tree: dict[str, Any], override: str, advice: str) -> None:
    assert complaint(tree, override) == f"--set {override}: {advice}"


def test_an_override_that_some_trial_has_stands() -> None:
    assert parse(_AXES, "objective.lambda_balance=5").base.objective.lambda_balance == 5  # type: ignore[union-attr]
    assert parse(_AXIS, "model={num_experts: 3, latent_dim: 8}").base.model.latent_dim == 8
    assert parse(_AXIS, "model.num_experts=3", "axes={}").base.model.num_experts == 3
    when = {"space": {"model.num_experts": {"type": "int", "low": 2, "high": 9, "when": {"model.encoder": ["lite"]}}}}
    encoder = {"model.encoder": {"type": "categorical", "choices": ["lite", "medium"]}}
    conditional = SEARCH | {"space": encoder | when["space"]}
    assert parse(conditional, "model.num_experts=3").base.model.num_experts == 3


def test_an_axis_cannot_be_set_below_a_list() -> None:
    assert "'axes' is no mapping" in complaint(HEAD | {"axes": [1]}, "axes.model.num_experts=[1]")


# --- YAML -------------------------------------------------------------------------------------------------------------


def refusal(text: str) -> str:
    with pytest.raises(StudyError) as caught:
        parse_study(text, origin="demo.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_repeated_key_is_refused_with_its_line() -> None:
    text = "name: demo\nquestion: why?\nbase:\n  model: {num_experts: 2}\n  model: {num_experts: 3}\n"
    assert refusal(text) == "demo.yaml:5: not valid YAML: key 'model' stands twice"


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.system ['touch {marker}']",
        "name: !!python/object/new:os.system ['touch {marker}']",
        "name: !!python/name:os.system",
        "!!python/object/apply:os.system ['touch {marker}']",
    ],
)
def test_python_tags_are_refused_and_do_nothing(text: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    assert "not valid YAML: could not determine a constructor for the tag" in refusal(text.format(marker=marker))
    assert not marker.exists()


@pytest.mark.parametrize("text", ["", "- name: demo", "demo", "3", "null"])
def test_a_text_that_is_no_mapping_is_refused(text: str) -> None:
    assert "a study is a mapping" in refusal(text)


@pytest.mark.parametrize(
    "text", ["name: [demo", "name: a\x00b", "? [a]\n: b", "name: 2020-13-45", "\tname: demo", "a: *b"]
)
def test_invalid_yaml_is_refused_in_one_line(text: str) -> None:
    assert "not valid YAML" in refusal(text)


def test_anchors_and_merge_keys_work() -> None:
    study = parse_study(
        "name: demo\nquestion: why?\naxes:\n  objective:\n"
        "    - &blend {name: blend, lambda_balance: 1}\n    - {<<: *blend, lambda_entropy: 2}\n"
        "  model.num_experts: &experts [1, 2]\n  model.latent_dim: *experts\n"
    )
    assert isinstance(study, GridStudy)
    blend = {"name": "blend", "lambda_balance": 1}
    assert study.axes["objective"] == (blend, blend | {"lambda_entropy": 2})
    assert study.axes["model.latent_dim"] == (1, 2)


def test_a_key_overridden_after_a_merge_is_no_repetition() -> None:
    # `*b` is merged into `c` before `b` itself, which lies deeper, is built.
    text = "base: {model: &b {<<: &a {num_experts: 2}, num_experts: 3}}\nseeds: [1]\nname: demo\nquestion: why?\n"
    study = parse_study(text + "axes: {model: [{<<: *b, latent_dim: 4}]}\n")
    assert study.base.model.num_experts == 3
    assert isinstance(study, GridStudy)
    assert study.axes["model"] == ({"num_experts": 3, "latent_dim": 4},)


def test_files_are_checked_before_they_are_parsed(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    text = "name: demo\nquestion: why?\n"
    path.write_text(text + "#" * (MAX_STUDY_BYTES - len(text)))
    assert load_study(path).name == "demo"
    path.write_text(text + "#" * (MAX_STUDY_BYTES - len(text) + 1))
    with pytest.raises(StudyError, match=r"demo\.yaml: larger than 1,000,000 bytes"):
        load_study(path)
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(StudyError, match=r"demo\.yaml: not a text file; a study is YAML$"):
        load_study(path)
    with pytest.raises(StudyError, match=r"demmo\.yaml: no such study file; did you mean '.*/demo\.yaml'\?$"):
        load_study(tmp_path / "demmo.yaml")
    with pytest.raises(StudyError, match=r"the folder .*nowhere does not exist"):
        load_study(tmp_path / "nowhere" / "demo.yaml")
    with pytest.raises(StudyError, match=r": is a folder, not a study file$"):
        load_study(tmp_path)


def test_load_study_applies_overrides_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text("name: demo\nquestion: why?\nbase: {model: {num_experts: 2}}\n")
    assert load_study(str(path), ["model.num_experts=7"]).base.model.num_experts == 7
    with pytest.raises(StudyError) as caught:
        load_study(path, ["model.num_experts=0"])
    assert str(caught.value).startswith(f"{path}: base.model.num_experts: ")


STUDY_FILES = sorted(STUDIES.rglob("*.yaml"))


@pytest.mark.parametrize("path", STUDY_FILES, ids=[str(path.relative_to(STUDIES)) for path in STUDY_FILES])
def test_every_study_of_the_repository_validates(path: Path) -> None:
    study = load_study(path)
    assert parse_study(dump_study(study)) == study
    if isinstance(study, GridStudy):  # an axis's values meet the trial when it is built
        for axis, values in study.axes.items():
            for value in values:
                trial_with(study.base, {axis: value})


def test_there_are_studies() -> None:
    assert {"quickstart.yaml", "drawings.yaml"} <= {path.name for path in STUDY_FILES}


# --- search studies ---------------------------------------------------------------------------------------------------


def test_a_space_makes_a_search() -> None:
    study = parse(SEARCH)
    assert isinstance(study, SearchStudy)
    assert study.objectives[0].direction == "minimize"


@pytest.mark.parametrize("metric", SCALAR_METRICS)
def test_every_scalar_metric_can_be_optimised(metric: str) -> None:
    assert parse(SEARCH | {"objectives": [{"metric": metric}]})


CHOICE = {"type": "categorical", "choices": ["blend", "likelihood"]}
LAMBDA = {"type": "float", "low": 1, "high": 9}
ENTROPY, VARIANCE = "objective.lambda_entropy", "objective.variance_end"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": [{"metric": "test.reconstuction"}]}, "did you mean 'test.reconstruction'?"),
        ({"objectives": [{"metric": "experts.usage"}]}, "objectives.0.metric: not a result column"),
        ({"objectives": []}, "objectives"),
        ({"space": {}}, "space"),
        ({"num_trials": 0}, "num_trials"),
        ({"sampler": {"name": "tpee"}}, "sampler.name: 'tpee' is none of tpe, random, nsga2, gp, cmaes"),
        ({"space": {"model.num_expert": LAMBDA}}, "space.model.num_expert: unknown key; did you mean"),
        ({"space": {"seed": {"type": "int", "low": 0, "high": 9}}}, "space.seed: seeds are set by"),
        ({"space": {ENTROPY: LAMBDA | {"low": 10}}}, "low 10.0 is above high 9.0"),
        ({"space": {ENTROPY: LAMBDA | {"low": 0, "log": True}}}, "a logarithmic range needs low > 0"),
        ({"space": {ENTROPY: LAMBDA | {"step": 1, "log": True}}}, "'step' and 'log' exclude one another"),
        ({"space": {"model.num_experts": LAMBDA | {"type": "int", "step": 2, "log": True}}}, "exclude one another"),
        ({"space": {"model.num_experts": LAMBDA | {"type": "int", "low": 1.5}}}, "space.model.num_experts.low"),
        ({"space": {ENTROPY: LAMBDA | {"type": "flot"}}}, "space.objective.lambda_entropy.type: 'flot'"),
        ({"space": {ENTROPY: {"low": 1, "high": 9}}}, "space.objective.lambda_entropy.type: required"),
        ({"space": {"objective.name": {"type": "categorical", "choices": []}}}, "space.objective.name.choices"),
        (
            {"space": {"objective.name": CHOICE, ENTROPY: LAMBDA | {"when": {"objective.nam": "blend"}}}},
            "space.objective.lambda_entropy.when: 'objective.nam' is not in space; did you mean 'objective.name'?",
        ),
        (
            {
                "space": {
                    "objective.name": CHOICE,
                    ENTROPY: LAMBDA | {"when": {"objective.name": "blend"}},
                    VARIANCE: LAMBDA | {"when": {ENTROPY: 3}},
                }
            },
            "conditions are one deep",
        ),
        (
            {"objectives": [{"metric": "test.kl"}, {"metric": "cost.flops"}], "pruner": {"name": "asha"}},
            "pruner: early stopping works with one objective only",
        ),
        (
            {"space": {"objective.likelihood": {"type": "categorical", "choices": ["gaussian", "laplace"]}}},
            "objectives: test.reconstruction has another unit with every objective.likelihood, so its values do not "
            "compare; optimise test.psnr (direction: maximize)",
        ),
        *(
            (
                {"space": {path: {"type": "categorical", "choices": choices}}},
                f"objectives: test.reconstruction has another unit with every {path}, so its values do not compare",
            )
            for path, choices in {
                "data.root": ["here", "there"],
                "data.source": ["mnist", "cifar10"],
                "data.image": [{"size": 16}, {"size": 32}],
                "objective": [{"name": "blend", "likelihood": "laplace"}, {"name": "blend"}],
                "data": [{"source": "mnist"}, {"source": "cifar10"}],
            }.items()
        ),
        ({"sampler": {"name": "cmaes"}, "space": {"objective.name": CHOICE}}, "cmaes takes numeric"),
        (
            {"sampler": {"name": "cmaes"}, "objectives": [{"metric": "test.kl"}, {"metric": "cost.flops"}]},
            "cmaes takes numeric",
        ),
    ],
)
def test_what_a_search_cannot_do_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in complaint(SEARCH | changes)


@pytest.mark.parametrize(
    ("axes", "metric"),
    [
        ({"model.num_experts": [2, 3]}, "test.reconstruction"),
        ({"data": [{"fraction": 0.5}, {"fraction": 1.0}]}, "test.reconstruction"),
        ({"objective": [{"lambda_balance": 3}]}, "test.reconstruction"),
        ({"objective.likelihood": ["gaussian", "laplace"]}, "test.psnr"),
        ({"objective": [{"likelihood": "laplace"}, {"likelihood": "gaussian"}]}, "test.psnr"),
        ({"data.image.size": [16, 32]}, "test.psnr"),
        ({"data.size": [28, 64]}, "test.psnr"),
        ({"data.parts.a.root": ["here", "there"]}, "test.psnr"),
    ],
    ids=str,
)
def test_the_best_trial_of_a_grid_is_by_psnr_where_the_losses_may_have_several_units(
    axes: dict[str, Any], metric: str
) -> None:
    study = parse({"kind": "grid", "name": "x", "question": "?", "axes": axes})
    found = first_objective(study)
    assert (found.metric, found.direction) == (metric, "maximize" if metric == "test.psnr" else "minimize")


def test_conditions_one_deep_and_cmaes_on_numbers_are_accepted() -> None:
    when = {"objective.name": ["blend", "likelihood"]}
    parse(SEARCH | {"space": {"objective.name": CHOICE, ENTROPY: LAMBDA | {"when": when}}})
    parse(SEARCH | {"sampler": {"name": "cmaes"}})


# --- dump and parse ---------------------------------------------------------------------------------------------------

small = st.floats(min_value=1e-6, max_value=1e6)
counts = st.integers(1, 1000)
objectives = (
    st.builds(Blend, lambda_balance=small, lambda_entropy=small, gating=st.sampled_from(["soft", "hard"]))
    | st.builds(Expected, lambda_balance=small, balance_form=st.sampled_from(["released_code", "paper_text"]))
    | st.builds(Likelihood, variance_start=small, variance_end=small)
)
imbalances = st.none() | st.builds(Imbalance, exponent=small)
roots = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20)
leaves = (
    st.builds(SyntheticData, jitter=st.floats(0, 3), train_per_class=counts, imbalance=imbalances)
    | st.builds(QuickDrawData, root=st.none() | roots, fraction=st.floats(0.01, 1), download=st.booleans())
    | st.builds(ImageData, root=roots, layout=st.sampled_from(["auto", "idx", "npz", "folder"]))
)
datas = leaves | st.builds(
    CombinedData, parts=st.dictionaries(st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,9}\Z"), leaves, min_size=1, max_size=2)
)
trials = st.builds(
    TrialSpec,
    seed=st.integers(0, 2**31 - 1),
    data=datas,
    model=st.builds(ModelSpec, num_experts=st.integers(1, 1024), gate_hidden=st.lists(counts, max_size=3).map(tuple)),
    routing=st.sampled_from(["unsupervised", "supervised"]),
    objective=objectives,
)
heads: dict[str, Any] = {
    "name": st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,62}\Z"),
    "question": st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    "preset": st.sampled_from(["paper_text", "released_code", "recommended"]),
    "base": trials,
}
grids = st.builds(
    GridStudy,
    **heads,
    axes=st.fixed_dictionaries(
        {},
        optional={
            "model.num_experts": st.lists(counts, min_size=1, max_size=3),
            "objective": st.lists(objectives.map(lambda objective: objective.model_dump()), min_size=1, max_size=2),
            "training.learning_rate": st.lists(small, min_size=1, max_size=3),
        },
    ),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True).map(tuple),
)
searches = st.builds(
    lambda low, **fields: SearchStudy.model_validate(
        {
            "kind": "search",
            "objectives": [{"metric": "test.kl", "direction": "maximize"}],
            "num_trials": low,
            "space": {
                "model.num_experts": {"type": "int", "low": low, "high": low + 3},
                "objective.name": CHOICE | {"choices": ["likelihood", "blend", None, True, 3, 0.5]},
                ENTROPY: LAMBDA | {"when": {"objective.name": ["blend", None, True, 3, 0.5]}},
            },
            **fields,
        }
    ),
    low=counts,
    **heads,
)


@given(grids | searches)
def test_a_dumped_study_parses_to_the_same_study(study: GridStudy | SearchStudy) -> None:
    again = parse_study(dump_study(study))
    assert again == study
    assert type(again) is type(study)
    assert trial_id(again.base, FINGERPRINT) == trial_id(study.base, FINGERPRINT)


def test_overriding_one_axis_keeps_the_others_and_overriding_axes_replaces_them() -> None:
    text = "name: a\nquestion: q\naxes: {model.num_experts: [1, 2], data.fraction: [0.5]}\n"
    one = parse_study(text, ["axes.model.num_experts=[3]"])
    assert isinstance(one, GridStudy)
    assert one.axes == {"model.num_experts": (3,), "data.fraction": (0.5,)}
    none = parse_study(text, ["axes={}"])
    assert isinstance(none, GridStudy)
    assert none.axes == {}


@pytest.mark.parametrize("number", ["1e-4", "1E+4", "-2e3", "1.5e3", "2.e1", ".5e1", "1.0e-4"])
def test_numbers_in_exponent_form_are_numbers_in_a_file_and_in_an_override(number: str) -> None:
    text = f"name: a\nquestion: q\naxes: {{objective.lambda_balance: [{number}, '{number}']}}\n"
    study = parse_study(text)
    assert isinstance(study, GridStudy)
    assert study.axes == {"objective.lambda_balance": (float(number), number)}
    assert parse_study(dump_study(study)) == study
    other = parse_study(text, [f"axes.objective.lambda_balance=[{number}]"])
    assert isinstance(other, GridStudy)
    assert other.axes == {"objective.lambda_balance": (float(number),)}


def test_a_name_that_looks_like_a_number_stays_a_name() -> None:
    study = parse_study("name: '1e4'\nquestion: 2e2 or not?\n")
    assert (study.name, study.question) == ("1e4", "2e2 or not?")
    assert parse_study(dump_study(study)) == study
