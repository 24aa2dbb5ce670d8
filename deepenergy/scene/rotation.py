"""Rotations: Euler angles of the paper (XYZ), axis-angle on SO(3), quaternions.

Euler angles are extrinsic XYZ: `R = Rz(z) @ Ry(y) @ Rx(x)`, a turn about the fixed X axis first, then Y, then Z
(scipy's `from_euler("xyz")`, Maya's rotate order `xyz`). Radians. Quaternions are (w, x, y, z).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def euler_to_matrix(euler: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of extrinsic XYZ Euler angles (radians)."""
    cx, cy, cz = torch.cos(euler).unbind(-1)
    sx, sy, sz = torch.sin(euler).unbind(-1)
    rows = [
        [cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz],
        [cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz],
        [-sy, sx * cy, cx * cy],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def matrix_to_euler(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Extrinsic XYZ Euler angles; y in [-pi/2, pi/2]. At the gimbal lock (|y| = pi/2) z is set to 0."""
    cos_y = torch.hypot(matrix[..., 0, 0], matrix[..., 1, 0])
    y = torch.atan2(-matrix[..., 2, 0], cos_y)
    locked = cos_y < 1e-9 if matrix.dtype == torch.float64 else cos_y < 1e-5
    x = torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2])
    z = torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0])
    x_locked = torch.atan2(-matrix[..., 1, 2], matrix[..., 1, 1])
    return torch.stack([torch.where(locked, x_locked, x), y, torch.where(locked, torch.zeros_like(z), z)], -1)


def hat(vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The matrix of the cross product: `hat(a) @ b == cross(a, b)`."""
    x, y, z = vector.unbind(-1)
    o = torch.zeros_like(x)
    rows = [[o, -z, y], [z, o, -x], [-y, x, o]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def so3_exp(vector: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of axis-angle vectors (Rodrigues), smooth at zero in every derivative mode."""
    square = (vector * vector).sum(-1)
    small = square < 1e-8
    safe = torch.where(small, torch.ones_like(square), square)
    angle = safe.sqrt()
    a = torch.where(small, 1 - square / 6 + square**2 / 120, torch.sin(angle) / angle)
    b = torch.where(small, 0.5 - square / 24 + square**2 / 720, (1 - torch.cos(angle)) / safe)
    skew = hat(vector)
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return eye + a[..., None, None] * skew + b[..., None, None] * (skew @ skew)


def so3_log(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Axis-angle vectors of rotation matrices; angle in [0, pi]."""
    quaternion = matrix_to_quaternion(matrix)
    w, v = quaternion[..., 0], quaternion[..., 1:]
    norm = v.norm(dim=-1)
    small = norm < 1e-7
    safe = torch.where(small, torch.ones_like(norm), norm)
    # w >= 0 by construction, so the angle is the short way round.
    scale = torch.where(small, 2 / w.clamp_min(0.5), 2 * torch.atan2(safe, w) / safe)
    return v * scale[..., None]


def left_jacobian(vector: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """`J` of `exp(v + d) = exp(J d) exp(v)` to first order in `d` (axis-angle)."""
    square = (vector * vector).sum(-1)[:, None, None]
    small = square < 1e-6
    safe = torch.where(small, torch.ones_like(square), square)
    angle = safe.sqrt()
    a = torch.where(small, 0.5 - square / 24, (1 - torch.cos(angle)) / safe)
    b = torch.where(small, 1 / 6 - square / 120, (angle - torch.sin(angle)) / (safe * angle))
    skew = hat(vector)
    return torch.eye(3).to(vector) + a * skew + b * (skew @ skew)


def matrix_to_quaternion(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternions (w, x, y, z) with w >= 0 (Shepperd's method: the largest component first)."""
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    trace = m[0][0] + m[1][1] + m[2][2]
    squares = torch.stack([1 + trace, 1 + 2 * m[0][0] - trace, 1 + 2 * m[1][1] - trace, 1 + 2 * m[2][2] - trace], -1)
    yz, xz, xy = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    s_xy, s_xz, s_yz = m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]
    candidates = torch.stack(
        [
            torch.stack([squares[..., 0], yz, xz, xy], -1),
            torch.stack([yz, squares[..., 1], s_xy, s_xz], -1),
            torch.stack([xz, s_xy, squares[..., 2], s_yz], -1),
            torch.stack([xy, s_xz, s_yz, squares[..., 3]], -1),
        ],
        -2,
    )
    best = squares.argmax(-1)
    quaternion = torch.gather(candidates, -2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def quaternion_to_matrix(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z), normalised here."""
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def rotation_angle(a: Float[Tensor, "*b 3 3"], b: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Geodesic distance of two rotations in radians, accurate near 0 and near pi."""
    return so3_log(a.transpose(-1, -2) @ b).norm(dim=-1).clamp_max(math.pi)
