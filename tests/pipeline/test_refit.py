"""Solving some frames again: they change, the others stay bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from refusals import refused
from tiny_shot import fail_frame, tiny_camera, tiny_rig, tiny_track

from deepenergy import Plates
from deepenergy.fit.fit_context import FitContext
from deepenergy.pipeline.refit import refit
from deepenergy.scene.track import Track
from deepenergy.scene.views import Views
from deepenergy.settings.config import SolverConfig

RIG, CAMERA = tiny_rig(), tiny_camera()
PLATES = Plates.from_array(np.full((10, 80, 96, 3), 90, np.uint8), name="left")
NAMES = ("rotation", "translation", "jaw", "weights", "status", "reason", "confidence", "landmark_residual_px")


def again_of(track: Track, rows: slice) -> Track:
    other = tiny_track(10, seed=1)
    part = {name: getattr(other, name)[rows] for name in (*NAMES, "frames", "provenance")}
    marks = {name: values[rows] for name, values in other.landmarks_px.items()}
    drawn = {name: values[rows] for name, values in other.render_landmarks_px.items()}
    sigma = {"translation": np.full((len(part["frames"]), 3), 0.5)}
    return replace(other, **part, landmarks_px=marks, render_landmarks_px=drawn, sigma=sigma)


def solve(track: Track, again: Track, infill: str = "interpolation", refine: str = "none") -> Track:
    config = SolverConfig(infill=infill, refine=refine)
    return refit(track, again, FitContext(Views.match(PLATES, CAMERA), RIG, config))


def test_the_range_is_replaced_and_the_rest_stays() -> None:
    track = replace(tiny_track(10), sigma={"translation": np.full((10, 3), 0.1)})
    again = again_of(track, slice(3, 6))
    found = solve(track, again)
    rest = np.array([0, 1, 2, 6, 7, 8, 9])
    for name in NAMES:
        np.testing.assert_array_equal(getattr(found, name)[rest], getattr(track, name)[rest])
        np.testing.assert_array_equal(getattr(found, name)[3:6], getattr(again, name))
    np.testing.assert_array_equal(found.sigma["translation"][:, 0], [0.1] * 3 + [0.5] * 3 + [0.1] * 4)
    np.testing.assert_array_equal(found.landmarks_px["left"][3:6], again.landmarks_px["left"])


def test_a_failure_in_the_range_is_infilled_from_the_old_frames_and_old_failures_stay() -> None:
    track = fail_frame(tiny_track(10), 8)
    found = solve(track, fail_frame(again_of(track, slice(3, 6)), 1))
    assert found.status.tolist() == ["solved"] * 4 + ["infilled"] + ["solved"] * 3 + ["failed", "solved"]
    assert "1004 and 1006" in str(found.provenance[4])


def test_refinement_looks_at_neighbours_and_changes_the_range_alone() -> None:
    track = tiny_track(10)
    # Close poses, or refinement takes them for cuts.
    track = replace(track, rotation=np.repeat(track.rotation[:1], 10, 0), translation=track.translation * 0.1)
    again = again_of(track, slice(3, 6))
    again = replace(again, rotation=track.rotation[3:6], translation=again.translation * 0.1)
    found = solve(track, again, refine="averaging")
    np.testing.assert_array_equal(found.weights[[0, 1, 2, 6, 7, 8, 9]], track.weights[[0, 1, 2, 6, 7, 8, 9]])
    assert not np.allclose(found.weights[3:6], again.weights)
    assert "refined by averaging" in str(found.provenance[4])
    assert not str(found.provenance[0])


def test_frames_that_the_track_has_not() -> None:
    track = tiny_track(5)
    with refused(found="1006"):
        solve(track, again_of(track, slice(5, 7)))
