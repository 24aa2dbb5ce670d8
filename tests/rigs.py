"""A small random rig for tests that need numbers rather than a face."""

from __future__ import annotations

import torch

from deepenergy import Jaw, Rig


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
