"""The whole report of a shot in one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from deepenergy.report.contact_sheet import Tile, contact_sheet, draw_tile, evenly_spaced, face_windows
from deepenergy.report.overlay import Overlay, dark_card, to_image, write_overlay_video
from deepenergy.report.page import render_page
from deepenergy.runtime.atomic import atomic_path
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Rig
from deepenergy.scene.track import Track

# What is done, how many frames of it, and of how many.
Progress = Callable[[str, int, int], None]


class PlateSource(Protocol):
    """Plates, as the report needs them (`deepenergy.scene.plates.Plates` is one)."""

    frames: tuple[int, ...]

    def read(self, index: int, /) -> Float[Tensor, "3 h w"]:
        """The plate of `frames[index]`, display-referred sRGB in [0, 1]; `InputError` where it cannot be read."""
        ...


def write_report(
    folder: str | Path,
    track: Track,
    rig: Rig,
    plates: PlateSource | Sequence[PlateSource],
    cameras: Camera | Sequence[Camera],
    progress: Progress | None = None,
    fps: float = 24.0,
    sheet_frames: int = 12,
) -> list[Path]:
    """Write `track.npz`, `track.csv`, `report.html`, per camera `overlay.<camera>.mp4`, `contact_sheet.<camera>.png`.

    A plate that cannot be read becomes a dark card with the reason; it stops nothing. Every file is written whole or
    not at all.

    Args:
        folder: made where it does not exist.
        track, rig: the solved shot and the rig that was solved.
        plates, cameras: one, or as many plates as cameras in the same order.
        progress: called after each frame.
        fps: of the overlay videos.
        sheet_frames: pictures in the contact sheet.

    Returns:
        The files, in the order of writing.

    Raises:
        InputError: no frames, not as many plates as cameras, two cameras of one name, or a rig that is not the track's.
    """
    all_plates: list[PlateSource] = list(plates) if isinstance(plates, Sequence) else [plates]
    all_cameras = [cameras] if isinstance(cameras, Camera) else list(cameras)
    if len(track) == 0:
        raise InputError("track", "no frames", "at least one frame", "solve a frame range that the plates have")
    if len(all_plates) != len(all_cameras) or not all_cameras:
        raise InputError(
            "plates", f"{len(all_plates)} for {len(all_cameras)} cameras", "one for each camera", "pass them in order"
        )
    names = [camera.name for camera in all_cameras]
    if len(set(names)) != len(names):
        raise InputError("cameras", f"the names {', '.join(names)}", "different names", "rename the cameras")
    overlays = [Overlay(track, rig, camera) for camera in all_cameras]
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)

    written = [folder / "track.npz", folder / "track.csv"]
    for path in written:
        track.save(path)
    sheets = {}
    for overlay, source in zip(overlays, all_plates, strict=True):
        sheet, paths = _write_camera(folder, overlay, source, progress, fps, sheet_frames)
        sheets[overlay.camera.name] = sheet
        written += paths
    page = folder / "report.html"
    with atomic_path(page, "report") as temporary:
        temporary.write_text(render_page(track, rig, sheets), encoding="utf-8")
    return [*written, page]


def _write_camera(
    folder: Path, overlay: Overlay, source: PlateSource, progress: Progress | None, fps: float, sheet_frames: int
) -> tuple[Image.Image, list[Path]]:
    """One pass over the plates: every frame goes into the video, some into the contact sheet too."""
    track, camera = overlay.track, overlay.camera
    chosen = evenly_spaced(len(track), sheet_frames)
    windows = face_windows(overlay, chosen)
    tiles: list[Tile] = []
    size = (camera.width, camera.height)

    def frames() -> Iterator[np.ndarray]:
        for row in range(len(track)):
            plate = _read(source, int(track.frames[row]), size)
            if row in chosen:
                tiles.append(draw_tile(overlay, row, plate, windows))
            if isinstance(plate, str):
                card = dark_card(size, int(track.frames[row]), plate)
                yield np.asarray(overlay.draw(row, card, lines=False))
            else:
                yield np.asarray(overlay.draw(row, plate))
            if progress is not None:
                progress(f"overlay {camera.name}", row + 1, len(track))

    video = folder / f"overlay.{camera.name}.mp4"
    write_overlay_video(video, frames(), fps)
    sheet = contact_sheet(overlay, tiles)
    path = folder / f"contact_sheet.{camera.name}.png"
    with atomic_path(path, "contact sheet") as temporary:
        sheet.save(temporary)
    return sheet, [video, path]


def _read(source: PlateSource, frame: int, size: tuple[int, int]) -> Image.Image | str:
    """The plate, or why there is none."""
    if frame not in source.frames:
        return "the plates have no such frame"
    try:
        image = to_image(source.read(source.frames.index(frame)).cpu().numpy())
    except InputError as error:
        return str(error)
    if image.size != size:
        return f"{image.width}x{image.height} pixels, while the camera has {size[0]}x{size[1]}"
    return image
