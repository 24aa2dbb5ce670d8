"""`compact`: our own landmark heatmap network, small enough for the CPU, its weights inside the package.

An hourglass of plain residual convolutions. The heatmaps are logits divided by equation 3's beta, so that the local
soft-argmax at beta = 50 is the expectation that the network was trained on, and positions are not held to whole
heatmap pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deepenergy.landmarks.network import HEATMAP_SIZE
from deepenergy.runtime.errors import InputError
from deepenergy.scene.landmark_layout import IBUG_68

BETA = 50.0
CROP_SCALE = 1.45
WEIGHTS = Path(__file__).parent / "weights" / "compact.safetensors"


def _conv(inside: int, outside: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outside), nn.ReLU(True)
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), nn.Conv2d(channels, channels, 3, 1, 1, bias=False))
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.body(x)))


class CompactNetwork(nn.Module):
    """`[B, 3, 256, 256]` in [0, 1] to `[B, L, 64, 64]` heatmaps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 16, 2), _conv(16, 32, 2))
        self.down32 = nn.Sequential(_conv(32, 64, 2), _Residual(64))
        self.down16 = nn.Sequential(_conv(64, 96, 2), _Residual(96), _Residual(96))
        self.down8 = nn.Sequential(_conv(96, 112, 2), _Residual(112), _Residual(112))
        self.down4 = nn.Sequential(_conv(112, 112, 2), _Residual(112))
        self.lateral4 = _conv(112, 112, kernel=1)
        self.up8 = nn.Sequential(_Residual(112), _conv(112, 96, kernel=1))
        self.up16 = nn.Sequential(_Residual(96), _conv(96, 64, kernel=1))
        self.up32 = nn.Sequential(_Residual(64), _conv(64, 48, kernel=1))
        self.skip64 = _conv(32, 48, kernel=1)
        self.fuse64 = _Residual(48)
        self.head = nn.Conv2d(48, IBUG_68.count, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits; `Compact` divides them by beta."""
        x64 = self.stem(images * 2 - 1)
        x32 = self.down32(x64)
        x16 = self.down16(x32)
        x8 = self.down8(x16)
        x = self.lateral4(self.down4(x8))
        x = self.up8(x8 + _twice(x))
        x = self.up16(x16 + _twice(x))
        x = self.up32(x32 + _twice(x))
        return self.head(self.fuse64(torch.relu(self.skip64(x64) + _twice(x))))


def _twice(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2, mode="nearest")


class Compact:
    """The shipped network as a `HeatmapNetwork`.

    Args:
        weights: a safetensors file; the one inside the package when None.
        device: where it runs.

    Raises:
        InputError: no such file, or weights of another network.
    """

    name = "compact"
    layout = IBUG_68

    def __init__(self, weights: str | Path | None = None, device: torch.device | str = "cpu") -> None:
        path = WEIGHTS if weights is None else Path(weights)
        self.network = CompactNetwork().eval().requires_grad_(False)
        _load(self.network, path)
        _fold_norms(self.network)
        self.network.to(device)
        for parameter in self.network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def __call__(self, crops: Float[Tensor, "b 3 256 256"]) -> Float[Tensor, "b l 64 64"]:
        """Heatmaps; differentiable in the crops."""
        return self.network(crops.contiguous(memory_format=torch.channels_last)) / BETA

    def crop_boxes(self, face_boxes: Float[Tensor, "b 4"]) -> Float[Tensor, "b 4"]:
        """Squares about the box's centre, `CROP_SCALE` times its longer side."""
        centre = (face_boxes[..., :2] + face_boxes[..., 2:]) / 2
        half = CROP_SCALE / 2 * (face_boxes[..., 2:] - face_boxes[..., :2]).amax(-1, keepdim=True)
        return torch.cat([centre - half, centre + half], -1)

    def confidence(self, heatmaps: Float[Tensor, "b l 64 64"]) -> Float[Tensor, "b l"]:
        """The probability within two heatmap pixels of the peak: 1 where the network is sure of one place."""
        share = torch.softmax(heatmaps.flatten(2) * BETA, -1).view_as(heatmaps)
        # Along rows, then along columns: five times as fast as pooling.
        around = nn.functional.pad(share, (2, 2, 2, 2))
        rows = sum(around[..., i : i + HEATMAP_SIZE] for i in range(5))
        return sum(rows[:, :, i : i + HEATMAP_SIZE] for i in range(5)).flatten(2).amax(-1).clamp(0, 1)  # type: ignore[union-attr,index]


def _fold_norms(network: CompactNetwork) -> None:
    """Normalisation, fixed once trained, into the convolutions before it: a sixth of the time."""
    for module in list(network.modules()):
        if isinstance(module, _Residual):
            module.body[1], module.norm = _folded(module.body[1], module.norm), nn.Identity()
        elif isinstance(module, nn.Sequential):
            for i in range(len(module) - 1):
                if isinstance(module[i + 1], nn.BatchNorm2d):
                    module[i], module[i + 1] = _folded(module[i], module[i + 1]), nn.Identity()


def _folded(convolution: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(convolution, norm)


def _load(network: CompactNetwork, path: Path) -> None:
    if not path.is_file():
        raise InputError(
            "landmark network 'compact'",
            f"no file {path}",
            "weights in safetensors format",
            "install the package again, or train them with `python -m training.train_compact`",
        )
    try:
        state: Mapping[str, Tensor] = load_file(path)
        network.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"landmark network 'compact' weights {path}",
            reason,
            "the weights of this version of the network",
            "install the package again, or train them with `python -m training.train_compact`",
        ) from error
