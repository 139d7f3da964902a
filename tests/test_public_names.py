"""A package's public functions and classes and its submodules have different names.

Importing ``package.name`` binds that module to the attribute ``name`` of the package, over a function of this name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = sorted(path.parent for top in ("smoe_ray", "dashboard") for path in (ROOT / top).rglob("__init__.py"))


def public_names(package: str, source: str) -> Iterator[str]:
    """Names that an ``__init__.py`` binds or lists, other than submodules that it imports as such."""
    tree = ast.parse(source)
    for node in ast.walk(tree):  # imports also below `if TYPE_CHECKING`
        match node:
            case ast.ImportFrom(module=module, level=0) if module != package:
                yield from (alias.asname or alias.name for alias in node.names)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) if node in tree.body:  # no methods
                yield name
            case ast.Assign(targets=[ast.Name(id="__all__" | "_PUBLIC")], value=ast.List() | ast.Dict() as listed):
                yield from (str(name.value) for name in ast.walk(listed) if isinstance(name, ast.Constant))


def submodules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}


def test_all_packages_are_found() -> None:
    found = {path.relative_to(ROOT).as_posix() for path in PACKAGES}
    assert {"smoe_ray", "smoe_ray/analysis", "smoe_ray/figures", "smoe_ray/data", "dashboard"} <= found


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_public_name_of_a_package_is_that_of_a_submodule(folder: Path) -> None:
    package = ".".join(folder.relative_to(ROOT).parts)
    names = set(public_names(package, (folder / "__init__.py").read_text(encoding="utf-8")))
    assert not names & submodules(folder)


def test_a_clash_is_seen(tmp_path: Path) -> None:
    (tmp_path / "curve.py").touch()
    (tmp_path / "style.py").touch()
    source = "from top import style\nfrom elsewhere import curve\nfrom top.deep import other\n__all__ = ['style']\n"
    assert set(public_names("top", source)) & submodules(tmp_path) == {"curve", "style"}
    assert set(public_names("top", source.partition("__all__")[0])) & submodules(tmp_path) == {"curve"}
