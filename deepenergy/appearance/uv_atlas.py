"""A texture layout in which every point of a rig has a texel of its own.

Rigs' UVs often cannot hold an estimated texture as they are: UDIM tiles fall onto each other in one image, both eyes or
both cheeks share the same patch. Here the UV islands are put on sheets (islands of one tile that do not overlap stay
together, as the artist laid them out), and the sheets are packed into one image, each at the scale of its surface. A
rig whose islands fit one sheet in the unit square keeps its own UVs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from deepenergy.render.operations import rasterize
from deepenergy.scene.rig import Rig

# Side of the grid that overlaps are looked for on, and the share of an island that may overlap (shared borders do).
_GRID = 256
_OVERLAP = 0.02
# Side of the grid that folds within an island are looked for on.
_FOLD_GRID = 1024
# Texels between sheets: bilinear taps and the first mip levels stay on their own sheet.
_PADDING = 4


@dataclass(frozen=True)
class Atlas:
    """Where the surface lies in a square texture.

    Attributes:
        size: side in texels.
        uvs, uv_faces: `[N, 2]` in [0, 1] and `[F, 3]`, to replace the rig's.
        face_index: `[size, size]` int64, the triangle at each texel's centre (top row first), -1 where there is none.
        barycentrics: `[size, size, 3]`.
    """

    size: int
    uvs: Tensor
    uv_faces: Tensor
    face_index: Tensor
    barycentrics: Tensor

    def points(self, attribute: Float[Tensor, "v d"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "n d"]:
        """A vertex attribute at the covered texels, row by row."""
        covered = self.face_index >= 0
        corners = faces[self.face_index[covered]]
        return (attribute[corners] * self.barycentrics[covered].to(attribute)[..., None]).sum(1)


def make_atlas(rig: Rig, size: int) -> Atlas:
    """Lay a rig's UV islands out in one square image without overlaps.

    Args:
        rig: with UVs.
        size: side of the texture in texels.

    Raises:
        ValueError: a rig without UVs, or a size below 16.
    """
    if rig.uvs is None or rig.uv_faces is None:
        raise ValueError(f"rig '{rig.name}' has no UVs; expected texture coordinates")
    if size < 16:
        raise ValueError(f"size: found {size} texels; expected 16 or more")
    uv_faces = rig.uv_faces.cpu().numpy()
    uvs = rig.uvs.cpu().double().numpy()
    sheet = _sheets(uvs, uv_faces)
    inside = bool((uvs[uv_faces] >= 0).all() and (uvs[uv_faces] <= 1).all())
    if sheet.max() > 0 or not inside:
        corners = _pack(uvs[uv_faces], sheet, _area(rig), size)
        uvs, uv_faces = corners.reshape(-1, 2), np.arange(corners.shape[0] * 3).reshape(-1, 3)
    placed, indices = torch.from_numpy(uvs).float(), torch.from_numpy(uv_faces)
    pixels = torch.stack([placed[:, 0], 1 - placed[:, 1]], 1)[None] * size
    view = rasterize(pixels, torch.ones_like(pixels[..., 0]), indices, (size, size))
    return Atlas(size, placed, indices, view.face_index[0], view.barycentrics[0])


def with_texture(rig: Rig, atlas: Atlas, texture: Float[Tensor, "h w 3"]) -> Rig:
    """The rig with the atlas's UVs and a texture made for it."""
    device = rig.neutral.device
    uvs, uv_faces = atlas.uvs.to(device), atlas.uv_faces.to(device)
    return replace(rig, uvs=uvs, uv_faces=uv_faces, texture=texture.to(device))


def _sheets(uvs: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """`[F]` the sheet of every triangle: islands of one tile share a sheet where they do not overlap."""
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (len(uvs), len(uvs)))
    island = connected_components(graph, directed=False)[1][faces[:, 0]]
    corners = uvs[faces]
    sheet = np.zeros(len(faces), np.int64)
    taken: list[tuple[tuple[int, int], np.ndarray]] = []
    numbers, counts = np.unique(island, return_counts=True)
    for number in numbers[np.argsort(-counts, kind="stable")]:
        mine = island == number
        tile = np.floor(corners[mine].mean((0, 1))).astype(int)
        grid = _occupancy(corners[mine] - tile)
        key = (int(tile[0]), int(tile[1]))
        for index, (other, used) in enumerate(taken):
            if other == key and (grid & used).sum() <= _OVERLAP * grid.sum():
                sheet[mine] = index
                used |= grid
                break
        else:
            sheet[mine] = len(taken)
            taken.append((key, grid))
    return _without_folds(corners, faces, sheet)


def _without_folds(corners: np.ndarray, faces: np.ndarray, sheet: np.ndarray) -> np.ndarray:
    """The sheets, with triangles that lie under others of their own island moved to a sheet more."""
    result = sheet.copy()
    for number in range(int(sheet.max()) + 1):
        mine = np.flatnonzero(sheet == number)
        low = corners[mine].min((0, 1))
        scale = _FOLD_GRID / max(float((corners[mine].max((0, 1)) - low).max()), 1e-12)
        placed = torch.from_numpy((corners[mine] - low) * scale).float()
        order = torch.arange(3 * len(mine)).view(-1, 3)
        size = (_FOLD_GRID, _FOLD_GRID)
        flat = placed.reshape(1, -1, 2)
        winner = rasterize(flat, torch.ones_like(flat[..., 0]), order, size).face_index[0].numpy()
        column, row = placed.mean(1).long().clamp(0, _FOLD_GRID - 1).numpy().T
        over = winner[row, column]
        # A neighbour over the centroid is rounding; anything else is a fold.
        apart = (faces[mine][:, :, None] != faces[mine[np.maximum(over, 0)]][:, None, :]).all((1, 2))
        reach = np.ptp(placed.numpy(), axis=1).max(1)
        away = np.abs(placed.mean(1).numpy() - placed[np.maximum(over, 0)].mean(1).numpy()).max(1)
        folded = (over >= 0) & apart & (away < 2 * reach + 2) & (reach > 1.5)
        if folded.any():
            result[mine[folded]] = result.max() + 1
    return result


def _occupancy(corners: np.ndarray) -> np.ndarray:
    """Which cells of a grid over the unit square have their centre in a triangle."""
    points = torch.from_numpy(np.ascontiguousarray(corners.reshape(1, -1, 2))).float() * _GRID
    faces = torch.arange(points.shape[1]).view(-1, 3)
    return (rasterize(points, torch.ones_like(points[..., 0]), faces, (_GRID, _GRID)).face_index[0] >= 0).numpy()


def _area(rig: Rig) -> np.ndarray:
    a, b, c = (rig.neutral[rig.faces[:, i]].cpu().double().numpy() for i in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def _pack(corners: np.ndarray, sheet: np.ndarray, area: np.ndarray, size: int) -> np.ndarray:
    """`[F, 3, 2]` texture coordinates: the sheets on shelves, as large as fits."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    uv_area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    numbers = range(int(sheet.max()) + 1)
    low = np.array([corners[sheet == s].min((0, 1)) for s in numbers])
    extent = np.array([corners[sheet == s].max((0, 1)) for s in numbers]) - low
    density = np.sqrt([area[sheet == s].sum() / max(uv_area[sheet == s].sum(), 1e-12) for s in numbers])
    extent = extent * density[:, None]
    order = np.argsort(-extent[:, 1], kind="stable")
    smallest, largest = 0.0, size / max(float(extent.max()), 1e-12)
    best = _shelves(extent * 0, order, size)
    assert best is not None
    for _ in range(30):
        scale = (smallest + largest) / 2
        placed = _shelves(extent * scale, order, size)
        if placed is None:
            largest = scale
        else:
            smallest, best = scale, placed
    texels = (corners - low[sheet][:, None]) * (density * smallest)[sheet][:, None, None] + best[sheet][:, None]
    return texels / size


def _shelves(extent: np.ndarray, order: np.ndarray, size: int) -> np.ndarray | None:
    """`[S, 2]` lower left corners in texels, tallest sheets first, row above row; None where they do not fit."""
    corner = np.zeros_like(extent)
    x = y = float(_PADDING)
    shelf = 0.0
    for s in order:
        if x + extent[s, 0] + _PADDING > size and x > _PADDING:
            x, y, shelf = float(_PADDING), y + shelf + _PADDING, 0.0
        corner[s] = x, y
        x, shelf = x + extent[s, 0] + _PADDING, max(shelf, extent[s, 1])
        if x > size or y + shelf + _PADDING > size:
            return None
    return corner
