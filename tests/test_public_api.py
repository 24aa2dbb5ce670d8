"""What `import deepenergy` promises."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import pytest

import deepenergy

PACKAGE = Path(inspect.getfile(deepenergy)).parent
MODULES = ["deepenergy", *(found.name for found in pkgutil.walk_packages(deepenergy.__path__, "deepenergy."))]
# Modules that a usage error passes through; they import what is slow to import when it is needed.
START_WITHOUT_TORCH = ("deepenergy.commands",)


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
        assert getattr(deepenergy, name) is getattr(importlib.import_module(module), own)


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
    changes = re.search(r"^## (\S+)", (root / "CHANGES.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation is not None and citation[1] == deepenergy.__version__
    assert changes is not None and changes[1] == deepenergy.__version__


def test_the_package_is_typed() -> None:
    assert (Path(inspect.getfile(deepenergy)).parent / "py.typed").is_file()


def public_callables(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public functions and classes that a module defines, and the methods and properties of those classes."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value
        if not inspect.isclass(value):
            continue
        for member, held in vars(value).items():
            if isinstance(held, (staticmethod, classmethod)):
                held = held.__func__
            elif isinstance(held, property):
                held = held.fget
            elif isinstance(held, cached_property):
                held = held.func
            is_public = not member.startswith("_") or member in ("__init__", "__call__")
            if is_public and inspect.isfunction(held) and held.__module__ == module.__name__:
                yield f"{name}.{member}", held


def delayed_imports(module: ModuleType) -> dict[str, Any]:
    """What a module imports for type checkers alone, under `if TYPE_CHECKING:`."""
    names: dict[str, Any] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            exec("\n".join(ast.unparse(line) for line in node.body), names)
    return names


@pytest.mark.parametrize("name", MODULES)
def test_annotations_name_things_that_exist(name: str) -> None:
    module = importlib.import_module(name)
    delayed = delayed_imports(module)
    if name != "deepenergy" and not name.startswith(START_WITHOUT_TORCH):
        assert not {n for n, v in delayed.items() if getattr(v, "__module__", "").startswith("deepenergy")}, (
            f"{name} imports a type of this package under TYPE_CHECKING, so that its annotations can't be read; "
            "import it plainly"
        )
    for label, value in public_callables(module):
        try:
            get_type_hints(value, localns=delayed)
        except NameError as error:
            pytest.fail(f"{name}.{label} is annotated with a name that its module doesn't import: {error}")


MOST_PARAMETERS = 6
# Functions with more parameters and without a comment that says why. The list may only shrink.
STILL_WIDE: set[str] = set()


def wide_functions(source: str) -> Iterator[str]:
    """Functions with more than six parameters (self and cls not counted) and no comment `# more than six: why`."""
    lines = source.splitlines()

    def walk(node: ast.AST, owner: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            inner = owner
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inner = f"{owner}{child.name}."
                arguments = child.args
                extra = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
                names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra)]
                count = len([name for name in names if name not in ("self", "cls")])
                # The line above the first decorator, or above the def, or the def's own lines up to its body.
                first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                about = lines[max(first - 2, 0) : child.body[0].lineno - 1]
                if count > MOST_PARAMETERS and not any("# more than six: " in line for line in about):
                    yield inner[:-1]
            elif isinstance(child, ast.ClassDef):
                inner = f"{owner}{child.name}."
            yield from walk(child, inner)

    yield from walk(ast.parse(source), "")


def test_no_function_has_more_than_six_parameters() -> None:
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        if not module.startswith("render.compiled."):
            found |= {f"{module}.{name}" for name in wide_functions(path.read_text(encoding="utf-8"))}
    assert found - STILL_WIDE == set(), "group what travels together in an object, or say `# more than six: why`"
    assert STILL_WIDE - found == set(), "these are narrow now, or gone; take them off STILL_WIDE"


def test_a_wide_function_is_found_unless_it_says_why() -> None:
    wide = "def f(a, b, c, d, *, e, f, g): ...\n"
    assert list(wide_functions(wide)) == ["f"]
    assert list(wide_functions("# more than six: a matrix\n" + wide)) == []
    assert list(
        wide_functions("class A:\n    def f(self, a, b, c, d, e, f): ...\n    def g(self, a, b, c, d, e, f, *g): ...")
    ) == ["A.g"]
