"""Study files: read, override and validate YAML; write it back."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from smoe_ray.bounded_read import RefusedReadError, read_bounded
from smoe_ray.errors import StudyError
from smoe_ray.spec.base import NAME_PATTERN
from smoe_ray.spec.messages import nearest, one_line
from smoe_ray.spec.paths import assign, dotted_keys, replaces, with_roots
from smoe_ray.spec.search import Choices, SearchStudy
from smoe_ray.spec.study import GridStudy
from smoe_ray.spec.trial import TrialSpec

MAX_STUDY_BYTES = 1_000_000
"""A study file above this size (bytes) is refused."""

_EXPONENT_FORM = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
"""Numbers such as 1e-4: floats to YAML 1.2 and to everyone who writes them, but strings to PyYAML (YAML 1.1)."""

_SURPRISING = re.compile(r"[-+]?0[0-7_]+$|[-+]?0b|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$")
"""Numbers that YAML 1.1 reads in base 8 (010 is 8), 2 or 60 (1:30 is 90), as hardly anybody means them."""

Study = Annotated[GridStudy | SearchStudy, Field(discriminator="kind")]
_STUDY: TypeAdapter[GridStudy | SearchStudy] = TypeAdapter(Study)


def roots(study: GridStudy | SearchStudy) -> list[str]:
    """Every value that some trial of a study may have as a `root` of its data."""
    found: list[str] = []

    def note(root: str) -> str:
        found.append(root)
        return root

    with_roots(study.model_dump(mode="json"), note)
    return found


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> GridStudy | SearchStudy:
    """Read, override and validate a study file.

    Args:
        path: a YAML file, 1 MB at most.
        overrides: ``key=value`` with a dotted key; values are YAML. A key of the study (``seeds``, ``preset``,
            ``axes.model.num_experts``) or, for short, of its base (``data.root`` means ``base.data.root``).

    Raises:
        StudyError: the file is absent, too large or no YAML mapping, or a key or value is wrong; the message names
            file, dotted key, value and the nearest valid key.
    """
    return parse_study(_read_text(Path(path)), overrides, origin=str(path))


def read_name(path: str | Path) -> str:
    """The name of a study file that may lack what overrides would add. Raises StudyError as `load_study`."""
    tree = _read_yaml(_read_text(Path(path)), str(path))
    name = tree.get("name") if isinstance(tree, dict) else None
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
        raise StudyError(f"{path}: name: required, as lower-case letters, digits and dashes (value {name!r})")
    return name


def parse_study(text: str, overrides: Sequence[str] = (), origin: str = "study") -> GridStudy | SearchStudy:
    """`load_study` for a text; `origin` stands for the file in messages."""
    return _study_of(_read_yaml(text, origin), overrides, origin)


def load_data_study(path: str | Path, overrides: Sequence[str] = ()) -> GridStudy | SearchStudy:
    """As `load_study`, also of data alone: a YAML file with the keys of `data`, a folder of images, or an ``.npz``."""
    path = Path(path)
    if path.is_dir() or path.suffix.lower() == ".npz":
        tree: Any = {"source": "images", "root": str(path)}
    else:
        tree = _read_yaml(_read_text(path), str(path))
    if isinstance(tree, dict) and "source" in tree and "base" not in tree:
        tree = {"name": "data", "question": "What are these data?", "base": {"data": tree}}
    return _study_of(tree, overrides, str(path))


def _study_of(tree: Any, overrides: Sequence[str], origin: str) -> GridStudy | SearchStudy:
    if not isinstance(tree, dict):
        raise StudyError(f"{origin}: a study is a mapping with 'name', 'question', 'base' and 'axes' or 'space'")
    given = [(*_read_override(override), override) for override in overrides]
    for key, value, override in given:
        tree = _override(tree, key, value, override)
        if key.startswith("base.data.") and tree.get("datasets") and "source" not in tree["base"]["data"]:
            raise _is_set_by_datasets(override, key.removeprefix("base.data."), tree["datasets"])
    tree.setdefault("kind", "search" if "space" in tree else "grid")
    try:
        study = _STUDY.validate_python(tree)
    except ValidationError as error:
        model = SearchStudy if tree["kind"] == "search" else GridStudy
        raise StudyError(f"{origin}: {one_line(error, tree, model)}") from None
    for key, value, override in given:
        _refuse_ignored(study, key, value, override)
    return study


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise StudyError(f"{path}: is a folder, not a study file")
    try:
        # Line ends as `open` reads them in text mode.
        return io.TextIOWrapper(io.BytesIO(read_bounded(path, MAX_STUDY_BYTES)), encoding="utf-8").read()
    except FileNotFoundError:
        raise StudyError(f"{path}: no such study file{_other_studies(path)}") from None
    except UnicodeDecodeError:
        raise StudyError(f"{path}: not a text file; a study is YAML") from None
    except RefusedReadError as error:
        raise StudyError(f"{path}: {error.strerror}; a study file is a short YAML text") from None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from None


def dump_study(study: GridStudy | SearchStudy) -> str:
    """The study as YAML text that `parse_study` reads back to an equal study."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes every string that `_read_yaml` would take for a number, and escapes YAML's rarer line breaks."""

    def text(dumper: Dumper, value: str) -> yaml.ScalarNode:
        style = '"' if set(value) & set("\x85\u2028\u2029\ufeff") else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    _know_exponent_form(Dumper)
    tree = study.model_dump(mode="json")
    return yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


def _know_exponent_form(resolver: Any) -> None:
    resolver.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT_FORM, list("-+.0123456789"))


def _read_yaml(text: str, origin: str) -> Any:
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        """PyYAML lets a repeated key overwrite the first silently; a study must not. Nor may its aliases unfold to more
        than it could hold without them.
        """

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            if node is not None and _unfolded(node, {}) > MAX_STUDY_BYTES:
                raise yaml.YAMLError(f"its aliases unfold to more than {MAX_STUDY_BYTES:,} values")
            return node

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        problem = f"key '{key.value}' stands twice"
                        raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                    seen.add(key.value)
            return node

    def number(loader: UniqueKeyLoader, node: yaml.ScalarNode) -> Any:
        made = loader.construct_yaml_int(node) if node.tag.endswith(":int") else loader.construct_yaml_float(node)
        if _SURPRISING.match(node.value):
            sign, plain = re.fullmatch(r"([-+]?)[0_]*(.*)", node.value).groups()  # type: ignore[union-attr]
            plain = plain.replace("_", "")
            meant = f"write {sign}{plain}" if plain.isdigit() else f"write {made}"
            raise StudyError(
                f"{origin}:{node.start_mark.line + 1}: {node.value}: YAML 1.1 reads this as {made}; {meant} for a "
                f"number, or '{node.value}' in quotes for text"
            )
        return made

    for kind in ("int", "float"):
        UniqueKeyLoader.add_constructor(f"tag:yaml.org,2002:{kind}", number)
    _know_exponent_form(UniqueKeyLoader)
    try:
        return yaml.load(text, Loader=UniqueKeyLoader)  # noqa: S506 - a SafeLoader: makes no Python objects
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise StudyError(f"{origin}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise StudyError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from None


def _unfolded(node: Any, known: dict[int, int]) -> int:
    """Number of nodes below a node of YAML, those behind each alias counted again."""
    if id(node) not in known:
        known[id(node)] = 0  # until it is known: a node may contain itself, which the spec refuses
        parts = node.value if isinstance(node.value, list) else ()
        below = (one for part in parts for one in (part if isinstance(part, tuple) else (part,)))
        known[id(node)] = 1 + sum(_unfolded(one, known) for one in below)
    return known[id(node)]


def _override(tree: dict[str, Any], key: str, value: Any, override: str) -> dict[str, Any]:
    head, _, rest = key.partition(".")
    if key == "datasets":  # all of them anew; a longer key changes one
        return {**tree, key: value}
    if head in ("axes", "space"):  # keys there are dotted paths themselves
        if not rest:
            return {**tree, head: value}
        paths = tree.get(head) or {}
        if not isinstance(paths, dict):
            raise StudyError(f"--set {override}: the study's '{head}' is no mapping of dotted paths")
        return {**tree, head: {**paths, rest: value}}
    return assign(tree, {key: value})


def _read_override(override: str) -> tuple[str, Any]:
    """Dotted key in the study, and value, of ``key=value``."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise StudyError(f"--set {override}: write key=value, for instance data.root=/path/to/drawings")
    value = _read_yaml(text, f"--set {override}")
    head = key.partition(".")[0]
    if head not in GridStudy.model_fields and head not in SearchStudy.model_fields:
        if head not in TrialSpec.model_fields:
            known = set(GridStudy.model_fields) | set(SearchStudy.model_fields) | dotted_keys(TrialSpec)
            raise StudyError(f"--set {override}: unknown key '{key}'{nearest(key, known)}")
        key = f"base.{key}"
    return key, value


def _refuse_ignored(study: GridStudy | SearchStudy, key: str, value: Any, override: str) -> None:
    """Raises StudyError for an override of the base that every trial replaces by a value of one axis, or of `space`."""
    if not key.startswith("base."):
        return
    path = key.removeprefix("base.")
    base = study.base.model_dump(mode="json")
    leaves = list(_leaves(assign({}, {path: value})))
    for varied, values in _varied_values(study).items():
        if not all(replaces(base, assign({}, {varied: one}), leaf) for one in values for leaf in leaves):
            continue
        text = override.partition("=")[2]
        if varied == "seed" and isinstance(study, GridStudy):
            advice = f"is set by the seeds of this study; write --set seeds={shlex.quote(f'[{text}]')}"
        elif varied == "data" and isinstance(study, GridStudy) and study.datasets:
            raise _is_set_by_datasets(override, path.removeprefix("data."), study.datasets)
        elif isinstance(study, GridStudy):
            advice = f"is an axis of this study; write --set axes.{varied}={shlex.quote(f'[{text}]')}"
        else:
            choices = shlex.quote(f"{{type: categorical, choices: [{text}]}}")
            advice = f"is in the space of this study; write --set space.{varied}={choices}"
        if path != varied:
            head = "axes" if isinstance(study, GridStudy) else "space"
            advice = f"is replaced by every value of {head}.{varied}; change that instead"
        raise StudyError(f"--set {override}: {advice}")


def _is_set_by_datasets(override: str, path: str, names: Iterable[str]) -> StudyError:
    own = " or ".join(f"datasets.{name}.{path}" for name in names)
    return StudyError(f"--set {override}: every dataset has its own; set {own}")


def _varied_values(study: GridStudy | SearchStudy) -> dict[str, Sequence[Any]]:
    """Dotted path in a trial: values that replace the base's there; of a range, one stands for all."""
    if isinstance(study, GridStudy):
        datasets = {"data": tuple(study.datasets.values())} if study.datasets else {}
        return {**datasets, **study.axes, "seed": study.seeds}
    always = {path: one for path, one in study.space.items() if one.when is None}
    return {path: one.choices if isinstance(one, Choices) else (one.low,) for path, one in always.items()}


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Keys that lead to each value in nested mappings that is no mapping, or an empty one."""
    if not isinstance(tree, dict) or not tree:
        yield path
        return
    for key, below in tree.items():
        yield from _leaves(below, (*path, key))


def _other_studies(path: Path) -> str:
    """A hint at the study file that is meant, to end a message with."""
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist"
    for meant in (
        path.with_suffix(".yaml"),
        path.with_suffix(".yml"),
        Path("studies") / path.with_suffix(".yaml").name,
    ):
        if meant.is_file():
            return f"; did you mean '{meant}'?"
    near = nearest(path.name, [found.name for kind in ("*.yaml", "*.yml") for found in path.parent.glob(kind)])
    return near.replace("'", f"'{path.parent}/", 1) if near and path.parent != Path() else near
