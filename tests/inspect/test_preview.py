"""What `check` says beforehand is what a run does."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoe_ray.errors import DataError, StudyError
from smoe_ray.inspect.preview import in_words, preview
from smoe_ray.model.cost import model_cost
from smoe_ray.results import read_results
from smoe_ray.spec import GridStudy, ModelSpec, SearchStudy, parse_study
from smoe_ray.study import LocalExecutor, run_study

STUDY = """
name: preview
question: Is the preview true?
base:
  data: {source: synthetic, classes: [eye, pencil], train_per_class: 50, test_per_class: 10}
  model: {encoder: lite}
  training: {budget: 7 steps, batch_size: 16}
axes:
  model.num_experts: [2, 3]
  data.fraction: [0.5, 1.0]
seeds: [0]
"""


def test_trials_parameters_images_and_flops_are_those_of_the_run(tmp_path: Path) -> None:
    study = parse_study(STUDY)
    seen = preview(study)
    run_study(study, tmp_path, LocalExecutor(device="cpu"))
    results = read_results(tmp_path, "preview")
    last = results.sort_values("epoch").groupby("trial_id").tail(1)
    assert seen.trials == seen.configurations == len(last) == 4
    assert seen.params_total == (last["cost.params_total"].min(), last["cost.params_total"].max())
    assert seen.params_active == (last["cost.params_active"].min(), last["cost.params_active"].max())
    assert seen.train_images == (last["data.train_images"].min(), last["data.train_images"].max()) == (50, 100)
    # The last batch of a pass is short; the preview counts it as an even share of the pass.
    assert seen.flops == pytest.approx(last["cost.flops"].sum(), rel=0.1)
    assert set(last["cost.steps"]) == {7}


def test_seeds_make_trials_but_no_configurations() -> None:
    seen = preview(parse_study(STUDY, ["seeds=[0, 1, 2]"]))
    assert (seen.trials, seen.configurations) == (12, 4)


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("axes.model.num_experts=[0]", StudyError, "model.num_experts"),
        ("routing=supervised", StudyError, "set model.num_experts to 2 \\(it is 3\\)"),
        ("data.fraction=0.001", DataError, "class 'eye' would keep none of its 50"),
        ("data.imbalance={weights: {cat: 0.5}}", DataError, "no class 'cat'"),
        (
            "data={source: images, root: away, image: {size: 30, channels: rgb}}",
            StudyError,
            "model.decoder: images are 30x30 pixels, .* it can make 28x28 and 32x32",
        ),
    ],
)
def test_what_cannot_run_is_refused(override: str, error: type[Exception], message: str) -> None:
    overrides = [override] if override.startswith("axes.") else ["axes={model.num_experts: [3]}", override]
    with pytest.raises(error, match=message):
        preview(parse_study(STUDY, overrides))


def test_images_on_disk_are_counted_only_when_read(tmp_path: Path) -> None:
    seen = preview(parse_study(STUDY, ["axes={}", f"data={{source: images, root: {tmp_path}}}"]))
    assert seen.train_images is None
    assert seen.flops is None


@pytest.mark.parametrize("image", ["{}", "{size: 32}", "{channels: rgb}", "{size: 32, channels: rgb}"])
def test_the_shape_of_images_on_disk_is_known_where_the_spec_decides_it(tmp_path: Path, image: str) -> None:
    """Without it there is no model whose parameters could be counted."""
    study = parse_study(STUDY, ["axes={}", f"data={{source: images, root: {tmp_path}, image: {image}}}"])
    seen, is_known = preview(study), image == "{size: 32, channels: rgb}"
    lines = dict(in_words(study, seen))
    if is_known:
        assert seen.params_total == (model_cost(study.base.model, (3, 32, 32)).params_total,) * 2
        assert lines["images"] == "32x32 RGB"
    else:
        assert seen.image_shapes is seen.params_total is None
        assert lines["images"] == "size and colours known once they are read"
        assert lines["parameters"] == "known once the images are read"
    assert lines["training images"] == "known once the files are read"


SEARCH = """
name: search
question: Is the search space one?
base: {data: {source: synthetic, classes: [eye, pencil], train_per_class: 50}}
objectives: [{metric: test.reconstruction}]
num_trials: 6
"""


def search(**space: str) -> SearchStudy:
    lines = [f"  {path}: {parameter}" for path, parameter in space.items()]
    study = parse_study("\n".join([SEARCH, "space:", *lines]))
    assert isinstance(study, SearchStudy)
    return study


def test_a_search_is_as_large_as_the_corners_of_its_space() -> None:
    study = search(
        **{
            "model.decoder": "{type: categorical, choices: [large, lite]}",
            "model.encoder": "{type: categorical, choices: [medium, lite]}",
            "model.latent_dim": "{type: int, low: 8, high: 64}",
            "model.num_experts": "{type: int, low: 2, high: 9}",
            "data.fraction": "{type: float, low: 0.1, high: 1}",
        }
    )
    shape = (1, 28, 28)
    small = ModelSpec(num_experts=2, latent_dim=8, encoder="lite", decoder="lite")
    large = ModelSpec(num_experts=9, latent_dim=64, encoder="medium", decoder="large")
    seen = preview(study)
    assert (seen.trials, seen.configurations) == (6, 1)
    assert seen.params_total == (
        model_cost(small, shape).params_total,
        model_cost(large, shape).params_total,
    )
    assert seen.params_active == (
        model_cost(small, shape).params_active,
        model_cost(large, shape).params_active,
    )
    assert seen.train_images == (10, 100)
    of_base = preview(GridStudy(name="base", question="?", base=study.base)).flops
    assert of_base is not None
    assert seen.flops == pytest.approx(6 * of_base)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"objective.lambda_entropy": "{type: float, low: 1, high: 9}"},
            r"^space: trial with objective.lambda_entropy=1.0: objective.lambda_entropy: unknown key",
        ),
        ({"model.num_experts": "{type: int, low: 1, high: 2000}"}, r"^space: .*model.num_experts: .* 1024"),
        (
            {"training.budget": "{type: categorical, choices: [1 epoch, much]}"},
            r"^space: .*'20 epochs' or '5000 steps'",
        ),
        (
            {
                "routing": "{type: categorical, choices: [unsupervised, supervised]}",
                "model.num_experts": "{type: int, low: 2, high: 9}",
            },
            r"set model.num_experts to 2 \(it is 9\)",
        ),
    ],
)
def test_a_space_with_impossible_corners_is_refused(space: dict[str, str], message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        preview(search(**space))
    assert "\n" not in str(caught.value)


def test_conditions_make_a_space_possible() -> None:
    study = search(
        **{
            "objective.lambda_entropy": "{type: float, low: 1, high: 9, when: {objective.name: blend}}",
            "objective.name": "{type: categorical, choices: [likelihood, blend]}",
        }
    )
    assert preview(study).trials == 6
