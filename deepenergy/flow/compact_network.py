"""The layers of `compact`: features at 1/4 and 1/8, correlation lookups, and a recurrent update for each of the scales.

In the manner of RAFT (Teed and Deng 2020): a flow estimate starts at zero and is updated again and again by a
convolutional GRU that sees the correlation around the place where each cell is thought to have gone. Here the first
updates run at 1/8 of the resolution, over all pairs of cells; the last ones refine at 1/4, where only the window's
products are ever computed, so that time and memory grow with the number of pixels. Flows are in cells of their scale.
An update also sees where each window has its peak (a soft-argmax): it learns sooner so than from products alone.
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepenergy.flow.correlation import AllPairs, Window
from deepenergy.flow.upsampling import convex_upsampling

FEATURES, CONTEXT = 64, 32
HIDDEN8, HIDDEN4 = 64, 48
RADIUS = 3
# All pairs are looked up at two levels: the scale's own cells, and cells of twice the size.
COARSE_LEVELS = 2
UPSAMPLING = 4


class Lookup(Protocol):
    """Products of features around moving positions."""

    def windows(self, flow: Tensor) -> Tensor:
        """`[B, levels (2 radius + 1)^2, H, W]` around where `flow` (in cells) takes every cell."""
        ...


def _conv(inside: int, outside: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outside), nn.ReLU(True)
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), nn.Conv2d(channels, channels, 3, 1, 1, bias=False))
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.body(x)))


class _Encoder(nn.Module):
    """Images to a trunk at 1/4 (with 1/8's knowledge) and one at 1/8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 24, 2, 7)
        self.quarter = nn.Sequential(_conv(24, 48, 2), _Residual(48), _Residual(48))
        self.eighth = nn.Sequential(_conv(48, 96, 2), _Residual(96), _Residual(96))
        self.lateral = nn.Conv2d(48, FEATURES, 1)
        self.down = nn.Conv2d(96, FEATURES, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x4 = self.quarter(self.stem(images))
        x8 = self.eighth(x4)
        return self.lateral(x4) + _twice(self.down(x8)), x8


class _Update(nn.Module):
    """One step of the recurrence: hidden state, context, correlation window and flow to a new state and flow."""

    def __init__(self, hidden: int, levels: int, motion: int) -> None:
        super().__init__()
        side = 2 * RADIUS + 1
        self.levels = levels
        self.sharpness = nn.Parameter(torch.zeros(levels))
        self.correlation = nn.Conv2d(levels * side * side, 64, 1)
        self.place = nn.Conv2d(2 + 2 * levels, 32, 3, 1, 1)
        self.motion = nn.Conv2d(96, motion, 3, 1, 1)
        inside = hidden + CONTEXT + motion + 2 + 2 * levels
        self.gates = nn.Conv2d(inside, 2 * hidden, 3, 1, 1)
        self.candidate = nn.Conv2d(inside, hidden, 3, 1, 1)
        # The change, and how much of each level's peak to follow at once.
        self.head = nn.Sequential(nn.Conv2d(hidden, 64, 3, 1, 1), nn.ReLU(True), nn.Conv2d(64, 2 + levels, 3, 1, 1))
        steps = torch.arange(-RADIUS, RADIUS + 1.0)
        grid = torch.stack([steps.repeat(side), steps.repeat_interleave(side)])
        self.register_buffer("steps", grid, persistent=False)

    def forward(
        self, hidden: Tensor, context: Tensor, window: Tensor, flow: Tensor, kind: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        peaks = self.peaks(window)
        places = torch.cat([flow, *peaks], 1).to(kind)
        seen = torch.cat([torch.relu(self.correlation(window.to(kind))), torch.relu(self.place(places))], 1)
        motion = torch.cat([context, torch.relu(self.motion(seen)), places], 1)
        update, reset = torch.sigmoid(self.gates(torch.cat([hidden, motion], 1))).chunk(2, 1)
        candidate = torch.tanh(self.candidate(torch.cat([reset * hidden, motion], 1)))
        hidden = (1 - update) * hidden + update * candidate
        change = self.head(hidden).to(flow.dtype)
        follow = torch.sigmoid(change[:, 2:] - 1)
        for level, peak in enumerate(peaks):
            flow = flow + follow[:, level : level + 1] * peak
        return hidden, flow + change[:, :2]

    def peaks(self, window: Tensor) -> list[Tensor]:
        """The soft-argmax of every level's window, as displacements in cells of the scale."""
        steps = self.steps.to(window.dtype)
        found = []
        for level, part in enumerate(window.chunk(self.levels, 1)):
            share = torch.softmax(part * (4 * torch.exp(self.sharpness[level])), 1)
            found.append(torch.einsum("bkhw,ck->bchw", share, steps) * 2**level)
        return found


class CompactFlowNetwork(nn.Module):
    """Pairs of images `[B, 3, H, W]` in [0, 1], sides divisible by 8, to flows in pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Encoder()
        self.feature4 = nn.Conv2d(FEATURES, FEATURES, 3, 1, 1)
        self.feature8 = nn.Conv2d(96, FEATURES, 1)
        self.context4 = nn.Sequential(_conv(FEATURES, 64), nn.Conv2d(64, HIDDEN4 + CONTEXT, 3, 1, 1))
        self.context8 = nn.Conv2d(96, HIDDEN8 + CONTEXT, 1)
        self.handover = nn.Conv2d(HIDDEN8, HIDDEN4, 1)
        self.update8 = _Update(HIDDEN8, COARSE_LEVELS, 64)
        self.update4 = _Update(HIDDEN4, 1, 48)
        self.mask = nn.Sequential(nn.Conv2d(HIDDEN4, 96, 3, 1, 1), nn.ReLU(True), nn.Conv2d(96, 9 * UPSAMPLING**2, 1))

    def forward(
        self, a: Tensor, b: Tensor, coarse: int = 3, fine: int = 3, detach: bool = False, every: bool = False
    ) -> list[Float[Tensor, "b 2 h w"]]:
        """Flows after the updates, the last one last.

        Args:
            a, b: images.
            coarse, fine: updates at 1/8 and at 1/4.
            detach: cut the positions out of the derivative between updates, as RAFT does. Training may; a derivative
                taken so is not the function's.
            every: all estimates at full resolution, for training; otherwise the last alone.
        """
        x4, x8 = self.encoder(torch.cat(_normalised(a, b)))
        # Products of unit features lie between -1 and 1.
        a8, b8 = _unit(self.feature8(x8)).chunk(2)
        a4, b4 = _unit(self.feature4(x4)).chunk(2)
        hidden8, context8 = self.context8(x8.chunk(2)[0]).split([HIDDEN8, CONTEXT], 1)
        hidden4, context4 = self.context4(x4.chunk(2)[0]).split([HIDDEN4, CONTEXT], 1)
        found: list[Tensor] = []
        flow = torch.zeros_like(a8[:, :2])
        hidden, context = torch.tanh(hidden8), torch.relu(context8)
        seen = self.coarse_lookup(a8, b8)
        for _ in range(coarse):
            flow = flow.detach() if detach else flow
            hidden, flow = self.update8(hidden, context, seen.windows(flow), flow, hidden.dtype)
            if every:
                found.append(8 * F.interpolate(flow, scale_factor=8, mode="bilinear", align_corners=False))
        flow = 2 * _twice(flow)
        hidden, context = torch.tanh(hidden4 + self.handover(_twice(hidden))), torch.relu(context4)
        seen = self.fine_lookup(a4, b4)
        for step in range(fine):
            flow = flow.detach() if detach else flow
            hidden, flow = self.update4(hidden, context, seen.windows(flow), flow, hidden.dtype)
            if step == fine - 1:
                found.append(convex_upsampling(flow, self.mask(hidden).to(flow.dtype), UPSAMPLING))
            elif every:
                found.append(4 * F.interpolate(flow, scale_factor=4, mode="bilinear", align_corners=False))
        return found

    def coarse_lookup(self, a: Tensor, b: Tensor) -> Lookup:
        """What the updates at 1/8 look their windows up in."""
        return AllPairs(a, b, RADIUS, COARSE_LEVELS)

    def fine_lookup(self, a: Tensor, b: Tensor) -> Lookup:
        """What the updates at 1/4 look their windows up in."""
        return Window(a, b, RADIUS)


def _normalised(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both images with the pair's mean taken off per channel, over the pair's deviation."""
    both = torch.stack([a, b])
    mean = both.mean((0, 3, 4), keepdim=True)
    spread = ((both - mean) ** 2).mean((0, 2, 3, 4), keepdim=True).add(1e-4).sqrt()
    first, second = (both - mean) / spread
    return first, second


def _unit(features: Tensor) -> Tensor:
    """Features of length one, in single precision at least."""
    features = features if features.dtype == torch.float64 else features.float()
    return features * torch.rsqrt((features**2).sum(1, keepdim=True) + 1e-4)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
