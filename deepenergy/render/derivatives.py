"""Whether derivatives are being taken."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingImports]
from torch.autograd import forward_ad


def differentiated(*tensors: Tensor) -> bool:
    """Whether a derivative is being taken.

    Args:
        tensors: what it may be taken by.

    Returns:
        True if it is by any of them, in reverse or forward mode.
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return True
    wrapped = any(is_functorch_wrapped_tensor(t) for t in tensors)
    return wrapped or any(forward_ad.unpack_dual(t).tangent is not None for t in tensors)
