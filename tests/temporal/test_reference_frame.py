"""Terms in time do not depend on the world's axes where cameras move: random worlds give the static answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle_flow import OracleFlow, camera, performance, plates, track_of

from deepenergy import Rig, State
from deepenergy.energy.surface import face_points
from deepenergy.fit.fit_context import FitContext
from deepenergy.scene.rotation import so3_exp
from deepenergy.scene.views import Views
from deepenergy.temporal.infill import InfillConfig, infill
from deepenergy.temporal.reference_frame import solving_frame, steady_frame
from deepenergy.temporal.refine import RefineConfig, refine

F64 = torch.float64
FRAMES = 12
NUMBERS = tuple(range(1001, 1001 + FRAMES))


@pytest.fixture(scope="module")
def rig() -> Rig:
    return Rig.load("builtin")


@pytest.fixture(scope="module")
def rough(rig: Rig) -> State:
    truth = performance(rig, 2 * FRAMES)[:FRAMES]
    g = torch.Generator().manual_seed(4)
    step = torch.zeros(FRAMES, truth.size, dtype=F64)
    step[:, :3] = 0.01 * torch.randn(FRAMES, 3, generator=g, dtype=F64)
    step[:, 3:6] = 0.002 * torch.randn(FRAMES, 3, generator=g, dtype=F64)
    return truth.retract(step)


def random_worlds(seed: int = 1, turn: float = 0.5, move: float = 0.5) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    transform = torch.eye(4, dtype=F64).repeat(FRAMES, 1, 1)
    transform[:, :3, :3] = so3_exp(turn * torch.randn(FRAMES, 3, generator=g, dtype=F64))
    transform[:, :3, 3] = move * torch.randn(FRAMES, 3, generator=g, dtype=F64)
    return transform


@pytest.mark.parametrize("method", ["averaging", "spline"])
def test_smoothing_in_random_worlds_is_that_of_the_static_one(method: str, rig: Rig, rough: State) -> None:
    worlds, views, track = random_worlds(), Views.match(plates(FRAMES), camera()), track_of(rig, rough)
    settings = RefineConfig(method, smoothing=1.0)
    still = refine(track, FitContext(views, rig), settings)
    moved = refine(track.moved(worlds), FitContext(views.moved(NUMBERS, worlds), rig), settings)
    back = moved.moved(torch.linalg.inv(worlds))
    np.testing.assert_allclose(back.rotation, still.rotation, atol=1e-9)
    np.testing.assert_allclose(back.translation, still.translation, atol=1e-9)
    np.testing.assert_allclose(back.weights, still.weights, atol=1e-12)
    np.testing.assert_allclose(back.before["translation"], track.translation, atol=1e-9)
    assert not np.allclose(still.translation, track.translation, atol=1e-5)


def test_interpolation_in_random_worlds_is_that_of_the_static_one(rig: Rig, rough: State) -> None:
    worlds, views = random_worlds(2), Views.match(plates(FRAMES), camera())
    holed = track_of(rig, rough, (4, 5, 6))
    settings = InfillConfig("interpolation")
    still = infill(holed, FitContext(views, rig), settings)
    found = infill(holed.moved(worlds), FitContext(views.moved(NUMBERS, worlds), rig), settings)
    back = found.moved(torch.linalg.inv(worlds))
    np.testing.assert_allclose(back.rotation, still.rotation, atol=1e-9)
    np.testing.assert_allclose(back.translation, still.translation, atol=1e-9)
    # What was solved stays to the bit, in the axes that it came in.
    kept = found.solved
    assert np.array_equal(found.translation[kept], holed.moved(worlds).translation[kept])


def test_infill_by_flow_in_random_worlds_is_that_of_the_static_one(rig: Rig) -> None:
    truth = performance(rig, 2 * FRAMES)[:FRAMES]
    oracle, worlds = OracleFlow(rig, truth, camera()), random_worlds(3)
    views, holed = Views.match(plates(FRAMES), camera()), track_of(rig, truth, (4, 5, 6))
    settings = InfillConfig(size=192, points=80)
    still = infill(holed, FitContext(views, rig, flow=oracle), settings)
    found = infill(holed.moved(worlds), FitContext(views.moved(NUMBERS, worlds), rig, flow=oracle), settings)
    points = face_points(rig, 80)
    back = found.moved(torch.linalg.inv(worlds))
    apart = (points.world(back.states()) - points.world(still.states())).norm(dim=-1)
    # Damping and scales of the solver are by axes; what they minimise is not.
    assert float(apart.max()) < 2e-5


def test_a_camera_that_shakes_is_not_taken_for_the_head(rig: Rig) -> None:
    """Hand-held: the world stands still, and the head in it is steady; smoothing leaves the camera's shake alone."""
    still = performance(rig, 2 * FRAMES)[:1][[0] * FRAMES]
    shake = random_worlds(5, 0.02, 0.01)
    held = Views.match(plates(FRAMES), camera()).moved(NUMBERS, shake)
    axes = steady_frame(held, NUMBERS, still, torch.ones(FRAMES, dtype=torch.bool))
    assert axes.transform is None
    track = track_of(rig, still)
    found = refine(track, FitContext(held, rig), RefineConfig("averaging"))
    np.testing.assert_allclose(found.translation, track.translation, atol=1e-12)
    np.testing.assert_allclose(found.rotation, track.rotation, atol=1e-12)


def test_static_cameras_need_no_other_axes(rig: Rig, rough: State) -> None:
    axes = steady_frame(Views.match(plates(FRAMES), camera()), NUMBERS, rough, torch.ones(FRAMES, dtype=torch.bool))
    track = track_of(rig, rough)
    assert axes.transform is None and axes.track_here(track) is track and axes.track_back(track) is track


def test_a_shot_is_solved_in_the_axes_of_its_camera(rig: Rig, rough: State) -> None:
    views, known = Views.match(plates(FRAMES), camera()), torch.ones(FRAMES, dtype=torch.bool)
    still = solving_frame(views, NUMBERS, rough, known)
    worlds = random_worlds(6)
    moved = solving_frame(views.moved(NUMBERS, worlds), NUMBERS, rough.moved(worlds), known)
    for axes, seen in ((still, views), (moved, views.moved(NUMBERS, worlds))):
        inner = axes.views(seen).camera(0, NUMBERS).world_to_camera
        torch.testing.assert_close(inner, torch.eye(4, dtype=F64).expand_as(inner), rtol=0, atol=1e-12)
    assert (
        still.views(views).cameras[0].frames is None
        and moved.views(views.moved(NUMBERS, worlds)).cameras[0].frames is None
    )
    assert still.transform is not None and moved.transform is not None
    here, there = rough.moved(still.transform), rough.moved(worlds).moved(moved.transform)
    torch.testing.assert_close(here.translation, there.translation, rtol=0, atol=1e-12)
    torch.testing.assert_close(still.state_back(here, NUMBERS).translation, rough.translation, rtol=0, atol=1e-12)
