"""The correlation lookup of `compact` for training, where positions carry no gradient: compiled loops on the CPU.

The same numbers as `deepenergy.flow.correlation`, but the gradients of all lookups are summed in one volume; autograd
would make a new one, mostly zeros, for each of them.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deepenergy.flow.compact_network import COARSE_LEVELS, RADIUS, CompactFlowNetwork
from deepenergy.flow.correlation import Window, positions

Array = NDArray[np.float32]


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _gather(volume: Array, x: Array, y: Array, radius: int, out: Array) -> None:
    batch, cells, height, width = volume.shape
    side = 2 * radius + 1
    patch = np.empty((side + 1, side + 1), np.float32)
    for b in range(batch):
        for n in range(cells):
            left, top = int(np.floor(x[b, n])), int(np.floor(y[b, n]))
            fx, fy = x[b, n] - left, y[b, n] - top
            for i in range(side + 1):
                row = top - radius + i
                for j in range(side + 1):
                    column = left - radius + j
                    inside = 0 <= row < height and 0 <= column < width
                    patch[i, j] = volume[b, n, row, column] if inside else np.float32(0)
            for i in range(side):
                for j in range(side):
                    upper = patch[i, j] + fx * (patch[i, j + 1] - patch[i, j])
                    lower = patch[i + 1, j] + fx * (patch[i + 1, j + 1] - patch[i + 1, j])
                    out[b, n, i * side + j] = upper + fy * (lower - upper)


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _scatter(gradient: Array, x: Array, y: Array, radius: int, volume: Array) -> None:
    batch, cells, height, width = volume.shape
    side = 2 * radius + 1
    patch = np.empty((side + 1, side + 1), np.float32)
    for b in range(batch):
        for n in range(cells):
            left, top = int(np.floor(x[b, n])), int(np.floor(y[b, n]))
            fx, fy = x[b, n] - left, y[b, n] - top
            patch[:] = 0
            for i in range(side):
                for j in range(side):
                    g = gradient[b, n, i * side + j]
                    patch[i, j] += g * (1 - fx) * (1 - fy)
                    patch[i, j + 1] += g * fx * (1 - fy)
                    patch[i + 1, j] += g * (1 - fx) * fy
                    patch[i + 1, j + 1] += g * fx * fy
            for i in range(side + 1):
                row = top - radius + i
                if 0 <= row < height:
                    for j in range(side + 1):
                        column = left - radius + j
                        if 0 <= column < width:
                            volume[b, n, row, column] += patch[i, j]


class _Volume(torch.autograd.Function):
    """All pairs, kept outside the graph in `store`; what goes through the graph is a token."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, store: dict[str, Any]) -> Tensor:
        flat_a, flat_b = a.flatten(2).transpose(1, 2), b.flatten(2)
        store["values"] = torch.bmm(flat_a, flat_b).detach().unflatten(2, tuple(b.shape[2:])).numpy()
        store["gradient"] = None
        ctx.store = store
        ctx.save_for_backward(a, b)
        return a.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        a, b = ctx.saved_tensors
        gradient = torch.from_numpy(ctx.store["gradient"]).flatten(2)
        back_a = torch.bmm(gradient, b.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(a.shape)
        back_b = torch.bmm(a.flatten(2), gradient).reshape(b.shape)
        return back_a, back_b, None


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, store: dict[str, Any], x: Tensor, y: Tensor, radius: int) -> Tensor:
        shape = store["values"].shape
        ctx.store, ctx.radius, ctx.x, ctx.y = store, radius, _within(x, shape[3]), _within(y, shape[2])
        out = np.empty((*shape[:2], (2 * radius + 1) ** 2), np.float32)
        _gather(store["values"], ctx.x, ctx.y, radius, out)
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        store = ctx.store
        if store["gradient"] is None:
            store["gradient"] = np.zeros_like(store["values"])
        _scatter(gradients[0].contiguous().numpy(), ctx.x, ctx.y, ctx.radius, store["gradient"])
        return gradients[0].new_zeros(()), None, None, None, None


def _within(x: Tensor, cells: int) -> Array:
    return np.ascontiguousarray(x.detach().clamp(-RADIUS - 2, cells + RADIUS + 1).numpy())


class FastAllPairs:
    """As `deepenergy.flow.correlation.AllPairs`, for float32 on the CPU, without derivatives in the positions."""

    def __init__(self, a: Tensor, b: Tensor, radius: int, levels: int) -> None:
        self.radius = radius
        self.stores: list[dict[str, Any]] = []
        self.tokens: list[Any] = []
        with torch.autocast("cpu", enabled=False):
            for level in range(levels):
                b = F.avg_pool2d(b, 2) if level else b
                self.stores.append({})
                self.tokens.append(_Volume.apply(a.contiguous(), b.contiguous(), self.stores[-1]))

    def windows(self, flow: Tensor) -> Tensor:
        """See `AllPairs.windows`."""
        x, y = positions(flow)
        found: list[Any] = []
        for token, store in zip(self.tokens, self.stores, strict=True):
            found.append(_Lookup.apply(token, store, x, y, self.radius))
            x, y = (x - 0.5) / 2, (y - 0.5) / 2
        return torch.cat(found, 2).transpose(1, 2).unflatten(2, tuple(flow.shape[2:]))


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _products(a: Array, b: Array, x: Array, y: Array, height: int, width: int, radius: int, out: Array) -> None:
    batch, cells, channels = a.shape
    side = 2 * radius + 1
    patch = np.empty((side + 1, side + 1), np.float32)
    for i in range(batch):
        for n in range(cells):
            left, top = int(np.floor(x[i, n])), int(np.floor(y[i, n]))
            fx, fy = x[i, n] - np.float32(left), y[i, n] - np.float32(top)
            for r in range(side + 1):
                row = top - radius + r
                for c in range(side + 1):
                    column = left - radius + c
                    total = np.float32(0)
                    if 0 <= row < height and 0 <= column < width:
                        m = row * width + column
                        for k in range(channels):
                            total += a[i, n, k] * b[i, m, k]
                    patch[r, c] = total
            for r in range(side):
                for c in range(side):
                    upper = patch[r, c] + fx * (patch[r, c + 1] - patch[r, c])
                    lower = patch[r + 1, c] + fx * (patch[r + 1, c + 1] - patch[r + 1, c])
                    out[i, n, r * side + c] = upper + fy * (lower - upper)


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _products_back(
    gradient: Array, a: Array, b: Array, x: Array, y: Array, height: int, width: int, radius: int,
    back_a: Array, back_b: Array,
) -> None:  # fmt: skip
    batch, cells, channels = a.shape
    side = 2 * radius + 1
    patch = np.empty((side + 1, side + 1), np.float32)
    for i in range(batch):
        for n in range(cells):
            left, top = int(np.floor(x[i, n])), int(np.floor(y[i, n]))
            fx, fy = x[i, n] - np.float32(left), y[i, n] - np.float32(top)
            patch[:] = 0
            for r in range(side):
                for c in range(side):
                    g = gradient[i, n, r * side + c]
                    patch[r, c] += g * (1 - fx) * (1 - fy)
                    patch[r, c + 1] += g * fx * (1 - fy)
                    patch[r + 1, c] += g * (1 - fx) * fy
                    patch[r + 1, c + 1] += g * fx * fy
            for r in range(side + 1):
                row = top - radius + r
                if 0 <= row < height:
                    for c in range(side + 1):
                        column = left - radius + c
                        if 0 <= column < width:
                            m, g = row * width + column, patch[r, c]
                            for k in range(channels):
                                back_a[i, n, k] += g * b[i, m, k]
                                back_b[i, m, k] += g * a[i, n, k]


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, x: Tensor, y: Tensor, size: tuple[int, int], radius: int) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.x, ctx.y, ctx.size, ctx.radius = _within(x, size[1]), _within(y, size[0]), size, radius
        out = np.empty((*x.shape, (2 * radius + 1) ** 2), np.float32)
        _products(a.detach().numpy(), b.detach().numpy(), ctx.x, ctx.y, *size, radius, out)
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        a, b = (v.detach().numpy() for v in ctx.saved_tensors)
        back_a, back_b = np.zeros_like(a), np.zeros_like(b)
        gradient = gradients[0].contiguous().numpy()
        height, width = ctx.size
        _products_back(gradient, a, b, ctx.x, ctx.y, height, width, ctx.radius, back_a, back_b)
        return torch.from_numpy(back_a), torch.from_numpy(back_b), None, None, None, None


class FastWindow(Window):
    """As `deepenergy.flow.correlation.Window`, for float32 on the CPU, without derivatives in the positions."""

    def windows(self, flow: Tensor) -> Tensor:
        """See `Window.windows`."""
        x, y = positions(flow)
        found: Any = _Products.apply(self.a, self.b, x, y, self.size, self.radius)
        return found.transpose(1, 2).unflatten(2, tuple(flow.shape[2:]))


class TrainedFlowNetwork(CompactFlowNetwork):
    """The network with the fast lookups; its weights are those of `CompactFlowNetwork`."""

    def coarse_lookup(self, a: Tensor, b: Tensor) -> Any:
        """See the parent class."""
        return FastAllPairs(a, b, RADIUS, COARSE_LEVELS)

    def fine_lookup(self, a: Tensor, b: Tensor) -> Any:
        """See the parent class."""
        return FastWindow(a, b, RADIUS)
