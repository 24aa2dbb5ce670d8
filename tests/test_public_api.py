"""What `import deepenergy` promises."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import deepenergy


@pytest.mark.parametrize("name", deepenergy.__all__)
def test_public_names_exist_and_are_documented(name: str) -> None:
    value = getattr(deepenergy, name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    # A dataclass without a docstring of its own gets its signature as one.
    documentation = inspect.getdoc(value) or ""
    assert len(documentation) > 20, f"deepenergy.{name} has no docstring"
    assert not documentation.startswith(f"{name}("), f"deepenergy.{name} has only a generated docstring"


def test_public_names_are_exported_once_and_in_order() -> None:
    assert len(set(deepenergy.__all__)) == len(deepenergy.__all__)
    assert sorted(deepenergy.__all__) == list(deepenergy.__all__)


def test_everything_that_the_package_binds_is_public() -> None:
    tree = ast.parse(Path(inspect.getfile(deepenergy)).read_text(encoding="utf-8"))
    bound = [
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    public = [name for name in bound if not name.startswith("_") and name != "annotations"]
    assert sorted(public) == sorted(deepenergy.__all__)


@pytest.mark.parametrize(
    ("owner", "method"), [(getattr(deepenergy, n), m) for n in deepenergy.__all__ for m in vars(getattr(deepenergy, n))]
)
def test_public_methods_are_documented(owner: type, method: str) -> None:
    value = inspect.getattr_static(owner, method)
    function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
    if method.startswith("_") or not (inspect.isfunction(function) or isinstance(function, property)):
        return
    assert inspect.getdoc(function), f"{owner.__name__}.{method} has no docstring"


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("deepenergy")
    except PackageNotFoundError:
        pytest.skip("deepenergy is imported from its folder and not installed")
    assert deepenergy.__version__ == installed


def test_the_package_is_typed() -> None:
    assert (Path(inspect.getfile(deepenergy)).parent / "py.typed").is_file()
