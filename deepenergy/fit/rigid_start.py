"""The rigid start from detected landmarks and the neutral landmark points, at any head pose.

Every frame tries a grid of head poses up to profile, refines the few that fit best and keeps the best of those; so
nothing assumes a face that starts front and centre. The refinement is least squares on the reprojection error,
softened for outliers.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.scene.camera import Camera
from deepenergy.scene.rotation import euler_to_matrix, hat, left_jacobian, so3_exp
from deepenergy.solve import minimise

_YAW = (-70.0, -35.0, 0.0, 35.0, 70.0)
_PITCH = (-25.0, 15.0)
_ROLL = (-35.0, 35.0)
_REFINED = 4


def rigid_start(
    points: Float[Tensor, "n 3"],
    pixels: Float[Tensor, "b c n 2"],
    weights: Float[Tensor, "b c n"],
    cameras: tuple[Camera, ...],
) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 3"], Float[Tensor, " b"]]:
    """Pose of rigid points in the world from their pixels in one or more cameras.

    Args:
        points: object space, metres.
        pixels: plate pixels; anything where the weight is 0.
        weights: factors on the residuals, 0 for unseen; a frame wants four points or more.
        cameras: C cameras, the same in every frame or with a row for each.

    Returns:
        rotation, translation (metres) and the root-mean-square reprojection error in pixels.
    """
    starts = [torch.tensor(a) for a in itertools.product(_PITCH, _YAW, _ROLL)]
    euler = torch.stack(starts).to(points) * (math.pi / 180)
    # In camera axes (Y down, Z away) a head that looks into the camera is turned half round about X.
    facing = euler_to_matrix(euler) * torch.tensor([1.0, -1.0, -1.0]).to(points)[:, None]
    batch, count = pixels.shape[0], len(starts)
    rotation = points.new_zeros(batch, count, 3, 3)
    translation = points.new_zeros(batch, count, 3)
    main = weights.sum(-1).argmax(1)
    for index, camera in enumerate(cameras):
        depth_points = facing @ points.T
        mine = main == index
        if not bool(mine.any()):
            continue
        own = camera[mine]
        offset = _weak_perspective(depth_points, own.undistort(pixels[mine, index]), weights[mine, index])
        rotation[mine] = own.unsqueeze().world_to_camera.to(points)[..., :3, :3].mT @ facing
        world = own.world_to_camera.to(points)
        translation[mine] = (offset - world[..., None, :3, 3]) @ world[..., :3, :3]
    moved = points @ rotation.transpose(-1, -2) + translation[:, :, None]
    away = torch.stack([c.unsqueeze().project(moved) for c in cameras], 2) - pixels[:, None]
    error = torch.where(weights[:, None] > 0, (away**2).sum(-1) * weights[:, None] ** 2, torch.zeros_like(away[..., 0]))
    chosen = error.sum((2, 3)).topk(_REFINED, largest=False).indices
    count = _REFINED
    rows = torch.arange(batch)[:, None]
    flat = [rotation[rows, chosen].flatten(0, 1), translation[rows, chosen].flatten(0, 1)]
    target = pixels.repeat_interleave(count, 0)
    factor = weights.repeat_interleave(count, 0)
    repeated = [camera[torch.arange(batch).repeat_interleave(count)] for camera in cameras]
    # Softening at a few per cent of the face's size in the image.
    size = _extent(target, factor)

    def problem(x: Tensor) -> tuple[Tensor, Tensor]:
        turned = points @ (so3_exp(x[:, :3]) @ flat[0]).mT
        moved = turned + (flat[1] + x[:, 3:])[:, None]
        seen, slope = (
            torch.stack(part, 1) for part in zip(*(c.project_with_jacobian(moved) for c in repeated), strict=True)
        )
        known, unit = (factor > 0)[..., None], (factor / (0.03 * size[..., 0]))[..., None]
        off = torch.where(known, (seen - target) * unit, torch.zeros_like(target))
        slope = torch.where(known[..., None], slope * unit[..., None], torch.zeros_like(slope))
        # By the step: the world's points turn about the head's origin.
        spin = -hat(turned) @ left_jacobian(x[:, :3])[:, None]
        by_step = torch.cat([slope @ spin[:, None], slope], -1)
        # sqrt of the pseudo-Huber cost, landmark by landmark.
        square = (off * off).sum(-1, keepdim=True)
        root = torch.sqrt(1 + square)
        soft = torch.sqrt(2 / (1 + root))
        bend = -soft / (2 * root * (1 + root))
        by_step = soft[..., None] * by_step + bend[..., None] * off[..., None] * (off[..., None, :] @ by_step)
        return (off * soft).flatten(1), by_step.flatten(1, 3)

    free = torch.full((6,), torch.inf, dtype=points.dtype)
    solution = minimise(problem, points.new_zeros(batch * count, 6), -free, free, max_iterations=25)
    found = so3_exp(solution.x[:, :3]) @ flat[0], flat[1] + solution.x[:, 3:]
    cost = solution.cost.view(batch, count)
    # A mirror solution behind the camera fits as well: refuse it.
    depth = torch.stack([c.camera_points(found[1][:, None])[:, 0, 2] for c in repeated]).amin(0).view(batch, count)
    best = torch.where(depth > 0, cost, torch.full_like(cost, torch.inf)).argmin(1)
    pick = torch.arange(batch) * count + best
    rotation, translation = found[0][pick], found[1][pick]
    moved = points @ rotation.transpose(-1, -2) + translation[:, None]
    error = torch.stack([camera.project(moved) for camera in cameras], 1) - pixels
    square = torch.where(weights > 0, (error**2).sum(-1), torch.zeros_like(weights))
    return rotation, translation, (square.sum((1, 2)) / (weights > 0).sum((1, 2)).clamp_min(1)).sqrt()


def _weak_perspective(
    points: Float[Tensor, "s 3 n"], image: Float[Tensor, "b n 2"], weights: Float[Tensor, "b n"]
) -> Float[Tensor, "b s 3"]:
    """Camera-space translation that puts turned points at normalised image points, by scale and centre."""
    w = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
    image = torch.where((weights > 0)[..., None], image, torch.zeros_like(image))
    centre = torch.einsum("bn,bnc->bc", w, image)
    spread = torch.einsum("bn,bnc->b", w, (image - centre[:, None]) ** 2).sqrt()
    middle = torch.einsum("bn,scn->bsc", w, points)
    around = points[None] - middle[..., None]
    flat = torch.einsum("bn,bscn->bs", w, around[:, :, :2] ** 2).sqrt()
    depth = flat / spread[:, None].clamp_min(1e-9)
    xy = centre[:, None] * depth[..., None]
    return torch.cat([xy, depth[..., None]], -1) - middle


def _extent(pixels: Float[Tensor, "b c n 2"], weights: Float[Tensor, "b c n"]) -> Float[Tensor, "b 1 1 1"]:
    """The largest side of the seen points' box over the cameras."""
    seen = (weights > 0)[..., None]
    high = torch.where(seen, pixels, torch.full_like(pixels, -torch.inf)).amax(2)
    low = torch.where(seen, pixels, torch.full_like(pixels, torch.inf)).amin(2)
    side = (high - low).amax(-1)
    return torch.where(torch.isfinite(side), side, torch.zeros_like(side)).amax(1).clamp_min(1.0)[:, None, None, None]
