"""The actor's identity, coarsely: identity coefficients and head poses from the landmarks of near-neutral frames.

The landmark points of frame f are linear in the identity coefficients `a` for a held pose and expression, so all frames
together give one small least-squares problem; poses and expressions are refitted in between. The coefficients are
held near 0 by their prior, a unit normal.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacfwd

from deepenergy.energy import LandmarkEnergy
from deepenergy.fit.fit_context import FitContext
from deepenergy.fit.free_controls import free_in_stage, limits_of
from deepenergy.fit.rigid_start import rigid_start
from deepenergy.landmarks.observe import Observations, ObserveSettings, observe
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.landmark_layout import LandmarkLayout
from deepenergy.scene.rig import Rig
from deepenergy.scene.state import State
from deepenergy.settings.schedule import Stage
from deepenergy.solve import minimise

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


def fit_identity(context: FitContext) -> Rig:
    """The rig of the actor in the plates, from a rig with an identity basis; see `Solver.fit_identity`.

    Raises:
        InputError: the rig has no identity basis, or no frame shows a face.
    """
    rig, views = context.rig, context.views
    if rig.identity_basis is None:
        raise InputError(
            f"rig '{rig.name}'", "no identity basis", "a rig with one (ICT-FaceKit)", "solve with it as it is"
        )
    step = max(1, len(views.frames) // (4 * _FRAMES))
    detector, frames = context.face_detector, views.frames[::step]
    settings = ObserveSettings(box_window=1, max_gap=0)
    observed = observe(views, frames, detector, context.landmark_network, settings, context.progress)
    seen = torch.isfinite(observed.points).all((-1, -2))
    rows = seen.any(1).nonzero()[:, 0]
    if len(rows) == 0:
        raise InputError("plates", f"no face by '{detector.name}' in any frame", "a face", "try detector = 'cnn'")
    rows = _near_neutral(observed, rows, rig.layout)
    cameras = views.cameras_at([frames[row] for row in rows.tolist()])
    coefficients = _solve(observed[rows], rig, cameras, context.config.l2)
    return rig.with_identity(coefficients.float())


def _near_neutral(observed: Observations, rows: Tensor, layout: LandmarkLayout) -> Tensor:
    """The frames with the most closed mouth and the surest landmarks."""
    best = observed.confidence[rows].mean(-1).argmax(1)
    marks = observed.points[rows, best]
    height = (marks[:, layout.bridge] - marks[:, layout.chin]).norm(dim=-1)
    upper, lower = ([pair[i] for pair in layout.inner_lip_pairs] for i in (0, 1))
    gap = (marks[:, upper] - marks[:, lower]).norm(dim=-1).mean(1) / height
    doubt = 1 - observed.confidence[rows, best].mean(-1)
    return rows[(gap + 0.5 * doubt).argsort()[:_FRAMES]]


def _solve(observed: Observations, rig: Rig, cameras: tuple[Camera, ...], l2: float) -> Tensor:
    small = rig.landmark_rig()
    assert small.identity_basis is not None
    basis = small.identity_basis.double()
    coefficients = torch.zeros(len(basis), dtype=torch.float64)
    targets = torch.nan_to_num(observed.points)
    sets = _NEUTRAL.weights(rig.layout)
    weight = (observed.confidence / 0.5).clamp(0, 1) * sets
    side = torch.nan_to_num(observed.windows[..., 2] - observed.windows[..., 0], nan=256.0)
    scale = 256.0 / side
    limits = limits_of(rig)
    free = free_in_stage(rig, _NEUTRAL)
    state: State | None = None
    for _ in range(_ROUNDS):
        person = small.with_identity(coefficients)
        if state is None:
            neutral = State.identity(1, len(small.weight_names))
            points = person.landmarks(person.vertices(neutral))[0]
            rotation, translation, _ = rigid_start(points, targets, weight, cameras)
            state = replace(
                State.identity(len(targets), len(small.weight_names)), rotation=rotation, translation=translation
            )
        energy = LandmarkEnergy(person, cameras, targets, weight, torch.zeros_like(targets), scale, state, l2=16 * l2)
        low, high = state.step_bounds(limits)
        state = state.retract(
            minimise(energy, torch.zeros_like(low), low, high, free, max_iterations=15, approach="direct").x
        )
        coefficients = _linear_step(energy, state, basis, coefficients)
    return coefficients


def _linear_step(
    energy: LandmarkEnergy, state: State, basis: Float[Tensor, "i v 3"], coefficients: Float[Tensor, " i"]
) -> Float[Tensor, " i"]:
    """A Gauss-Newton step of the identity coefficients, the states held.

    Args:
        energy: the landmark term of F frames.
        state: F states.
        basis: displacements of the landmarks' rig.
        coefficients: where the step starts.
    """
    small = energy.rig
    neutral = small.neutral.double() - torch.einsum("i,ivc->vc", coefficients, basis)
    rows, slopes = [], []
    for f in range(len(state)):
        one = energy.take(torch.tensor([f]))

        def residual(a: Tensor, f: int = f, one: LandmarkEnergy = one) -> Tensor:
            person = replace(small, neutral=neutral + torch.einsum("i,ivc->vc", a, basis))
            world = person.landmarks(person.vertices(state[[f]]))
            off = torch.stack([camera.project(world) for camera in one.cameras], 1) - one.targets
            return (off * (one.weights * one.pixel_scale[..., None])[..., None]).flatten()

        rows.append(residual(coefficients))
        slopes.append(jacfwd(residual)(coefficients))
    r, j = torch.cat(rows), torch.cat(slopes)
    # Landmark errors of one face are alike in every frame, so that frames do not count as independent.
    noise = _NOISE * len(state) ** 0.5
    normal = j.T @ j / noise**2 + torch.eye(len(basis), dtype=torch.float64)
    gradient = j.T @ r / noise**2 + coefficients
    return (coefficients - torch.linalg.solve(normal, gradient)).clamp(-3, 3)
