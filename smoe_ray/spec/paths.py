"""Dotted paths into specs (``model.num_experts``), and merging of nested mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from smoe_ray import plugins

TAGS = ("source", "name", "family")
"""Keys that choose among models (`data.source`, `objective.name`): another value there replaces the whole mapping.

Where there is a `source`, `name` is a field like others.
"""

DEFAULT_TAGS = {"family": "smoe_vae"}
"""What a tag is where it is not written."""

_KINDS: dict[str, tuple[plugins.Kind, ...]] = {"source": ("source",), "name": ("objective", "encoder", "decoder")}
"""Kinds of plug-ins that a tag may name."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on top, mapping by mapping; one that names another source or objective replaces it."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if key in ("encoder", "decoder", "gate") and isinstance(below, str) and isinstance(value, Mapping):
            below = {"name": below}  # short for a mapping with the name alone
        if isinstance(value, Mapping) and isinstance(below, Mapping) and not _changes_tag(below, value):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def _changes_tag(base: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    tags = ("source",) if "source" in base else TAGS
    return any(tag in over and not _same_name(tag, over[tag], base.get(tag, DEFAULT_TAGS.get(tag))) for tag in tags)


def _same_name(tag: str, one: Any, other: Any) -> bool:
    """Whether two values of a tag are equal, or one is the short name of the plug-in that the other names in full."""
    if one == other or not (isinstance(one, str) and isinstance(other, str) and ":" in one + other):
        return bool(one == other)
    names = ((plugins.full_name(kind, one), plugins.full_name(kind, other)) for kind in _KINDS[tag])
    return any(full is not None and full == other_full for full, other_full in names)


def replaces(base: Mapping[str, Any], over: Mapping[str, Any], keys: Sequence[str]) -> bool:
    """Whether `merge` of `over` onto `base` drops what `base` has at `keys`."""
    below: Any = base
    for key in keys:
        if key not in over:
            return False
        below, over = below.get(key), over[key]
        if not (isinstance(over, Mapping) and isinstance(below, Mapping)) or _changes_tag(below, over):
            return True
    return False


def assign(tree: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` with each dotted path of `values` set. Tags go first, so that a new objective's own fields may follow."""
    result = dict(tree)
    for path in sorted(values, key=lambda path: path.rpartition(".")[2] not in TAGS):
        value = values[path]
        for key in reversed(path.split(".")):
            value = {key: value}
        result = merge(result, value)
    return result


def with_roots(tree: Any, change: Callable[[str], str], _key: str = "") -> Any:
    """A study as plain values with every value that some trial may have as a `root`, wherever it stands, changed."""
    if isinstance(tree, Mapping):
        return {name: with_roots(value, change, _key if name == "choices" else name) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [with_roots(value, change, _key) for value in tree]
    return change(tree) if isinstance(tree, str) and _key.rpartition(".")[2] == "root" else tree


@cache
def dotted_keys(model: type[BaseModel]) -> frozenset[str]:
    """Every dotted path that a spec model admits, over all members of its unions; without parameters of plug-ins."""
    return frozenset(_walk_keys(model, ""))


def _walk_keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for nested in models_in(field.annotation):
            if nested.model_config.get("extra") == "allow":  # a reference to a plug-in, whose keys are its own
                continue
            yield from _walk_keys(nested, f"{prefix}{name}.")


def models_in(annotation: Any, below_names: bool = False) -> Iterator[type[BaseModel]]:
    """Spec models of a field; `below_names`: also those in a mapping, whose keys are free names and no fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif below_names or getattr(annotation, "__origin__", None) is not dict:
        for argument in get_args(annotation):
            yield from models_in(argument, below_names)
