"""What is found without a gradient before anything is differentiated: which triangle each sample shows, and outlines.

One step, opaque to automatic differentiation: its inputs' derivatives are dropped and its outputs have none, in reverse
mode and under `torch.func.jvp`, also where tangents are mapped over by `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingImports]
from torch.autograd import forward_ad

from deepenergy.render.cliffs import Cliffs
from deepenergy.render.contours import Crossings
from deepenergy.render.fragments import Fragments
from deepenergy.render.piercings import Piercings

Look = Callable[[Tensor, Tensor], "Visible"]


@dataclass(frozen=True)
class Visible:
    """Fragments, and where outlines pass between them; no outlines (None) where they are not antialiased."""

    fragments: Fragments
    crossings: Crossings | None = None
    piercings: Piercings | None = None
    cliffs: Cliffs | None = None


def without_derivative(look: Look, pixels: Float[Tensor, "b v 2"], depth: Float[Tensor, "b v"]) -> Visible:
    """`look(pixels, depth)`, whatever derivatives its arguments carry.

    Raises:
        ValueError: vertices that `torch.func.vmap` maps over, whose outlines differ in number from one to the next.
    """
    columns = _Opaque.apply(pixels, depth, look)
    fragments = Fragments(*columns[:3])
    if len(columns) == 3:
        return Visible(fragments)
    return Visible(fragments, Crossings(*columns[3:7]), Piercings(*columns[7:11]), Cliffs(*columns[11:]))


def differentiated(*tensors: Tensor) -> bool:
    """Whether a derivative is being taken by any of the tensors, in either mode."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return True
    wrapped = any(is_functorch_wrapped_tensor(t) for t in tensors)
    return wrapped or any(forward_ad.unpack_dual(t).tangent is not None for t in tensors)


class _Opaque(torch.autograd.Function):
    @staticmethod
    def forward(pixels: Tensor, depth: Tensor, look: Look) -> tuple[Tensor, ...]:
        visible = look(pixels, depth)
        every = (visible.fragments, visible.crossings, visible.piercings, visible.cliffs)
        parts = [part for part in every if part is not None]
        return tuple(getattr(part, name) for part in parts for name in part.__dataclass_fields__)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)
        ctx.outputs = len(output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[None, ...]:
        return (None,) * ctx.outputs

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], pixels: Tensor, depth: Tensor, look: Look) -> Any:
        raise ValueError(
            "renderer: vertices mapped over by torch.func.vmap; map over tangents, and give several meshes as a batch"
        )
