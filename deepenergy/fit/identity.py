"""The actor's identity, coarsely: identity coefficients and head poses from the landmarks of near-neutral frames.

The landmark points of frame f are linear in the identity coefficients `a` for a held pose and expression, so all frames
together give one small least-squares problem; poses and expressions are refitted in between. The coefficients are
held near 0 by their prior, a unit normal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from deepenergy.energy import LandmarkEnergy
from deepenergy.fit.frames import bounds, free_parameters
from deepenergy.fit.rigid_start import rigid_start
from deepenergy.landmarks.detector import Detector
from deepenergy.landmarks.network import HeatmapNetwork
from deepenergy.landmarks.observe import Observations, observe
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.plates import Plates
from deepenergy.scene.rig import Rig
from deepenergy.scene.state import State
from deepenergy.settings.config import SolverConfig
from deepenergy.settings.schedule import Stage
from deepenergy.solve import minimise

Progress = Callable[[str, int, int], None]
_FRAMES = 16
_ROUNDS = 6
# How far, in crop pixels, landmarks of network and rig differ beyond what any identity explains.
_NOISE = 3.0
_NEUTRAL = Stage(
    "identity",
    True,
    True,
    ("jaw_open", "jaw", "mouth", "eyes", "brows"),
    {"jaw": 0.6, "brows": 1.0, "nose": 1.0, "eyes": 1.0, "mouth": 1.0},
)


def fit_identity(
    plates: Sequence[Plates],
    rig: Rig,
    cameras: Sequence[Camera],
    config: SolverConfig,
    detector: Detector,
    network: HeatmapNetwork,
    progress: Progress,
) -> Rig:
    """See `Solver.fit_identity`."""
    if rig.identity_basis is None:
        raise InputError(
            f"rig '{rig.name}'", "no identity basis", "a rig with one (ICT-FaceKit)", "solve with it as it is"
        )
    for plate, camera in zip(plates, cameras, strict=True):
        camera.check_plate_size(plate.width, plate.height)
    numbers = sorted({n for plate in plates for n in plate.frames})
    step = max(1, len(numbers) // (4 * _FRAMES))
    observed = observe(plates, numbers[::step], detector, network, progress, 1, 0)
    seen = torch.isfinite(observed.points).all((-1, -2))
    rows = seen.any(1).nonzero()[:, 0]
    if len(rows) == 0:
        raise InputError("plates", f"no face by '{detector.name}' in any frame", "a face", "try detector = 'cnn'")
    rows = _near_neutral(observed, rows)
    coefficients = _solve(observed, rows, rig, tuple(cameras), config.l2)
    return rig.with_identity(coefficients.float())


def _near_neutral(observed: Observations, rows: Tensor) -> Tensor:
    """The frames with the most closed mouth and the surest landmarks."""
    best = observed.confidence[rows].mean(-1).argmax(1)
    marks = observed.points[rows, best]
    height = (marks[:, 27] - marks[:, 8]).norm(dim=-1)
    gap = (marks[:, 61:64] - marks[:, [67, 66, 65]]).norm(dim=-1).mean(1) / height
    doubt = 1 - observed.confidence[rows, best].mean(-1)
    return rows[(gap + 0.5 * doubt).argsort()[:_FRAMES]]


def _solve(observed: Observations, rows: Tensor, rig: Rig, cameras: tuple[Camera, ...], l2: float) -> Tensor:
    small = rig.landmark_rig()
    assert small.identity_basis is not None
    basis = small.identity_basis.double()
    coefficients = torch.zeros(len(basis), dtype=torch.float64)
    targets = torch.nan_to_num(observed.points[rows])
    sets = _NEUTRAL.weights()
    trust = (observed.confidence[rows] / 0.5).clamp(0, 1) * sets
    side = torch.nan_to_num(observed.windows[rows, :, 2] - observed.windows[rows, :, 0], nan=256.0)
    scale = 256.0 / side
    lower, upper = bounds(rig)
    free = free_parameters(rig, _NEUTRAL)
    state: State | None = None
    for _ in range(_ROUNDS):
        person = small.with_identity(coefficients)
        if state is None:
            neutral = State.identity(1, len(small.weight_names))
            points = person.landmarks(person.vertices(neutral))[0]
            rotation, translation, _ = rigid_start(points, targets, trust, cameras)
            state = replace(
                State.identity(len(rows), len(small.weight_names)), rotation=rotation, translation=translation
            )
        energy = LandmarkEnergy(person, cameras, targets, trust, torch.zeros_like(targets), scale, state, l2=16 * l2)
        base = torch.cat([state.jaw, state.weights], 1)
        room = torch.full_like(base[:, :6], torch.inf)
        low, high = torch.cat([-room, lower - base], 1), torch.cat([room, upper - base], 1)
        state = state.retract(
            minimise(energy, torch.zeros_like(low), low, high, free, max_iterations=15, approach="direct").x
        )
        coefficients = _linear_step(small, basis, coefficients, state, targets, trust, scale, cameras)
    return coefficients


def _linear_step(
    small: Rig,
    basis: Tensor,
    coefficients: Tensor,
    state: State,
    targets: Tensor,
    trust: Tensor,
    scale: Tensor,
    cameras: tuple[Camera, ...],
) -> Tensor:
    def residual(
        a: Tensor,
        rotation: Tensor,
        translation: Tensor,
        jaw: Tensor,
        weights: Tensor,
        aim: Tensor,
        w: Tensor,
        unit: Tensor,
    ) -> Tensor:
        person = replace(
            small, neutral=small.neutral.double() + torch.einsum("i,ivc->vc", a, basis), identity_basis=None
        )
        one = State(rotation[None], translation[None], jaw[None], weights[None])
        world = person.landmarks(person.vertices(one))[0]
        off = torch.stack([camera.project(world) for camera in cameras]) - aim
        return (off * (w * unit[:, None])[..., None]).flatten()

    frames = (state.rotation, state.translation, state.jaw, state.weights, targets, trust, scale)
    dims = (None, 0, 0, 0, 0, 0, 0, 0)
    r = vmap(residual, in_dims=dims)(coefficients, *frames).flatten()
    j = vmap(jacfwd(residual), in_dims=dims)(coefficients, *frames).flatten(0, 1)
    # Landmark errors of one face are alike in every frame, so that frames do not count as independent.
    noise = _NOISE * len(targets) ** 0.5
    normal = j.T @ j / noise**2 + torch.eye(len(basis), dtype=torch.float64)
    gradient = j.T @ r / noise**2 + coefficients
    return (coefficients - torch.linalg.solve(normal, gradient)).clamp(-3, 3)
