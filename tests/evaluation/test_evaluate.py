"""Errors of tracks whose distance from the truth is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from tiny_shot import WEIGHTS, fail_frame, tiny_camera, tiny_rig, tiny_track

from deepenergy.evaluation.evaluate import evaluate, face_vertices, format_table
from deepenergy.evaluation.ground_truth import GroundTruth
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Rig

RIG, CAMERA = tiny_rig(), tiny_camera()


def test_the_truth_itself_has_no_error() -> None:
    track = tiny_track()
    result = evaluate(track, GroundTruth.from_track(track), RIG, [CAMERA])
    # acos-like noise: a rotation is known to about sqrt(eps).
    assert result.rotation_deg < 1e-5
    for name in ("translation_mm", "inplane_mm", "depth_mm", "vertex_mm", "landmark_px", "jaw_landmark_px"):
        assert getattr(result, name) == pytest.approx(0, abs=1e-9)
    assert result.solved == 1
    assert result.translation_jitter_mm.ratio == pytest.approx(1)
    assert result.rotation_jitter_deg.ratio == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3), st.tuples(*[st.floats(-0.05, 0.05)] * 3))
def test_pose_errors_are_the_offset(turn: tuple[float, ...], shift: tuple[float, ...]) -> None:
    truth = tiny_track(6)
    world_shift = np.array(shift) @ CAMERA.world_to_camera[:3, :3].numpy()
    moved = replace(
        truth,
        rotation=Rotation.from_rotvec(turn).as_matrix() @ truth.rotation,
        translation=truth.translation + world_shift,
    )
    result = evaluate(moved, GroundTruth.from_track(truth), None, CAMERA)
    assert result.rotation_deg == pytest.approx(math.degrees(math.hypot(*turn)), abs=1e-5)
    assert result.inplane_mm == pytest.approx(1000 * math.hypot(*shift[:2]), abs=1e-9)
    assert result.depth_mm == pytest.approx(1000 * abs(shift[2]), abs=1e-9)
    assert result.translation_mm == pytest.approx(1000 * math.hypot(*shift), abs=1e-9)
    assert math.isnan(result.vertex_mm)
    assert math.isnan(result.landmark_px)
    # A constant offset adds no jitter.
    assert result.translation_jitter_mm.ratio == pytest.approx(1, abs=1e-6)


def test_a_translation_moves_every_vertex_by_itself() -> None:
    truth = tiny_track()
    moved = replace(truth, translation=truth.translation + np.array([0.003, 0, 0.004]))
    result = evaluate(moved, GroundTruth.from_track(truth), RIG, CAMERA)
    assert result.vertex_mm == pytest.approx(5, abs=1e-9)


def test_landmark_error_is_opencvs_projection() -> None:
    truth, track = tiny_track(5, seed=0), tiny_track(5, seed=1)
    result = evaluate(track, GroundTruth.from_track(truth), RIG, CAMERA)
    fx, fy, cx, cy = CAMERA.intrinsics.tolist()
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    rotation, translation = CAMERA.world_to_camera[:3, :3].numpy(), CAMERA.world_to_camera[:3, 3].numpy()
    turn = cv2.Rodrigues(rotation)[0]
    for row in range(5):
        points = [t.landmarks(RIG)[row] for t in (track, truth)]
        pixels = [cv2.projectPoints(p, turn, translation, matrix, np.zeros(5))[0][:, 0] for p in points]
        distance = np.linalg.norm(pixels[0] - pixels[1], axis=1)
        assert result.per_frame.landmark_px[row] == pytest.approx(distance.mean(), abs=1e-6)
        assert result.per_frame.jaw_landmark_px[row] == pytest.approx(distance[:17].mean(), abs=1e-6)
    expected = np.linalg.norm(track.vertices(RIG) - truth.vertices(RIG), axis=2).mean(1) * 1000
    np.testing.assert_allclose(result.per_frame.vertex_mm, expected, rtol=1e-5)
    assert result.vertex_mm == pytest.approx(np.median(expected), rel=1e-5)


def test_medians_are_over_solved_frames_only() -> None:
    truth = tiny_track(7)
    offset = np.zeros((7, 3))
    offset[:, 0] = [1e-3, 2e-3, 3e-3, 0.5, 0.5, 0.5, 0]
    track = replace(
        truth,
        translation=truth.translation + offset,
        status=np.array(["solved"] * 3 + ["infilled"] * 3 + ["solved"]),
        reason=np.array([""] * 3 + ["blurred"] * 3 + [""]),
    )
    result = evaluate(fail_frame(track, 6), GroundTruth.from_track(truth), RIG, CAMERA)
    assert result.translation_mm == pytest.approx(2)
    assert (result.solved, result.infilled, result.failed) == pytest.approx((3 / 7, 3 / 7, 1 / 7))
    assert result.per_frame.translation_mm[4] == pytest.approx(500)
    assert np.isnan(result.per_frame.translation_mm[6])
    assert "3 infilled" not in format_table(result)
    assert "42.9% infilled" in format_table(result)


def test_jitter_of_a_known_shake() -> None:
    truth = tiny_track(9)
    still = replace(
        truth,
        translation=np.outer(np.arange(9), [1e-3, 0, 0]),
        rotation=Rotation.from_euler("y", np.arange(9)[:, None] * 2, degrees=True).as_matrix(),
    )
    sign = (-1.0) ** np.arange(9)
    shaken = replace(
        still,
        translation=still.translation + np.outer(sign, [0, 1e-3, 0]),
        rotation=Rotation.from_euler("y", (np.arange(9) * 2 + 0.5 * sign)[:, None], degrees=True).as_matrix(),
    )
    result = evaluate(shaken, GroundTruth.from_track(still), None, CAMERA)
    # x[t-1] - 2 x[t] + x[t+1] of an alternating +-a is 4a; a constant speed has none.
    assert result.translation_jitter_mm.track == pytest.approx(4)
    assert result.translation_jitter_mm.truth == pytest.approx(0, abs=1e-9)
    assert result.rotation_jitter_deg.track == pytest.approx(2)
    assert result.rotation_jitter_deg.truth == pytest.approx(0, abs=1e-6)


def test_jitter_ignores_gaps_and_failed_frames() -> None:
    truth = tiny_track(9)
    holed = evaluate(fail_frame(truth, 4), GroundTruth.from_track(truth), None, CAMERA)
    assert math.isfinite(holed.translation_jitter_mm.track)
    assert holed.translation_jitter_mm.ratio == pytest.approx(1)
    sparse = replace(truth, frames=truth.frames * 2)
    assert math.isnan(evaluate(sparse, GroundTruth.from_track(sparse), None, CAMERA).rotation_jitter_deg.track)


def test_frames_are_matched_by_number() -> None:
    truth, track = tiny_track(10, first=1001), tiny_track(10, first=1006)
    result = evaluate(track, GroundTruth.from_track(truth), RIG, CAMERA)
    assert result.frames.tolist() == list(range(1006, 1011))
    expected = np.linalg.norm(track.translation[:5] - truth.translation[5:], axis=1) * 1000
    np.testing.assert_allclose(result.per_frame.translation_mm, expected)
    with pytest.raises(InputError, match=r"1001-1010, while the track has 2001-2010"):
        evaluate(tiny_track(first=2001), GroundTruth.from_track(truth), RIG, CAMERA)
    with pytest.raises(InputError, match="at least one camera"):
        evaluate(track, GroundTruth.from_track(truth), RIG, [])


def test_a_camera_that_looks_the_other_way_is_refused() -> None:
    track = tiny_track()
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    turned = replace(CAMERA, world_to_camera=flip @ CAMERA.world_to_camera)
    with pytest.raises(InputError, match="behind the camera"):
        evaluate(track, GroundTruth.from_track(track), None, turned)


def test_truth_in_another_order_of_weights_is_reordered() -> None:
    track = tiny_track()
    shuffled = replace(track, weights=track.weights[:, [2, 0, 1]], weight_names=tuple(WEIGHTS[i] for i in (2, 0, 1)))
    assert evaluate(track, GroundTruth.from_track(shuffled), RIG, CAMERA).vertex_mm == pytest.approx(0, abs=1e-9)


def write_truth(path: Path, **changes: np.ndarray | None) -> Path:
    track = tiny_track()
    pixels = CAMERA.project(torch.from_numpy(track.landmarks(RIG))).numpy()
    content: dict[str, Any] = {
        "frame": track.frames,
        "R": track.rotation,
        "t": track.translation,
        "weights": track.weights,
        "target_names": np.array(WEIGHTS),
        "landmarks_world": track.landmarks(RIG),
        "landmarks_left": pixels,
    } | changes
    np.savez(path, **{n: v for n, v in content.items() if v is not None})
    return path


def test_truth_without_weights_still_gives_pose_and_landmarks(tmp_path: Path) -> None:
    truth = GroundTruth.load(write_truth(tmp_path / "t.npz", weights=None, target_names=None))
    assert truth.weights is None
    assert list(truth.landmarks_px) == ["left"]
    result = evaluate(tiny_track(), truth, RIG, CAMERA)
    assert result.translation_mm == pytest.approx(0, abs=1e-9)
    assert result.landmark_px == pytest.approx(0, abs=1e-9)
    assert math.isnan(result.vertex_mm)
    assert "not measured" in format_table(result)


def test_a_track_file_serves_as_truth(tmp_path: Path) -> None:
    tiny_track().save(tmp_path / "t.npz")
    result = evaluate(tiny_track(), GroundTruth.load(tmp_path / "t.npz"), RIG, CAMERA)
    assert result.vertex_mm == pytest.approx(0, abs=1e-9)


def test_truths_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        GroundTruth.load(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match="cannot be read"):
        GroundTruth.load(tmp_path / "text.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(InputError, match="cannot be read"):
        GroundTruth.load(tmp_path / "array.npy")
    with pytest.raises(InputError, match="without R"):
        GroundTruth.load(write_truth(tmp_path / "a.npz", R=None))
    with pytest.raises(InputError, match=r"ground truth t.*\(9, 3\)"):
        GroundTruth.load(write_truth(tmp_path / "b.npz", t=np.zeros((9, 3))))
    with pytest.raises(InputError, match="weights"):
        GroundTruth.load(write_truth(tmp_path / "c.npz", target_names=None))


def test_face_vertices_are_the_skins() -> None:
    regions = torch.zeros(RIG.faces.shape[0], dtype=torch.int64)
    regions[100:] = 1
    rig = replace(RIG, face_regions=regions, region_names=("skin", "teeth"))
    assert face_vertices(rig).tolist() == sorted(set(RIG.faces[:100].flatten().tolist()))
    assert len(face_vertices(replace(rig, region_names=("head", "teeth")))) == RIG.neutral.shape[0]


def test_developer_shot_agrees_with_its_own_landmarks(test_data: Path) -> None:
    shot = test_data / "shots" / "ict_stereo"
    truth = GroundTruth.load(shot / "ground_truth.npz")
    assert truth.weights is not None
    assert set(truth.landmarks_px) == {"left", "right"}
    rig = Rig.load(shot / "actor.glb", landmarks=shot / "landmarks.json")
    rows = slice(0, 96, 12)
    count = len(truth.frames[rows])
    track = replace(
        tiny_track(count),
        frames=truth.frames[rows],
        rotation=truth.rotation[rows],
        translation=truth.translation[rows],
        jaw=np.zeros((count, 6)),
        weights=truth.weights[rows],
        weight_names=truth.weight_names,
        landmarks_px={},
        render_landmarks_px={},
    )
    for name in ("left", "right"):
        camera = Camera.load(shot / "cameras.json", name=name)
        exact = replace(truth, weights=None)
        # Projected by the shot's makers, not by us.
        assert evaluate(track, exact, rig, camera).landmark_px < 0.01
        assert evaluate(track, truth, rig, camera).vertex_mm == pytest.approx(0, abs=1e-9)
