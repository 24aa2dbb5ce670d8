"""What every stage did, on disk: parameters, residuals, overlays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused
from tiny_shot import tiny_camera, tiny_rig, tiny_track

from deepenergy import InputError, Plates, Rig
from deepenergy.fit.stage_result import StageResult, stage_result
from deepenergy.report import StageRecorder
from deepenergy.report.overlay import CORRESPONDENCE
from deepenergy.report.stage_figure import PANEL, stage_figure
from deepenergy.scene.views import Views
from deepenergy.settings.schedule import DEFAULT_STAGES

FRAMES = (1001, 1002, 1003)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return tiny_rig()


def plates(name: str, first: int = 1001, count: int = 3) -> Plates:
    return Plates.from_array(np.full((count, 80, 96, 3), 90, np.uint8), first, name)


def seen_by(name: str) -> Views:
    return Views.match(plates(name), tiny_camera())


def result(rig: Rig, index: int = 0, frames: tuple[int, ...] = FRAMES, views: int = 1) -> StageResult:
    """A stage of states near each other, whose render landmarks are 3 px right and 4 px below the plate's."""
    state = tiny_track(len(frames), frames[0], seed=index).parameters()
    points = torch.stack([tiny_camera().project(rig.landmarks(rig.vertices(state)))] * views, 1).double()
    plate = points - torch.tensor([3.0, 4.0])
    found = (plate, points, torch.zeros_like(points), torch.ones(*points.shape[:3]))
    return replace(stage_result(index, DEFAULT_STAGES[index], state, *found), frames=frames)


def content(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_the_residual_is_of_the_sure_landmarks_of_each_view(rig: Rig) -> None:
    state = tiny_track(2).parameters()
    points = torch.zeros(2, 2, 68, 2, dtype=torch.float64)
    plate = points.clone()
    plate[0, 0, :34, 0] = 6.0
    plate[1, 1] = torch.nan
    offsets = torch.zeros_like(points)
    offsets[1, 0, :, 1] = 2.0
    trust = torch.ones(2, 2, 68)
    trust[0, 0, 34:51] = 0.1
    made = stage_result(0, DEFAULT_STAGES[0], state, plate, points, offsets, trust)
    assert made.residual_px[0].tolist() == pytest.approx([6.0 * 34 / 51, 0.0])
    assert float(made.residual_px[1, 0]) == pytest.approx(2.0)
    assert torch.isnan(made.residual_px[1, 1]) and torch.isnan(made.render_px[1, 1]).all()


def test_every_stage_has_its_folder(rig: Rig, tmp_path: Path) -> None:
    recorder = StageRecorder(tmp_path / "stages", seen_by("left"), rig, frames=[1002])
    # The third stage was left out.
    for index in (0, 1, 3):
        recorder(result(rig, index))
    names = sorted(path.name for path in (tmp_path / "stages").iterdir())
    assert names == ["01_translation_non_jaw", "02_rigid_non_jaw", "04_rigid_all"]
    for index, name in zip((0, 1, 3), names, strict=True):
        folder = tmp_path / "stages" / name
        assert {path.name for path in folder.iterdir()} == {"state.npz", "overlay_1002_left.jpg"}
        arrays, truth = content(folder / "state.npz"), tiny_track(3, seed=index)
        assert arrays["frames"].tolist() == list(FRAMES)
        for part in ("rotation", "translation", "jaw", "weights"):
            np.testing.assert_array_equal(arrays[part], getattr(truth, part))
        assert arrays["weight_names"].tolist() == list(rig.weight_names) and arrays["cameras"].tolist() == ["left"]
        np.testing.assert_allclose(arrays["landmark_residual_px"], np.broadcast_to([3.0, 4.0], (3, 1, 68, 2)))
        np.testing.assert_allclose(arrays["residual_px"], 5.0)


def test_the_overlay_shows_the_rig_on_the_plate(rig: Rig, tmp_path: Path) -> None:
    StageRecorder(tmp_path, seen_by("left"), rig)(result(rig))
    picture = np.asarray(Image.open(tmp_path / "01_translation_non_jaw" / "overlay_1001_left.jpg")).astype(float)
    assert picture.shape == (80, 96, 3)
    # Grey plates: colour is what was drawn, and the rig is in the middle.
    colour = np.ptp(picture[:60], axis=2)
    assert (colour[20:60, 24:72] > 30).mean() > 0.2
    assert (colour[:6, :6] > 30).mean() == 0.0


def test_parts_of_a_shot_and_repeated_ones_make_one_file(rig: Rig, tmp_path: Path) -> None:
    recorder = StageRecorder(tmp_path, Views.match(plates("left", count=6), tiny_camera()), rig, frames=[])
    later, first = result(rig, frames=(1004, 1005, 1006)), result(rig)
    for part in (later, first, later):
        recorder(part)
    arrays = content(tmp_path / "01_translation_non_jaw" / "state.npz")
    assert arrays["frames"].tolist() == list(range(1001, 1007))
    np.testing.assert_array_equal(arrays["weights"][3:], later.state.weights.numpy())
    np.testing.assert_array_equal(arrays["weights"][:3], first.state.weights.numpy())


def test_a_new_solve_removes_the_old_stages_and_nothing_else(rig: Rig, tmp_path: Path) -> None:
    arguments = (seen_by("left"), rig)
    StageRecorder(tmp_path, *arguments)(result(rig))
    (tmp_path / "99_notes").mkdir()
    StageRecorder(tmp_path, *arguments, go_on=True)
    assert {path.name for path in tmp_path.iterdir()} == {"01_translation_non_jaw", "99_notes"}
    StageRecorder(tmp_path, *arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"99_notes"}


def test_a_view_without_the_frame_has_no_picture(rig: Rig, tmp_path: Path) -> None:
    shown = [plates("left"), plates("right", first=1002)]
    views = Views.match(shown, [tiny_camera("left"), tiny_camera("right")])
    seen = result(rig, views=2)
    seen.plate_px[0, 1] = torch.nan
    StageRecorder(tmp_path, views, rig, frames=[1001, 1002])(seen)
    folder = tmp_path / "01_translation_non_jaw"
    pictures = {"overlay_1001_left.jpg", "overlay_1002_left.jpg", "overlay_1002_right.jpg"}
    assert {path.name for path in folder.iterdir()} == {"state.npz", *pictures}
    assert np.isnan(content(folder / "state.npz")["landmark_residual_px"][0, 1]).all()


def test_what_cannot_be_recorded_is_refused(rig: Rig, tmp_path: Path) -> None:
    with refused(found="left, left"):
        StageRecorder(tmp_path, Views.match([plates("left")] * 2, [tiny_camera("left")] * 2), rig)
    with refused("stages frames", found="2001", expected="1001-1003"):
        StageRecorder(tmp_path, seen_by("left"), rig, frames=[2001])
    recorder = StageRecorder(tmp_path, seen_by("left"), rig)
    recorder(result(rig))
    (tmp_path / "01_translation_non_jaw" / "state.npz").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"state\.npz, which cannot be read"):
        recorder(result(rig))


# -- the figure ----------------------------------------------------------------------------------------------------


def red(picture: np.ndarray) -> int:
    """Pixels in the colour of the lines between landmarks."""
    return int((np.abs(picture.astype(float) - CORRESPONDENCE).max(-1) < 40).sum())


def test_the_figure_has_the_plate_and_a_panel_for_every_stage(rig: Rig) -> None:
    first, last = result(rig, 0), result(rig, 3)
    last = replace(last, plate_px=last.render_px, residual_px=torch.zeros_like(last.residual_px))
    elsewhere = result(rig, 1, frames=(1004, 1005))
    plate = Image.new("RGB", (96, 80), (90, 90, 90))
    figure = stage_figure([first, elsewhere, last], 1002, plate, rig, tiny_camera(), columns=3)
    pixels = np.asarray(figure)
    assert pixels.shape[1] > 3 * PANEL[0] and PANEL[1] < pixels.shape[0] < 1.3 * PANEL[1]
    panels = [pixels[60 : 40 + PANEL[1] - 20, 16 + i * (PANEL[0] + 6) :][:, : PANEL[0]] for i in range(3)]
    # Grey alone; the landmarks 5 px apart; the landmarks on each other.
    assert np.ptp(panels[0][:300].astype(int), axis=-1).max() < 10
    assert red(panels[1]) > 500 and red(panels[2]) == 0
    two = stage_figure([first, last], 1002, plate, rig, tiny_camera(), columns=2)
    assert two.height > 2 * PANEL[1]


def test_a_figure_of_a_frame_that_was_not_solved_is_refused(rig: Rig) -> None:
    with refused("frame", found="1009"):
        stage_figure([result(rig)], 1009, Image.new("RGB", (96, 80)), rig, tiny_camera())
