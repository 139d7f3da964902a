"""References to plug-ins: ``package.module:name`` in place of a built-in name, with parameters of its own.

A reference keeps its parameters as plain values. Only `PluginReference.resolve` imports the plug-in and validates them,
so that studies and stored trials can be read where the plug-in is not installed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Discriminator, ValidationError, model_validator

from smoe_ray import plugins
from smoe_ray.errors import PluginError, StudyError
from smoe_ray.spec.base import Spec, identity_of_value
from smoe_ray.spec.messages import nearest, one_line

BUILT_IN, PLUGIN = "built in", "plug-in"
"""Tags of `choose`."""


class PluginReference(Spec):
    """The name of a plug-in and its parameters, not yet validated."""

    model_config = ConfigDict(extra="allow")

    kind: ClassVar[plugins.Kind]
    tag: ClassVar[str] = "name"
    """Field that holds ``package.module:name``."""
    where: ClassVar[str]
    """Dotted path of the reference in a trial."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        plain = {key: value if key in cls.model_fields else _plain(key, value) for key, value in fields.items()}
        name = plain.get(cls.tag)
        full = plugins.full_name(cls.kind, name) if isinstance(name, str) else None
        if full is None:
            raise ValueError(f"a plug-in is written package.module:name, not {name!r}")
        return plain | {cls.tag: full}

    def identity(self) -> dict[str, Any]:
        """Its name and parameters as they are written; the code has an identity of its own (`trial_id`)."""
        given = {key: value for key, value in self.parameters.items() if key not in self.not_identity}
        return {**super().identity(), **identity_of_value(given)}

    @property
    def plugin(self) -> str:
        """``package.module:name``"""
        return str(getattr(self, self.tag))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as they are written."""
        return dict(self.model_extra or {})

    def load(self) -> plugins.Plugin:
        """Import the plug-in. Raises PluginError: it is not allowed, not installed or fails."""
        return plugins.load(self.kind, self.plugin)

    def resolve(self) -> tuple[plugins.Plugin, Any]:
        """Import the plug-in and validate the parameters: the plug-in, and an instance of its `Spec`.

        Raises:
            PluginError: it is not allowed, not installed or fails.
            StudyError: a parameter is unknown, absent or wrong.
        """
        plugin = self.load()
        if not issubclass(plugin.spec, self._base()):
            raise PluginError(
                f"plug-in {plugin.name}: its 'Spec' is no subclass of {self._base().__module__}.{self._base().__name__}"
            )
        known = plugin.spec.model_fields
        # What all references have in common, where it is not at its default: the plug-in's own default counts then.
        fields = {name: field.default for name, field in type(self).model_fields.items() if name != self.tag}
        given = {name: getattr(self, name) for name, default in fields.items() if getattr(self, name) != default}
        given |= self.parameters
        if self.tag in known:
            given[self.tag] = plugin.name
        begin = f"{self.where} ({plugin.name})"
        if plugin.spec.model_config.get("extra") != "allow":
            for key in given.keys() - known.keys():
                hint = nearest(key, known) or f"; valid here: {', '.join(sorted(known.keys() - {self.tag}))}"
                raise StudyError(f"{begin}: {key}: unknown key (value {given[key]!r}){hint}")
        try:
            with plugins.blaming():
                return plugin, plugin.spec.model_validate(given)
        except ValidationError as error:
            raise StudyError(f"{begin}: {one_line(error, given, plugin.spec)}") from None

    @classmethod
    def _base(cls) -> type[BaseModel]:
        """What the plug-in's `Spec` must be a subclass of."""
        return BaseModel


def plugin_references(spec: Spec) -> Iterator[PluginReference]:
    """All references to plug-ins in a spec."""
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        for part in value.values() if isinstance(value, Mapping) else (value,):
            if isinstance(part, PluginReference):
                yield part
            elif isinstance(part, Spec):
                yield from plugin_references(part)


def plugin_identities(spec: Spec) -> dict[str, str]:
    """Version and source of each plug-in of a spec, by ``package.module:name``; imports them.

    Raises:
        PluginError: a plug-in is not allowed, not installed or fails.
    """
    return {reference.plugin: reference.load().identity for reference in plugin_references(spec)}


def choose(
    reference: type[PluginReference],
    built_in: Collection[str],
    with_fields: Mapping[str, type[Spec]] = MappingProxyType({}),
) -> Discriminator:
    """Discriminator of a union of built-in names (tag `BUILT_IN`) and a reference to a plug-in (tag `PLUGIN`).

    What is neither, such as a misspelt name, is for the built-in names to refuse.

    Args:
        reference: what refers to a plug-in.
        built_in: names that are no plug-in's.
        with_fields: further members of the union, mappings with fields of their own, by name: their tags.
    """

    def tag(value: Any) -> str:
        if isinstance(value, PluginReference):
            return PLUGIN
        for its_name, spec in with_fields.items():
            if isinstance(value, spec) or (isinstance(value, Mapping) and value.get(reference.tag) == its_name):
                return its_name
        name = value.get(reference.tag) if isinstance(value, Mapping) else value
        is_plugin = (
            isinstance(name, str) and name not in {*built_in, *with_fields} and names_plugin(reference.kind, name)
        )
        return PLUGIN if is_plugin else BUILT_IN

    return Discriminator(tag)


def names_plugin(kind: plugins.Kind, name: str) -> bool:
    """Whether `name` has the form ``package.module:name`` or is a short name that an installed package registers."""
    try:
        return ":" in name or plugins.full_name(kind, name) is not None
    except ValueError:  # of several packages: the reference says so
        return True


def _plain(key: str, value: Any) -> Any:
    """A parameter as plain JSON values. Raises ValueError."""
    if isinstance(value, Mapping):
        return {str(name): _plain(f"{key}.{name}", item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(key, item) for item in value]
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"'{key}' needs a finite number, a text, true, false, null, a list or a mapping, not {value!r}")
