"""What every stage of the schedule did: parameters, residuals and overlays (figures 3 to 6 and 10 of the paper)."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from deepenergy.fit.stage_result import StageResult
from deepenergy.report.contact_sheet import evenly_spaced
from deepenergy.report.overlay import (
    CORRESPONDENCE,
    FEATURE,
    PLATE_LANDMARK,
    RENDER_LANDMARK,
    WIRE,
    Canvas,
    Overlay,
    font_of,
    shorten,
    to_image,
)
from deepenergy.runtime.atomic import atomic_path
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Rig
from deepenergy.scene.track import Track
from deepenergy.scene.views import Views

# Frames that get overlays unless told: enough to see a shot, few beside the time of its solve.
_DRAWN = 8
_BAR = 28


class StageRecorder:
    """Writes `FOLDER/NN_stage/`: `state.npz`, and `overlay_FRAME_CAMERA.jpg`; pass it as `on_stage` of `fit_sequence`.

    NN is the stage's place in the schedule, from 01; a stage that was left out has no folder. `state.npz` holds
    `frames` [T], `rotation` [T,3,3], `translation` [T,3] metres, `jaw` [T,6], `weights` [T,K], `weight_names` [K],
    `cameras` [C], `plate_landmarks_px` [T,C,L,2], `landmark_residual_px` [T,C,L,2] (render less plate) and
    `residual_px` [T,C] (mean distance of the sure landmarks), NaN where a view shows no face. Plate pixels.

    Args:
        folder: made where it does not exist.
        views: cameras and their plates.
        rig: the rig that is solved.
        frames: numbers of the frames to draw; up to eight spread over the shot when None.
        go_on: whether stages that are in the folder already belong to the same solve; they are removed otherwise.

    Raises:
        InputError: two cameras of one name, or a frame that no plates have.
    """

    def __init__(
        self,
        folder: Path,
        views: Views,
        rig: Rig,
        frames: Sequence[int] | None = None,
        go_on: bool = False,
    ) -> None:
        names = [camera.name for camera in views.cameras]
        if len(set(names)) != len(names):
            found = f"the names {', '.join(names)}"
            raise InputError("stages cameras", found, "cameras of different names", "rename them")
        known = views.frames
        odd = sorted(set(frames or ()) - set(known))
        if odd:
            expected = f"frames within {known[0]}-{known[-1]}"
            raise InputError("stages frames", str(odd[0]), expected, "draw frames that the plates have")
        self.folder, self.views, self.rig = folder, views, rig
        self.frames = {known[row] for row in evenly_spaced(len(known), _DRAWN)} if frames is None else set(frames)
        if not go_on and folder.is_dir():
            for old in folder.glob("[0-9][0-9]_*"):
                # Ours alone: a folder that somebody put there is left.
                if (old / "state.npz").is_file():
                    shutil.rmtree(old)

    def __call__(self, result: StageResult) -> None:
        """Write one stage of some frames, beside what other frames of the shot made of it."""
        name = re.sub(r"[^a-z0-9]+", "_", result.stage.name.lower()).strip("_")
        folder = self.folder / f"{result.index + 1:02d}_{name}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "state.npz"
        arrays = _merged(_arrays(result), path)
        arrays["weight_names"] = np.array(self.rig.weight_names, dtype=np.str_)
        arrays["cameras"] = np.array([camera.name for camera in self.views.cameras], dtype=np.str_)
        with atomic_path(path, "stages") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        for view, camera in enumerate(self.views.cameras):
            overlay = stage_overlay(result, self.rig, camera, view)
            for row, frame in enumerate(result.frames):
                # The track's reasons tell of a plate that cannot be read; there is nothing to draw on.
                image = self.views.image(view, frame) if frame in self.frames else None
                if image is None:
                    continue
                plate = to_image(image.cpu().numpy())
                picture = draw_stage(overlay, row, plate)
                write_title(picture, stage_title(result), f"{frame}   {residual_text(result, row, view)}", camera.name)
                with atomic_path(folder / f"overlay_{frame}_{camera.name}.jpg", "stages") as temporary:
                    picture.save(temporary, quality=92)


def stage_overlay(result: StageResult, rig: Rig, camera: Camera, view: int) -> Overlay:
    """What draws the rig after a stage over the plates of one camera.

    Args:
        result, rig: what was solved.
        camera, view: the camera, and its place among those of the result.
    """
    count = len(result.state)
    state = [part.detach().cpu().double().numpy() for part in vars(result.state).values()]
    track = Track(
        np.array(result.frames, np.int64),
        *state,
        weight_names=rig.weight_names,
        status=np.full(count, "solved"),
        reason=np.full(count, ""),
        confidence=np.ones(count),
        landmark_residual_px=result.residual_px[:, view].detach().cpu().numpy(),
        landmarks_px={camera.name: result.plate_px[:, view].detach().cpu().numpy()},
        render_landmarks_px={camera.name: result.render_px[:, view].detach().cpu().numpy()},
        rig_name=rig.name,
    )
    return Overlay(track, rig, camera)


def draw_stage(
    overlay: Overlay,
    row: int,
    plate: Image.Image,
    window: tuple[float, float, float, float] | None = None,
    size: tuple[int, int] | None = None,
    dots: float = 1.7,
) -> Image.Image:
    """The rig's lines and, above all, the landmarks of one frame over its plate (figure 3 of the paper).

    Args:
        overlay, row: see `stage_overlay`; the row of the result.
        plate: the plate, RGB.
        window: part of the plate to show (x0, y0, x1, y1), plate pixels; all of it when None.
        size: size of the picture (width, height); the window's own when None.
        dots: radius of the landmarks, in pixels of a picture of 540 lines.
    """
    window = window or (0.0, 0.0, float(plate.width), float(plate.height))
    size = size or (round(window[2] - window[0]), round(window[3] - window[1]))
    image = plate.convert("RGB").transform(size, Image.Transform.EXTENT, window, Image.Resampling.BICUBIC)
    canvas, origin = Canvas(image), np.array(window[:2])
    scale = np.array(size) / (window[2] - window[0], window[3] - window[1])
    geometry, name = overlay.geometry(row), overlay.camera.name
    if geometry is not None:
        canvas.lines((geometry.segments - origin) * scale, WIRE, width=0.8, opacity=0.4)
        if geometry.landmarks is not None:
            rig_landmarks = (geometry.landmarks - origin) * scale
            canvas.contours(rig_landmarks, overlay.rig.layout, FEATURE, width=1.3, opacity=0.6)
    found, rendered = (
        (points[name][row] - origin) * scale
        for points in (overlay.track.landmarks_px, overlay.track.render_landmarks_px)
    )
    canvas.lines(np.stack([found, rendered], 1), CORRESPONDENCE, width=1.8, opacity=0.95)
    canvas.dots(rendered, RENDER_LANDMARK, radius=dots)
    canvas.dots(found, PLATE_LANDMARK, radius=dots)
    return canvas.image


def stage_title(result: StageResult) -> str:
    """The stage's place in the schedule and its name."""
    return f"{result.index + 1}  {result.stage.name}"


def residual_text(result: StageResult, row: int, view: int) -> str:
    """The mean landmark distance of one view, in words."""
    residual = float(result.residual_px[row, view])
    return f"landmarks {residual:.2f} px apart" if np.isfinite(residual) else "no face in this view"


def write_title(image: Image.Image, title: str, text: str, side: str = "") -> None:
    """Write a strip along the bottom of a picture: `title`, then `text`; `side` at the right."""
    unit = max(0.6, image.height / 540)
    bar, gap = round(_BAR * unit), 12 * unit
    top = image.height - bar
    image.paste((10, 12, 15), (0, top), Image.new("L", (image.width, bar), 190))
    pen, font, small = ImageDraw.Draw(image), font_of(16 * unit), font_of(14 * unit)
    middle, right = top + bar / 2, image.width - gap
    for words, colour in ((side, (180, 186, 194)), (text, (255, 214, 92))):
        if words:
            pen.text((right, middle), words, font=small, fill=colour, anchor="rm")
            right -= small.getlength(words) + gap
    pen.text((gap, middle), shorten(title, font, right - gap), font=font, fill=(255, 255, 255), anchor="lm")


def _arrays(result: StageResult) -> dict[str, np.ndarray]:
    tensors = {
        **vars(result.state),
        "plate_landmarks_px": result.plate_px,
        "landmark_residual_px": result.render_px - result.plate_px,
        "residual_px": result.residual_px,
    }
    arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
    return {"frames": np.array(result.frames, np.int64), **arrays}


def _merged(arrays: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """With the frames of another part of the shot, where the file has some; ascending."""
    if not path.is_file():
        return arrays
    try:
        with np.load(path, allow_pickle=False) as file:
            kept = {name: file[name] for name in arrays}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        remedy = "remove it; the shot's other stages are not touched"
        raise InputError("stages", f"{path}, which cannot be read ({error})", "a stage's state", remedy) from error
    old = ~np.isin(kept["frames"], arrays["frames"])
    order = np.argsort(np.concatenate([kept["frames"][old], arrays["frames"]]))
    return {name: np.concatenate([kept[name][old], value])[order] for name, value in arrays.items()}
