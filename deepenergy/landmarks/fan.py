"""`fan`: the 3D-FAN landmark network of the paper, from the `face-alignment` package, with its published weights.

Conventions, against those of `face_alignment`:

- Crop: the package's window is `centre +- 100 scale`, but its crop is cut at whole pixels (up to one pixel and
  one crop pixel off) and sampled by OpenCV without antialiasing; ours is the exact window, antialiased.
- Heatmap to coordinates: `face_alignment.utils.get_preds_fromhm` gives the highest pixel's centre (+0.5, as ours)
  moved by a quarter pixel towards the higher neighbour; the local soft-argmax of equation 3 replaces this rule.
- The package adds the heatmaps of the crop and of its mirror image (`flip_input`); here the network is run once, as
  in the paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepenergy.landmarks.boxes import square_boxes
from deepenergy.landmarks.network import CROP_SIZE
from deepenergy.runtime.errors import InputError
from deepenergy.runtime.weight_file import WeightFile
from deepenergy.scene.landmark_layout import IBUG_68

_URL = "https://www.adrianbulat.com/downloads/python-fan/"
_SOURCE = "published with the package face-alignment, BSD-3"
FAN_WEIGHTS = {
    kind: WeightFile(
        field="landmark network 'fan'",
        name=name,
        sha256=sha256,
        url=_URL + name,
        source=_SOURCE,
        builtin="the network 'compact', which is built in",
    )
    for kind, name, sha256 in (
        ("3D", "3DFAN4-7835d9f11d.pth.tar", "7835d9f11d"),
        ("2D", "2DFAN4-11f355bf06.pth.tar", "11f355bf06"),
    )
}
# The package's crop: side = 200 * (w + h) / 195, centre moved up by 0.12 h.
_CROP_SCALE, _CROP_SHIFT = 400 / 195, -0.12


class Fan:
    """FAN with four hourglasses (23.8 M parameters), loaded at its first use. Implements `HeatmapNetwork`.

    Differentiable in the crops, in reverse and forward mode; its own parameters get no gradients.

    Args:
        path: the weight file; None looks in `$DEEPENERGY_WEIGHTS` and torch.hub's folder of checkpoints, where the
            package `face-alignment` keeps it.
        landmarks_type: "3D" (jaw points stay on the jaw's anatomy) or "2D" (they follow the visible contour).
        device: where it runs.
        verify: False takes a file whose SHA-256 does not begin with the digits in its name.

    Raises:
        InputError: an unknown `landmarks_type`. At first use: the file or the package is missing, or the file has
            another hash, cannot be read, or holds other weights.
    """

    name = "fan"
    layout = IBUG_68

    def __init__(
        self,
        path: str | Path | None = None,
        landmarks_type: str = "3D",
        device: torch.device | str = "cpu",
        verify: bool = True,
    ) -> None:
        if landmarks_type not in FAN_WEIGHTS:
            raise InputError("fan landmarks_type", f"'{landmarks_type}'", "'3D' or '2D'", "use '3D', the paper's")
        self.path, self.landmarks_type, self.device, self.verify = path, landmarks_type, torch.device(device), verify
        self._module: nn.Module | None = None

    @property
    def module(self) -> nn.Module:
        """The network itself: `[B, 3, 256, 256]` to a list of four `[B, L, 64, 64]`, loaded when first asked for."""
        if self._module is None:
            self._module = self._load()
        return self._module

    def __call__(self, crops: Float[Tensor, "b 3 256 256"]) -> Float[Tensor, "b l 64 64"]:
        """Heatmaps of the last hourglass; peaks are near 1 where the network is sure.

        Raises:
            ValueError: crops of another shape.
        """
        if crops.shape[-3:] != (3, CROP_SIZE, CROP_SIZE) or crops.ndim != 4:
            raise ValueError(f"crops: found shape {tuple(crops.shape)}; expected [B, 3, {CROP_SIZE}, {CROP_SIZE}]")
        return self.module(crops)[-1]

    def crop_boxes(self, face_boxes: Float[Tensor, "b 4"]) -> Float[Tensor, "b 4"]:
        """The package's windows: side 200 (w + h) / 195, the centre moved up by 0.12 h."""
        return square_boxes(face_boxes, _CROP_SCALE, _CROP_SHIFT)

    def confidence(self, heatmaps: Float[Tensor, "b l 64 64"]) -> Float[Tensor, "b l"]:
        """Heights of the heatmaps' peaks, cut off at 0 and 1 (the training targets are Gaussians of height 1)."""
        return heatmaps.detach().amax((-2, -1)).clamp(0, 1)

    def _load(self) -> nn.Module:
        weights = FAN_WEIGHTS[self.landmarks_type]
        path = weights.locate(self.path, [Path(torch.hub.get_dir()) / "checkpoints"])
        if self.verify:
            weights.check_hash(path)
        module = _fan_class()(4)
        try:
            module.load_state_dict(weights.read(path))
        except RuntimeError as error:
            first = str(error).splitlines()
            raise InputError(
                weights.field,
                f"{path}, whose tensors do not fit ({' '.join(line.strip() for line in first[:2])[:300]})",
                f"the state of a FAN with four hourglasses ({weights.name})",
                f"get the file from {weights.url}, or use {weights.builtin}",
            ) from error
        return module.requires_grad_(False).eval().to(self.device)


def _fan_class() -> Any:
    try:
        from face_alignment.models import FAN
    except ImportError as error:
        raise InputError(
            "landmark network 'fan'",
            f"no face-alignment ({error})",
            "the package face-alignment 1.5.0",
            "install it with `pip install face-alignment==1.5.0`, or use the network 'compact', which is built in",
        ) from error
    return FAN
