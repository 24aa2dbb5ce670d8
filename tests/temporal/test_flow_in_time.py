"""Plates' flow, the chain, sweeps, infill and refinement on a head whose exact flow is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle_flow import SIZE, OracleFlow, camera, performance, plates, track_of

from deepenergy import Camera, Plates, Rig
from deepenergy.energy.flow import FlowWeight
from deepenergy.energy.prior import Deviation
from deepenergy.energy.surface import SurfacePoints, face_points
from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.free_controls import free_in_time, limits_of
from deepenergy.flow import Flow, FlowNetwork
from deepenergy.flow.plate_flows import PairFlow, PlateFlows
from deepenergy.runtime.errors import InputError
from deepenergy.scene.rotation import rotation_angle
from deepenergy.scene.state import State
from deepenergy.scene.track import REFINED, Track
from deepenergy.scene.views import Views
from deepenergy.temporal.averaging import average_states
from deepenergy.temporal.chain import Chain
from deepenergy.temporal.infill import InfillConfig, failed_runs, infill
from deepenergy.temporal.refine import RefineConfig, refine, segments
from deepenergy.temporal.solve_chain import ChainProblem, solve_joint
from deepenergy.temporal.sweeps import gauss_seidel, jacobi, plate_targets, self_targets

FRAMES = 12
F64 = torch.float64
# Small enough to be quick, large enough for the oracle to be exact.
SIDE, POINTS = 192, 80


@pytest.fixture(scope="module")
def rig() -> Rig:
    return Rig.load("builtin")


@pytest.fixture(scope="module")
def truth(rig: Rig) -> State:
    return performance(rig, 2 * FRAMES)[:FRAMES]


@pytest.fixture(scope="module")
def oracle(rig: Rig, truth: State) -> OracleFlow:
    return OracleFlow(rig, truth, camera())


@pytest.fixture(scope="module")
def points(rig: Rig) -> SurfacePoints:
    return face_points(rig, POINTS)


@pytest.fixture(scope="module")
def chain(rig: Rig, truth: State, oracle: OracleFlow, points: SurfacePoints) -> Chain:
    flows = PlateFlows(Views((plates(FRAMES),), (camera(),)), range(1001, 1001 + FRAMES), oracle, SIDE)
    return Chain(rig, points, [camera()], flows, truth)


def context(rig: Rig, flow: FlowNetwork | None, shown: Plates | None = None) -> FitContext:
    return FitContext(Views.match(shown or plates(FRAMES), camera()), rig, flow=flow)


def errors_mm(points: SurfacePoints, state: State, truth: State) -> np.ndarray:
    return ((points.world(state) - points.world(truth)).norm(dim=-1).mean(1) * 1000).numpy()


def shaken(truth: State, rig: Rig, size: float = 1.0) -> State:
    """The truth with noise on the pose."""
    g = torch.Generator().manual_seed(4)
    step = torch.zeros(len(truth), 12 + truth.weights.shape[1], dtype=F64)
    step[:, :3] = size * 0.02 * torch.randn(len(truth), 3, generator=g, dtype=F64)
    step[:, 3:6] = size * 0.002 * torch.randn(len(truth), 3, generator=g, dtype=F64)
    return truth.retract(step)


def roughness(state: State) -> float:
    turn = state.rotation[1:] @ state.rotation[:-1].mT
    return float(rotation_angle(turn[1:], turn[:-1]).square().mean().sqrt())


# -- plates' flow ------------------------------------------------------------------------------------------------


class Shift:
    """Everything moves by a fixed number of the images' own pixels, forwards; and back."""

    name, differentiable = "shift", False

    def __init__(self, x: float, y: float, back: float = -1.0) -> None:
        self.move, self.calls, self.back = torch.tensor([x, y]), 0, back

    def __call__(self, a: torch.Tensor, b: torch.Tensor) -> Flow:
        self.calls += 1
        flow = torch.stack([self.move, self.back * self.move])[:, :, None, None].expand(2, 2, *a.shape[2:])
        return Flow(flow.clone(), torch.ones(2, 1, *a.shape[2:]))


def two_plates(broken: bool = False) -> Plates:
    images = np.random.default_rng(0).random((2, 60, 80, 3)).astype(np.float32)
    return Plates.from_array(images).select("1001,1007") if broken else Plates.from_array(images)


def two_views(broken: bool = False) -> Views:
    return Views((two_plates(broken),), (camera(),))


def test_displacement_is_in_plate_pixels_whatever_the_window() -> None:
    window = torch.tensor([10.0, 5.0, 60.0, 55.0])
    network = Shift(8.0, -4.0)
    flows = PlateFlows(two_views(), [1001, 1002], network, size=200)
    pair = flows.pair(0, 0, window)
    assert pair is not None and pair.unit == pytest.approx(256 / 50)
    moved, trust = pair.displacement(torch.tensor([[30.0, 30.0], [31.7, 22.2]], dtype=F64))
    torch.testing.assert_close(moved, torch.tensor([[2.0, -1.0]] * 2, dtype=F64))
    assert trust.tolist() == pytest.approx([1.0, 1.0])
    back, _ = pair.displacement(torch.tensor([[30.0, 30.0]], dtype=F64), backward=True)
    torch.testing.assert_close(back, torch.tensor([[-2.0, 1.0]], dtype=F64))
    flows.pair(0, 0, window)
    assert network.calls == 1


def test_trust_falls_where_the_directions_disagree_and_outside() -> None:
    window = torch.tensor([10.0, 5.0, 60.0, 55.0])
    pair = PlateFlows(two_views(), [1001, 1002], Shift(8.0, -4.0, back=-0.5), size=200).pair(0, 0, window)
    assert pair is not None
    middle = torch.tensor([[30.0, 30.0]], dtype=F64)
    # They miss each other by (1, -0.5) plate pixels, 5.7 unit pixels.
    assert float(pair.displacement(middle)[1]) < 1e-6
    pair = PlateFlows(two_views(), [1001, 1002], Shift(8.0, -4.0), size=200).pair(0, 0, window)
    assert pair is not None
    places = torch.tensor([[9.0, 30.0], [30.0, 4.0], [59.5, 30.0], [30.0, 58.0], [torch.nan, 30.0]], dtype=F64)
    assert pair.displacement(places)[1].tolist() == [0.0] * 5
    # Outside of the plate, inside of the window.
    wide = PlateFlows(two_views(), [1001, 1002], Shift(0.0, 0.0), size=200)
    pair = wide.pair(0, 0, torch.tensor([-20.0, -20.0, 80.0, 80.0]))
    assert pair is not None
    assert pair.displacement(torch.tensor([[-5.0, 30.0], [5.0, 30.0]], dtype=F64))[1].tolist() == pytest.approx([0, 1])


def test_samples_are_bilinear_between_pixel_centres() -> None:
    fields = torch.zeros(2, 3, 4, 4)
    fields[:, 2] = 1
    fields[0, 0] = torch.arange(4.0)
    pair = PairFlow(torch.tensor([0.0, 0.0, 8.0, 8.0], dtype=F64), fields, (100, 100))
    places = torch.tensor([[1.0, 3.0], [3.0, 3.0], [4.0, 3.0], [4.5, 5.0]], dtype=F64)
    assert pair.displacement(places)[0][:, 0].tolist() == pytest.approx([0.0, 1.0, 1.5, 1.75])


def test_no_pair_where_a_plate_cannot_be_read() -> None:
    flows = PlateFlows(two_views(broken=True), [1001, 1007], Shift(1.0, 0.0), size=64)
    assert flows.pair(0, 0, torch.tensor([0.0, 0, 50, 50])) is None
    missing = PlateFlows(two_views(), [1001, 1003], Shift(1.0, 0.0), size=64)
    assert missing.pair(0, 0, torch.tensor([0.0, 0, 50, 50])) is None


# -- chain, sweeps, joint -------------------------------------------------------------------------------------------


def test_the_plates_show_the_rig_s_own_motion(chain: Chain, truth: State) -> None:
    pixels = chain.points.pixels(truth, camera())
    for row in (0, 5):
        moved, trust = chain.motion(row, 0, pixels[row], pixels[row + 1])
        sure = trust > 0.5
        assert float(sure.double().mean()) > 0.4
        error = (moved - (pixels[row + 1] - pixels[row])).norm(dim=1)[sure]
        assert float(error.median()) < 0.06
        assert not trust[~(chain.visible(row, 0) | chain.visible(row + 1, 0))].any()


def test_targets_are_where_the_points_are(chain: Chain, truth: State) -> None:
    targets, trust = plate_targets(chain, truth, 5)
    assert targets.shape == (2, 1, len(chain.points), 2)
    away = (targets - chain.points.pixels(truth[[5]], camera())).norm(dim=-1)
    assert float(away[trust > 0.5].median()) < 0.06
    ends = plate_targets(chain, truth, 0)[1]
    assert not ends[0].any() and ends[1].any()
    middle, seen = self_targets(chain, truth, 5)
    expected = chain.points.pixels(truth[[4, 6]], camera()).mean(0)
    torch.testing.assert_close(middle[0, 0], expected)
    assert not self_targets(chain, truth, 0)[1].any() and seen.any()


@pytest.mark.slow
def test_sweeps_and_joint_agree_and_find_the_truth(chain: Chain, rig: Rig, truth: State) -> None:
    """Between frames that are held at the truth, three that were disturbed come back."""
    rough = shaken(truth, rig)
    held = [r for r in range(FRAMES) if r not in (4, 5, 6)]
    start = State(*(torch.where(_mask(held, a), a, b) for a, b in zip(
        vars(truth).values(), vars(rough).values(), strict=True)))  # fmt: skip
    free = torch.zeros(FRAMES, 12 + truth.weights.shape[1], dtype=torch.bool)
    free[4:7] = free_in_time(rig)
    prior = Deviation.about(start, rig, controls=0.1)
    flow, limits = FlowWeight(200.0), limits_of(rig)
    before = errors_mm(chain.points, start, truth)[4:7]
    problem = ChainProblem(chain, prior, flow, free, limits)
    joint = solve_joint(problem, start, 10)
    swept = gauss_seidel(problem, start, 12)
    parallel = jacobi(problem, start, 12)
    for found in (joint, swept, parallel):
        after = errors_mm(chain.points, found, truth)
        assert (after[4:7] < 0.35 * before).all(), (before, after)
        assert after[held].max() == 0
    drift = (chain.points.pixels(joint, camera()) - chain.points.pixels(swept, camera())).norm(dim=-1)
    assert float(drift.mean()) < 0.05


def _mask(rows: list[int], like: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(len(like), dtype=torch.bool)
    mask[rows] = True
    return mask.view(-1, *[1] * (like.ndim - 1))


def test_gauss_seidel_stops_when_nothing_moves(chain: Chain, rig: Rig, truth: State) -> None:
    free = torch.zeros(FRAMES, 12 + truth.weights.shape[1], dtype=torch.bool)
    free[5] = free_in_time(rig)
    prior = Deviation.about(truth, rig, controls=0.1)
    limits = limits_of(rig)
    problem = ChainProblem(chain, prior, FlowWeight(200.0), free, limits)
    settled = gauss_seidel(problem, truth, 20, tolerance=0.01)
    longer = gauss_seidel(problem, settled, 2)
    moved = (chain.points.pixels(longer, camera()) - chain.points.pixels(settled, camera())).norm(dim=-1)
    assert float(moved.max()) < 0.05


# -- infill ---------------------------------------------------------------------------------------------------------


def test_runs_of_failed_frames() -> None:
    assert failed_runs(np.array([False, True, False, False, True, False])) == [(0, 0), (2, 3), (5, 5)]
    assert failed_runs(np.ones(3, bool)) == []
    assert failed_runs(np.zeros(2, bool)) == [(0, 1)]


def test_infill_recovers_what_was_taken_out(rig: Rig, truth: State, oracle: OracleFlow, points) -> None:
    holed = track_of(rig, truth, (4, 5, 6, 7))
    track = infill(holed, context(rig, oracle), InfillConfig(size=SIDE, points=POINTS))
    plain = infill(holed, context(rig, None), InfillConfig("interpolation"))
    flowed, lerped = (errors_mm(points, t.states(), truth)[4:8] for t in (track, plain))
    assert lerped.mean() > 2.5
    assert flowed.mean() < 0.5 and (flowed < 0.2 * lerped).all()
    assert track.status.tolist() == ["solved"] * 4 + ["infilled"] * 4 + ["solved"] * 4
    assert track.provenance[5] == "infilled by optical flow from 1004 and 1009"
    assert plain.provenance[5] == "infilled by interpolation from 1004 and 1009"
    assert track.provenance[3] == "" and track.reason[5] == "taken out"
    kept = track.solved
    for name in REFINED:
        assert np.array_equal(getattr(track, name)[kept], getattr(holed, name)[kept])
    assert (track.confidence[4:8] > 0).all() and (track.confidence[4:8] < 0.8).all()
    assert track.confidence[4] > track.confidence[5] > plain.confidence[5]


def test_infill_at_the_ends_of_the_shot(rig: Rig, truth: State, oracle: OracleFlow, points) -> None:
    holed = track_of(rig, truth, (0, 1, 10, 11))
    track = infill(holed, context(rig, oracle), InfillConfig(size=SIDE, points=POINTS))
    plain = infill(holed, context(rig, None), InfillConfig("interpolation"))
    rows = [0, 1, 10, 11]
    flowed, held = (errors_mm(points, t.states(), truth)[rows] for t in (track, plain))
    assert (flowed < 0.35 * held).all(), (flowed, held)
    assert track.provenance[0] == "infilled by optical flow from 1003"
    assert track.provenance[11] == "infilled by optical flow from 1010"


@pytest.mark.slow
def test_infill_uses_every_camera(rig: Rig, truth: State, points) -> None:
    """A second view sees the depth that one cannot."""
    views = [camera(), camera((0.5, 0.02, 0.75), "right")]
    networks = [OracleFlow(rig, truth, view) for view in views]

    class ByCamera:
        """Plates of the two cameras differ by their first pixel row's blue."""

        name, differentiable = "both", False

        def __call__(self, a: torch.Tensor, b: torch.Tensor) -> Flow:
            second = float(a[0, 2].max()) > 0.5
            shift = torch.tensor([0.0, 0.0, 0.5 if second else 0.0])[:, None, None]
            return networks[int(second)]((a - shift).clamp_min(0), (b - shift).clamp_min(0))

    first = plates(FRAMES)
    other = torch.stack([first.read(i) for i in range(FRAMES)])
    other[:, 2] += 0.5
    both = [first, Plates.from_array(other.numpy(), name="right")]
    holed = track_of(rig, truth, (4, 5, 6, 7))
    config = InfillConfig(size=SIDE, points=POINTS)
    stereo = infill(holed, FitContext(Views.match(both, views), rig, flow=ByCamera()), config)
    mono = infill(holed, FitContext(Views.match(both[0], views[0]), rig, flow=networks[0]), config)
    errors = [errors_mm(points, t.states(), truth)[4:8].mean() for t in (stereo, mono)]
    assert errors[0] < 0.9 * errors[1] and errors[0] < 0.3


def test_infill_without_readable_plates_interpolates(rig: Rig, truth: State, oracle: OracleFlow) -> None:
    holed = track_of(rig, truth, (5,))
    lost = plates(FRAMES).select("1001-1005,1007-1012")
    track = infill(holed, context(rig, oracle, lost), InfillConfig(size=SIDE, points=POINTS))
    plain = infill(holed, context(rig, None, lost), InfillConfig("interpolation"))
    assert track.provenance[5] == "infilled by interpolation from 1005 and 1007"
    np.testing.assert_allclose(track.translation[5], plain.translation[5], atol=1e-9)
    np.testing.assert_allclose(track.rotation[5], plain.rotation[5], atol=1e-9)


def test_infill_of_nothing_and_from_nothing(rig: Rig, truth: State, oracle: OracleFlow) -> None:
    whole, empty = track_of(rig, truth), track_of(rig, truth, tuple(range(FRAMES)))
    for track in (whole, empty):
        assert infill(track, context(rig, oracle)) is track
    holed = track_of(rig, truth, (5,))
    with pytest.raises(InputError, match="flow network"):
        infill(holed, context(rig, None))


@pytest.mark.parametrize(
    "wrong", [{"method": "magic"}, {"size": 64}, {"points": 3}, {"controls": 0.0}, {"iterations": 0}]
)
def test_infill_refuses_wrong_settings(wrong: dict) -> None:
    with pytest.raises(InputError, match=f"infill.{next(iter(wrong))}"):
        InfillConfig(**wrong)


# -- refinement -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["averaging", "self_flow", "plate_flow", "hybrid", "spline"])
def test_every_method_takes_out_noise(method: str, rig: Rig, truth: State, oracle: OracleFlow, points) -> None:
    rough = track_of(rig, shaken(truth, rig))
    config = RefineConfig(method, size=SIDE, points=POINTS, image=0.1, rotation=0.01, translation=0.01)
    track = refine(rough, context(rig, oracle), config)
    before, after, exact = (roughness(t.states()) for t in (rough, track, track_of(rig, truth)))
    assert after - exact < 0.6 * (before - exact)
    errors = [errors_mm(points, t.states(), truth).mean() for t in (rough, track)]
    assert errors[1] < errors[0]
    assert track.provenance[3] == f"refined by {method}"
    assert set(track.before) == set(REFINED)
    assert np.array_equal(track.before["rotation"], rough.rotation)
    assert track.status.tolist() == rough.status.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("order", ["jacobi", "gauss_seidel"])
def test_sweeps_tend_to_the_joint_solve(order: str, rig: Rig, truth: State, oracle: OracleFlow, points) -> None:
    rough = track_of(rig, shaken(truth, rig)[:5])
    config = RefineConfig("plate_flow", size=SIDE, points=POINTS, sweeps=1)
    results = []
    for settings in (config, replace(config, sweeps=12)):
        found = refine(rough, context(rig, oracle), replace(settings, order=order))
        results.append(found.states())
    joint = refine(rough, context(rig, oracle), config).states()
    away = [float((points.world(s) - points.world(joint)).norm(dim=-1).mean()) for s in results]
    assert away[1] < 0.6 * away[0] and away[1] < 1e-3


def test_refinement_stops_at_failed_frames_and_gaps(rig: Rig, truth: State) -> None:
    rough = track_of(rig, shaken(truth, rig), failed=(3,))
    track = refine(rough, context(rig, None), RefineConfig("averaging"))
    for row in (2, 4):
        np.testing.assert_allclose(track.translation[row], rough.translation[row], atol=1e-12)
    assert np.isnan(track.translation[3]).all() and track.provenance[3] == ""
    assert not np.allclose(track.translation[1], rough.translation[1])
    assert segments(np.array([1, 2, 3, 7, 8]), np.ones(5, bool)) == [(0, 2), (3, 4)]
    assert segments(np.array([1, 3, 5]), np.ones(3, bool)) == [(0, 2)]
    assert segments(np.array([1, 2, 3]), np.array([True, False, True])) == [(0, 0), (2, 2)]
    assert segments(np.array([], int), np.array([], bool)) == []


def test_a_second_refinement_keeps_the_first_values(rig: Rig, truth: State, tmp_path) -> None:
    rough = track_of(rig, shaken(truth, rig))
    once = refine(rough, context(rig, None), RefineConfig("averaging"))
    twice = refine(once, context(rig, None), RefineConfig("spline", smoothing=1.0))
    assert np.array_equal(twice.before["weights"], rough.weights)
    assert twice.provenance[0] == "refined by averaging; refined by spline"
    twice.save(tmp_path / "t.npz")
    read = Track.load(tmp_path / "t.npz")
    assert read.provenance.tolist() == twice.provenance.tolist()
    for name in REFINED:
        assert np.array_equal(read.before[name], twice.before[name])


def test_a_track_of_before_there_was_provenance_is_read(rig: Rig, truth: State, tmp_path) -> None:
    path, old = tmp_path / "t.npz", tmp_path / "old.npz"
    track_of(rig, truth).save(path)
    with np.load(path) as file:
        np.savez(old, **{name: file[name] for name in file.files if name != "provenance"})
    read = Track.load(old)
    assert read.provenance.tolist() == [""] * FRAMES and read.before == {}


def test_long_shots_are_refined_in_blocks_without_seams(rig: Rig) -> None:
    state = shaken(performance(rig, 130), rig)
    rough = track_of(rig, state)
    track = refine(rough, context(rig, None), RefineConfig("averaging", averaging_sweeps=3))
    whole = average_states(state, range(130), sweeps=3)
    np.testing.assert_allclose(track.rotation, whole.rotation.numpy(), atol=1e-12)


@pytest.mark.parametrize(
    "wrong", [{"method": "magic"}, {"order": "random"}, {"sweeps": 0}, {"image": -1.0}, {"smoothing": -1.0}]
)
def test_refine_refuses_wrong_settings(wrong: dict) -> None:
    with pytest.raises(InputError, match=f"refine.{next(iter(wrong))}"):
        RefineConfig(**wrong)


def test_refine_with_plates_needs_a_network(rig: Rig, truth: State) -> None:
    with pytest.raises(InputError, match="refine flow network"):
        refine(track_of(rig, truth), context(rig, None), RefineConfig("hybrid"))


def test_the_oracle_s_views_are_of_the_plates_size() -> None:
    view: Camera = camera()
    assert (view.width, view.height) == SIZE
