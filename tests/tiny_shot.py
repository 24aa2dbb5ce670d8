"""A rig of a few hundred vertices and tracks of it, for tests of what sits on top of the solver."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from scipy.spatial.transform import Rotation

from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Jaw, Rig
from deepenergy.scene.track import Track

WEIGHTS = ("jawOpen", "mouthSmile_L", "browInnerUp")


def tiny_rig(subdivisions: int = 3) -> Rig:
    """A ball of 9 cm with three blendshapes, a jaw, and 68 landmarks spread over its front."""
    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=0.09)
    neutral = torch.tensor(np.asarray(ball.vertices), dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    jaw = Jaw(torch.tensor([0.0, 0.02, -0.02]), (neutral[:, 1] < 0).float(), *Jaw.default_bounds())
    rig = Rig(
        name="tiny",
        neutral=neutral,
        faces=torch.tensor(np.asarray(ball.faces), dtype=torch.int64),
        blendshapes=0.01 * torch.randn(len(WEIGHTS), len(neutral), 3, generator=generator),
        weight_names=WEIGHTS,
        jaw=jaw,
    )
    front = torch.argsort(neutral[:, 2], descending=True)[:68]
    return rig.with_landmark_vertices(front)


def tiny_camera(name: str = "left") -> Camera:
    """96x80 pixels, 0.8 m in front, not along an axis."""
    return Camera.look_at(96, 80, 300.0, (0.1, 0.05, 0.8), name=name)


def tiny_track(frames: int = 10, first: int = 1001, seed: int = 0) -> Track:
    """A track of random poses, all frames solved."""
    rng = np.random.default_rng(seed)
    return Track(
        frames=np.arange(first, first + frames),
        rotation=Rotation.from_euler("xyz", rng.normal(scale=0.2, size=(frames, 3))).as_matrix(),
        translation=rng.normal(scale=0.01, size=(frames, 3)),
        jaw=rng.uniform(0, 0.05, size=(frames, 6)),
        weights=rng.uniform(size=(frames, len(WEIGHTS))),
        weight_names=WEIGHTS,
        status=np.full(frames, "solved"),
        reason=np.full(frames, ""),
        confidence=rng.uniform(size=frames),
        landmark_residual_px=rng.uniform(0, 3, size=frames),
        landmarks_px={"left": rng.uniform(0, 80, size=(frames, 68, 2))},
        render_landmarks_px={"left": rng.uniform(0, 80, size=(frames, 68, 2))},
        rig_name="tiny",
    )


def fail_frame(track: Track, row: int, reason: str = "no face found") -> Track:
    """The same track with one failed frame."""
    changed = {n: getattr(track, n).copy() for n in ("rotation", "translation", "jaw", "weights")}
    for array in changed.values():
        array[row] = np.nan
    status, words = track.status.astype("U16"), track.reason.astype("U64")
    status[row], words[row] = "failed", reason
    confidence, residual = track.confidence.copy(), track.landmark_residual_px.copy()
    confidence[row], residual[row] = 0.0, np.nan
    return Track(
        track.frames, changed["rotation"], changed["translation"], changed["jaw"], changed["weights"],
        track.weight_names, status, words, confidence, residual, track.landmarks_px, track.render_landmarks_px,
        track.rig_name,
    )  # fmt: skip
