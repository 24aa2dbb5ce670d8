"""Visibility by PyTorch3D's rasteriser, an optional package: docs/pytorch3d.md says how to get it.

This adapter is the only place that knows its conventions: normalised device coordinates with +X left and +Y up, the
shorter side of the image in [-1, 1], pixels sampled at their centres, depth along +Z.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.render.fragments import Fragments
from deepenergy.runtime.errors import InputError

INSTALL = "pip install --no-build-isolation git+https://github.com/facebookresearch/pytorch3d.git"


def rasterize_pytorch3d(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    faces: Int[Tensor, "f 3"],
    size: tuple[int, int],
    near: float = 1e-3,
) -> Fragments:
    """Visibility of projected meshes; see `rasterize`. Triangles that cross the near plane are clipped at it.

    What PyTorch3D does differently from ours: a pixel whose centre lies on an edge belongs to neither of its triangles,
    triangles with less area than 1.25e-9 times the squared shorter side are left out, and arithmetic is in float32.
    Its CPU code looks at every triangle for every pixel.

    Args:
        pixels: projected vertices (x, y), pixel centres at half-integers.
        depth: camera Z of the vertices in metres.
        faces: triangles, shared by the batch.
        size: (width, height).
        near: nothing nearer than this (metres) is seen; more than 0.

    Returns:
        Triangle, barycentrics and depth of every pixel.

    Raises:
        InputError: PyTorch3D is not there, cannot be loaded, or has no code for the device of `pixels`.
    """
    kernel, meshes = load_pytorch3d()
    width, height = size
    xyz = torch.cat([to_ndc(pixels.detach(), size), depth.detach().float()[..., None]], -1)
    shape = (pixels.shape[0], height, width)
    index = torch.full(shape, -1, dtype=torch.int64, device=pixels.device)
    bary = torch.zeros((*shape, 3), dtype=torch.float32, device=pixels.device)
    z = torch.zeros(shape, dtype=torch.float32, device=pixels.device)
    # One image at a time: its bins hold `faces x bins` indices, and too small a bin would drop triangles with no more
    # than a printed line.
    for b in range(shape[0]):
        corners = xyz[b][faces]
        # A NaN passes all its tests, and the triangle would cover every pixel.
        usable = torch.isfinite(corners).all(-1).all(-1) & (corners[..., 2] >= near).any(-1)
        kept = usable.nonzero()[:, 0]
        if not kept.numel():
            continue
        try:
            found, zbuf, weights, _ = kernel(
                meshes(verts=[xyz[b]], faces=[faces[kept]]),
                image_size=(height, width),
                blur_radius=0.0,
                faces_per_pixel=1,
                max_faces_per_bin=kept.numel(),
                perspective_correct=True,
                z_clip_value=near,
            )
        except RuntimeError as error:
            if "GPU support" not in str(error):
                raise
            raise InputError(
                "renderer",
                f"a PyTorch3D built without CUDA, and tensors on {pixels.device}",
                "a PyTorch3D built for this device",
                f"build it where nvcc is found ({INSTALL}), or use renderer 'torch'",
            ) from None
        covered = found[0, ..., 0] >= 0
        index[b][covered] = kept[found[0, ..., 0][covered]]
        bary[b][covered] = weights[0, ..., 0, :][covered]
        z[b][covered] = zbuf[0, ..., 0][covered]
    return Fragments(index, bary, z)


def to_ndc(pixels: Float[Tensor, "*b 2"], size: tuple[int, int]) -> Float[Tensor, "*b 2"]:
    """Image coordinates as PyTorch3D's.

    Args:
        pixels: +X right, +Y down, origin in the corner.
        size: (width, height).

    Returns:
        Normalised device coordinates, float32.
    """
    centre = torch.tensor(size, dtype=torch.float64, device=pixels.device) / 2
    return ((centre - pixels.double()) / centre.min()).float()


def load_pytorch3d() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """PyTorch3D's `rasterize_meshes` and `Meshes`.

    Raises:
        InputError: the package is not installed, or its compiled part does not load (built for another torch).
    """
    expected = "an installed PyTorch3D, since it was chosen as renderer"
    ours = "or use renderer 'auto'"
    try:
        import_module("pytorch3d")
        kernel = import_module("pytorch3d.renderer.mesh.rasterize_meshes").rasterize_meshes
        return kernel, import_module("pytorch3d.structures").Meshes
    except ModuleNotFoundError as error:
        if error.name == "pytorch3d":
            raise InputError("renderer", "no package pytorch3d", expected, f"{INSTALL}, {ours}") from None
        raise InputError("renderer", str(error), expected, f"install that too, {ours}") from None
    except (ImportError, OSError) as error:
        found = f"a pytorch3d that does not load ({' '.join(str(error).split())})"
        raise InputError("renderer", found, expected, f"build it again for this torch: {INSTALL}, {ours}") from None
