"""`compact`: our own flow network, small enough for the CPU, its weights inside the package.

Trained by `training/train_flow.py` on renders of moving heads over moving backgrounds, with exact flow.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from deepenergy.flow.compact_network import CompactFlowNetwork
from deepenergy.flow.network import Flow, check_pair, landing_validity
from deepenergy.runtime.errors import InputError

WEIGHTS = Path(__file__).parent / "weights" / "compact.safetensors"
SMALLEST = 32
_MULTIPLE = 8


class CompactFlow:
    """The shipped network as a `FlowNetwork`.

    Differentiable in both images, in reverse and forward mode; its own parameters get no gradients.

    Args:
        weights: a safetensors file; the one inside the package when None.
        device: where it runs.
        detach: cut the positions out of the derivative between updates, as RAFT does; the derivative is then not that
            of the flow.

    Raises:
        InputError: no such file, or weights of another network.
    """

    name = "compact"

    def __init__(
        self, weights: str | Path | None = None, device: torch.device | str = "cpu", detach: bool = False
    ) -> None:
        self.network = CompactFlowNetwork().eval().requires_grad_(False)
        _load(self.network, WEIGHTS if weights is None else Path(weights))
        self.network.to(device)
        self.detach = detach

    def __call__(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"], /) -> Flow:
        """See `FlowNetwork`; computed in the images' precision, which must be that of the network.

        Raises:
            InputError: images of less than 32 pixels on a side.
            ValueError: images of other shapes.
        """
        check_pair(self.name, a, b, SMALLEST)
        height, width = a.shape[-2:]
        margin = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        if any(margin):
            a, b = (F.pad(x, margin, mode="replicate") for x in (a, b))
        pixels = self.network(a, b, detach=self.detach)[-1][..., :height, :width]
        return Flow(pixels, landing_validity(pixels))


def _load(network: CompactFlowNetwork, path: Path) -> None:
    remedy = "install the package again, or train them with `python -m training.train_flow`"
    if not path.is_file():
        raise InputError("flow network 'compact'", f"no file {path}", "weights in safetensors format", remedy)
    try:
        state = load_file(path)
        # Counts that only training needs are left out of the file.
        counts = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
        network.load_state_dict(counts | state)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"flow network 'compact' weights {path}", reason, "the weights of this version of the network", remedy
        ) from error
