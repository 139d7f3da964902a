"""What a study's author reads when a value is wrong: plain words, and what to write instead."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from smoe_ray.errors import StudyError
from smoe_ray.spec import dump_study, load_study, parse_study

HEAD = "name: a\nquestion: q\n"
SEARCH = HEAD + "kind: search\nobjectives: [{metric: test.reconstruction}]\nnum_trials: 2\n"

LIBRARY_WORDS = re.compile(
    r"Input should|valid (string|integer|number|tuple|list|dictionary|boolean)|String should|pattern '|instance of"
    r"|pydantic|Field required|Extra inputs|Value error|type=|dictionary or object|unable to parse|tuple",
)


def complaint(text: str) -> str:
    with pytest.raises(StudyError) as caught:
        parse_study(text)
    message = str(caught.value)
    assert "\n" not in message
    assert not LIBRARY_WORDS.search(message), message
    return message


WRONG = {
    "base: {data: {source: images, root: r, classes: [0, 2]}}": "classes.0: needs text; write it in quotes: '0'",
    "base: {data: {source: images, root: r, classes: [1.5]}}": "classes.0: needs text; write it in quotes: '1.5'",
    "base: {data: {source: images, root: r, classes: [no, yes]}}": "YAML reads no, off and false as false",
    "base: {data: {source: images, root: 2024-01-01}}": "root: needs text; write it in quotes: '2024-01-01'",
    "base: {data: {source: images, root: [a]}}": "base.data.root: needs text",
    "seeds: 3": "seeds: needs a list, one trial per seed; for 3 seeds write [0, 1, 2]",
    "seeds: {a: 1}": "seeds: needs a list",
    "axes: {model.num_experts: 5}": "axes.model.num_experts: needs a list; write [5]",
    "axes: {objective.name: blend}": "axes.objective.name: needs a list; write [blend]",
    "axes: {training.compile: no}": "axes.training.compile: needs a list; write [false]",
    "axes: [model.num_experts]": "axes: needs a mapping",
    "base: {model: {num_experts: ten}}": "base.model.num_experts: needs a whole number (value 'ten')",
    "base: {model: {num_experts: 2.5}}": "base.model.num_experts: needs a whole number (value 2.5)",
    "base: {model: {num_experts: 0}}": "base.model.num_experts: must be at least 1 (value 0)",
    "base: {model: 3}": "base.model: needs a mapping",
    "base: {model: {gate_hidden: 64}}": "base.model.gate_hidden: needs a list; write [64]",
    "base: {training: {learning_rate: fast}}": "base.training.learning_rate: needs a number",
    "base: {training: {learning_rate: 0}}": "base.training.learning_rate: must be above 0",
    "base: {training: {compile: maybe}}": "base.training.compile: needs true or false",
    "base: {seed: -1}": "base.seed: must be at least 0",
    "base: {resources: {workers: many}}": "base.resources.workers: needs a whole number",
    "question: ''": "question: needs at least 1 characters",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_value_says_what_to_write(line: str) -> None:
    key = line.partition(":")[0]
    head = "".join(kept + "\n" for kept in HEAD.splitlines() if not kept.startswith(f"{key}:"))
    assert WRONG[line] in complaint(head + line)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My_Study", "for instance my-study"),
        ("a b", "for instance a-b"),
        ("Größe", "for instance gr-e"),
        ("no", "write it in quotes: YAML reads no, off and false as false"),
        ("on", "write it in quotes: YAML reads yes, on and true as true"),
        ("2024", "write it in quotes: '2024'"),
        ("1.5", "write it in quotes: '1.5'"),
        ("null", "needs text"),
        ("'-a'", "for instance a"),
        ("'...'", "needs a-z, 0-9 and dashes"),
    ],
)
def test_a_name_that_is_none_says_how_it_is_written(name: str, expected: str) -> None:
    message = complaint(f"name: {name}\nquestion: q\n")
    assert message.startswith("study: name: ")
    assert expected in message


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("[2, 4]", "needs a mapping; write {type: categorical, choices: [2, 4]}"),
        ("5", "needs a mapping; write {type: categorical, choices: [5]}"),
        ("[true, null]", "choices: [true, null]}"),
        ("{type: int, low: 1, high: x}", "space.model.num_experts.high: needs a whole number"),
        ("{type: categorical, choices: 4}", "space.model.num_experts.choices: needs a list; write [4]"),
        ("{type: intt, low: 1, high: 2}", "did you mean 'int'?"),
    ],
)
def test_a_parameter_that_is_none_says_how_it_is_written(space: str, expected: str) -> None:
    assert expected in complaint(f"{SEARCH}space: {{model.num_experts: {space}}}\n")


@pytest.mark.parametrize(
    ("written", "read", "meant"),
    [
        ("010", 8, "10"),
        ("-010", -8, "-10"),
        ("0_17", 15, "17"),
        ("007", 7, "7"),
        ("1:30", 90, "90"),
        ("12:30:45", 45045, "45045"),
        ("1:30.5", 90.5, "90.5"),
        ("0b101", 5, "5"),
    ],
)
def test_numbers_that_yaml_reads_otherwise_are_refused(written: str, read: float, meant: str) -> None:
    message = complaint(f"{HEAD}base:\n  seed: {written}\n")
    assert message == (
        f"study:4: {written}: YAML 1.1 reads this as {read}; write {meant} for a number, "
        f"or '{written}' in quotes for text"
    )
    with pytest.raises(StudyError, match=r"YAML 1\.1 reads this as"):
        parse_study(HEAD, [f"base.seed={written}"])


@pytest.mark.parametrize(
    ("written", "read"), [("0", 0), ("10", 10), ("0x1F", 31), ("1_000", 1000), ("-0", 0), ("5", 5)]
)
def test_other_numbers_stay_numbers(written: str, read: int) -> None:
    assert parse_study(f"{HEAD}base: {{seed: {written}}}\n").base.seed == read


@pytest.mark.parametrize("text", ["010", "1:30", "0b1", "no", "2024-01-01", "1e3"])
def test_text_in_quotes_is_text_and_is_written_back_so(text: str) -> None:
    study = parse_study(f"{HEAD}base: {{data: {{source: images, root: '{text}'}}}}\n")
    assert study.base.data.root == text  # type: ignore[union-attr]
    assert parse_study(dump_study(study)) == study


def test_nothing_in_the_messages_of_any_wrong_type_is_a_librarys(tmp_path: Any) -> None:
    """Every key of a study with a value of each kind: refused in our words, or accepted."""
    values: list[Any] = [None, True, 3, -1, 2.5, float("inf"), "x", "", [], [1], ["x"], {}, {"a": 1}, [[]]]
    study = load_study(_written(tmp_path, HEAD))
    tree = yaml.safe_load(dump_study(study))
    refused = []
    for path in _paths(tree):
        for value in values:
            changed = yaml.safe_load(dump_study(study))
            _set(changed, path, value)
            try:
                parse_study(yaml.safe_dump(changed))
            except StudyError as error:
                refused.append(str(error))
    assert len(refused) > 200
    assert [message for message in refused if LIBRARY_WORDS.search(message)] == []


def _written(folder: Any, text: str) -> Any:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def _paths(tree: dict[str, Any], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in tree.items():
        found.append((*before, key))
        if isinstance(value, dict):
            found += _paths(value, (*before, key))
    return found


def _set(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("studies/quickstrat.yaml", "studies/quickstart.yaml"),
        ("studies/quickstart.yml", "studies/quickstart.yaml"),
        ("studies/quickstart", "studies/quickstart.yaml"),
        ("quickstart", "studies/quickstart.yaml"),
        ("quickstart.yaml", "studies/quickstart.yaml"),
        ("mien.yaml", "mine.yaml"),
    ],
)
def test_a_mistyped_study_file_is_hinted_at(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, typed: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "quickstart.yaml").write_text(HEAD)
    (tmp_path / "mine.yaml").write_text(HEAD)
    with pytest.raises(StudyError) as caught:
        load_study(typed)
    assert str(caught.value) == f"{typed}: no such study file; did you mean '{meant}'?"
