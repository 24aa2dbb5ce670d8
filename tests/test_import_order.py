"""Imports flow one way (docs/decisions/0001-imports-and-registry.md); function bodies count too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "deepenergy"
LONGEST_FILE = 400

# What a room (a folder of the package, or a module beside them) may import besides itself, from the ground up.
_GROUND = {"runtime", "scene"}
_OPERATORS = _GROUND | {"render", "landmarks", "flow"}
_FIT = _OPERATORS | {"solve", "settings", "energy"}
MAY_IMPORT: dict[str, set[str]] = {
    "runtime": set(),
    "solve": set(),
    "scene": {"runtime"},
    "builtin_head": _GROUND,
    "evaluation": _GROUND,
    "io": _GROUND,
    "render": _GROUND,
    "landmarks": _GROUND,
    "flow": _GROUND,
    "appearance": _GROUND | {"render"},
    "settings": _OPERATORS | {"solve"},
    "energy": _OPERATORS | {"solve"},
    "fit": _FIT,
    "report": _FIT | {"io", "fit"},
    "temporal": _FIT | {"fit"},
    "pipeline": _FIT | {"fit", "temporal"},
    "solver": _FIT | {"fit", "temporal", "pipeline"},
    "shot_file": _GROUND | {"settings"},
    "": _GROUND | {"io", "settings", "solver"},
}
# The top floor: what nobody imports may import everything.
MAY_IMPORT["commands"] = {*MAY_IMPORT}
# Rooms whose third-party imports are limited too.
THIRD_PARTY = {"runtime": {"torch", "numpy", "tomli"}, "scene": {"torch", "numpy", "jaxtyping"}}
THIRD_PARTY["solve"] = {"torch", "jaxtyping"}


def read_sources(package: Path) -> dict[str, str]:
    """Module name -> source; a package is named by its folder."""
    sources = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return sources


def imports_of(module: str, source: str, known: Mapping[str, str], is_package: bool) -> Iterator[str]:
    """Every module that `source` imports anywhere, absolute; `from package import submodule` names the submodule."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parents = module.split(".") if is_package else module.split(".")[:-1]
                parents = parents[: len(parents) - node.level + 1]
                origin = ".".join([*parents, *([origin] if origin else [])])
            for alias in node.names:
                submodule = f"{origin}.{alias.name}"
                yield submodule if submodule in known else origin


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def find_violations(sources: Mapping[str, str]) -> list[str]:
    """Arrows that point upwards, cycles, and modules without a room."""
    wrong: list[str] = []
    graph: dict[str, set[str]] = {module: set() for module in sources}
    for module, source in sources.items():
        own = room(module)
        if own not in MAY_IMPORT:
            wrong.append(f"{module} has no room; name it in MAY_IMPORT")
            continue
        is_package = any(other.startswith(module + ".") for other in sources)
        for imported in imports_of(module, source, sources, is_package):
            root = imported.split(".")[0]
            if root != "deepenergy":
                allowed = THIRD_PARTY.get(own)
                if allowed is not None and root not in allowed and root not in sys.stdlib_module_names:
                    wrong.append(f"{module} ({own}) imports {root}; it may import {sorted(allowed)} and the library")
                continue
            target = room(imported)
            if target != own and target not in MAY_IMPORT[own]:
                wrong.append(f"{module} imports {imported}, which is above {own or 'the package'}")
            if imported in graph and imported != module:
                graph[module].add(imported)
    return wrong + find_cycles(graph)


def find_cycles(graph: Mapping[str, set[str]]) -> list[str]:
    cycles: list[str] = []
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            cycles.append("cycle: " + " -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for following in sorted(graph[module]):
                walk(following, [*path, module])
            done.add(module)

    for module in graph:
        walk(module, [])
    return cycles


def test_imports_flow_one_way() -> None:
    assert find_violations(read_sources(PACKAGE)) == []


def test_the_rooms_are_in_floors() -> None:
    """What may be imported is below: no two rooms may import each other, by whatever way round."""
    assert find_cycles(MAY_IMPORT) == []
    existing = {room(module) for module in read_sources(PACKAGE)}
    assert set(MAY_IMPORT) == existing, "a room for every folder, and no room without one"


@pytest.mark.parametrize(
    ("module", "line", "told"),
    [
        ("deepenergy.scene.rig", "from deepenergy.render.renderer import Renderer", "imports deepenergy.render"),
        ("deepenergy.scene.rig", "def f():\n    import deepenergy.io.rigs", "deepenergy.io.rigs, which is above scene"),
        ("deepenergy.scene.rig", "import scipy", "imports scipy"),
        ("deepenergy.render.renderer", "from deepenergy import landmarks", "imports deepenergy.landmarks"),
        ("deepenergy.render.renderer", "from .. import landmarks", "imports deepenergy.landmarks"),
        ("deepenergy.render.renderer", "from deepenergy import Rig", "imports deepenergy, which is above render"),
        (
            "deepenergy.solve.dogleg",
            "from deepenergy.scene.rig import Rig",
            "deepenergy.scene.rig, which is above solve",
        ),
        ("deepenergy.solve.dogleg", "import numpy", "(solve) imports numpy"),
        ("deepenergy.fit.frames", "from deepenergy.temporal import chain", "imports deepenergy.temporal"),
        ("deepenergy.helpers", "", "has no room"),
        ("deepenergy.scene.rig", "from deepenergy.scene import camera", "cycle: deepenergy.scene"),
    ],
)
def test_a_wrong_import_is_found(module: str, line: str, told: str) -> None:
    rooms = ["scene", "render", "landmarks", "io", "temporal"]
    sources = {
        "deepenergy": "",
        **{f"deepenergy.{name}": "" for name in rooms},
        "deepenergy.scene.camera": "from deepenergy.scene.rig import Rig" if "cycle" in told else "",
        **dict.fromkeys(["deepenergy.scene.rig", "deepenergy.io.rigs", "deepenergy.temporal.chain"], ""),
        module: line,
    }
    found = find_violations(sources)
    assert any(told in violation for violation in found), found


def test_a_right_import_is_not_found() -> None:
    sources = {
        "deepenergy": "from deepenergy.scene.rig import Rig\n__all__ = ['Rig']",
        "deepenergy.runtime.errors": "import math",
        "deepenergy.scene.rig": "import torch\nfrom deepenergy.runtime import errors",
        "deepenergy.commands.cli": "from deepenergy import Rig\nimport typer",
    }
    assert find_violations(sources) == []


def test_a_file_has_one_purpose() -> None:
    """No catch-all modules, and a reason in the docstring of every file past the limit."""
    for path in PACKAGE.rglob("*.py"):
        assert path.name not in {"utils.py", "util.py", "base.py", "common.py", "helpers.py", "misc.py"}, path
        source = path.read_text(encoding="utf-8")
        lines = source.count("\n")
        reason = "long because" in (ast.get_docstring(ast.parse(source)) or "").lower()
        assert lines <= LONGEST_FILE or reason, f"{path} has {lines} lines; split it, or say 'long because ...'"


def test_every_module_says_what_it_is_for() -> None:
    for module, source in read_sources(PACKAGE).items():
        assert ast.get_docstring(ast.parse(source)), f"{module} has no docstring"
