"""Plates that carry their own coordinates, and a flow "network" that knows the answer from the rig's motion.

Red and green of a plate hold each pixel's place, blue the frame's row. Whatever window is cut out of it, the oracle
reads from it which frame and which place every pixel shows, and answers with the exact flow of the rig between the two
frames.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepenergy import Camera, Plates, Rig
from deepenergy.flow import Flow
from deepenergy.render.operations import rasterize
from deepenergy.scene.rotation import so3_exp
from deepenergy.scene.state import State
from deepenergy.scene.track import Track

_ROWS = 64
SIZE = (240, 200)


def camera(eye: tuple[float, float, float] = (0.05, 0.02, 0.9), name: str = "left") -> Camera:
    """Before the head, a little off every axis."""
    return Camera.look_at(*SIZE, 700.0, eye, name=name)


def plates(frames: int, name: str = "left") -> Plates:
    """Frames from 1001 on."""
    width, height = SIZE
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    rows = [np.stack([x, y, np.full_like(x, (t + 1) / _ROWS)]) for t in range(frames)]
    return Plates.from_array(np.stack(rows).astype(np.float32), name=name)


class OracleFlow:
    """The flow between plates of `plates`, exact for the rig in these states."""

    name = "oracle"

    def __init__(self, rig: Rig, state: State, view: Camera) -> None:
        self._frames = []
        world = rig.vertices(state)
        pixels, depth = view.project(world), view.camera_points(world)[..., 2]
        seen = rasterize(pixels.float(), depth.float(), rig.faces, SIZE)
        for t in range(len(state)):
            corners = rig.faces[seen.face_index[t].clamp_min(0)]
            self._frames.append((seen.face_index[t] >= 0, corners, seen.barycentrics[t].double()))
        self._world, self._view = world, view

    def _between(self, a: int, b: int) -> Tensor:
        """`[3, H, W]`: flow in plate pixels, and 1 where there is a face."""
        covered, corners, weights = self._frames[a]
        places = [
            self._view.project((self._world[t][corners] * weights[..., None]).sum(2).flatten(0, 1)) for t in (a, b)
        ]
        flow = (places[1] - places[0]).view(*covered.shape, 2).permute(2, 0, 1)
        return torch.cat([flow * covered, covered[None].double()])

    def __call__(self, a: Tensor, b: Tensor) -> Flow:
        found = []
        for first, second in zip(a.double(), b.double(), strict=True):
            rows = [round(float(image[2].max()) * _ROWS) - 1 for image in (first, second)]
            dense = self._between(*rows)
            width = SIZE[0]
            # Where the border was blended with black, places are wrong; blue says so.
            inside = (first[2] * _ROWS - rows[0] - 1).abs() < 1e-3
            grid = torch.stack([2 * first[0] - 1, 2 * first[1] - 1], -1)
            read = torch.nn.functional.grid_sample(dense[None], grid[None], align_corners=False)[0]
            row, column = first.shape[1] // 2, first.shape[2] // 2
            scale = 1 / float((first[0, row, column + 1] - first[0, row, column]) * width)
            valid = inside & (read[2] > 0.999)
            found.append(torch.cat([read[:2] * scale, valid[None].double()]))
        both = torch.stack(found).float()
        return Flow(both[:, :2], both[:, 2:])


def performance(rig: Rig, frames: int, seed: int = 0) -> State:
    """A turning head that opens its mouth and closes it again, not the same in any two frames."""
    time = torch.linspace(0, 1, frames, dtype=torch.float64)
    turn = torch.stack([0.05 * torch.sin(9 * time), 0.15 * torch.sin(5 * time + 0.3), 0.04 * torch.cos(7 * time)], 1)
    move = torch.stack([0.01 * torch.sin(6 * time), 0.005 * torch.cos(8 * time), 0.004 * torch.sin(4 * time)], 1)
    generator = torch.Generator().manual_seed(seed)
    level = 0.3 * torch.rand(len(rig.weight_names), generator=generator, dtype=torch.float64)
    phase = 6 * torch.rand(len(rig.weight_names), generator=generator, dtype=torch.float64)
    weights = level * (0.5 + 0.5 * torch.sin(8 * time[:, None] + phase))
    jaw = torch.zeros(frames, 6, dtype=torch.float64)
    if rig.jaw is not None:
        jaw[:, 0] = 0.15 * (0.5 + 0.5 * torch.sin(11 * time))
    return State(so3_exp(turn), move, jaw, weights)


def track_of(rig: Rig, state: State, failed: tuple[int, ...] = ()) -> Track:
    """A track of these states, with some frames failed."""
    count = len(state)
    arrays = [part.numpy().copy() for part in (state.rotation, state.translation, state.jaw, state.weights)]
    status, reason = np.full(count, "solved", dtype="U8"), np.full(count, "", dtype="U16")
    for row in failed:
        status[row], reason[row] = "failed", "taken out"
        for array in arrays:
            array[row] = np.nan
    rotation, translation, jaw, weights = arrays
    return Track(
        frames=np.arange(1001, 1001 + count),
        rotation=rotation,
        translation=translation,
        jaw=jaw,
        weights=weights,
        weight_names=rig.weight_names,
        status=status,
        reason=reason,
        confidence=np.where(status == "solved", 0.8, 0),
        landmark_residual_px=np.full(count, np.nan),
        rig_name=rig.name,
    )
