"""A grid of frames spread evenly over the shot, each cropped to the face: the whole shot at one glance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from deepenergy.report.overlay import (
    CORRESPONDENCE,
    FEATURE,
    PLATE_LANDMARK,
    RENDER_LANDMARK,
    STATUS,
    Overlay,
    dark_card,
    font_of,
    shorten,
)

TILE = (448, 448)
_GAP, _HEADER, _MARGIN = 6, 64, 18
_INK, _DIM, _PAPER = (238, 241, 245), (158, 166, 176), (16, 18, 21)
# The window around the face, as a multiple of the face's largest box in the shot.
_WINDOW = 1.42


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet: the row of the track, and the picture."""

    row: int
    image: Image.Image


def evenly_spaced(rows: int, count: int) -> list[int]:
    """`count` rows spread evenly over `rows`, first and last among them; all where there are fewer."""
    if rows <= count:
        return list(range(rows))
    return sorted({round(v) for v in np.linspace(0, rows - 1, count)})


def face_windows(overlay: Overlay, rows: list[int]) -> dict[int, tuple[float, float, float, float]]:
    """The window (x0, y0, x1, y1) to show of every row that has a pose: of one size, centred on the face."""
    boxes = {}
    for row in rows:
        geometry = overlay.geometry(row)
        if geometry is None:
            continue
        points = geometry.landmarks if geometry.landmarks is not None else geometry.segments.reshape(-1, 2)
        if len(points) and np.isfinite(points).all():
            boxes[row] = (points.min(0), points.max(0))
    if not boxes:
        return {}
    # Landmarks end at the brows; the forehead belongs to the picture.
    side = _WINDOW * max(float(np.max(high - low)) for low, high in boxes.values())
    aspect = TILE[0] / TILE[1]
    windows = {}
    for row, (low, high) in boxes.items():
        x, y = (low + high) / 2 - (0, 0.08 * side)
        windows[row] = (x - side * aspect / 2, y - side / 2, x + side * aspect / 2, y + side / 2)
    return windows


def fit_window(plate: Image.Image) -> tuple[float, float, float, float]:
    """The whole plate, letterboxed to the tile's shape."""
    scale = max(plate.width / TILE[0], plate.height / TILE[1])
    width, height = TILE[0] * scale, TILE[1] * scale
    x, y = (plate.width - width) / 2, (plate.height - height) / 2
    return (x, y, x + width, y + height)


def draw_tile(
    overlay: Overlay,
    row: int,
    plate: Image.Image | str,
    windows: dict[int, tuple[float, float, float, float]],
) -> Tile:
    """The picture of one row of the track; `plate` is why there is none where it cannot be read."""
    if isinstance(plate, str):
        card = dark_card(TILE, int(overlay.track.frames[row]), plate)
        return Tile(row, overlay.draw(row, card, lines=False))
    window = windows.get(row)
    return Tile(row, overlay.draw(row, plate, window if window is not None else fit_window(plate), TILE))


def contact_sheet(overlay: Overlay, tiles: list[Tile], columns: int = 4) -> Image.Image:
    """Lay the tiles out under a header with the shot's numbers and the legend."""
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    # A narrow sheet would cut the legend off.
    width = max(columns * (TILE[0] + _GAP) - _GAP, 900) + 2 * _MARGIN
    height = _HEADER + rows * (TILE[1] + _GAP) - _GAP + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    _header(ImageDraw.Draw(sheet), overlay, width)
    for i, tile in enumerate(tiles):
        x = _MARGIN + (i % columns) * (TILE[0] + _GAP)
        y = _HEADER + (i // columns) * (TILE[1] + _GAP)
        sheet.paste(tile.image, (x, y))
        colour = STATUS[str(overlay.track.status[tile.row])]
        ImageDraw.Draw(sheet).rectangle((x, y, x + TILE[0] - 1, y + 2), fill=colour)
    return sheet


def _header(pen: ImageDraw.ImageDraw, overlay: Overlay, width: int) -> None:
    track = overlay.track
    counts = ", ".join(
        f"{int((track.status == s).sum())} {s}" for s in ("solved", "infilled", "failed") if (track.status == s).any()
    )
    title, small = font_of(22), font_of(14)
    middle = _HEADER / 2
    head = f"{track.rig_name or overlay.rig.name}  /  {overlay.camera.name}"
    legend_width = _legend(pen, width - _MARGIN, middle, small)
    head = shorten(head, title, width - 3 * _MARGIN - legend_width)
    pen.text((_MARGIN, middle - 10), head, font=title, fill=_INK, anchor="lm")
    line = f"frames {track.frames[0]}-{track.frames[-1]}   {counts}" if len(track) else "no frames"
    pen.text((_MARGIN, middle + 15), line, font=small, fill=_DIM, anchor="lm")


def _legend(pen: ImageDraw.ImageDraw, right: float, middle: float, font) -> float:
    """Draw the legend that ends at `right`; its width."""
    entries = (
        ("rig features", FEATURE, "line"),
        ("plate landmarks", PLATE_LANDMARK, "dot"),
        ("render landmarks", RENDER_LANDMARK, "dot"),
        ("correspondence", CORRESPONDENCE, "line"),
    )
    x = right
    for text, colour, mark in reversed(entries):
        x -= font.getlength(text)
        pen.text((x, middle), text, font=font, fill=_DIM, anchor="lm")
        if mark == "dot":
            pen.ellipse((x - 16, middle - 4, x - 8, middle + 4), fill=colour)
            x -= 16
        else:
            pen.line((x - 26, middle, x - 8, middle), fill=colour, width=3)
            x -= 26
        x -= 22
    return right - x
