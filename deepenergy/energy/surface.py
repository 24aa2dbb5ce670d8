"""Points of the face's surface whose motion is followed: a spread of vertices, their projections and derivatives.

Between two renders every such point moves exactly as the rig says, so that the render's optical flow (paper,
section 6) is known without a network: the difference of its projections. Vertices, and not points within triangles, so
that the jaw's skinning is exact on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.render.operations import rasterize, vertex_normals
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Jaw, Rig
from deepenergy.scene.rotation import hat, left_jacobian, so3_exp
from deepenergy.scene.state import State

# A vertex is hidden where the surface before it is nearer by more than this (metres): a lip's thickness is more.
_HIDDEN_BY = 0.003
# Cosine of the steepest angle at which a point is followed; beyond, its surroundings in the plate are the background's.
_STEEPEST = 0.3


@dataclass(frozen=True)
class SurfacePoints:
    """N vertices of a rig, with all that moves them.

    Attributes:
        indices: `[N]` vertices of the whole rig.
        neutral: `[N, 3]` metres.
        shapes: `[N, 3, K]` displacements at weight 1.
        jaw: the jaw joint with the points' skin weights, or None.
    """

    indices: Int[Tensor, " n"]
    neutral: Float[Tensor, "n 3"]
    shapes: Float[Tensor, "n 3 k"]
    jaw: Jaw | None

    @staticmethod
    def of(rig: Rig, indices: Int[Tensor, " n"]) -> SurfacePoints:
        """The points at some vertices, float64."""
        shapes = rig.blendshapes[:, indices].double().permute(1, 2, 0).contiguous()
        jaw = None if rig.jaw is None else replace(rig.jaw, skin_weights=rig.jaw.skin_weights[indices])
        return SurfacePoints(indices, rig.neutral[indices].double(), shapes, jaw)

    def __len__(self) -> int:
        return len(self.indices)

    def world(self, state: State) -> Float[Tensor, "b n 3"]:
        """The points in world space, metres."""
        local, _ = self._local(state)
        return local @ state.rotation.mT + state.translation[:, None]

    def pixels(self, state: State, camera: Camera) -> Float[Tensor, "b n 2"]:
        """The points' projections, plate pixels."""
        return camera.project(self.world(state))

    def project_with_jacobian(
        self, state: State, camera: Camera
    ) -> tuple[Float[Tensor, "b n 2"], Float[Tensor, "b n 2 p"]]:
        """Projections and their derivative by the step of `State.retract` at zero."""
        local, bare = self._local(state)
        turned = local @ state.rotation.mT
        world = turned + state.translation[:, None]
        pixels, slope = camera.project_with_jacobian(world)
        in_object = slope @ state.rotation[:, None]
        before = in_object
        columns = [-slope @ hat(turned), slope]
        if self.jaw is None:
            columns.append(slope.new_zeros(*slope.shape[:-1], 6))
        else:
            skin = self.jaw.skin_weights.to(local)[:, None, None]
            turn = so3_exp(state.jaw[:, :3])
            arm = (bare - self.jaw.pivot.to(local)) @ turn.mT
            columns.append(-skin * in_object @ hat(arm) @ left_jacobian(state.jaw[:, :3])[:, None])
            columns.append(skin * in_object)
            before = in_object + skin * in_object @ (turn - torch.eye(3).to(turn))[:, None]
        columns.append(torch.einsum("bnij,njk->bnik", before, self.shapes.to(before)))
        return pixels, torch.cat(columns, -1)

    def _local(self, state: State) -> tuple[Tensor, Tensor]:
        """Object space, after the jaw and before it."""
        bare = self.neutral.to(state.weights) + torch.einsum(
            "njk,bk->bnj", self.shapes.to(state.weights), state.weights
        )
        if self.jaw is None:
            return bare, bare
        pivot, skin = self.jaw.pivot.to(bare), self.jaw.skin_weights.to(bare)
        turned = (bare - pivot) @ so3_exp(state.jaw[:, :3]).mT + pivot + state.jaw[:, None, 3:]
        return bare + skin[:, None] * (turned - bare), bare


def world_vjp(
    points: SurfacePoints, state: State, turn: Float[Tensor, "b 3"], force: Float[Tensor, "b m 3"]
) -> Float[Tensor, "b m p"]:
    """`force . d world / d step`, a row for each point: derivatives of projected points, from the image backwards.

    Contracting with the directions in the image before the blendshapes come in is what makes a thousand points
    affordable: one product with `[3, K]` a point and direction, and no derivative of the points themselves.

    Args:
        points: M surface points.
        state: where a step of `State.retract` led.
        turn: the rotation part of that step.
        force: a direction in world axes for each point.
    """
    shapes = points.shapes.to(force)
    local = points.neutral.to(force) + torch.einsum("njk,bk->bnj", shapes, state.weights)
    inner = force @ state.rotation
    jaw = force.new_zeros(*force.shape[:2], 6)
    if points.jaw is not None:
        skin, pivot = points.jaw.skin_weights.to(force)[:, None], points.jaw.pivot.to(force)
        hinge = so3_exp(state.jaw[:, :3])
        arm = (local - pivot) @ hinge.mT
        share = inner * skin
        jaw = torch.cat([torch.linalg.cross(arm, share) @ left_jacobian(state.jaw[:, :3]), share], 2)
        inner = inner - share + share @ hinge
        local = local + skin * (arm + pivot + state.jaw[:, None, 3:] - local)
    spin = torch.linalg.cross(local @ state.rotation.mT, force) @ left_jacobian(turn)
    return torch.cat([spin, force, jaw, torch.einsum("bmc,mck->bmk", inner, shapes)], 2)


def face_points(rig: Rig, count: int = 600) -> SurfacePoints:
    """At most `count` vertices spread evenly over the face: forehead to chin, ear to ear, no eyes, no mouth cavity.

    Eyeballs turn on their own, and the neck does not follow the head.

    Raises:
        InputError: the rig has no landmarks.
    """
    corners = rig.landmark_rig()
    marks = corners.landmarks(corners.neutral[None].double())[0].numpy()
    position = rig.neutral.double().numpy()
    layout = rig.layout
    brows, chin = marks[list(layout.sets["brows"])], marks[layout.chin]
    # The forehead is about as high above the brows as half the way from the brows to the chin.
    raised = brows + np.array([0.0, 0.5, 0.0]) * (brows[:, 1].mean() - chin[1])
    inside = _within_hull(np.concatenate([marks, raised])[:, :2], position[:, :2])
    for name in ("right_eye", "left_eye"):
        inside &= ~_within_hull(marks[layout.contours[name].rows, :2], position[:, :2])
    inside &= _seen_from_the_front(rig)
    candidates = np.flatnonzero(inside)
    nearest = int(np.linalg.norm(position[candidates] - marks[layout.nose_tip], axis=1).argmin())
    chosen = _farthest_points(position[candidates], min(count, len(candidates)), nearest)
    return SurfacePoints.of(rig, torch.from_numpy(np.sort(candidates[chosen])))


def _within_hull(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    from scipy.spatial import Delaunay

    return Delaunay(corners).find_simplex(points) >= 0


def _seen_from_the_front(rig: Rig) -> np.ndarray:
    """Vertices of the neutral that a camera before the face sees, or one at 45 degrees to either side."""
    centre = rig.neutral.mean(0).double()
    extent = float((rig.neutral.amax(0) - rig.neutral.amin(0)).max())
    every = torch.arange(len(rig.neutral))
    target: tuple[float, float, float] = (float(centre[0]), float(centre[1]), float(centre[2]))
    seen = np.zeros(len(every), bool)
    for side in (-1.0, 0.0, 1.0):
        # Ten heads away, so that perspective hides little.
        eye = (target[0] + 10 * extent * side, target[1], target[2] + 10 * extent)
        camera = Camera.look_at(512, 512, 512 * 9.0, eye, target)
        seen |= visible_points(rig, rig.neutral[None].double(), camera, every)[0].numpy()
    return seen


def _farthest_points(position: np.ndarray, count: int, first: int) -> np.ndarray:
    """Farthest-point sampling: each next point is the one farthest from those chosen."""
    if count == 0:
        return np.zeros(0, np.int64)
    chosen = [first]
    away = ((position - position[first]) ** 2).sum(1)
    while len(chosen) < count and away.max() > 0:
        chosen.append(int(away.argmax()))
        away = np.minimum(away, ((position - position[chosen[-1]]) ** 2).sum(1))
    return np.array(chosen)


def visible_points(
    rig: Rig, vertices: Float[Tensor, "b v 3"], camera: Camera, indices: Int[Tensor, " n"]
) -> Bool[Tensor, "b n"]:
    """Which vertices a camera sees: in the image, before everything else, not at a grazing angle.

    Args:
        vertices: world-space meshes, metres.
        camera: one camera, or a batch with a row for each mesh; its size is that of the depth image that decides.
    """
    in_camera = camera.camera_points(vertices.double())
    pixels, depth = camera.pixels(in_camera), in_camera[..., 2]
    faces = rig.faces.to(vertices.device)
    fragments = rasterize(pixels.float(), depth.float(), faces, (camera.width, camera.height))
    places, own = pixels[:, indices], depth[:, indices]
    column, row = places[..., 0].floor().long(), places[..., 1].floor().long()
    within = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height) & (own > 0)
    column, row = column.clamp(0, camera.width - 1), row.clamp(0, camera.height - 1)
    batch = torch.arange(len(vertices), device=vertices.device)[:, None]
    before = fragments.depth[batch, row, column].double()
    covered = fragments.face_index[batch, row, column] >= 0
    normals = vertex_normals(vertices.double(), faces)[:, indices]
    eye = camera.centre.to(vertices.device)[..., None, :]
    view = torch.nn.functional.normalize(eye - vertices.double()[:, indices], dim=-1)
    facing = (torch.nn.functional.normalize(normals, dim=-1) * view).sum(-1)
    # The depth image is that of a pixel's centre; on a slope the point itself may lie a little behind.
    hidden = covered & (before < own - _HIDDEN_BY)
    return within & ~hidden & (facing > _STEEPEST)


def face_window(
    pixels: Sequence[Float[Tensor, "n 2"]] | Float[Tensor, "m n 2"], margin: float = 0.25
) -> Float[Tensor, "4"]:
    """The square window around projected points (of one frame or several), with a margin, plate pixels."""
    every = torch.cat(list(pixels)).double()
    low, high = every.amin(0), every.amax(0)
    centre, half = (low + high) / 2, float((high - low).max()) / 2 * (1 + 2 * margin)
    return torch.cat([centre - half, centre + half])
