"""Errors of pydantic as one line: dotted key, what is wrong, the value, the nearest valid key."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from smoe_ray.spec.paths import models_in


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that is most like `word`, to end a message with; empty where none is like it."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def one_line(error: ValidationError, tree: Any, model: type[BaseModel]) -> str:
    """The first problem that pydantic found, as: dotted key, what is wrong, the value, the nearest valid key."""
    problem = error.errors(include_url=False)[0]
    location = _plain_location(problem["loc"], tree, is_missing=problem["type"] == "missing")
    message = problem["msg"].removeprefix("Value error, ")
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
        return f"{key}: {tag!r} is none of {', '.join(allowed)}{nearest(str(tag), allowed)}"
    if problem["type"] == "union_tag_not_found":
        return f"{key}.{problem['ctx']['discriminator']}: required, but not given".replace("'", "").strip(".")
    if problem["type"] == "literal_error":
        allowed = [word.strip("'") for word in str(problem["ctx"]["expected"]).replace(" or ", ", ").split(", ")]
        value = reprlib.repr(problem["input"])
        return f"{key}: {value} is none of {', '.join(allowed)}{nearest(str(problem['input']), allowed)}"
    if not key or key == tree.get("kind"):  # a problem of the whole study
        return message
    shown = "" if isinstance(problem["input"], (dict, list)) else f" (value {reprlib.repr(problem['input'])})"
    return f"{key}: {message}{shown}"


def _plain_location(location: Sequence[int | str], tree: Any, is_missing: bool) -> list[int | str]:
    """pydantic's location without the union tags that it puts between the keys of the file, and after the last."""
    plain: list[int | str] = []
    for position, part in enumerate(location):
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
    for tag in ("kind", "source", "name", "type"):
        if tag in model.model_fields and get_args(model.model_fields[tag].annotation):
            return get_args(model.model_fields[tag].annotation)
    return ()
