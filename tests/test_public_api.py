"""What `import deepenergy` promises."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
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


def names_for_type_checkers() -> dict[str, tuple[str, str]]:
    """Public name -> (module, name there), as the package's `if TYPE_CHECKING` block tells type checkers."""
    tree = ast.parse(Path(inspect.getfile(deepenergy)).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    names = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    # Older names of what is imported.
    for node in block.body:
        if isinstance(node, ast.Assign):
            names |= {ast.unparse(target): names[ast.unparse(node.value)] for target in node.targets}
    return names


def test_type_checkers_and_python_know_the_same_names() -> None:
    names = names_for_type_checkers()
    assert sorted(names) == sorted(deepenergy.__all__)
    assert set(deepenergy.__all__) <= set(dir(deepenergy))
    for name, (module, own) in names.items():
        assert getattr(deepenergy, name) is getattr(import_module(module), own)


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Solvr'"):
        _ = deepenergy.Solvr  # pyright: ignore[reportAttributeAccessIssue]


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


def test_package_citation_and_changes_have_one_version() -> None:
    root = Path(inspect.getfile(deepenergy)).parents[1]
    citation = re.search(r"^version: (.+)$", (root / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    changes = re.searchX, (root / "CHANGES.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation is not None and citation[1] == deepenergy.__version__
    assert changes is not None and changes[1] == deepenergy.__version__


def test_the_package_is_typed() -> None:
    assert (Path(inspect.getfile(deepenergy)).parent / "py.typed").is_file()
