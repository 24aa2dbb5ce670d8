"""What is found without a gradient before anything is differentiated: which triangle each sample shows, and outlines.

One step, opaque to automatic differentiation: its inputs' derivatives are dropped and its outputs have none, in reverse
mode and under `torch.func.jvp`, also where tangents are mapped over by `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.render.compiled.outlines import LinearBlend
from deepenergy.render.fragments import Fragments
from deepenergy.render.reference.depth_steps import DepthSteps
from deepenergy.render.reference.intersections import Intersections
from deepenergy.render.reference.silhouettes import Crossings

Find = Callable[[Tensor, Tensor], "Visible"]


@dataclass(frozen=True)
class Visible:
    """Fragments, and, where antialiased, outlines between them: on the CPU as `blend`, elsewhere the other three."""

    fragments: Fragments
    crossings: Crossings | None = None
    intersections: Intersections | None = None
    depth_steps: DepthSteps | None = None
    blend: LinearBlend | None = None


def without_derivative(find: Find, pixels: Float[Tensor, "b v 2"], depth: Float[Tensor, "b v"]) -> Visible:
    """`find(pixels, depth)`, whatever derivatives its arguments carry.

    Args:
        find: gets the arguments without their derivatives.
        pixels, depth: projected vertices, in samples and metres.

    Returns:
        What was found; it has no derivative.

    Raises:
        ValueError: vertices that `torch.func.vmap` maps over, whose outlines differ in number from one to the next.
    """
    # Only tensors go through: what they are the columns of is noted beside.
    shapes: list[Visible] = []

    def noted(xy: Tensor, z: Tensor) -> Visible:
        shapes.append(find(xy, z))
        return shapes[0]

    columns = iter(_Opaque.apply(pixels, depth, noted))
    parts = ((part.name, getattr(shapes[0], part.name)) for part in fields(Visible))
    return Visible(**{name: type(v)(*(next(columns) for _ in fields(v))) for name, v in parts if v is not None})


class _Opaque(torch.autograd.Function):
    @staticmethod
    def forward(pixels: Tensor, depth: Tensor, find: Find) -> tuple[Tensor, ...]:
        visible = find(pixels, depth)
        parts = [value for part in fields(Visible) if (value := getattr(visible, part.name)) is not None]
        return tuple(getattr(value, column.name) for value in parts for column in fields(value))

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
    def vmap(info: Any, in_dims: tuple[int | None, ...], pixels: Tensor, depth: Tensor, find: Find) -> Any:
        raise ValueError(
            "renderer: vertices mapped over by torch.func.vmap; map over tangents, and give several meshes as a batch"
        )
