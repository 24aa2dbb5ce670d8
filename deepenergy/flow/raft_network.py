"""The layers of RAFT, large and small (Teed and Deng 2020), with the tensor names of the published weights.

The weights are those of torchvision, whose port differs from the authors' code in the names of its layers. Unlike in
both, the positions at which correlations are looked up are not cut out of the derivative, unless asked for: with the
cut, backpropagation is not the derivative of the flow. Lookups are gathers, so forward mode works, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepenergy.flow.correlation import all_pairs, positions, window_of
from deepenergy.flow.upsampling import convex_upsampling

Norm = Literal["instance", "batch", "none"]
LEVELS = 4
FACTOR = 8
UPDATES = 12


@dataclass(frozen=True)
class Widths:
    """How wide the layers are.

    Attributes:
        features, context: channels of the two encoders' five stages.
        context_norm: what normalises the context encoder; the features' are always normalised per instance.
        bottleneck: blocks of three convolutions (1x1, 3x3, 1x1) rather than two.
        radius: half the side of the correlation windows, in cells.
        correlation, flow: channels of the motion encoder's layers; motion: of its output.
        hidden: channels of the recurrent state; head: of the flow head.
        separable: two recurrent units, along rows and along columns, rather than one.
        mask: learned upsampling rather than bilinear.
    """

    features: tuple[int, ...]
    context: tuple[int, ...]
    context_norm: Norm
    bottleneck: bool
    radius: int
    correlation: tuple[int, ...]
    flow: tuple[int, int]
    motion: int
    hidden: int
    head: int
    separable: bool
    mask: bool


LARGE = Widths(
    (64, 64, 96, 128, 256), (64, 64, 96, 128, 256), "batch", False, 4, (256, 192), (128, 64), 128, 128, 256, True, True
)
SMALL = Widths(
    (32, 32, 64, 96, 128), (32, 32, 64, 96, 160), "none", True, 3, (96,), (64, 32), 82, 96, 128, False, False
)


def _conv(inside: int, outside: int, kernel: int, norm: Norm = "none", stride: int = 1, relu: bool = True) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(inside, outside, kernel, stride, kernel // 2)]
    if norm == "instance":
        layers.append(nn.InstanceNorm2d(outside))
    if norm == "batch":
        layers.append(nn.BatchNorm2d(outside))
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


class _Block(nn.Module):
    def __init__(self, inside: int, outside: int, norm: Norm, stride: int, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            self.convnormrelu1 = _conv(inside, outside // 4, 1, norm)
            self.convnormrelu2 = _conv(outside // 4, outside // 4, 3, norm, stride)
            self.convnormrelu3 = _conv(outside // 4, outside, 1, norm)
        else:
            self.convnormrelu1 = _conv(inside, outside, 3, norm, stride)
            self.convnormrelu2 = _conv(outside, outside, 3, norm)
            self.convnormrelu3 = nn.Identity()
        self.downsample = nn.Identity() if stride == 1 else _conv(inside, outside, 1, norm, stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.downsample(x) + self.convnormrelu3(self.convnormrelu2(self.convnormrelu1(x))))


class _Encoder(nn.Module):
    """Images to features at 1/8."""

    def __init__(self, widths: tuple[int, ...], norm: Norm, bottleneck: bool) -> None:
        super().__init__()
        self.convnormrelu = _conv(3, widths[0], 7, norm, 2)
        stages = []
        for inside, outside, stride in zip(widths[:3], widths[1:4], (1, 2, 2), strict=True):
            first = _Block(inside, outside, norm, stride, bottleneck)
            stages.append(nn.Sequential(first, _Block(outside, outside, norm, 1, bottleneck)))
        self.layer1, self.layer2, self.layer3 = stages
        self.conv = nn.Conv2d(widths[3], widths[4], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.layer3(self.layer2(self.layer1(self.convnormrelu(x)))))


class _MotionEncoder(nn.Module):
    def __init__(self, widths: Widths) -> None:
        super().__init__()
        correlation, flow = widths.correlation, widths.flow
        self.convcorr1 = _conv(LEVELS * (2 * widths.radius + 1) ** 2, correlation[0], 1)
        self.convcorr2 = _conv(correlation[0], correlation[1], 3) if len(correlation) == 2 else nn.Identity()
        self.convflow1 = _conv(2, flow[0], 7)
        self.convflow2 = _conv(flow[0], flow[1], 3)
        self.conv = _conv(correlation[-1] + flow[1], widths.motion - 2, 3)

    def forward(self, flow: Tensor, windows: Tensor) -> Tensor:
        seen = torch.cat([self.convcorr2(self.convcorr1(windows)), self.convflow2(self.convflow1(flow))], 1)
        return torch.cat([self.conv(seen), flow], 1)


class _RecurrentUnit(nn.Module):
    def __init__(self, inside: int, hidden: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.convz = nn.Conv2d(hidden + inside, hidden, kernel, padding=padding)
        self.convr = nn.Conv2d(hidden + inside, hidden, kernel, padding=padding)
        self.convq = nn.Conv2d(hidden + inside, hidden, kernel, padding=padding)

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        both = torch.cat([hidden, x], 1)
        update, reset = torch.sigmoid(self.convz(both)), torch.sigmoid(self.convr(both))
        candidate = torch.tanh(self.convq(torch.cat([reset * hidden, x], 1)))
        return (1 - update) * hidden + update * candidate


class _RecurrentBlock(nn.Module):
    def __init__(self, inside: int, hidden: int, separable: bool) -> None:
        super().__init__()
        self.convgru1 = _RecurrentUnit(inside, hidden, (1, 5) if separable else (3, 3))
        self.convgru2 = _RecurrentUnit(inside, hidden, (5, 1)) if separable else None

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        hidden = self.convgru1(hidden, x)
        return hidden if self.convgru2 is None else self.convgru2(hidden, x)


class _FlowHead(nn.Module):
    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(hidden, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv2(torch.relu(self.conv1(hidden)))


class _UpdateBlock(nn.Module):
    def __init__(self, widths: Widths) -> None:
        super().__init__()
        context = widths.context[-1] - widths.hidden
        self.motion_encoder = _MotionEncoder(widths)
        self.recurrent_block = _RecurrentBlock(widths.motion + context, widths.hidden, widths.separable)
        self.flow_head = _FlowHead(widths.hidden, widths.head)

    def forward(self, hidden: Tensor, context: Tensor, windows: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.cat([context, self.motion_encoder(flow, windows)], 1)
        hidden = self.recurrent_block(hidden, seen)
        return hidden, self.flow_head(hidden)


class _MaskPredictor(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.convrelu = _conv(hidden, 256, 3)
        self.conv = nn.Conv2d(256, 9 * FACTOR**2, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        # The authors' scale, with which the weights were trained.
        return 0.25 * self.conv(self.convrelu(hidden))


class RaftNetwork(nn.Module):
    """Pairs of images `[B, 3, H, W]` in [-1, 1], sides divisible by 8 and at least 128, to flows in pixels."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.widths = widths
        self.feature_encoder = _Encoder(widths.features, "instance", widths.bottleneck)
        self.context_encoder = _Encoder(widths.context, widths.context_norm, widths.bottleneck)
        self.update_block = _UpdateBlock(widths)
        self.mask_predictor = _MaskPredictor(widths.hidden) if widths.mask else None

    def forward(
        self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"], updates: int = UPDATES, detach: bool = False
    ) -> Float[Tensor, "b 2 h w"]:
        """The flow after the last update.

        Args:
            a, b: images.
            updates: how many.
            detach: cut the positions out of the derivative before each update, as the authors do in training.
        """
        first, second = self.feature_encoder(torch.cat([a, b])).chunk(2)
        pyramid = _Pyramid(first, second, self.widths.radius)
        hidden, context = self.context_encoder(a).tensor_split([self.widths.hidden], 1)
        hidden, context = torch.tanh(hidden), torch.relu(context)
        flow = torch.zeros_like(first[:, :2])
        for _ in range(updates):
            flow = flow.detach() if detach else flow
            hidden, change = self.update_block(hidden, context, pyramid.windows(flow), flow)
            flow = flow + change
        if self.mask_predictor is None:
            return FACTOR * F.interpolate(flow, scale_factor=FACTOR, mode="bilinear", align_corners=True)
        return convex_upsampling(flow, self.mask_predictor(hidden), FACTOR, border="constant")


class _Pyramid:
    """The products of all pairs at four levels; in the order and at the places that the weights were trained with."""

    def __init__(self, a: Tensor, b: Tensor, radius: int) -> None:
        self.side = 2 * radius + 1
        a = a / a.shape[1] ** 0.5
        levels = [b]
        for _ in range(LEVELS - 1):
            levels.append(F.avg_pool2d(levels[-1], 2))
        self.radius, self.volumes = radius, [all_pairs(a, level) for level in levels]

    def windows(self, flow: Tensor) -> Tensor:
        x, y = positions(flow)
        found = []
        # A large cell's centre lies half a small cell further on; RAFT takes it for that of its first small cell.
        for level, volume in enumerate(self.volumes):
            window = window_of(volume, x / 2**level, y / 2**level, self.radius)
            # In RAFT's windows the columns are the slow axis.
            found.append(window.unflatten(2, (self.side, self.side)).transpose(2, 3).flatten(2))
        return torch.cat(found, 2).transpose(1, 2).unflatten(2, tuple(flow.shape[2:]))
