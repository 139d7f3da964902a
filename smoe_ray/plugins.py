"""Plug-ins: a user's own Python in a study, as ``package.module:name`` or by the short name of an entry point.

Parsing a study or a stored trial imports nothing. `load` imports a plug-in where it is needed, and only if it is
allowed: those that installed packages register as entry points, those that the operator of this process names in
SMOE_RAY_ALLOW_PLUGINS (``--allow-plugins``), and those that were sent with a job (``smoe-ray submit --with``).

Local runs follow the same rule as clusters: a study file is data that may come from anybody, and one rule without an
exception is easy to check. Installing a package is consent; for a module that is not installed, one option is.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from types import CodeType
from typing import Any, Literal, NamedTuple

from smoe_ray.errors import PluginError, SmoeRayError

Kind = Literal["source", "encoder", "decoder", "objective"]

GROUPS: dict[Kind, str] = {
    "source": "smoe_ray.sources",
    "encoder": "smoe_ray.encoders",
    "decoder": "smoe_ray.decoders",
    "objective": "smoe_ray.objectives",
}
"""Groups of entry points in which a package registers short names."""

NAME_PATTERN = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*"
"""``package.module:name``"""

ALLOWED = "SMOE_RAY_ALLOW_PLUGINS"
"""Environment variable: packages, modules or ``package.module:name`` that may be imported, with commas between them."""

SENT_WITH_JOB = "SMOE_RAY_JOB_PLUGINS"
"""Environment variable of a submitted job: the packages that were sent with it. Who may send code to a cluster may run
it there; the allow-list protects from what a study's text names."""


class Plugin(NamedTuple):
    """An imported plug-in."""

    name: str
    """``package.module:name``"""
    target: Any
    """The object of that name."""
    spec: type[Any]
    """The pydantic model of its parameters: attribute `Spec` of the object."""
    version: str | None
    """Version of the distribution that it came from; None for a module that no distribution has installed."""
    source_sha256: str
    """SHA-256 (hex) of the file that defines the object, as it was when it was imported."""
    file: Path
    """That file."""

    @property
    def identity(self) -> str:
        """Version and source: what determines the numbers beside the parameters; part of the `trial_id`."""
        return f"{self.version or 'no version'}, sha256 {self.source_sha256}"


# --- names ------------------------------------------------------------------------------------------------------------


def full_name(kind: Kind, name: str) -> str | None:
    """``package.module:name`` of a plug-in: `name` itself if it has that form, else what the entry point `name` of an
    installed package refers to; None if there is none. Imports nothing.

    Raises:
        ValueError: two installed packages register the short name for different objects.
    """
    if ":" in name:
        return name if re.fullmatch(NAME_PATTERN, name) else None
    found = sorted({_value(entry) for entry in _registered(kind) if entry.name == name})
    if len(found) > 1:
        raise ValueError(f"'{name}' is registered by several packages ({', '.join(found)}); write one of these")
    return found[0] if found else None


def short_names(kind: Kind) -> list[str]:
    """Short names that installed packages register, sorted. Imports nothing."""
    return sorted({entry.name for entry in _registered(kind)})


def _package(name: str) -> str:
    return name.partition(":")[0].partition(".")[0]


def _registered(kind: Kind) -> tuple[metadata.EntryPoint, ...]:
    return _entry_points(GROUPS[kind], tuple(sys.path))


@cache  # reading what is installed takes some 30 ms
def _entry_points(group: str, _path: tuple[str, ...]) -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=group))


def _value(entry: metadata.EntryPoint) -> str:
    """``package.module:name`` of an entry point; one without a name refers to no plug-in."""
    return f"{entry.module}:{entry.attr}"


def is_allowed(kind: Kind, name: str) -> bool:
    """Whether this process may import the plug-in (``package.module:name``). Imports nothing."""
    module, _, _ = name.partition(":")
    for allowed in (*_listed(ALLOWED), *_listed(SENT_WITH_JOB)):
        if name == allowed or f"{module}.".startswith(f"{allowed}."):
            return True
    return any(_value(entry) == name for entry in _registered(kind))


def require_allowed(kind: Kind, name: str) -> None:
    """Raises PluginError unless this process may import the plug-in. Imports nothing."""
    if not is_allowed(kind, name):
        raise PluginError(
            f"plug-in {name} ({kind}) is not allowed here: no installed package registers it in the entry points "
            f"'{GROUPS[kind]}'; if you trust that code, allow it by --allow-plugins {_package(name)} or in {ALLOWED}"
        )


@contextmanager
def allowing(names: Iterable[str]) -> Iterator[None]:
    """Allow more packages, modules or ``package.module:name``, here and in processes that are started inside.

    Raises:
        PluginError: one of the names is none.
    """
    names = list(names)
    for name in names:
        if not re.fullmatch(rf"{NAME_PATTERN}|{NAME_PATTERN.partition(':')[0]}", name):
            raise PluginError(f"--allow-plugins {name}: write a package, package.module or package.module:name")
    before = os.environ.get(ALLOWED)
    if names:
        os.environ[ALLOWED] = ",".join([*_listed(ALLOWED), *names])
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(ALLOWED, None)
        else:
            os.environ[ALLOWED] = before


def _listed(variable: str) -> list[str]:
    return [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]


# --- importing --------------------------------------------------------------------------------------------------------

_loaded: dict[tuple[Kind, str], Plugin] = {}
"""Imported so far. Never read again: the identity is that of the code in memory, whatever becomes of its file."""


def load(kind: Kind, name: str) -> Plugin:
    """Import a plug-in (``package.module:name``), or return it as it was imported before.

    Raises:
        PluginError: it is not allowed, not installed, or its module raises; the message says which and where.
    """
    require_allowed(kind, name)
    if (kind, name) not in _loaded:
        _loaded[kind, name] = _import(kind, name)
    return _loaded[kind, name]


def _import(kind: Kind, name: str) -> Plugin:
    module_name, _, attribute = name.partition(":")
    package = _package(name)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if missing == package:
            raise PluginError(
                f"plug-in {name}: package '{package}' is not installed here; install it, or send it with a job "
                "(smoe-ray submit --with)"
            ) from None
        if f"{module_name}.".startswith(f"{missing}."):
            raise PluginError(f"plug-in {name}: package '{package}' has no module '{missing}'") from None
        raise PluginError(f"plug-in {name}: needs the package '{missing}', which is not installed here") from error
    except Exception as error:
        raise PluginError(_failure(name, error, _place_of(package))) from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, vars(module), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise PluginError(f"plug-in {name}: module '{module_name}' has no '{attribute}'{hint}")
    target = getattr(module, attribute)
    spec = getattr(target, "Spec", None)
    if not (inspect.isclass(spec) and hasattr(spec, "model_validate")):
        raise PluginError(f"plug-in {name}: has no attribute 'Spec', the pydantic model of its parameters")
    # A name may be re-exported by a module other than the one that defines it.
    file = inspect.getsourcefile(target if inspect.isclass(target) or inspect.isroutine(target) else type(target))
    if file is None:
        raise PluginError(f"plug-in {name}: has no source file, so its trials could not be told from those of others")
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return Plugin(name, target, spec, _version(kind, name, package), digest, Path(file))


def _version(kind: Kind, name: str, package: str) -> str | None:
    for entry in _registered(kind):
        if _value(entry) == name and entry.dist is not None:
            return entry.dist.version
    distributions = metadata.packages_distributions().get(package)
    return metadata.version(distributions[0]) if distributions else None


# --- errors -----------------------------------------------------------------------------------------------------------


def explain(error: BaseException) -> str | None:
    """An error that was raised in a plug-in as one line: its name, file and line, and what happened; None for others.

    An error counts as the plug-in's if any frame of its traceback is in the plug-in's package: library code that a
    plug-in calls is called wrongly more often than it is wrong.
    """
    if isinstance(error, SmoeRayError):
        return None
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    nearest, plugin = max(
        ((_nearness(plugin, code), plugin) for code in reversed(codes) for plugin in _loaded.values()),
        key=lambda pair: pair[0],
        default=(0, None),
    )
    return _failure(plugin.name, error, _place_of(_package(plugin.name))) if plugin and nearest else None


def _nearness(plugin: Plugin, code: CodeType) -> int:
    """3 for the plug-in's own methods, 2 for code in its file, which may have several plug-ins, 1 for its package."""
    if code.co_filename == str(plugin.file):
        return 3 if code.co_qualname.startswith(f"{plugin.name.partition(':')[2]}.") else 2
    place = _place_of(_package(plugin.name))
    return int(place is not None and Path(code.co_filename).is_relative_to(place))


@contextmanager
def blaming() -> Iterator[None]:
    """What a plug-in raises inside becomes a PluginError, in one line; other errors stay as they are."""
    try:
        yield
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        raise PluginError(explained) from error


def _place_of(package: str) -> Path | None:
    """The folder of a package, or the file of a module that is no package; None if it cannot be found."""
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent if found.submodule_search_locations else Path(found.origin)


def _failure(name: str, error: BaseException, place: Path | None) -> str:
    where = ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f" at {error.filename}:{error.lineno}"
    for frame in traceback.extract_tb(error.__traceback__):  # the last one counts: nearest to the error
        if place is not None and Path(frame.filename).is_relative_to(place):
            where = f" at {frame.filename}:{frame.lineno}"
    said = " ".join(str(error).split())
    return f"plug-in {name} failed{where}: {type(error).__name__}{': ' if said else ''}{said}"
