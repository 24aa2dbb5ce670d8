"""Cameras of one shot are matched by frame number; what one lacks is solved from the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused

from deepenergy import Camera, InputError, Plates, Rig, Solver, SolverConfig, Stage, State
from deepenergy.fit.stage_result import StageResult
from deepenergy.render import Renderer
from deepenergy.report import StageRecorder
from deepenergy.report.terminal import summary
from deepenergy.scene.rotation import euler_to_matrix, rotation_angle
from deepenergy.scene.views import Views

YAWS = (-14.0, -4.0, 6.0, 16.0)
LANDMARKS = {"brows": 1.0, "nose": 1.0, "eyes": 1.0, "mouth": 1.0}
RIGID = (
    Stage("rigid", True, True, (), LANDMARKS, renders=1, iterations=10),
    Stage("again", True, True, (), LANDMARKS, renders=1, iterations=10, readings=2),
)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return Rig.load("builtin")


@pytest.fixture(scope="module")
def truth(rig: Rig) -> State:
    euler = torch.tensor([[0.04, np.radians(yaw), 0.02] for yaw in YAWS], dtype=torch.float64)
    state = State.identity(len(YAWS), len(rig.weight_names))
    shift = torch.tensor([[0.01 * i, 0.0, 0.01] for i in range(len(YAWS))], dtype=torch.float64)
    return replace(state, rotation=euler_to_matrix(euler), translation=shift)


@pytest.fixture(scope="module")
def cameras(rig: Rig) -> list[Camera]:
    x, y, z = rig.landmarks(rig.neutral[None])[0].mean(0).tolist()
    return [
        Camera.look_at(400, 360, 800.0, (x + aside, y + 0.03, z + 0.85), (x, y, z), name=name)
        for name, aside in (("left", -0.2), ("right", 0.2))
    ]


@pytest.fixture(scope="module")
def films(rig: Rig, truth: State, cameras: list[Camera]) -> list[np.ndarray]:
    """`[4, H, W, 3]` uint8 of each camera."""
    state = State(*(part.float() for part in vars(truth).values()))
    renderer = Renderer(rig, background=(0.5, 0.55, 0.6))
    with torch.no_grad():
        images = [renderer(rig.vertices(state), camera).image for camera in cameras]
    return [(image * 255).round().byte().permute(0, 2, 3, 1).numpy() for image in images]


@pytest.fixture(scope="module")
def solver() -> Solver:
    return Solver(SolverConfig(stages=RIGID, infill="none", refine="none", readings=1, max_gap=0))


def test_offset_ranges_are_matched_by_number(
    rig: Rig, truth: State, cameras: list[Camera], films: list[np.ndarray], solver: Solver
) -> None:
    plates = [
        Plates.from_array(films[0][:3], first_frame=1001, name="left"),
        Plates.from_array(films[1][1:], first_frame=1002, name="right"),
    ]
    assert Views.match(plates, cameras).frames == (1001, 1002, 1003, 1004)
    results: list[StageResult] = []
    track = solver.fit_sequence(plates, rig, cameras, on_stage=results.append)
    assert track.frames.tolist() == [1001, 1002, 1003, 1004]
    assert track.status.tolist() == ["solved"] * 4
    missing = {name: np.isnan(points).all((1, 2)).tolist() for name, points in track.landmarks_px.items()}
    assert missing == {"left": [False, False, False, True], "right": [True, False, False, False]}
    # A pair of views that is not of the same moment is 10 degrees and a centimetre off.
    off = torch.from_numpy(track.translation) - truth.translation
    assert float(off[1:3].norm(dim=1).max()) < 0.006
    for row, camera in ((0, cameras[0]), (3, cameras[1])):
        across = (camera.world_to_camera[:3, :3] @ off[row])[:2]
        assert float(across.norm()) < 0.006
    turned = rotation_angle(torch.from_numpy(track.rotation), truth.rotation)
    assert float(turned.max()) < np.radians(3)
    assert summary(track).splitlines() == [
        "4 frames: 4 solved, 0 infilled, 0 failed",
        "  no face in camera left, solved from the others: 1004",
        "  no face in camera right, solved from the others: 1001",
    ]
    # The same frames and views in what the stages tell; the last one's states are the track's.
    assert [result.index for result in results] == [0, 1]
    assert results[-1].frames == (1001, 1002, 1003, 1004)
    np.testing.assert_array_equal(results[-1].state.rotation.numpy(), track.rotation)
    assert torch.isnan(results[-1].residual_px).tolist() == [
        [False, True],
        [False, False],
        [False, False],
        [True, False],
    ]
    for view, name in enumerate(("left", "right")):
        np.testing.assert_array_equal(results[-1].plate_px[:, view].numpy(), track.landmarks_px[name])
    # What the energy expects the network to read on the render is what it then reads.
    apart = results[-1].render_px[1:3, 0].numpy() - track.render_landmarks_px["left"][1:3]
    assert np.median(np.linalg.norm(apart, axis=-1)) < 1.0
    assert np.nanmax(results[-1].residual_px) < 3
    results.clear()
    solver.refit_frames(track, "1002-1003", plates, rig, cameras, on_stage=results.append)
    assert [(result.index, result.frames) for result in results] == [(0, (1002, 1003)), (1, (1002, 1003))]


def test_a_missing_and_a_damaged_plate_are_solved_from_the_other_camera(
    rig: Rig, cameras: list[Camera], films: list[np.ndarray], solver: Solver, tmp_path: Path
) -> None:
    for i, image in enumerate(films[1]):
        if i != 1:
            Image.fromarray(image).save(tmp_path / f"right.{1001 + i}.png")
    cut = (tmp_path / "right.1003.png").read_bytes()[:4000]
    (tmp_path / "right.1003.png").write_bytes(cut)
    plates = [
        Plates.from_array(films[0], name="left"),
        Plates.open(tmp_path / "right.####.png", frames="1001-1004", name="right"),
    ]
    recorder = StageRecorder(tmp_path / "stages", Views.match(plates, cameras), rig)
    track = solver.fit_sequence(plates, rig, cameras, on_stage=recorder)
    assert track.status.tolist() == ["solved"] * 4
    assert np.isnan(track.landmarks_px["right"]).all((1, 2)).tolist() == [False, True, True, False]
    drawn = {path.name for path in (tmp_path / "stages" / "02_again").glob("*.jpg")}
    assert drawn == {f"overlay_{n}_left.jpg" for n in range(1001, 1005)} | {
        "overlay_1001_right.jpg",
        "overlay_1004_right.jpg",
    }


def test_stages_of_a_shot_in_parts_that_was_stopped_are_all_recorded(
    rig: Rig,
    cameras: list[Camera],
    films: list[np.ndarray],
    solver: Solver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deepenergy.pipeline.shot._FRAMES_AT_ONCE", 2)
    plates, resume = Plates.from_array(films[0], name="left"), tmp_path / "resume"

    class Stopped(Exception):
        pass

    recorder = StageRecorder(tmp_path / "stages", Views.match(plates, cameras[0]), rig, frames=[])

    def stopping(result: StageResult) -> None:
        recorder(result)
        if result.frames == (1003, 1004):
            raise Stopped

    with pytest.raises(Stopped):
        solver.fit_sequence(plates, rig, cameras[0], resume=resume, on_stage=stopping)
    recorder = StageRecorder(
        tmp_path / "stages", Views.match(plates, cameras[0]), rig, frames=[], go_on=resume.is_dir()
    )
    told: list[tuple[int, ...]] = []

    def telling(result: StageResult) -> None:
        told.append(result.frames)
        recorder(result)

    track = solver.fit_sequence(plates, rig, cameras[0], resume=resume, on_stage=telling)
    assert told == [(1003, 1004)] * 2
    for name in ("01_rigid", "02_again"):
        with np.load(tmp_path / "stages" / name / "state.npz", allow_pickle=False) as state:
            assert state["frames"].tolist() == [1001, 1002, 1003, 1004]
            found = state["translation"]
    np.testing.assert_array_equal(found, track.translation)


def test_cameras_without_a_common_frame_are_refused(rig: Rig, cameras: list[Camera], tmp_path: Path) -> None:
    grey = np.full((3, 360, 400, 3), 90, np.uint8)
    for name, first in (("left", 1001), ("right", 1004)):
        for i in range(3):
            Image.fromarray(grey[i]).save(tmp_path / f"{name}.{first + i}.png")

    def opened(name: str, frames: str | None = None) -> Plates:
        return Plates.open(tmp_path / f"{name}.####.png", frames=frames, name=name)

    with refused("plates 'left'", found="1001-1003"):
        Views.match([opened("left"), opened("right")], cameras)
    # Asked for the same range, they still have no frame in common.
    with refused("plates 'left'", found="1001-1003"):
        Views.match([opened("left", "1001-1006"), opened("right", "1001-1006")], cameras)
    with pytest.raises(InputError, match=r"'right'.*1001-1003"):
        opened("right", "1001-1003")
    # Plates of one name are different cameras all the same.
    twins = [Plates.from_array(grey, first, "plates") for first in (1, 11)]
    with refused("plates", found="11-13"):
        Views.match(twins, cameras)
    Views.match([twins[0], Plates.from_array(grey, 3, "plates")], cameras)
    # The third camera shares frames with the second alone.
    three = [Plates.from_array(grey, first, "plates") for first in (1, 3, 5)]
    Views.match(three, [cameras[0], cameras[1], cameras[0]])
    Views.match(three[:1], cameras[:1])
