"""Draws docs/architecture.svg: the package's rooms and who imports whom, as the sources say it.

    python docs/architecture.py

A room is a folder of `deepenergy`, or a module beside them. It stands one floor above the highest room that it imports.
An arrow is left out where others lead to the same room.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping
from html import escape
from pathlib import Path

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


def columns_of(rows: list[list[str]], arrows: list[tuple[str, str]]) -> list[list[str]]:
    """The rooms of every floor, each at the mean place of those that it is joined to, so that few arrows cross."""
    rows = [sorted(row) for row in rows]
    for _ in range(12):
        place = {room: (i + 0.5) / len(row) for row in rows for i, room in enumerate(row)}
        for row in rows:
            means: dict[str, tuple[float, str]] = {}
            for room in row:
                joined = [place[b if a == room else a] for a, b in arrows if room in (a, b)] or [place[room]]
                means[room] = (round(sum(joined) / len(joined), 6), room)
            row.sort(key=means.__getitem__)
            place |= {room: (i + 0.5) / len(row) for i, room in enumerate(row)}
    return rows


def draw() -> str:
    """The picture, as SVG text; the same for the same sources."""
    imports, purpose = read_rooms()
    floors, arrows = floors_of(imports), direct(imports)
    rows = [[room for room in imports if floors[room] == level] for level in range(max(floors.values()) + 1)]
    rows = columns_of(rows, arrows)
    widest = max(len(row) for row in rows)
    width = 2 * MARGIN + widest * BOX + (widest - 1) * GAP
    height = 2 * MARGIN + (len(rows) - 1) * FLOOR + HEIGHT
    corner: dict[str, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        left = (width - len(row) * BOX - (len(row) - 1) * GAP) / 2
        for i, room in enumerate(row):
            corner[room] = (left + i * (BOX + GAP), MARGIN + (len(rows) - 1 - level) * FLOOR)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif">',
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        '<defs><marker id="to" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>',
    ]
    for upper, lower in arrows:
        (x0, y0), (x1, y1) = corner[upper], corner[lower]
        x0, y0, x1 = x0 + BOX / 2, y0 + HEIGHT, x1 + BOX / 2
        bend = (y1 - y0) / 2
        curve = f"M{x0:g} {y0:g}C{x0:g} {y0 + bend:g} {x1:g} {y1 - bend:g} {x1:g} {y1:g}"
        parts.append(f'<path d="{curve}" fill="none" stroke="{LINE}" stroke-width="1.2" marker-end="url(#to)"/>')
    for room, (x, y) in corner.items():
        folder = (PACKAGE / room).is_dir()
        name = f"{room}/" if folder else "__init__.py" if room == PUBLIC else f"{room}.py"
        lines = textwrap.wrap(purpose[room].partition(". ")[0].rstrip("."), 36, max_lines=3, placeholder=" ...")
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
