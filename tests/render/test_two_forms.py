"""Every compiled step of the renderer has a reference in torch, which knows nothing of it, and is compared with it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import jvp

from deepenergy import Camera, Rig, render
from deepenergy.render import Renderer

FOLDER = Path(inspect.getfile(render)).parent
TESTS = Path(__file__).parent
# What the compiled steps share, and one that `reference/interpolate.py` has in torch.
WITHOUT_NAMESAKE = {"__init__", "edge_points", "operation", "rows"}
PAIRS = sorted({path.stem for path in (FOLDER / "compiled").glob("*.py")} - WITHOUT_NAMESAKE)
# Compiled function -> what it is compared with: the same name in torch, unless it is named here.
COMPARED = {
    "find_blend_numba": "find_outlines_torch",
    # Parts of the above.
    "contours_of_image": "find_crossings",
    "intersections_of_image": "find_intersections",
}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def names(path: Path) -> set[str]:
    """Every name and attribute that a file uses."""
    nodes = list(ast.walk(parsed(path)))
    return {n.id for n in nodes if isinstance(n, ast.Name)} | {n.attr for n in nodes if isinstance(n, ast.Attribute)}


def file_of(module: str) -> Path | None:
    path = FOLDER.parents[1].joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def compiled_steps() -> Iterator[tuple[str, str]]:
    """(file, function) of what other files call in `compiled`."""
    for path in sorted((FOLDER / "compiled").glob("*.py")):
        if path.stem in WITHOUT_NAMESAKE - {"edge_points"}:
            continue
        for node in parsed(path).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield path.stem, node.name


@pytest.mark.parametrize("name", PAIRS)
def test_a_compiled_file_has_a_reference_of_its_name(name: str) -> None:
    assert (FOLDER / "reference" / f"{name}.py").is_file()


def test_the_reference_needs_nothing_compiled() -> None:
    seen: set[Path] = set()
    waiting = sorted((FOLDER / "reference").glob("*.py"))
    while waiting:
        path = waiting.pop()
        seen.add(path)
        modules = {m for m in imports(path) if m.startswith("deepenergy.")}
        assert not {m for m in modules if m.startswith("deepenergy.render.compiled")}, f"{path.name} imports compiled"
        assert "numba" not in imports(path)
        found = [file_of(m) for m in modules if m.startswith("deepenergy.render.")]
        waiting += [f for f in found if f is not None and f not in seen]
    assert len(seen) > 10


def test_only_operations_ask_for_the_device() -> None:
    asking = set()
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and node.attr == "type" and ast.unparse(node.value).endswith("device"):
                asking.add(path.relative_to(FOLDER).as_posix())
            if isinstance(node, ast.Attribute) and node.attr in ("is_cuda", "is_cpu"):
                asking.add(path.relative_to(FOLDER).as_posix())
    assert asking == {"operations.py"}


@pytest.mark.parametrize(("file", "function"), [*compiled_steps()])
def test_both_forms_are_compared(file: str, function: str) -> None:
    other = COMPARED.get(function, function.replace("_numba", "_torch"))
    assert other != function
    here = Path(__file__)
    if function in ("contours_of_image", "intersections_of_image"):
        # No step by itself: it is compared as a part of the blend.
        assert function in names(FOLDER / "compiled" / "outlines.py")
        assert other in names(FOLDER / "reference" / "outlines.py")
        function, other = "find_blend_numba", COMPARED["find_blend_numba"]
    together = [path.name for path in TESTS.glob("test_*.py") if path != here and {function, other} <= names(path)]
    assert together, f"no test names both {function} (compiled/{file}.py) and {other}"


@pytest.mark.parametrize("supersample", [1, 2])
def test_the_whole_renderer_in_torch_is_the_compiled_one(supersample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on a GPU, here on the CPU: image, mask, and derivatives in both modes."""
    rig = Rig.load("builtin")
    camera = Camera.look_at(48, 40, 95.0, (0.2, 0.05, 0.6))
    generator = torch.Generator().manual_seed(0)
    albedo = torch.rand(len(rig.neutral), 3, generator=generator)
    weight, along = (torch.randn(shape, generator=generator) for shape in ((1, 3, 40, 48), (1, *rig.neutral.shape)))
    renderer = Renderer(rig, supersample=supersample, albedo=albedo)

    def found() -> list[Tensor]:
        at = rig.neutral[None].clone().requires_grad_()
        shown = renderer(at, camera)
        (gradient,) = torch.autograd.grad((shown.image * weight).sum(), at)
        moved = jvp(lambda v: renderer(v, camera).image, (rig.neutral[None],), (along,))[1]
        return [shown.image, shown.mask, gradient, moved]

    compiled = found()
    monkeypatch.setattr("deepenergy.render.operations.uses_compiled", lambda tensor: False)
    in_torch = found()
    for mine, theirs in zip(compiled[:2], in_torch[:2], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)
    for mine, theirs in zip(compiled[2:], in_torch[2:], strict=True):
        assert float((mine - theirs).norm()) < 1e-3 * float(theirs.norm())
