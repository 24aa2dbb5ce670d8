"""Draws docs/architecture.svg: the package's rooms and who imports whom, as the sources say it.

    python docs/architecture.py

A room is a folder of `deepenergy`, or a module beside them. It stands one floor above the highest room that it imports.
An arrow is left out where others lead to the same room.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from html import escape
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from textwrap import wrap

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "deepenergy"
PICTURE = ROOT / "docs" / "architecture.svg"
# The package's own `__init__`.
PUBLIC = "deepenergy"

BOX, HEIGHT, GAP, FLOOR, MARGIN = 196, 62, 26, 118, 20
INK, PAPER, LINE, BOXES = "#1d2733", "#ffffff", "#8795a5", "#eef3f8"


def room_of(path: Path) -> str:
    """The room of a source file."""
    first = path.relative_to(PACKAGE).parts[0]
    return PUBLIC if first == "__init__.py" else first.removesuffix(".py")


def read_rooms() -> tuple[dict[str, set[str]], dict[str, str]]:
    """Which rooms each room imports (function bodies count), and the first sentence of its docstring."""
    imports: dict[str, set[str]] = {}
    purpose: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        own, tree = room_of(path), ast.parse(path.read_text(encoding="utf-8"))
        imports.setdefault(own, set())
        if path.name == "__init__.py" or path.parent == PACKAGE:
            text = (ast.get_docstring(tree) or "").split("\n\n")[0]
            purpose.setdefault(own, " ".join(text.split()))
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            imports[own] |= {name.split(".")[1] for name in names if name.split(".")[0] == "deepenergy" and "." in name}
    # What is no room is a public name of the package.
    rooms = set(imports)
    return {
        own: {name if name in rooms else PUBLIC for name in found} - {own} for own, found in imports.items()
    }, purpose


def floors_of(imports: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each room; the rooms that import nothing stand on floor 0."""
    floors: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in floors:
            floors[room] = 1 + max((floor(below) for below in sorted(imports[room])), default=-1)
        return floors[room]

    for room in imports:
        floor(room)
    return floors


def direct(imports: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that do not follow from others."""

    def reach(room: str) -> set[str]:
        return imports[room].union(*(reach(below) for below in imports[room]))

    return [
        (room, below)
        for room in sorted(imports)
        for below in sorted(imports[room])
        if not any(below in reach(other) for other in imports[room] - {below})
    ]


def chains_of(arrows: list[tuple[str, str]], floors: Mapping[str, int]) -> list[list[str]]:
    """Every arrow as its rooms with a place to pass on every floor between them."""
    chains = []
    for upper, lower in arrows:
        between = [f"{upper}>{lower}@{level}" for level in range(floors[upper] - 1, floors[lower], -1)]
        chains.append([upper, *between, lower])
    return chains


def width_of(node: str) -> int:
    """The width of a room, or of a place where an arrow passes."""
    return 0 if ">" in node else BOX


def middles_of(rows: list[list[str]], chains: list[list[str]]) -> tuple[dict[str, float], float]:
    """Where the middle of every room and passing place is, and the width of it all.

    On each floor they are ordered by the mean place of those that they are joined to, so that few arrows cross.
    """
    joined: dict[str, list[str]] = {node: [] for row in rows for node in row}
    for chain in chains:
        for a, b in pairwise(chain):
            joined[a].append(b)
            joined[b].append(a)
    widths = [sum(width_of(node) + GAP for node in row) for row in rows]
    whole = max(widths) + 2 * MARGIN - GAP

    def placed(row: list[str], own: float) -> dict[str, float]:
        left, middles = (whole - own + GAP) / 2, {}
        for node in row:
            middles[node] = left + width_of(node) / 2
            left += width_of(node) + GAP
        return middles

    rows = [sorted(row) for row in rows]
    middle = {node: at for row, own in zip(rows, widths, strict=True) for node, at in placed(row, own).items()}
    for _ in range(20):
        for row, own in (*zip(rows, widths, strict=True), *reversed(list(zip(rows, widths, strict=True)))):
            means = {node: (round(fmean(middle[other] for other in joined[node]), 3), node) for node in row}
            row.sort(key=means.__getitem__)
            middle |= placed(row, own)
    return middle, whole


def draw() -> str:
    """The picture, as SVG text; the same for the same sources."""
    imports, purpose = read_rooms()
    floors = floors_of(imports)
    chains = chains_of(direct(imports), floors)
    top = max(floors.values())
    rows = [[room for room in imports if floors[room] == level] for level in range(top + 1)]
    for chain in chains:
        for node in chain[1:-1]:
            rows[int(node.partition("@")[2])].append(node)
    middle, width = middles_of(rows, chains)
    above = {node: MARGIN + (top - level) * FLOOR for level, row in enumerate(rows) for node in row}
    height = 2 * MARGIN + top * FLOOR + HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" width="{width:g}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif">',
        f'<rect width="{width:g}" height="{height}" fill="{PAPER}"/>',
        '<defs><marker id="to" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>',
    ]
    for chain in chains:
        curve = f"M{middle[chain[0]]:g} {above[chain[0]] + HEIGHT:g}"
        for a, b in pairwise(chain):
            y0, y1 = above[a] + HEIGHT, above[b]
            bend = (y0 + y1) / 2
            curve += f"C{middle[a]:g} {bend:g} {middle[b]:g} {bend:g} {middle[b]:g} {y1:g}"
            if b != chain[-1]:
                curve += f"V{y1 + HEIGHT:g}"
        parts.append(f'<path d="{curve}" fill="none" stroke="{LINE}" stroke-width="1.2" marker-end="url(#to)"/>')
    for room in imports:
        x, y = middle[room] - BOX / 2, above[room]
        folder = (PACKAGE / room).is_dir() and room != PUBLIC
        name = f"{room}/" if folder else "__init__.py" if room == PUBLIC else f"{room}.py"
        lines = wrap(purpose[room].partition(". ")[0].rstrip("."), 34, max_lines=3, placeholder=" ...")
        parts += [
            f'<rect x="{x:g}" y="{y:g}" width="{BOX}" height="{HEIGHT}" rx="6" fill="{BOXES}" stroke="{INK}"/>',
            f'<text x="{x + 9:g}" y="{y + 18:g}" font-size="13" font-weight="bold" fill="{INK}">{escape(name)}</text>',
        ]
        for i, line in enumerate(lines):
            text = escape(line, quote=False)
            parts.append(f'<text x="{x + 9:g}" y="{y + 32 + 11 * i:g}" font-size="9.5" fill="{INK}">{text}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(f"written {PICTURE.relative_to(ROOT)}")
