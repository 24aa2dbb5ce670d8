"""`raft` and `raft_small`: the flow network of the paper, with the weights that torchvision publishes."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from deepenergy.flow.network import Flow, check_pair, landing_validity
from deepenergy.flow.raft_network import LARGE, SMALL, UPDATES, RaftNetwork
from deepenergy.runtime.errors import InputError
from deepenergy.runtime.weight_file import WeightFile

# The side that inputs are resized to (sections 6 and 7 of the paper).
INPUT_SIZE = 512
# Smaller inputs leave nothing at the last of the four levels of correlation.
SMALLEST = 128
_URL = "https://download.pytorch.org/models/"
_SOURCE = "published with torchvision, BSD-3; trained on research data sets of their own terms"
RAFT_WEIGHTS = {
    kind: WeightFile(
        field=f"flow network '{network}'",
        name=name,
        sha256=sha256,
        url=_URL + name,
        source=_SOURCE,
        builtin="the network 'compact', which is built in",
    )
    for kind, network, name, sha256 in (
        ("large", "raft", "raft_large_C_T_SKHT_V2-ff5fadd5.pth", "ff5fadd5"),
        ("small", "raft_small", "raft_small_C_T_V2-01064c6d.pth", "01064c6d"),
    )
}


class Raft:
    """RAFT (5.3 M parameters, or 1.0 M small), loaded at its first use. Implements `FlowNetwork`.

    Differentiable in both images, in reverse and forward mode; its own parameters get no gradients.

    Args:
        path: the weight file; None looks in `$DEEPENERGY_WEIGHTS` and torch.hub's folder of checkpoints, where
            torchvision keeps it.
        kind: "large" or "small".
        device: where it runs.
        size: images are resized to this square, as in the paper, and the flow back; None: taken as they are.
        updates: how many times the flow is updated.
        detach: cut the positions out of the derivative before each update, as published; the derivative is then not
            that of the flow.
        verify: False takes a file whose SHA-256 does not begin with the digits in its name.

    Raises:
        InputError: an unknown kind, or a size that is no multiple of 8, or too small. At first use: the file is
            missing, has another hash, cannot be read, or holds other weights.
    """

    def __init__(  # more than six: what its file and its network need
        self,
        path: str | Path | None = None,
        kind: str = "large",
        device: torch.device | str = "cpu",
        size: int | None = INPUT_SIZE,
        updates: int = UPDATES,
        detach: bool = False,
        verify: bool = True,
    ) -> None:
        if kind not in RAFT_WEIGHTS:
            raise InputError("raft kind", f"'{kind}'", "'large' or 'small'", "use 'large', the paper's")
        if size is not None and (size < SMALLEST or size % 8):
            raise InputError("raft size", str(size), f"a multiple of 8, at least {SMALLEST}", f"use {INPUT_SIZE}")
        if updates < 1:
            raise InputError("raft updates", str(updates), "at least 1", f"use {UPDATES}")
        self.name = "raft" if kind == "large" else "raft_small"
        self.path, self.kind, self.device, self.size = path, kind, torch.device(device), size
        self.updates, self.detach, self.verify = updates, detach, verify
        self._module: RaftNetwork | None = None

    @property
    def module(self) -> RaftNetwork:
        """The network itself, loaded when first asked for."""
        if self._module is None:
            self._module = self._load()
        return self._module

    def __call__(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"], /) -> Flow:
        """See `FlowNetwork`.

        Raises:
            InputError: images of less than 128 pixels on a side.
            ValueError: images of other shapes.
        """
        check_pair(self.name, a, b, SMALLEST)
        height, width = a.shape[-2:]
        if self.size is None:
            # To the next multiple of 8.
            margin = (0, -width % 8, 0, -height % 8)
            first, second = (F.pad(x, margin, mode="replicate") if any(margin) else x for x in (a, b))
        else:
            first, second = (_resized(x, self.size, self.size) for x in (a, b))
        pixels = self.module(2 * first - 1, 2 * second - 1, self.updates, self.detach)
        if self.size is None:
            pixels = pixels[..., :height, :width]
        else:
            scale = pixels.new_tensor([width / self.size, height / self.size])[:, None, None]
            pixels = _resized(pixels, height, width) * scale
        return Flow(pixels, landing_validity(pixels))

    def _load(self) -> RaftNetwork:
        weights = RAFT_WEIGHTS[self.kind]
        path = weights.locate(self.path, [Path(torch.hub.get_dir()) / "checkpoints"])
        if self.verify:
            weights.check_hash(path)
        network = RaftNetwork(LARGE if self.kind == "large" else SMALL)
        try:
            network.load_state_dict(weights.read(path))
        except RuntimeError as error:
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2])[:300]
            raise InputError(
                weights.field,
                f"{path}, whose tensors do not fit ({reason})",
                f"the state of torchvision's RAFT {self.kind} ({weights.name})",
                f"get the file from {weights.url}, or use {weights.builtin}",
            ) from error
        return network.requires_grad_(False).eval().to(self.device)


def _resized(images: Tensor, height: int, width: int) -> Tensor:
    if (height, width) == tuple(images.shape[-2:]):
        return images
    shrinks = height < images.shape[-2] or width < images.shape[-1]
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False, antialias=shrinks)
