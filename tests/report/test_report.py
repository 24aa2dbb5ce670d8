"""Overlays, contact sheets and the report page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_shot import WEIGHTS, fail_frame, tiny_camera, tiny_rig, tiny_track
from torch import Tensor

from deepenergy import PlateError, Plates
from deepenergy.report import write_report
from deepenergy.report.contact_sheet import TILE, contact_sheet, draw_tile, evenly_spaced, face_windows
from deepenergy.report.overlay import (
    CORRESPONDENCE,
    PLATE_LANDMARK,
    RENDER_LANDMARK,
    STATUS,
    Canvas,
    Overlay,
    dark_card,
    shorten,
    to_image,
    write_overlay_video,
)
from deepenergy.report.page import frame_ranges
from deepenergy.report.plots import track_plots
from deepenergy.report.wireframe import surface_lines, visible_lines
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.state import State
from deepenergy.scene.track import Track
from deepenergy.scene.views import Views

RIG, CAMERA = tiny_rig(), tiny_camera()


class GreyFrames:
    """Frames in memory; 1003 is damaged and 1005 of another size."""

    def __init__(self, frames: int = 6) -> None:
        self.frames = tuple(range(1001, 1001 + frames))

    def size(self, frame: int) -> tuple[int, int]:
        return (10, 10) if frame == 1005 else (96, 80)

    def read(self, frame: int) -> Tensor:
        if frame == 1003:
            raise PlateError(1003, "plates frame 1003", "a truncated PNG", "a whole image", "copy it again")
        width, height = self.size(frame)
        return torch.full((3, height, width), 0.5)

    def problems(self, frames: Sequence[int]) -> dict[int, str]:
        return {}


def grey(*names: str, frames: tuple[int, ...] = (6, 6)) -> Views:
    shown = [Plates(GreyFrames(count), name) for name, count in zip(names, frames, strict=False)]
    return Views.match(shown, [tiny_camera(name) for name in names])


def centred(frames: int = 6) -> Track:
    return replace(tiny_track(frames), translation=np.zeros((frames, 3)), jaw=np.zeros((frames, 6)))


def close(image: Image.Image, colour: tuple[int, int, int], tolerance: int = 24) -> np.ndarray:
    return np.all(np.abs(np.asarray(image).astype(int) - colour) <= tolerance, axis=2)


# -- lines of the surface -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subdivisions", "spacing", "edges"), [(2, 0.01, True), (4, 0.02, False)])
def test_lines_lie_on_the_surface(subdivisions: int, spacing: float, edges: bool) -> None:
    rig = tiny_rig(subdivisions)
    lines = surface_lines(rig, spacing)
    neutral = rig.neutral.double().numpy()
    points = lines.points(neutral)
    assert (lines.shares >= 0).all()
    assert (lines.shares <= 1).all()
    radius = np.linalg.norm(points, axis=-1)
    # Chords of a ball of 9 cm lie a little inside it.
    assert radius.max() <= 0.09 + 1e-6
    assert radius.min() > 0.085
    is_edge = (lines.shares == [0, 1]).all()
    assert is_edge == edges
    if edges:
        assert len(lines.faces) == 3 * len(rig.faces) // 2
    corners = rig.faces.numpy()[lines.faces]
    assert (lines.vertices[..., None] == corners[:, None, None, :]).any(-1).all()


def test_lattice_lines_are_level_and_evenly_spaced() -> None:
    rig = tiny_rig(4)
    lines = surface_lines(rig, 0.02)
    heights = lines.points(rig.neutral.double().numpy())[..., 1]
    level = np.abs(np.diff(heights, axis=1)[:, 0]) < 1e-6
    found = np.unique(np.round(heights[level].mean(1), 5))
    assert len(found) >= 8
    np.testing.assert_allclose(np.diff(found), 0.02, atol=1e-5)


def test_lines_move_with_the_mesh() -> None:
    rig = tiny_rig(4)
    lines = surface_lines(rig, 0.02)
    shift = np.array([0.1, -0.2, 0.3])
    neutral = rig.neutral.double().numpy()
    np.testing.assert_allclose(lines.points(neutral + shift), lines.points(neutral) + shift, atol=1e-12)


def test_only_the_near_side_is_visible() -> None:
    rig = tiny_rig(4)
    vertices = rig.vertices(State.identity(1, len(WEIGHTS)))
    in_camera = CAMERA.camera_points(vertices)[0]
    pixels = CAMERA.pixels(in_camera).numpy()
    lines = surface_lines(rig, 0.01)
    seen = visible_lines(lines, in_camera.numpy(), pixels, rig.faces.numpy(), CAMERA)
    middle = lines.points(vertices[0].numpy()).mean(1)
    eye = -CAMERA.world_to_camera[:3, :3].T.numpy() @ CAMERA.world_to_camera[:3, 3].numpy()
    # A point of a ball is seen where the line to the eye leaves it outwards.
    outward = ((eye - middle) * middle).sum(1) / np.linalg.norm(eye - middle, axis=1) / 0.09
    assert seen[outward > 0.3].mean() > 0.99
    assert not seen[outward < -0.1].any()


def test_a_surface_hides_what_is_behind_it() -> None:
    """Two front-facing squares, one behind the other: only the near one's lines, and the far one's rim."""
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=np.float64)
    grid = np.concatenate([square * 0.05 + [0, 0, 0.05], square * 0.06])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    rig = replace(
        RIG, neutral=torch.from_numpy(grid).float(), faces=faces, blendshapes=torch.zeros(3, 8, 3), jaw=None,
        landmark_faces=None, landmark_barycentrics=None, face_regions=None,
    )  # fmt: skip
    camera = Camera.look_at(96, 80, 300.0, (0, 0, 0.8))
    in_camera = camera.camera_points(torch.from_numpy(grid))
    lines = surface_lines(rig, 0.02)
    seen = visible_lines(lines, in_camera.numpy(), camera.pixels(in_camera).numpy(), faces.numpy(), camera)
    near = lines.faces < 2
    assert seen[near].all()
    diagonal = ~near & (np.abs(lines.points(grid).mean(1)[:, :2]).max(1) < 0.01)
    assert diagonal.any()
    assert not seen[diagonal].any()


# -- drawing ------------------------------------------------------------------------------------------------------


def test_landmarks_are_drawn_where_they_are() -> None:
    plate = np.full((68, 2), np.nan)
    render = plate.copy()
    plate[0], render[0] = (30.0, 30.0), (50.0, 60.0)
    track = replace(centred(1), landmarks_px={"left": plate[None]}, render_landmarks_px={"left": render[None]})
    black = Image.new("RGB", (96, 80))
    # The rig is out of the picture, so that nothing but landmarks is in it.
    far = replace(CAMERA, intrinsics=torch.tensor([300.0, 300.0, 900.0, 900.0]))
    image = Overlay(track, RIG, far).draw(0, black, caption=False)
    for colour, (x, y) in ((PLATE_LANDMARK, plate[0]), (RENDER_LANDMARK, render[0])):
        rows, columns = np.nonzero(close(image, colour, 60))
        assert abs(rows.mean() + 0.5 - y) < 0.5
        assert abs(columns.mean() + 0.5 - x) < 0.5
    rows, columns = np.nonzero(close(image, CORRESPONDENCE, 90))
    assert len(rows) > 10
    # All of the red lies on the line between the two.
    across = np.abs((columns + 0.5 - 30) * 30 - (rows + 0.5 - 30) * 20) / np.hypot(30, 20)
    assert across.max() < 2


def test_lines_are_antialiased_and_where_they_are_said_to_be() -> None:
    canvas = Canvas(Image.new("RGB", (64, 64)))
    canvas.lines(np.array([[[8.0, 20.0], [56.0, 20.0]], [[5.0, 30.0], [60.0, 55.0]]]), (255, 255, 255), 1, 1)
    values = np.asarray(canvas.image)[..., 0].astype(float)
    centre = (values[12:28, 30] * (np.arange(12, 28) + 0.5)).sum() / values[12:28, 30].sum()
    assert abs(centre - 20) <= 0.25
    assert len(np.unique(values[28:])) > 2


def test_the_wire_covers_the_rig_and_nothing_else() -> None:
    track = replace(centred(1), landmarks_px={}, render_landmarks_px={})
    image = np.asarray(Overlay(track, RIG, CAMERA).draw(0, Image.new("RGB", (96, 80)), caption=False))
    drawn = image.any(2)
    pixels = CAMERA.project(torch.from_numpy(track.vertices(RIG)))[0].numpy()
    low, high = pixels.min(0) - 2, pixels.max(0) + 2
    rows, columns = np.nonzero(drawn)
    assert columns.min() >= low[0]
    assert columns.max() <= high[0]
    assert rows.min() >= low[1]
    assert rows.max() <= high[1]
    assert drawn.sum() > 500


def test_box_and_size_zoom_into_the_plate() -> None:
    ramp = Image.fromarray(np.tile(np.arange(96, dtype=np.uint8)[None, :, None] * 2, (80, 1, 3)))
    overlay = Overlay(fail_frame(centred(1), 0), RIG, CAMERA)
    overlay = Overlay(replace(overlay.track, landmarks_px={}, render_landmarks_px={}), RIG, CAMERA)
    image = overlay.draw(0, ramp, box=(40, 20, 60, 40), size=(200, 200), caption=False)
    assert image.size == (200, 200)
    # The centre of the box is x = 50, between the pixels 49 and 50 (values 98 and 100).
    assert abs(float(np.asarray(image)[100, 99:101, 0].mean()) - 99) <= 1


def test_a_failed_frame_shows_its_plate_and_says_failed() -> None:
    track = fail_frame(centred(1), 0)
    camera = replace(CAMERA, width=480, height=400, name="other")
    image = Overlay(track, RIG, camera).draw(0, Image.new("RGB", (480, 400), (90, 90, 90)))
    assert close(image, STATUS["failed"], 4).sum() > 100
    assert (np.asarray(image)[:350] == 90).all()


def test_a_rig_behind_the_camera_draws_nothing() -> None:
    track = replace(centred(1), translation=np.array([[0, 0, 5.0]]), landmarks_px={}, render_landmarks_px={})
    assert Overlay(track, RIG, CAMERA).geometry(0) is None


def test_another_rig_is_refused() -> None:
    with pytest.raises(InputError, match="weight names"):
        Overlay(centred(), replace(RIG, weight_names=("a", "b", "c")), CAMERA)


def test_plates_become_eight_bit_pictures() -> None:
    plate = np.array([0.0, 0.5, 1.0, 1.2], dtype=np.float32)[None, None].repeat(3, 0)
    assert np.asarray(to_image(plate))[0, :, 0].tolist() == [0, 128, 255, 255]


def test_long_captions_are_cut() -> None:
    canvas = Canvas(Image.new("RGB", (400, 300)))
    from deepenergy.report.overlay import font_of

    font = font_of(12)
    assert shorten("short", font, 200) == "short"
    cut = shorten("a reason that is much too long for the picture", font, 100)
    assert cut.endswith("...")
    assert font.getlength(cut) <= 100
    assert shorten("anything", font, 2) == ""
    canvas.caption("1001", "solved", "x" * 300, side="left")
    assert dark_card((300, 200), 1001, "word " * 80).size == (300, 200)


# -- video --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(96, 80), (95, 79)])
def test_video_plays_everywhere(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "o.mp4"
    frames = [np.full((size[1], size[0], 3), 40 * i, dtype=np.uint8) for i in range(5)]
    assert write_overlay_video(path, frames, 24) == 5
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (96, 80)
        assert stream.average_rate == 24
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [round(float(d.mean()) / 40) for d in decoded] == [0, 1, 2, 3, 4]
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"]


def test_a_video_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def frames():
        yield np.zeros((80, 96, 3), dtype=np.uint8)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_overlay_video(tmp_path / "o.mp4", frames(), 24)
    assert list(tmp_path.iterdir()) == []


# -- contact sheet ------------------------------------------------------------------------------------------------


def test_rows_are_spread_evenly() -> None:
    assert evenly_spaced(5, 12) == [0, 1, 2, 3, 4]
    chosen = evenly_spaced(96, 12)
    assert len(chosen) == 12
    assert (chosen[0], chosen[-1]) == (0, 95)
    assert set(np.diff(chosen)) <= {8, 9}
    assert evenly_spaced(96, 1) == [0]


def test_tiles_are_windows_of_one_size_on_the_face() -> None:
    track = fail_frame(tiny_track(6), 2)
    overlay = Overlay(track, RIG, CAMERA)
    windows = face_windows(overlay, list(range(6)))
    assert sorted(windows) == [0, 1, 3, 4, 5]
    assert len({round(x1 - x0, 6) for x0, _, x1, _ in windows.values()}) == 1
    tiles = [draw_tile(overlay, row, Image.new("RGB", (96, 80), (90, 90, 90)), windows) for row in range(6)]
    assert all(tile.image.size == TILE for tile in tiles)
    sheet = contact_sheet(overlay, tiles, columns=3)
    assert sheet.width > 3 * TILE[0]
    assert sheet.height > 2 * TILE[1]
    assert close(sheet, STATUS["failed"], 2).sum() >= 3 * TILE[0]


# -- page and folder ----------------------------------------------------------------------------------------------


def test_frame_ranges() -> None:
    assert frame_ranges(np.array([1001, 1002, 1003, 1007, 1009, 1010])) == "1001-1003, 1007, 1009-1010"
    assert frame_ranges(np.array([], dtype=int)) == ""


@pytest.mark.parametrize("which", ["one frame", "all failed", "no weights", "gap"])
def test_plots_of_odd_tracks(which: str) -> None:
    track = tiny_track(1 if which == "one frame" else 4)
    if which == "all failed":
        for row in range(4):
            track = fail_frame(track, row)
    if which == "no weights":
        track = replace(track, weights=np.zeros((4, 0)), weight_names=())
    if which == "gap":
        track = replace(track, frames=np.array([1001, 1002, 1050, 1051]))
    svg = track_plots(track)
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")


def test_report_is_whole(tmp_path: Path) -> None:
    track = fail_frame(tiny_track(6), 3, "no face <found> & lost")
    steps: list[tuple[str, int, int]] = []
    folder = tmp_path / "new" / "out"
    written = write_report(folder, track, RIG, grey("left", "right", frames=(6, 5)), lambda *step: steps.append(step))
    expected = {"report.html"} | {
        f"{kind}.{camera}.{ending}"
        for camera in ("left", "right")
        for kind, ending in (("overlay", "mp4"), ("contact_sheet", "png"))
    }
    assert {p.name for p in folder.iterdir()} == expected == {p.name for p in written}
    assert steps[-1] == ("overlay right", 6, 6)
    assert len(steps) == 12
    with av.open(str(folder / "overlay.left.mp4")) as container:
        decoded = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(decoded) == 6
    # The damaged and the odd-sized plate are dark cards; the others are grey.
    assert [float(np.median(d)) < 60 for d in decoded] == [False, False, True, False, True, False]

    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "no face &lt;found&gt; &amp; lost" in page
    assert "overlay.right.mp4" in page
    assert page.count("data:image/jpeg;base64,") == 2
    # Self-contained: nothing is loaded from elsewhere.
    assert not re.search(r"(src|href)='(https?:)?//", page)
    assert "<script" not in page


def test_report_refuses_what_does_not_match(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="different names"):
        write_report(tmp_path, tiny_track(6), RIG, grey("left", "left"))
    with pytest.raises(InputError, match="no frames"):
        write_report(tmp_path, tiny_track(0), RIG, grey("left"))
    assert list(tmp_path.iterdir()) == []
