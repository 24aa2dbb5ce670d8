"""Spheres as meshes and as rigs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepenergy import Rig


def uv_sphere(rings: int = 24, radius: float = 0.1) -> tuple[Tensor, Tensor]:
    polar = torch.linspace(0, math.pi, rings)
    around = torch.linspace(0, 2 * math.pi, 2 * rings + 1)[:-1]
    p, a = torch.meshgrid(polar, around, indexing="ij")
    points = torch.stack([p.sin() * a.sin(), p.cos(), p.sin() * a.cos()], -1).reshape(-1, 3) * radius
    columns = 2 * rings
    faces = []
    for i in range(rings - 1):
        for j in range(columns):
            q = [
                i * columns + j,
                (i + 1) * columns + j,
                (i + 1) * columns + (j + 1) % columns,
                i * columns + (j + 1) % columns,
            ]
            faces += [[q[0], q[1], q[2]], [q[0], q[2], q[3]]]
    return points, torch.tensor(faces)


def sphere_rig(albedo: Tensor | None = None) -> Rig:
    points, faces = uv_sphere()
    return Rig("sphere", points, faces, torch.zeros(0, len(points), 3), (), vertex_albedo=albedo)
