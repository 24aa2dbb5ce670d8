"""Telling the face from what passes before it, and re-estimating the expression."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle_flow import camera, performance, track_of

from deepenergy import Plates, Rig, SolverConfig
from deepenergy.energy.surface import face_points
from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.render_landmarks import RenderReader
from deepenergy.landmarks import network_from_name
from deepenergy.landmarks.observe import Observations
from deepenergy.render import Renderer
from deepenergy.runtime.errors import InputError
from deepenergy.scene.state import State
from deepenergy.scene.views import Views
from deepenergy.settings.schedule import DEFAULT_STAGES
from deepenergy.temporal.occluders import Appearance, compare, local_correlation
from deepenergy.temporal.reestimate import ReestimateConfig, expression_stages, reestimate_expression


def colours(count: int = 200, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


EVERY = torch.ones(200, dtype=torch.bool)


def test_gain_and_offset_do_not_matter() -> None:
    before = colours()
    for now in (before, 0.2 * before, 0.5 * before + torch.tensor([0.1, 0.2, 0.3])):
        assert float(compare(before, now, EVERY).min()) > 0.9


@pytest.mark.parametrize("what", ["flat", "noise", "negative"])
def test_something_else_is_not_the_face(what: str) -> None:
    before = colours()
    now = {"flat": torch.full_like(before, 0.4), "noise": colours(seed=1), "negative": 1 - before}[what]
    assert float(compare(before, now, EVERY).max()) == 0


def test_a_third_that_is_covered_counts_less() -> None:
    before = colours()
    now = before.clone()
    now[:66] = torch.tensor([0.02, 0.02, 0.02])
    alike = compare(before, now, EVERY)
    assert float(alike[66:].min()) > 0.8
    assert float(alike[:66].mean()) < 0.35
    hidden = torch.arange(200) >= 66
    assert not compare(before, now, hidden)[:66].any()


def test_likeness_is_that_of_the_surroundings() -> None:
    before = colours()
    now = before.clone()
    now[:100] = colours(seed=2)[:100]
    blocks = torch.arange(200)[:, None] // 20 * 20 + torch.arange(20)
    alike = local_correlation(before, now, EVERY, blocks)
    assert float(alike[:100].max()) < 0.2 and float(alike[100:].min()) == 1.0


def rendered(rig: Rig, state: State) -> list[torch.Tensor]:
    colour = torch.rand(len(rig.neutral), 3, generator=torch.Generator().manual_seed(3))
    # Patches of a centimetre or two, so that there is something to see.
    near = torch.cdist(rig.neutral, rig.neutral[::60]).argmin(1)
    renderer = Renderer(replace(rig, texture=None, vertex_albedo=colour[near] * 0.7 + 0.1), supersample=1)
    single = State(*(part.float() for part in vars(state).values()))
    with torch.no_grad():
        return list(renderer(rig.vertices(single), camera()).image)


def test_an_occluder_before_the_face_is_found_in_plates() -> None:
    rig = Rig.load("builtin")
    state = performance(rig, 40)[:4]
    images = rendered(rig, state)
    covered, dark = images[1].clone(), 0.3 * images[2]
    covered[:, :, : covered.shape[2] // 2] = 0.5
    plates = Plates.from_array(np.stack([i.numpy() for i in (images[0], covered, dark, images[3])]))
    views = Views.match(plates, camera())
    points = face_points(rig, 200)
    known = torch.tensor([True, False, False, True])
    look = Appearance(views, plates.frames, points, state, known)
    seen = torch.ones(len(points), dtype=torch.bool)
    trust = [look.trust(row, 0, points.pixels(state[[row]], camera())[0], seen) for row in range(4)]
    assert torch.equal(trust[0], torch.ones(len(points), dtype=torch.float64))
    left = points.pixels(state[[1]], camera())[0, :, 0] < covered.shape[2] / 2 - 8
    right = points.pixels(state[[1]], camera())[0, :, 0] > covered.shape[2] / 2 + 25
    assert float(trust[1][left].mean()) < 0.15 < 0.4 < float(trust[1][right].mean())
    assert float(trust[2].mean()) > 0.6
    missing = Appearance(views, [1001, 1007, 1003, 1004], points, state, known)
    assert float(missing.trust(1, 0, points.pixels(state[[1]], camera())[0], seen).min()) == 1.0


def test_the_stages_of_the_expression_hold_the_pose() -> None:
    stages = expression_stages(DEFAULT_STAGES)
    assert not any(stage.translation or stage.rotation or stage.fit_light for stage in stages)
    assert [s.groups for s in stages] == [s.groups for s in DEFAULT_STAGES[-len(stages) :]]
    by_landmarks = tuple(stage for stage in DEFAULT_STAGES if not stage.photometric)
    assert len(expression_stages(by_landmarks)) == 1


def test_reestimation_holds_the_pose_and_finds_the_expression() -> None:
    rig = Rig.load("builtin")
    view = camera()
    truth = performance(rig, 40)[:2]
    network = network_from_name("compact", None, "cpu")
    renderer = Renderer(rig, supersample=1)
    centre = view.project(truth.translation[:, None]).mean(1)
    crops = torch.cat([centre - 85, centre + 85], 1)[:, None]
    points = RenderReader(renderer, network, (view,), crops).landmarks(truth)
    spread = torch.eye(2, dtype=torch.float64).expand(2, 1, 68, 2, 2)
    observed = Observations(points, torch.ones(2, 1, 68, dtype=torch.float64), crops, spread)
    dull = replace(truth, weights=0.3 * truth.weights)
    track = track_of(rig, dull)
    config = SolverConfig(supersample=1, l2=1.0)
    whole = next(stage for stage in DEFAULT_STAGES if stage.name == "whole face")
    config = replace(config, stages=(replace(whole, renders=1),))
    shown = Plates.from_array(torch.stack(rendered(rig, truth)))
    context = FitContext(Views.match(shown, view), rig, config, network=network, renderer=renderer)
    found = reestimate_expression(track, observed, context)
    np.testing.assert_allclose(found.rotation, track.rotation, atol=1e-12)
    np.testing.assert_allclose(found.translation, track.translation, atol=1e-12)
    assert found.provenance.tolist() == ["expression re-estimated"] * 2
    marks = rig.landmark_rig()

    def off(state: State) -> float:
        places = [view.project(marks.landmarks(marks.vertices(s))) for s in (state, truth)]
        return float((places[0] - places[1]).norm(dim=-1).mean())

    assert off(found.states()) < 0.7 * off(dull)
    with pytest.raises(InputError, match="2 frames"):
        reestimate_expression(track_of(rig, performance(rig, 3)), observed, context)


@pytest.mark.parametrize("wrong", [{"rounds": -1}, {"tolerance": 0.0}])
def test_reestimate_refuses_wrong_settings(wrong: dict) -> None:
    with pytest.raises(InputError, match="reestimate"):
        ReestimateConfig(**wrong)
