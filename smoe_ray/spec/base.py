"""Base of all spec models: frozen, strict, and hashed into `trial_id` by `identity`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
"""Names of studies: they become folder, job and Kubernetes object names."""

_NUMBERS = (int, float, int | None, float | None)


class Spec(BaseModel):
    """Base of all spec models: frozen, unknown keys refused, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    not_identity: ClassVar[frozenset[str]] = frozenset()
    """Fields that cannot change the numbers of a trial (where data lies, how many threads): not hashed."""
    hashed_unless_default: ClassVar[frozenset[str]] = frozenset()
    """Fields that were added later: at their default they are not hashed, so that older trial ids stay as they are.
    Those of all base classes count."""

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, fields: Any) -> Any:
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields and cls.model_fields[name].annotation in _NUMBERS:
                raise ValueError(f"'{name}' needs a number, not {str(value).lower()}")
        return fields

    def identity(self) -> dict[str, Any]:
        """Everything in this spec that can change the numbers of a trial, as plain JSON values."""
        fields = type(self).model_fields
        return {
            name: identity_of_value(value)
            for name in _names_of_identity(type(self))
            if (value := getattr(self, name)) != fields[name].default or name not in _added_later(type(self))
        }


@cache
def _names_of_identity(spec: type[Spec]) -> tuple[str, ...]:
    return tuple(sorted(spec.model_fields.keys() - spec.not_identity))


@cache
def _added_later(spec: type[Spec]) -> frozenset[str]:
    return frozenset().union(*(base.hashed_unless_default for base in spec.__mro__ if issubclass(base, Spec)))


def identity_of_value(value: Any) -> Any:
    """A value as plain JSON, for hashing."""
    if isinstance(value, Spec):
        return value.identity() or None
    if isinstance(value, (tuple, list)):
        return [identity_of_value(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): identity_of_value(item) for key, item in sorted(value.items())}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)  # a value with a notation of its own, such as a budget
