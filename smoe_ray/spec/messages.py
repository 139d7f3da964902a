"""Errors of validation as one line in plain words: dotted key, what is wrong, what to write, the nearest valid key."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from smoe_ray import plugins
from smoe_ray.spec.base import NAME_PATTERN
from smoe_ray.spec.paths import models_in


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that is most like `word`, to end a message with; empty where none is like it."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def one_line(error: ValidationError, tree: Any, model: type[BaseModel]) -> str:
    """The first problem that pydantic found, as: dotted key, what is wrong, the value, the nearest valid key."""
    problem, *others = error.errors(include_url=False)
    location = _plain_location(problem["loc"], tree, is_missing=problem["type"] == "missing")
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = _siblings(problem["loc"], model)
        hint = nearest(str(location[-1]), known) or f"; valid here: {', '.join(sorted(known))}"
        return f"{key}: unknown key (value {reprlib.repr(problem['input'])}){hint}"
    if problem["type"] == "missing":
        return f"{key}: required, but not given"
    if problem["type"] == "union_tag_invalid":
        context = problem["ctx"]
        tag, allowed = context["tag"], str(context["expected_tags"]).replace("'", "").split(", ")
        key = f"{key}.{context['discriminator']}".strip(".").replace("'", "")
        allowed += _short_names_of_plugins(key)
        return f"{key}: {tag!r} is none of {', '.join(allowed)}{nearest(str(tag), allowed)}"
    if problem["type"] == "union_tag_not_found":
        return f"{key}.{problem['ctx']['discriminator']}: required, but not given".replace("'", "").strip(".")
    if problem["type"] == "literal_error":
        allowed = [word.strip("'") for word in str(problem["ctx"]["expected"]).replace(" or ", ", ").split(", ")]
        allowed += _short_names_of_plugins(key)
        value = reprlib.repr(problem["input"])
        return f"{key}: {value} is none of {', '.join(allowed)}{nearest(str(problem['input']), allowed)}"
    if not key or key == tree.get("kind"):  # a problem of the whole study
        return in_words(problem)
    # Where a field may be of several kinds, each of them has a problem of its own.
    alternatives = [other for other in others if _plain_location(other["loc"], tree, is_missing=False) == location]
    said = list(dict.fromkeys(in_words(one, key) for one in (problem, *alternatives)))
    shown = "" if isinstance(problem["input"], (dict, list)) else f" (value {reprlib.repr(problem['input'])})"
    return f"{key}: {', or '.join(said)}{shown}"


def _short_names_of_plugins(key: str) -> list[str]:
    """Names that installed packages register for the plug-ins that may stand at a dotted key."""
    last = key.removesuffix(".name").rpartition(".")[2]
    return [name for kind in plugins.GROUPS if kind == last for name in plugins.short_names(kind)]


_WORDS = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "must be a finite number",
    "int_type": "needs a whole number",
    "int_parsing": "needs a whole number",
    "int_parsing_size": "needs a smaller whole number",
    "int_from_float": "needs a whole number",
    "float_type": "needs a number",
    "float_parsing": "needs a number",
    "bool_type": "needs true or false",
    "bool_parsing": "needs true or false",
    "string_unicode": "needs text without halves of surrogate pairs",
    "string_too_short": "needs at least {min_length} characters",
    "string_too_long": "may have at most {max_length} characters",
    "too_short": "needs at least {min_length} items",
    "too_long": "may have at most {max_length} items",
    "none_required": "must be null",
    "literal_error": "write {expected}",
    "invalid_key": "a key here is a word; write it in quotes, where YAML would read a number, true, false or null",
    "recursion_loop": "contains itself",
    "json_invalid": "is not whole JSON text",
}
"""What pydantic's types of errors mean to whoever wrote the file."""

_LISTS = ("tuple_type", "list_type", "set_type", "frozen_set_type", "iterable_type")
_MAPPINGS = ("dict_type", "mapping_type", "model_type", "model_attributes_type")
_NAME = "needs a-z, 0-9 and dashes, at most 63, the first no dash"


def in_words(problem: Mapping[str, Any], key: str = "") -> str:
    """What is wrong with one value, and what to write instead; `key`: where it stands.

    Args:
        problem: of `ValidationError.errors`.
        key: dotted key of the value, where the advice depends on it.
    """
    kind, value = problem["type"], problem.get("input")
    if kind in ("value_error", "assertion_error"):
        return str(problem["msg"]).partition(", ")[2]
    if kind == "string_type":
        return f"needs text{_quoted(value)}"
    if kind == "string_pattern_mismatch":
        suggestion = re.sub(r"[^a-z0-9]+", "-", str(value).lower()).strip("-")[:63]
        if problem["ctx"]["pattern"] != NAME_PATTERN:
            return "has characters that may not stand here"
        return f"{_NAME}; for instance {suggestion}" if suggestion else _NAME
    if kind in _LISTS:
        if key == "seeds" and isinstance(value, int) and 0 < value < 100:
            return f"needs a list, one trial per seed; for {value} seeds write [{', '.join(map(str, range(value)))}]"
        return "needs a list" if isinstance(value, (dict, list)) else f"needs a list; write [{_as_yaml(value)}]"
    if kind in _MAPPINGS:
        if key.startswith("space."):
            choices = value if isinstance(value, list) else [value]
            return f"needs a mapping; write {{type: categorical, choices: [{', '.join(map(_as_yaml, choices))}]}}"
        return "needs a mapping, {key: value, ...}"
    return _WORDS.get(kind, "is not valid here").format_map(problem.get("ctx", {}))


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        words = "yes, on and true" if value else "no, off and false"
        return f"; write it in quotes: YAML reads {words} as {_as_yaml(value)}"
    return "" if isinstance(value, (dict, list)) else f"; write it in quotes: '{_as_yaml(value)}'"


def _as_yaml(value: Any) -> str:
    """A plain value as YAML writes it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def _plain_location(location: Sequence[int | str], tree: Any, is_missing: bool) -> list[int | str]:
    """pydantic's location without the union tags that it puts between the keys of the file, and after the last."""
    plain: list[int | str] = []
    above: Any = None  # the mapping whose tag was passed
    for position, part in enumerate(location):
        if plain and isinstance(tree, Mapping) and part == tree.get("name") and tree is not above:
            above = tree  # the objective `likelihood` also has a key of that name: the first mention is the tag
            continue
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            is_last = position == len(location) - 1
            if not (is_last and is_missing):  # a tag, not a key
                continue
        plain.append(part)
    return plain


def _siblings(location: Sequence[int | str], model: type[BaseModel]) -> set[str]:
    """Valid keys beside an unknown one; where a union stands there, those of the member that the tag chose."""
    models: list[type[BaseModel]] = [model]
    for part in location[:-1]:
        deeper = [
            nested
            for candidate in models
            if part in candidate.model_fields
            for nested in models_in(candidate.model_fields[str(part)].annotation, below_names=True)
        ]
        tagged = [candidate for candidate in models if part in _tag_values(candidate)]
        models = deeper or tagged or models
    return {name for candidate in models for name in candidate.model_fields}


def _tag_values(model: type[BaseModel]) -> tuple[Any, ...]:
    for tag in ("kind", "source", "name", "type", "family"):
        if tag in model.model_fields and get_args(model.model_fields[tag].annotation):
            return get_args(model.model_fields[tag].annotation)
    return ()
