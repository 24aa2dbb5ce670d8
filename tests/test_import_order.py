"""Imports flow one way (docs/decisions/0001-imports-and-registry.md); function bodies count too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "deepenergy"
LONGEST_FILE = 400

# Every module belongs to a layer by the first part of its name below `deepenergy`.
LAYER_OF = {
    **dict.fromkeys(
        ["errors", "registry", "colour", "control_groups", "rotation", "camera", "params", "rig", "plates", "track"]
        + ["threads", "weight_file", "face_check", "face_paint"],
        "nouns",
    ),
    **{name: name for name in ["io", "builtin_head", "render", "landmarks", "flow", "solve", "pnp", "energy"]},
    **dict.fromkeys(["stages", "solver_config"], "stages"),
    **dict.fromkeys(
        [
            "observe",
            "photometry",
            "failures",
            "stage_result",
            "fit",
            "identity",
            "temporal",
            "resume",
            "sequence",
            "only_frames",
        ],
        "sequence",
    ),
    "solver": "solver",
    **dict.fromkeys(
        [
            "demo",
            "ground_truth",
            "evaluate",
            "report",
            "toml_input",
            "stage_file",
            "shot",
            "doctor",
            "batch",
            "appearance",
        ],
        "applications",
    ),
    "cli": "cli",
    "": "package",
}
_OPERATORS = {"nouns", "io", "builtin_head", "render", "landmarks", "flow", "solve", "pnp"}
_BELOW_SOLVER = _OPERATORS | {"energy", "stages", "sequence"}
# What a layer may import besides itself.
MAY_IMPORT: dict[str, set[str]] = {
    "nouns": set(),
    "io": {"nouns"},
    "builtin_head": {"nouns"},
    "render": {"nouns", "io"},
    "landmarks": {"nouns", "io"},
    "flow": {"nouns", "io"},
    "solve": set(),
    "pnp": {"nouns", "solve"},
    "energy": {"nouns", "io", "render", "landmarks", "flow", "solve"},
    "stages": _OPERATORS | {"energy"},
    "sequence": _OPERATORS | {"energy", "stages"},
    "solver": _BELOW_SOLVER,
    "applications": _BELOW_SOLVER | {"solver"},
    "cli": _BELOW_SOLVER | {"solver", "applications", "package"},
    "package": _BELOW_SOLVER | {"solver", "applications"},
}
# Layers whose third-party imports are limited too.
THIRD_PARTY = {"nouns": {"torch", "numpy", "jaxtyping"}, "solve": {"torch", "jaxtyping"}}


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


def layer(module: str) -> str | None:
    parts = module.split(".")
    return LAYER_OF.get(parts[1] if len(parts) > 1 else "")


def find_violations(sources: Mapping[str, str]) -> list[str]:
    """Arrows that point the wrong way, cycles, and modules that no layer holds."""
    wrong: list[str] = []
    graph: dict[str, set[str]] = {module: set() for module in sources}
    for module, source in sources.items():
        own = layer(module)
        if own is None:
            wrong.append(f"{module} belongs to no layer; name it in LAYER_OF")
            continue
        is_package = any(other.startswith(module + ".") for other in sources)
        for imported in imports_of(module, source, sources, is_package):
            root = imported.split(".")[0]
            if root != "deepenergy":
                allowed = THIRD_PARTY.get(own)
                if allowed is not None and root not in allowed and root not in sys.stdlib_module_names:
                    wrong.append(f"{module} ({own}) imports {root}; it may import {sorted(allowed)} and the library")
                continue
            target = layer(imported)
            if target != own and target not in MAY_IMPORT[own]:
                wrong.append(f"{module} ({own}) imports {imported} ({target})")
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


@pytest.mark.parametrize(
    ("module", "line", "told"),
    [
        ("deepenergy.scene.rig", "from deepenergy.render.renderer import Renderer", "(nouns) imports deepenergy.render"),
        ("deepenergy.scene.rig", "def f():\n    import deepenergy.io.rigs.gltf", "(nouns) imports deepenergy.io.rigs.gltf (io)"),
        ("deepenergy.scene.rig", "import scipy", "imports scipy"),
        ("deepenergy.render.renderer", "from deepenergy import landmarks", "imports deepenergy.landmarks"),
        ("deepenergy.render.renderer", "from .. import landmarks", "imports deepenergy.landmarks"),
        ("deepenergy.render.renderer", "from deepenergy import Rig", "imports deepenergy (package)"),
        ("deepenergy.solve.dogleg", "from deepenergy.scene.rig import Rig", "(solve) imports deepenergy.scene.rig (nouns)"),
        ("deepenergy.solve.dogleg", "import numpy", "(solve) imports numpy"),
        ("deepenergy.builtin_head.head", "from deepenergy.io import atomic", "(builtin_head) imports deepenergy.io"),
        ("deepenergy.pipeline.shot", "from deepenergy import shot", "(sequence) imports deepenergy.shot_file (applications)"),
        ("deepenergy.shot_file", "if True:\n    from deepenergy.commands.cli import main", "imports deepenergy.commands.cli (cli)"),
        ("deepenergy.helpers", "", "belongs to no layer"),
        ("deepenergy.scene.rig", "from deepenergy import camera", "cycle: deepenergy.scene.camera -> deepenergy.scene.rig"),
    ],
)
def test_a_wrong_import_is_found(module: str, line: str, told: str) -> None:
    sources = {
        "deepenergy": "",
        "deepenergy.scene.camera": "from deepenergy.scene.rig import Rig" if "cycle" in told else "",
        **dict.fromkeys(["deepenergy.scene.rig", "deepenergy.render", "deepenergy.landmarks", "deepenergy.io"], ""),
        **dict.fromkeys(["deepenergy.io.rigs.gltf", "deepenergy.runtime.atomic", "deepenergy.shot_file", "deepenergy.commands.cli"], ""),
        module: line,
    }
    found = find_violations(sources)
    assert any(told in violation for violation in found), found


def test_a_right_import_is_not_found() -> None:
    sources = {
        "deepenergy": "from deepenergy.scene.rig import Rig\n__all__ = ['Rig']",
        "deepenergy.runtime.errors": "import math",
        "deepenergy.scene.rig": "import torch\nfrom deepenergy import errors",
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
