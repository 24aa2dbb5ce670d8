"""Texture lookup by gathers, differentiable in texture and coordinates in both modes (`grid_sample` lacks forward).

Magnified, a texture is read bilinearly. Minified, a pixel must see the mean of all texels under it: from a pyramid of
area means, blended linearly between the two levels about the pixel's footprint (trilinear mip mapping, Williams 1983).
The footprint is the root of the triangle's ratio of texel area to pixel area: it needs no neighbouring pixels, so it
works on a list of points and under `vmap`, and at grazing angles it blurs less than the longer side of the footprint
would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


def bilinear_taps(uv: Float[Tensor, "n 2"], size: tuple[int, int]) -> tuple[Int[Tensor, "n 4"], Float[Tensor, "n 4"]]:
    """The four texels about each point.

    Args:
        uv: origin bottom-left, +v up; texel centres at half-integers; repeating outside [0, 1].
        size: (width, height) of the texture.

    Returns:
        Flat indices, row-major, and weights that sum to 1.
    """
    width, height = size
    index, weight = _taps(uv, torch.full_like(uv[:, 0], width), torch.full_like(uv[:, 0], height))
    return index, weight


def sample_texture(texture: Float[Tensor, "h w c"], uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n c"]:
    """Bilinear lookup.

    Args:
        texture: top row first.
        uv: as in `bilinear_taps`.

    Returns:
        The values at the points.
    """
    height, width = texture.shape[:2]
    index, weight = bilinear_taps(uv, (width, height))
    return _blend(texture.reshape(height * width, -1), index, weight)


@dataclass(frozen=True)
class MipTexture:
    """A texture and its means over ever larger squares.

    Attributes:
        texels: `[N, C]` all levels, one after the other, each row-major, top row first.
        widths, heights, offsets: `[L]` int64; size of every level, and where it begins.
    """

    texels: Tensor
    widths: Tensor
    heights: Tensor
    offsets: Tensor


def mip_texture(texture: Float[Tensor, "h w c"]) -> MipTexture:
    """The pyramid of a texture: every level has half the size, rounded up, and the area means of the one before.

    The mean of every level is that of the texture, for odd sizes too. Differentiable in the texture.

    Args:
        texture: top row first.

    Returns:
        All levels, down to one texel.
    """
    levels = [texture]
    while max(levels[-1].shape[:2]) > 1:
        levels.append(_halved(_halved(levels[-1], 0), 1))
    sizes = torch.tensor([level.shape[:2] for level in levels], device=texture.device)
    counts = sizes.prod(1)
    texels = torch.cat([level.flatten(0, 1) for level in levels])
    return MipTexture(texels, sizes[:, 1], sizes[:, 0], counts.cumsum(0) - counts)


def sample_mips(
    mips: MipTexture, uv: Float[Tensor, "n 2"], footprint: Float[Tensor, " n"] | float
) -> Float[Tensor, "n c"]:
    """Lookup with minification; continuous in uv and footprint.

    Args:
        mips: the pyramid.
        uv: as in `sample_texture`.
        footprint: side of the pixel's square in texels of the finest level (see `face_footprints`); up to 1 is bilinear
            magnification.

    Returns:
        The values at the points.
    """
    side = torch.as_tensor(footprint).to(uv).expand(len(uv))
    top = len(mips.widths) - 1
    level = torch.log2(side.clamp(1.0, 2.0**top))
    lower = torch.floor(level.detach()).long().clamp(0, max(top - 1, 0))
    share = (level - lower)[:, None]
    fine, coarse = (_level(mips, uv, index) for index in (lower, (lower + 1).clamp_max(top)))
    return fine + (coarse - fine) * share


def face_footprints(
    uvs: Float[Tensor, "n 2"],
    uv_faces: Int[Tensor, "f 3"],
    pixels: Float[Tensor, "b v 2"],
    faces: Int[Tensor, "f 3"],
    size: tuple[int, int],
) -> Float[Tensor, "b f"]:
    """How much of a texture a pixel covers on each triangle.

    Args:
        uvs, uv_faces: texture coordinates.
        pixels: projected vertices.
        faces: the triangles' vertices.
        size: (width, height) of the texture.

    Returns:
        Side of that square in texels; finite for degenerate triangles.
    """
    texels = uvs * torch.tensor(size).to(uvs)
    in_texture = _area(texels[None], uv_faces)
    on_screen = _area(pixels, faces)
    # A triangle seen edge-on has no pixels to speak of: any finite footprint will do.
    return (in_texture.to(on_screen) / on_screen.clamp_min(1e-6)).clamp_min(1e-12).sqrt().clamp_max(float(max(size)))


def _area(points: Tensor, faces: Tensor) -> Tensor:
    a, b, c = (points[:, faces[:, i]] for i in range(3))
    first, second = b - a, c - a
    return (first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]).abs() / 2


def _level(mips: MipTexture, uv: Tensor, level: Tensor) -> Tensor:
    index, weight = _taps(uv, mips.widths[level].to(uv), mips.heights[level].to(uv))
    return _blend(mips.texels, index + mips.offsets[level][:, None], weight)


def _taps(uv: Tensor, width: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
    x = uv[:, 0] * width - 0.5
    y = (1 - uv[:, 1]) * height - 0.5
    x0, y0 = torch.floor(x.detach()), torch.floor(y.detach())
    fx, fy = x - x0, y - y0
    columns, rows = width.long(), height.long()
    left, top = x0.long() % columns, y0.long() % rows
    right, bottom = (left + 1) % columns, (top + 1) % rows
    corners = (top * columns + left, top * columns + right, bottom * columns + left, bottom * columns + right)
    weight = torch.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], 1)
    return torch.stack(corners, 1), weight


def _blend(texels: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    total = texels[index[:, 0]] * weight[:, :1]
    for k in range(1, 4):
        total = total + texels[index[:, k]] * weight[:, k : k + 1]
    return total


def _halved(image: Tensor, axis: int) -> Tensor:
    """Area means along an axis: of pairs, or of windows one and a bit long where the length is odd."""
    length = image.shape[axis]
    if length == 1:
        return image
    if length % 2 == 0:
        return image.unflatten(axis, (length // 2, 2)).mean(axis + 1)
    count = math.ceil(length / 2)
    edges = torch.arange(count + 1, dtype=torch.float64) * length / count
    cells = torch.arange(length, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], cells + 1) - torch.maximum(edges[:-1, None], cells)
    weights = (overlap.clamp_min(0) * count / length).to(image)
    return (image.movedim(axis, -1) @ weights.T).movedim(-1, axis)
