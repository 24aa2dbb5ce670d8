"""`dis`: Dense Inverse Search (Kroeger et al. 2016) of OpenCV, for pairs of plates: nothing learned, no derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from deepenergy.flow.network import Flow, check_pair, landing_validity
from deepenergy.runtime.errors import InputError

_SMALLEST = 32


class Dis:
    """OpenCV's DIS as a `FlowNetwork`, on greyscale bytes.

    It serves the plate's side of a flow energy and as a yardstick. It has no derivative, so it cannot be the network
    of a `deep` Jacobian.

    Args:
        finest_scale: 0: down to the images' own size. 1, OpenCV's own choice: to half of it, in a quarter of the time.
    """

    name = "dis"

    def __init__(self, finest_scale: int = 0) -> None:
        self.finest_scale = finest_scale

    def __call__(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"], /) -> Flow:
        """See `FlowNetwork`.

        Raises:
            InputError: images that a derivative is asked of, or of less than 32 pixels on a side; OpenCV is missing.
            ValueError: images of other shapes.
        """
        check_pair(self.name, a, b, _SMALLEST)
        if any(x.requires_grad or forward_ad.unpack_dual(x).tangent is not None for x in (a, b)):
            raise InputError(
                "flow network 'dis'",
                "images that a derivative is asked of",
                "plates: DIS has no derivative",
                "use the network 'compact', or the jacobian 'geometric'",
            )
        cv2, found = _opencv(), []
        # A fresh one each time, for it keeps the last flow's memory, and one is not to be shared between threads.
        method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        method.setFinestScale(self.finest_scale)
        for first, second in zip(_grey(a), _grey(b), strict=True):
            blank = np.zeros((*first.shape, 2), np.float32)
            found.append(torch.from_numpy(method.calc(first, second, blank)).permute(2, 0, 1))
        pixels = torch.stack(found).to(a.device, a.dtype)
        return Flow(pixels, landing_validity(pixels))


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise InputError(
            "flow network 'dis'",
            f"no OpenCV ({error})",
            "the package opencv-python-headless",
            "install it with `pip install opencv-python-headless`, or use the network 'compact', which is built in",
        ) from error
    return cv2


def _grey(images: Tensor) -> list[np.ndarray]:
    """Luma (Rec. 601, as OpenCV's grey) in bytes."""
    luma = (images.detach().float() * images.new_tensor([0.299, 0.587, 0.114]).float()[:, None, None]).sum(1)
    return list((luma.clamp(0, 1) * 255).round().byte().cpu().numpy())
