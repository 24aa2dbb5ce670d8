"""One frame stage by stage, as figures 3 to 6 of the paper: the plate, then the rig and landmarks after every stage."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from deepenergy.fit.stage_result import StageResult
from deepenergy.report.contact_sheet import face_windows, fit_window
from deepenergy.report.overlay import CORRESPONDENCE, FEATURE, PLATE_LANDMARK, RENDER_LANDMARK, WIRE, font_of
from deepenergy.report.stages import draw_stage, residual_text, stage_overlay, stage_title, write_title
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Rig

PANEL = (480, 480)
_GAP, _HEADER, _MARGIN = 6, 46, 16
_MORE = 0.06
_INK, _DIM, _PAPER = (238, 241, 245), (158, 166, 176), (16, 18, 21)
_LEGEND = (
    ("rig", WIRE, "line"),
    ("its features", FEATURE, "line"),
    ("landmarks on the plate", PLATE_LANDMARK, "dot"),
    ("landmarks on the render", RENDER_LANDMARK, "dot"),
    ("between the two", CORRESPONDENCE, "line"),
)


def stage_figure(  # more than six: a figure and what it shows
    results: Sequence[StageResult],
    frame: int,
    plate: Image.Image,
    rig: Rig,
    camera: Camera,
    view: int = 0,
    columns: int = 4,
) -> Image.Image:
    """The figure: a grid of panels under a header, all of one window around the face.

    Args:
        results: what `on_stage` was told, in order; those without the frame are left out.
        frame: the frame's number.
        plate: its plate, RGB.
        rig, camera: what was solved; the camera that took the plate.
        view: the camera's place among those of the results.
        columns: panels in a row.

    Raises:
        InputError: no stage has the frame.
    """
    here = [(result, result.frames.index(frame)) for result in results if frame in result.frames]
    if not here:
        raise InputError("frame", str(frame), "a frame that was solved", "see the track's reason for the frame")
    overlays = [stage_overlay(result, rig, camera, view) for result, _ in here]
    # The face is where the last stage found it; behind the camera, all of the plate is shown.
    last = here[-1][1]
    x0, y0, x1, y1 = face_windows(overlays[-1], [last]).get(last, fit_window(plate))
    # Room for stages that are far off yet, and for the titles under the chin.
    margin, shift = _MORE * (x1 - x0), 0.02 * (x1 - x0)
    window = (x0 - margin, y0 - margin + shift, x1 + margin, y1 + margin + shift)
    panels = [plate.convert("RGB").transform(PANEL, Image.Transform.EXTENT, window, Image.Resampling.BICUBIC)]
    write_title(panels[0], "plate", f"frame {frame}", camera.name)
    for (result, row), overlay in zip(here, overlays, strict=True):
        panel = draw_stage(overlay, row, plate, window, PANEL, dots=2.3)
        write_title(panel, stage_title(result), residual_text(result, row, view))
        panels.append(panel)
    return _grid(panels, f"{rig.name}  /  {camera.name}  /  {frame}", max(1, min(columns, len(panels))))


def _grid(panels: list[Image.Image], title: str, columns: int) -> Image.Image:
    rows = -(-len(panels) // columns)
    width = max(columns * (PANEL[0] + _GAP) - _GAP, 900) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, _HEADER + rows * (PANEL[1] + _GAP) - _GAP + _MARGIN), _PAPER)
    pen, font, small = ImageDraw.Draw(sheet), font_of(20), font_of(14)
    middle = _HEADER / 2
    pen.text((_MARGIN, middle), title, font=font, fill=_INK, anchor="lm")
    x = float(width - _MARGIN)
    for text, colour, mark in reversed(_LEGEND):
        x -= small.getlength(text)
        pen.text((x, middle), text, font=small, fill=_DIM, anchor="lm")
        if mark == "dot":
            pen.ellipse((x - 16, middle - 4, x - 8, middle + 4), fill=colour)
        else:
            pen.line((x - 26, middle, x - 8, middle), fill=colour, width=3)
        x -= 44
    for i, panel in enumerate(panels):
        x, y = _MARGIN + (i % columns) * (PANEL[0] + _GAP), _HEADER + (i // columns) * (PANEL[1] + _GAP)
        sheet.paste(panel, (x, y))
    return sheet
