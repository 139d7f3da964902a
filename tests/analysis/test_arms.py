"""Arm labels: what differs and only that."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoe_ray.analysis import arms
from smoe_ray.errors import ResultsError
from support.planted_results import table, trial


def labels(*trials: list) -> list[str]:
    return list(arms(table(*trials)))


def test_a_label_names_the_paths_that_differ() -> None:
    trials = [
        trial(f"{name}-{experts}", [1.0], configured=experts, objective__name=name, training__beta=0.01)
        for name in ("likelihood", "blend")
        for experts in (10, 2)
    ]
    result = arms(table(*trials))
    assert dict(result) == {
        "likelihood-10": "likelihood, E=10",
        "likelihood-2": "likelihood, E=2",
        "blend-10": "blend, E=10",
        "blend-2": "blend, E=2",
    }
    assert list(result.cat.categories) == ["blend, E=2", "blend, E=10", "likelihood, E=2", "likelihood, E=10"]


def test_implied_paths_stay_out() -> None:
    """lambda_entropy does not exist under likelihood, and its lambda_balance follows from its name."""
    assert labels(
        trial("a", [1.0], objective__name="blend", objective__lambda_balance=200.0, objective__lambda_entropy=400.0),
        trial(
            "b", [1.0], objective__name="likelihood", objective__lambda_balance=400.0, objective__lambda_entropy=np.nan
        ),
    ) == ["blend", "likelihood"]


def test_a_path_shows_only_where_it_still_tells_arms_apart() -> None:
    assert labels(
        trial("a", [1.0], objective__name="blend", objective__lambda_balance=200.0),
        trial("b", [1.0], objective__name="blend", objective__lambda_balance=400.0),
        trial("c", [1.0], objective__name="likelihood", objective__lambda_balance=400.0),
    ) == ["blend, λ_balance=200", "blend, λ_balance=400", "likelihood"]


def test_arms_are_called_by_the_modifiers_that_they_have() -> None:
    def arm(name: str, **modifiers: float) -> list:
        fields = {"revival__every": np.nan, "orthogonal__weight": np.nan} | modifiers
        return trial(name, [1.0], **{f"modifiers__{path}": value for path, value in fields.items()})

    assert labels(arm("a"), arm("b", revival__every=50), arm("c", revival__every=100)) == [
        "no modifier",
        "revival.every=50",
        "revival.every=100",
    ]
    assert labels(arm("a"), arm("b", revival__every=50), arm("c", orthogonal__weight=1.0)) == [
        "no modifier",
        "revival.every=50",
        "orthogonal.weight=1",
    ]


def test_a_name_alone_and_one_with_fields_are_told_alike() -> None:
    assert labels(
        trial("a", [1.0], model__decoder="lite"),
        trial("b", [1.0], model__decoder__name="cp", model__decoder__rank=8.0),
        trial("c", [1.0], model__decoder__name="cp", model__decoder__rank=64.0),
    ) == ["lite decoder", "cp decoder, rank=8", "cp decoder, rank=64"]


def test_seeds_and_resources_make_no_arm() -> None:
    assert labels(
        trial("a", [1.0], seed=0, objective__name="blend", resources__cpus=1, evaluation__save_embeddings=True),
        trial("b", [1.0], seed=1, objective__name="blend", resources__cpus=2, evaluation__save_embeddings=False),
    ) == ["blend, E=10", "blend, E=10"]


def test_the_supervised_baseline_is_an_arm_and_unsupervised_goes_without_saying() -> None:
    assert labels(
        trial("a", [1.0], routing="unsupervised", objective__name="blend"),
        trial("b", [1.0], routing="unsupervised", objective__name="likelihood"),
        trial("c", [1.0], routing="supervised", objective__name=None),
    ) == ["blend", "likelihood", "supervised"]
    label_by_label = {"routing": "supervised", "objective__name": "supervised"}
    assert labels(
        trial("a", [1.0], routing="unsupervised", objective__name="blend"),
        trial("b", [1.0], **label_by_label, objective__cross_entropy_weight=1.0),
        trial("c", [1.0], **label_by_label, objective__cross_entropy_weight=50.0),
    ) == ["unsupervised", "supervised, cross_entropy_weight=1", "supervised, cross_entropy_weight=50"]
    assert labels(trial("a", [1.0], **label_by_label)) == ["supervised, E=10"]
    assert labels(trial("a", [1.0], routing="unsupervised"), trial("c", [1.0], routing="supervised")) == [
        "unsupervised",
        "supervised",
    ]


def test_how_values_read() -> None:
    def pair(path: str, first: object, second: object) -> list[str]:
        return labels(trial("a", [1.0], **{path: first}), trial("b", [1.0], **{path: second}))

    assert pair("data__fraction", 0.05, 1.0) == ["5 % data", "100 % data"]
    assert pair("data__classes", ["cat"], np.array(["cat", "eye"])) == ["classes=cat", "classes=cat+eye"]
    assert pair("data__root", "/home/x/mnist", "s3://b/fashion/") == ["root=mnist", "root=fashion"]
    assert pair("training__budget", "20 epochs", "5000 steps") == ["20 epochs", "5000 steps"]
    assert pair("data__train_per_class", None, 100) == ["train_per_class=none", "train_per_class=100"]
    # Rounded alike, yet not the same: the full values are told.
    assert pair("training__learning_rate", 1.00001e-3, 1.00002e-3) == [
        "training.learning_rate=0.00100001",
        "training.learning_rate=0.00100002",
    ]


def test_ignored_paths_make_no_arm() -> None:
    frame = table(trial("a", [1.0], configured=2), trial("b", [1.0], configured=5))
    assert arms(frame, ignore=("model.num_experts",)).nunique() == 1
    assert arms(frame).nunique() == 2


def test_an_empty_table_has_no_arms_and_a_foreign_one_is_refused() -> None:
    assert arms(table(trial("a", [1.0])).iloc[:0]).empty
    with pytest.raises(ResultsError, match="column 'trial_id' is absent"):
        arms(pd.DataFrame({"x": [1]}))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["blend", "likelihood", None]),
            st.sampled_from([1.0, 1, 2.5, None, float("nan")]),
            st.sampled_from([("cat",), ("cat", "eye"), None]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_equal_label_means_equal_configuration(configurations: list[tuple]) -> None:
    """The partition into arms is exactly the partition by configuration."""
    frame = table(
        *(
            trial(str(number), [1.0], objective__name=name, training__beta=beta, data__classes=classes)
            for number, (name, beta, classes) in enumerate(configurations)
        )
    )
    key_of = [(name, None if beta != beta else beta, classes) for name, beta, classes in configurations]
    label_of = list(arms(frame))
    for first in range(len(key_of)):
        for second in range(first):
            assert (label_of[first] == label_of[second]) == (key_of[first] == key_of[second])


def test_the_same_data_in_another_folder_make_no_arm() -> None:
    results = table(
        trial("a", [1.0], data__root="drawings"), trial("b", [1.0], seed=1, data__root="/elsewhere/drawings")
    )
    assert list(arms(results.assign(**{"data.fingerprint": "f"})).unique()) == ["E=10"]
    other = results.assign(**{"data.fingerprint": results["trial_id"]})
    other.loc[other.trial_id == "b", "config.data.root"] = "/elsewhere/sketches"
    assert set(arms(other)) == {"root=drawings", "root=sketches"}
