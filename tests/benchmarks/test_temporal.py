"""What the infill and smoothing benchmarks measure with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rigs import random_rig
from scipy.spatial.transform import Rotation
from tiny_shot import tiny_track

from benchmarks.data import data_folder
from benchmarks.infill import lively_runs, run, true_track, without
from benchmarks.smoothing import errors, jitter, median_errors, second_differences, variants
from benchmarks.smoothing_figure import draw_smoothing
from benchmarks.truth import TruthShot
from deepenergy.energy.surface import SurfacePoints
from deepenergy.scene.state import State
from deepenergy.temporal.refine import METHODS


def test_lively_runs_are_where_the_motion_is_and_do_not_overlap() -> None:
    vertices = torch.zeros(40, 5, 3)
    vertices[20:26, :, 0] = torch.arange(6.0)[:, None]
    vertices[26:, :, 0] = 5.0
    vertices[8:, :, 1] = 0.5
    assert lively_runs(vertices, 3, 1)[0] in (20, 21, 22, 23)
    runs = lively_runs(vertices, 3, 5)
    assert len(runs) == 5 and min(np.diff(runs)) > 3
    assert min(runs) >= 1 and max(runs) + 3 < 40


def test_frames_are_taken_out() -> None:
    track = without(tiny_track(6), np.array([2, 3]))
    assert track.status.tolist() == ["solved"] * 2 + ["failed"] * 2 + ["solved"] * 2
    assert np.isnan(track.weights[2:4]).all() and np.isfinite(track.weights[4]).all()


def test_jitter_of_known_motions() -> None:
    rig = random_rig()
    skin = SurfacePoints.of(rig, torch.arange(10))
    count = 9
    time = torch.arange(count, dtype=torch.float64)
    zero = torch.zeros(count, 6, dtype=torch.float64)
    turn = torch.from_numpy(Rotation.from_euler("y", time.numpy()[:, None] ** 2, degrees=True).as_matrix())
    move = torch.stack([0.001 * time**2, time, 0 * time], 1)
    still = torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
    both = State(turn, move, zero, zero)
    # t^2 has the second difference 2.
    assert jitter(both, skin)[:2].tolist() == pytest.approx([2.0, 2.0])
    assert jitter(State(still, move, zero, zero), skin).tolist() == pytest.approx([0.0, 2.0, 2.0], abs=1e-6)
    steady = State(still, move * 0 + time[:, None], zero, zero)
    assert jitter(steady, skin).tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
    off = State(still, steady.translation + torch.tensor([0.003, 0.004, 0.0]), zero, zero)
    assert median_errors(off, steady, skin).tolist() == pytest.approx([0.0, 5.0, 5.0], abs=1e-6)


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    rig = random_rig()
    skin = SurfacePoints.of(rig, torch.arange(10))
    states = {name: State.identity(6, len(rig.weight_names)) for name in ("truth", "single frames", "averaging")}
    accelerations = {name: second_differences(state, skin) for name, state in states.items()}
    assert [len(values) for values in accelerations["truth"]] == [4, 4, 4]
    away = {name: errors(state, states["truth"], skin) for name, state in states.items() if name != "truth"}
    draw_smoothing(tmp_path / "smoothing.png", np.arange(1001, 1007), accelerations, away)
    with Image.open(tmp_path / "smoothing.png") as picture:
        assert picture.format == "PNG" and picture.width > picture.height > 100


def test_every_method_is_in_the_table() -> None:
    assert set(METHODS) <= set(variants())


def test_absent_data_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEEPENERGY_TEST_DATA", str(tmp_path))
    assert "DEEPENERGY_TEST_DATA" in run().skipped["infill"]


def test_the_true_track_is_the_truth(test_data: Path) -> None:
    shot = TruthShot.load(data_folder() / "shots" / "ict_stereo")
    track = true_track(shot)
    np.testing.assert_array_equal(track.rotation, shot.truth.rotation)
    assert track.solved.all() and len(track.states()) == len(shot.truth.frames)
