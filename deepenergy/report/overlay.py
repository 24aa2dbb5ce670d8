"""What a supervisor looks at: the rig's lines, its features and the landmarks over the plate.

Colours of the landmarks follow figure 3 of the paper: teal for those detected on the plate, green for those detected
on the render, red lines between the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from deepenergy.report.wireframe import SurfaceLines, surface_lines, visible_lines
from deepenergy.runtime.atomic import atomic_path
from deepenergy.scene.camera import Camera
from deepenergy.scene.landmark_layout import LandmarkLayout
from deepenergy.scene.rig import Rig
from deepenergy.scene.state import State
from deepenergy.scene.track import Track

WIRE = (120, 205, 255)
FEATURE = (255, 214, 92)
PLATE_LANDMARK = (0, 200, 200)
RENDER_LANDMARK = (70, 235, 90)
CORRESPONDENCE = (240, 60, 60)
STATUS = {"solved": (64, 180, 100), "infilled": (226, 160, 40), "failed": (214, 64, 64)}

# The length of a line of the lattice's mesh, in pixels of a 540-line image.
_LATTICE_PX = 9.0
_REFERENCE_LINES = 540


@dataclass(frozen=True, eq=False)
class FrameGeometry:
    """What the camera sees of the rig in one frame, plate pixels.

    Attributes:
        segments: `[S, 2, 2]` visible lines of the surface.
        landmarks: `[L, 2]` the rig's own landmarks, or None.
    """

    segments: np.ndarray
    landmarks: np.ndarray | None


class Overlay:
    """Draws one camera's view of a track over its plates.

    Args:
        track, rig, camera: the solved shot.

    Raises:
        InputError: the rig is not the track's.
    """

    def __init__(self, track: Track, rig: Rig, camera: Camera) -> None:
        track.check_rig(rig)
        self.track, self.rig, self.camera = track, rig, camera
        states = track.parameters()
        # A hundredth of a pixel is more than a picture shows: single precision, and half the time.
        self._states = State(*(v.to(torch.float32) for v in vars(states).values()))
        self._faces = rig.faces.cpu().numpy()
        self._lines: SurfaceLines | None = None

    def geometry(self, row: int) -> FrameGeometry | None:
        """The rig in the track's row `row`; None where that frame failed or is behind the camera."""
        if not self.track.usable[row]:
            return None
        mesh = self.rig.vertices(self._states[[row]])
        camera = self.camera.at([int(self.track.frames[row])])
        points = camera.camera_points(mesh)
        depth = points[0, :, 2]
        if float(depth.min()) <= 0:
            return None
        pixels = camera.pixels(points)[0].cpu().numpy()
        if self._lines is None:
            metres_per_pixel = float(depth.median() / camera.intrinsics[..., 1].reshape(()))
            self._lines = surface_lines(self.rig, _LATTICE_PX * _unit(self.camera.height) * metres_per_pixel)
        seen = visible_lines(self._lines, points[0].cpu().numpy(), pixels, self._faces, self.camera)
        landmarks = None
        if self.rig.landmark_faces is not None:
            landmarks = camera.project(self.rig.landmarks(mesh))[0].cpu().numpy()
        return FrameGeometry(self._lines.points(pixels)[seen], landmarks)

    def draw(
        self,
        row: int,
        plate: Image.Image,
        box: tuple[float, float, float, float] | None = None,
        size: tuple[int, int] | None = None,
        caption: bool = True,
        lines: bool = True,
    ) -> Image.Image:
        """The overlay of one frame.

        Args:
            row: row of the track.
            plate: the plate, RGB.
            box: part of the plate to show (x0, y0, x1, y1), plate pixels; all of it when None.
            size: size of the result (width, height); the part's own when None.
            caption: whether to write frame, status and confidence underneath.
            lines: whether to draw the rig and the landmarks; not over a card in place of a plate.
        """
        box = box or (0.0, 0.0, float(plate.width), float(plate.height))
        size = size or (round(box[2] - box[0]), round(box[3] - box[1]))
        image = plate.convert("RGB")
        if box != (0.0, 0.0, float(plate.width), float(plate.height)) or size != plate.size:
            image = image.transform(size, Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
        canvas = Canvas(image)
        if lines:
            self._draw_lines(canvas, row, np.array(box[:2]), np.array(size) / (box[2] - box[0], box[3] - box[1]))
        if caption:
            canvas.caption(*self._caption(row), side=self.camera.name)
        return canvas.image

    def _draw_lines(self, canvas: Canvas, row: int, origin: np.ndarray, scale: np.ndarray) -> None:
        geometry = self.geometry(row)
        if geometry is not None:
            canvas.lines((geometry.segments - origin) * scale, WIRE, width=0.8, opacity=0.5)
            if geometry.landmarks is not None:
                rig_landmarks = (geometry.landmarks - origin) * scale
                canvas.contours(rig_landmarks, self.rig.layout, FEATURE, width=1.8, opacity=0.95)
        found = self.track.landmarks_px.get(self.camera.name)
        rendered = self.track.render_landmarks_px.get(self.camera.name)
        draw_landmarks(
            canvas,
            None if found is None else (found[row] - origin) * scale,
            None if rendered is None else (rendered[row] - origin) * scale,
        )

    def _caption(self, row: int) -> tuple[str, str, str]:
        track = self.track
        status = str(track.status[row])
        text = f"confidence {track.confidence[row]:.2f}"
        if np.isfinite(track.landmark_residual_px[row]):
            text += f"   residual {track.landmark_residual_px[row]:.2f} px"
        if track.reason[row]:
            text += f"   {track.reason[row]}"
        return f"{track.frames[row]}", status, text


class Canvas:
    """An image that lines are drawn on with antialiasing: masks at twice the size, reduced and blended."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        # Large plates have lines of several pixels; the second sampling there would only cost time.
        self._samples = 2 if max(image.size) <= 2400 else 1
        self._unit = _unit(image.height)

    def _blend(self, mask: Image.Image, colour: tuple[int, int, int], opacity: float) -> None:
        if self._samples > 1:
            mask = mask.reduce(self._samples)
        self.image.paste(colour, mask=mask.point(lambda v: int(v * opacity)))

    def _mask(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        mask = Image.new("L", (self.image.width * self._samples, self.image.height * self._samples), 0)
        return mask, ImageDraw.Draw(mask)

    def _pen_width(self, width: float) -> int:
        return max(self._samples, round(width * self._unit * self._samples))

    def _pen_points(self, points: np.ndarray, width: int) -> np.ndarray:
        """Canvas pixels to Pillow's coordinates: it cuts them to whole pixels, and widens even lines to the right."""
        return points * self._samples - (0.5 if width % 2 == 0 else 0.0)

    def lines(
        self, segments: Float[np.ndarray, "s 2 2"], colour: tuple[int, int, int], width: float, opacity: float
    ) -> None:
        """Draw segments; `width` in pixels of a 540-line image. Segments with NaN are left out."""
        mask, pen = self._mask()
        pixels = self._pen_width(width)
        drawn = segments[np.isfinite(segments).all((1, 2))]
        for ends in self._pen_points(drawn, pixels).reshape(-1, 4).tolist():
            pen.line(ends, fill=255, width=pixels)
        self._blend(mask, colour, opacity)

    def contours(
        self,
        landmarks: Float[np.ndarray, "l 2"],
        layout: LandmarkLayout,
        colour: tuple[int, int, int],
        width: float,
        opacity: float,
    ) -> None:
        """Draw the face's features (jaw line, brows, nose, lids, lips) through the landmarks of a scheme."""
        mask, pen = self._mask()
        pixels = self._pen_width(width)
        for contour in layout.contours.values():
            points = landmarks[contour.line]
            if np.isfinite(points).all():
                line = [(float(x), float(y)) for x, y in self._pen_points(points, pixels)]
                pen.line(line, fill=255, width=pixels, joint="curve")
        self._blend(mask, colour, opacity)

    def dots(self, points: Float[np.ndarray, "n 2"], colour: tuple[int, int, int], radius: float) -> None:
        """Draw dots; `radius` in pixels of a 540-line image. Points with NaN are left out."""
        r = max(1.0, radius * self._unit) * self._samples
        for grow, tint, opacity in ((0.8 * self._unit * self._samples, (0, 0, 0), 0.55), (0.0, colour, 1.0)):
            mask, pen = self._mask()
            for x, y in (points[np.isfinite(points).all(1)] * self._samples - 0.5).tolist():
                pen.ellipse((x - r - grow, y - r - grow, x + r + grow, y + r + grow), fill=255)
            self._blend(mask, tint, opacity)

    def caption(self, frame: str, status: str, text: str, side: str = "") -> None:
        """Write a strip along the bottom: frame number, status, then `text`; `side` at the right."""
        bar = round(24 * self._unit)
        top = self.image.height - bar
        shade = Image.new("L", (self.image.width, bar), 165)
        self.image.paste((10, 12, 15), (0, top), shade)
        pen = ImageDraw.Draw(self.image)
        font, small = font_of(13 * self._unit), font_of(12 * self._unit)
        middle, gap = top + bar / 2, 10 * self._unit
        x = gap
        pen.text((x, middle), frame, font=font, fill=(255, 255, 255), anchor="lm")
        x += font.getlength(frame) + gap
        pill = small.getlength(status) + gap
        box = (x, top + 0.18 * bar, x + pill, top + 0.82 * bar)
        pen.rounded_rectangle(box, radius=0.2 * bar, fill=STATUS[status])
        pen.text((x + pill / 2, middle), status, font=small, fill=(255, 255, 255), anchor="mm")
        x += pill + gap
        right = self.image.width - gap
        if side:
            pen.text((right, middle), side, font=small, fill=(180, 186, 194), anchor="rm")
            right -= small.getlength(side) + gap
        pen.text((x, middle), shorten(text, small, right - x), font=small, fill=(214, 219, 226), anchor="lm")


def draw_landmarks(
    canvas: Canvas, plate: Float[np.ndarray, "l 2"] | None, render: Float[np.ndarray, "l 2"] | None
) -> None:
    """Draw plate landmarks, render landmarks and the lines between them (figure 3 of the paper), canvas pixels."""
    if plate is not None and render is not None:
        canvas.lines(np.stack([plate, render], 1), CORRESPONDENCE, width=1.4, opacity=0.95)
    if render is not None:
        canvas.dots(render, RENDER_LANDMARK, radius=1.5)
    if plate is not None:
        canvas.dots(plate, PLATE_LANDMARK, radius=1.5)


def dark_card(size: tuple[int, int], frame: int, reason: str) -> Image.Image:
    """A frame in place of a plate that cannot be read, with the reason."""
    image = Image.new("RGB", size, (24, 26, 30))
    unit = _unit(size[1])
    pen = ImageDraw.Draw(image)
    pen.text((size[0] / 2, size[1] / 2 - 26 * unit), f"no plate {frame}", font=font_of(20 * unit),
             fill=(235, 238, 242), anchor="mm")  # fmt: skip
    font = font_of(12 * unit)
    lines = _wrap(reason, font, size[0] * 0.84)[:4]
    for i, line in enumerate(lines):
        y = size[1] / 2 + (4 + 17 * i) * unit
        pen.text((size[0] / 2, y), line, font=font, fill=(170, 176, 184), anchor="mm")
    return image


def to_image(plate: Float[np.ndarray, "3 h w"]) -> Image.Image:
    """A plate in [0, 1], display-referred, as an 8-bit picture."""
    return Image.fromarray((plate.transpose(1, 2, 0).clip(0, 1) * 255 + 0.5).astype(np.uint8))


def write_overlay_video(path: str | Path, frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float) -> int:
    """Write frames as H.264 (yuv420p, plays everywhere), whole or not at all; odd sizes are padded by one pixel.

    Args:
        path: an `.mp4`.
        frames: RGB frames of one size, at least one.
        fps: frames a second.

    Returns:
        The number of frames written.

    Raises:
        InputError: the folder does not exist.
    """
    import av

    count = 0
    fast_start = {"movflags": "+faststart"}
    with atomic_path(path, "overlay video") as temporary, av.open(str(temporary), "w", options=fast_start) as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "18", "preset": "veryfast"}
        )
        for frame in frames:
            height, width = frame.shape[:2]
            padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if count == 0:
                stream.height, stream.width = padded.shape[:2]
                stream.pix_fmt = "yuv420p"
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
            container.mux(stream.encode(picture))
            count += 1
        container.mux(stream.encode())
    return count


def font_of(size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own font, so that nothing depends on the machine's fonts."""
    return ImageFont.load_default(size=max(8.0, size))  # pyright: ignore[reportReturnType]


def shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """`text`, cut with an ellipsis where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..." if text else ""


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [shorten(line, font, width) for line in lines]


def _unit(height: float) -> float:
    return max(0.6, height / _REFERENCE_LINES)
