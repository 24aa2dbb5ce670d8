"""Products of the features of two images, looked up bilinearly around moving positions (RAFT's idea).

`AllPairs` multiplies every cell with every cell beforehand; `Window` multiplies only what a lookup sees, so its time
and memory grow with the number of cells. Both are written with gathers, because `grid_sample` has no forward-mode
derivative; they are differentiable in the features and in the positions, in both modes.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

# How many numbers a step of `Window` gathers: so few that their memory is used again and again.
_AT_ONCE = 2**17


class AllPairs:
    """Inner products of all features of `a` with all those of `b`, and with means of 2x2 of them, of 4x4, ...

    Args:
        a, b: features.
        radius: half the side of the window that a lookup sees, in cells of each level.
        levels: 1 for `b`'s own cells only.
    """

    def __init__(self, a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"], radius: int, levels: int) -> None:
        self.radius = radius
        self.volumes = []
        for level in range(levels):
            # A mean over cells of the product is the product with the mean of the cells.
            b = F.avg_pool2d(b, 2) if level else b
            self.volumes.append(all_pairs(a, b))

    def windows(self, flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b k h w"]:
        """The products around where `flow` (in cells) takes every cell: k = levels (2 radius + 1)^2."""
        x, y = positions(flow)
        found = []
        for volume in self.volumes:
            found.append(window_of(volume, x, y, self.radius))
            # A large cell's centre lies between its two small ones: small cell k is at (k - 0.5) / 2.
            x, y = (x - 0.5) / 2, (y - 0.5) / 2
        return torch.cat(found, 2).transpose(1, 2).unflatten(2, tuple(flow.shape[2:]))


class Window:
    """Inner products of each feature of `a` with those of `b` in a window around a moving position.

    Args:
        a, b: features.
        radius: half the window's side in cells.
    """

    def __init__(self, a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c h w"], radius: int) -> None:
        self.radius, self.size = radius, (b.shape[2], b.shape[3])
        self.a, self.b = (x.flatten(2).transpose(1, 2).contiguous() for x in (a, b))
        self.first = torch.arange(len(a), device=a.device)[:, None, None, None] * (b.shape[2] * b.shape[3])

    def windows(self, flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b k h w"]:
        """The products around where `flow` (in cells) takes every cell: k = (2 radius + 1)^2."""
        x, y = positions(flow)
        rows, columns, inside = _lattice(x, y, self.radius, self.size)
        index = (self.first + rows[..., :, None] * self.size[1] + columns[..., None, :]).flatten(0, 1).flatten(1)
        a, b = self.a.flatten(0, 1), self.b.flatten(0, 1)
        # A few cells at a time: the features of all windows at once would be those of `b` many times over.
        step = max(1, _AT_ONCE // (index.shape[1] * b.shape[1]))
        products = [
            torch.bmm(b.index_select(0, part.flatten()).unflatten(0, tuple(part.shape)), own[:, :, None])
            for part, own in zip(index.split(step), a.split(step), strict=True)
        ]
        cells = torch.cat(products).view(inside.shape) * inside.to(a.dtype)
        return _bilinear(cells, x, y).transpose(1, 2).unflatten(2, tuple(flow.shape[2:]))


def all_pairs(a: Float[Tensor, "b c h w"], b: Float[Tensor, "b c i j"]) -> Float[Tensor, "b n i j"]:
    """Inner products of every cell of `a` (n = h w, row by row) with every cell of `b`."""
    return torch.bmm(a.flatten(2).transpose(1, 2), b.flatten(2)).unflatten(2, tuple(b.shape[2:]))


def positions(flow: Float[Tensor, "b 2 h w"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Where a flow takes every cell: x and y, the centre of the first cell at 0."""
    height, width = flow.shape[2:]
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)
    return (flow[:, 0] + columns).flatten(1), (flow[:, 1] + rows[:, None]).flatten(1)


def _lattice(
    x: Float[Tensor, "b n"], y: Float[Tensor, "b n"], radius: int, size: tuple[int, int]
) -> tuple[Int[Tensor, "b n s"], Int[Tensor, "b n s"], Bool[Tensor, "b n s s"]]:
    """Rows and columns of the s = 2 radius + 2 whole cells a side about each position, and which are in the map."""
    height, width = size
    steps = torch.arange(-radius, radius + 2, device=x.device)
    left, top = torch.floor(x).detach(), torch.floor(y).detach()
    # Whatever is further off sees nothing but zeros; without the cut, a huge flow would not fit an integer.
    columns = left.clamp(-radius - 2, width + radius).long()[..., None] + steps
    rows = top.clamp(-radius - 2, height + radius).long()[..., None] + steps
    inside = ((rows >= 0) & (rows < height))[..., :, None] & ((columns >= 0) & (columns < width))[..., None, :]
    return rows.clamp(0, height - 1), columns.clamp(0, width - 1), inside


def _bilinear(
    cells: Float[Tensor, "b n s s"], x: Float[Tensor, "b n"], y: Float[Tensor, "b n"]
) -> Float[Tensor, "b n k"]:
    """Values between the cells of a lattice, at the fractions of a cell that x and y have."""
    right = (x - torch.floor(x).detach())[..., None, None]
    lower = (y - torch.floor(y).detach())[..., None, None]
    across = cells[..., :-1] + right * (cells[..., 1:] - cells[..., :-1])
    return (across[..., :-1, :] + lower * (across[..., 1:, :] - across[..., :-1, :])).flatten(2)


def window_of(
    volume: Float[Tensor, "b n i j"], x: Float[Tensor, "b n"], y: Float[Tensor, "b n"], radius: int
) -> Float[Tensor, "b n k"]:
    """A map's values at (x + dx, y + dy) for all whole dx, dy up to `radius`, dy slow, dx fast; zero outside.

    Args:
        volume: one map per query.
        x, y: positions in cells, the centre of the first cell at 0.
        radius: half the window's side.
    """
    rows, columns, inside = _lattice(x, y, radius, (volume.shape[2], volume.shape[3]))
    index = rows[..., :, None] * volume.shape[3] + columns[..., None, :]
    cells = torch.gather(volume.flatten(2), 2, index.flatten(2)).view(index.shape) * inside.to(volume.dtype)
    return _bilinear(cells, x, y)
