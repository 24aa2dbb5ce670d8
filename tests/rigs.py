"""Small rigs for tests that need numbers rather than a face."""

from __future__ import annotations

import torch
from torch import Tensor

from deepenergy import Jaw, Rig
from deepenergy.scene.landmark_layout import IBUG_68

NAMES = ("jawOpen", "mouthSmile_L", "browInnerUp")
ROWS, COLUMNS = 6, 8


def random_rig(seed: int = 0, shapes: int = 6, jaw: bool = True, identities: int = 0) -> Rig:
    """68 separate triangles, the face's size, a landmark on each."""
    generator = torch.Generator().manual_seed(seed)
    centres = (torch.rand(68, 1, 3, generator=generator) - 0.5) * torch.tensor([0.14, 0.16, 0.08])
    corners = centres + (torch.rand(68, 3, 3, generator=generator) - 0.5) * 0.01
    vertices = corners.reshape(-1, 3)
    lower, upper = Jaw.default_bounds()
    joint = Jaw(torch.tensor([0.0, 0.02, -0.06]), torch.rand(len(vertices), generator=generator), lower, upper)
    names = ["jawOpen", "mouthSmileLeft", "mouthPucker", "browInnerUp", "eyeBlinkLeft", "noseSneerRight"][:shapes]
    basis = torch.randn(identities, len(vertices), 3, generator=generator) * 0.003
    return Rig(
        "random",
        vertices,
        torch.arange(len(vertices)).view(-1, 3),
        torch.randn(shapes, len(vertices), 3, generator=generator) * 0.008,
        tuple(names),
        landmark_faces=torch.arange(68),
        landmark_barycentrics=torch.full((68, 3), 1 / 3),
        jaw=joint if jaw else None,
        identity_basis=basis if identities else None,
        identity_names=tuple(f"identity{i}" for i in range(identities)),
    )


def grid_rig(jaw: bool = True, identity: bool = True, seed: int = 0) -> Rig:
    """A 6 x 8 sheet of vertices with random displacements."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0.1, -0.1, ROWS), torch.linspace(-0.1, 0.1, COLUMNS), indexing="ij")
    neutral = torch.stack([x, y, 0.05 - x**2], -1).reshape(-1, 3)
    corner = torch.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    a, b, c, d = (t.reshape(-1) for t in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
    faces = torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])
    vertices = len(neutral)

    def noise(*shape: int) -> Tensor:
        return 0.02 * torch.randn(*shape, generator=generator)

    lower, upper = Jaw.default_bounds()
    skin = torch.linspace(0, 1, ROWS)[:, None].expand(ROWS, COLUMNS).reshape(-1).clone()
    return Rig(
        name="sheet",
        neutral=neutral,
        faces=faces,
        blendshapes=noise(len(NAMES), vertices, 3),
        weight_names=NAMES,
        landmark_faces=torch.randint(0, len(faces), (IBUG_68.count,), generator=generator),
        landmark_barycentrics=torch.softmax(noise(IBUG_68.count, 3) * 30, 1),
        jaw=Jaw(torch.tensor([0.0, 0.03, -0.04]), skin, lower, upper) if jaw else None,
        identity_basis=noise(2, vertices, 3) if identity else None,
        identity_names=("identity000", "identity001") if identity else (),
    )
