"""The whole report of a shot in one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from deepenergy.report.contact_sheet import Tile, contact_sheet, draw_tile, evenly_spaced, face_windows
from deepenergy.report.overlay import Overlay, dark_card, to_image, write_overlay_video
from deepenergy.report.page import render_page
from deepenergy.runtime.atomic import atomic_path
from deepenergy.runtime.errors import InputError
from deepenergy.runtime.progress import Progress, silent
from deepenergy.scene.plates import PlateError
from deepenergy.scene.rig import Rig
from deepenergy.scene.track import Track
from deepenergy.scene.views import Views


@dataclass(frozen=True)
class ReportSettings:
    """How a report is drawn.

    Attributes:
        fps: frames a second of the overlay videos.
        sheet_frames: pictures in a contact sheet.
    """

    fps: float = 24.0
    sheet_frames: int = 12


def write_report(
    folder: str | Path,
    track: Track,
    rig: Rig,
    views: Views,
    progress: Progress = silent,
    settings: ReportSettings | None = None,
) -> list[Path]:
    """Write `report.html`, and per camera `overlay.<camera>.mp4` and `contact_sheet.<camera>.png`.

    The report reads the track; who solved it saves it. A plate that cannot be read becomes a dark card with the reason;
    it stops nothing. Every file is written whole or not at all.

    Args:
        folder: made where it does not exist.
        track: the solved shot.
        rig: the rig that was solved.
        views: cameras and their plates.
        progress: told every frame that is drawn.
        settings: the defaults when None.

    Returns:
        The files, in the order of writing.

    Raises:
        InputError: no frames, two cameras of one name, or a rig that is not the track's.
    """
    settings = settings or ReportSettings()
    if len(track) == 0:
        raise InputError("track", "no frames", "at least one frame", "solve a frame range that the plates have")
    names = [camera.name for camera in views.cameras]
    if len(set(names)) != len(names):
        raise InputError("cameras", f"the names {', '.join(names)}", "different names", "rename the cameras")
    overlays = [Overlay(track, rig, camera) for camera in views.cameras]
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    written, sheets = [], {}
    for index, overlay in enumerate(overlays):

        def plate_of(frame: int, index: int = index) -> Image.Image | str:
            return _plate(views, index, frame)

        sheet, paths = _write_camera(folder, overlay, plate_of, progress, settings)
        sheets[overlay.camera.name] = sheet
        written += paths
    page = folder / "report.html"
    with atomic_path(page, "report") as temporary:
        temporary.write_text(render_page(track, rig, sheets), encoding="utf-8")
    return [*written, page]


def _write_camera(
    folder: Path,
    overlay: Overlay,
    plate_of: Callable[[int], Image.Image | str],
    progress: Progress,
    settings: ReportSettings,
) -> tuple[Image.Image, list[Path]]:
    """One pass over the plates: every frame goes into the video, some into the contact sheet too."""
    track, camera = overlay.track, overlay.camera
    chosen = evenly_spaced(len(track), settings.sheet_frames)
    windows = face_windows(overlay, chosen)
    tiles: list[Tile] = []
    size = (camera.width, camera.height)

    def frames() -> Iterator[np.ndarray]:
        for row in range(len(track)):
            plate = plate_of(int(track.frames[row]))
            if row in chosen:
                tiles.append(draw_tile(overlay, row, plate, windows))
            if isinstance(plate, str):
                card = dark_card(size, int(track.frames[row]), plate)
                yield np.asarray(overlay.draw(row, card, lines=False))
            else:
                yield np.asarray(overlay.draw(row, plate))
            progress(f"overlay {camera.name}", row + 1, len(track))

    video = folder / f"overlay.{camera.name}.mp4"
    write_overlay_video(video, frames(), settings.fps)
    sheet = contact_sheet(overlay, tiles)
    path = folder / f"contact_sheet.{camera.name}.png"
    with atomic_path(path, "contact sheet") as temporary:
        sheet.save(temporary)
    return sheet, [video, path]


def _plate(views: Views, camera: int, frame: int) -> Image.Image | str:
    """The plate, or why there is none."""
    try:
        return to_image(views.read(camera, frame).cpu().numpy())
    except PlateError as error:
        return str(error)
