"""Compiled operations as differentiable ones: reverse mode, forward mode, and `vmap` over tangents or cotangents.

An operation computes itself, its derivatives along tangents (jvp) and their transpose (vjp), many at a time. First
derivatives only: a derivative of a derivative is refused.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Tensors = tuple[Tensor, ...]


class Operation(Protocol):
    """A differentiable function of tensors, given constants, compiled for the CPU."""

    @staticmethod
    def compute(constants: Tensors, inputs: Tensors) -> Tensor:
        """The function."""
        ...

    @staticmethod
    def jvp(constants: Tensors, inputs: Tensors, tangents: Tensors) -> Tensor:
        """Its derivatives along `[T, ...]` tangents of the inputs, `[T, ...]`."""
        ...

    @staticmethod
    def vjp(constants: Tensors, inputs: Tensors, cotangents: Tensor) -> Tensors:
        """The transpose: `[T, ...]` of each input for `[T, ...]` of the output."""
        ...


def apply_compiled(operation: type[Operation], constants: Tensors, inputs: Tensors) -> Tensor:
    """`operation` of CPU tensors, differentiable in its inputs.

    Constants are passed as arguments of the operation, and not with it, since `torch.func` wraps tensors and has to
    unwrap them.
    """
    return _Compute.apply(operation, len(constants), *constants, *inputs)


def array_of(tensor: Tensor) -> NDArray[Any]:
    """A CPU tensor as compiled code takes it, with its elements in a row."""
    return np.ascontiguousarray(tensor.numpy())


class _Compute(torch.autograd.Function):
    @staticmethod
    def forward(operation: type[Operation], split: int, *given: Tensor) -> Tensor:
        plain = tuple(part.detach() for part in given)
        return operation.compute(plain[:split], plain[split:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.operation, ctx.split = inputs[:2]
        ctx.save_for_backward(*inputs[2:])
        ctx.save_for_forward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        found = _Vjp.apply(ctx.operation, ctx.split, *ctx.saved_tensors, cotangents[0][None])
        return (None,) * (2 + ctx.split) + tuple(part[0] for part in found)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        inputs = ctx.saved_tensors[ctx.split :]
        pairs = zip(inputs, tangents[2 + ctx.split :], strict=True)
        known = [torch.zeros_like(x)[None] if t is None else t[None] for x, t in pairs]
        return _Jvp.apply(ctx.operation, ctx.split, *ctx.saved_tensors, *known)[0]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], operation: type[Operation], split: int, *given: Tensor) -> Any:
        each = _one_by_one(given, in_dims[2:], info.batch_size)
        return torch.stack([_Compute.apply(operation, split, *one) for one in each]), 0


class _FirstOrder(torch.autograd.Function):
    """A derivative, which has none itself."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise _second()

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        raise _second()


class _Jvp(_FirstOrder):
    """Of constants, inputs and `[T, ...]` tangents."""

    @staticmethod
    def forward(operation: type[Operation], split: int, *given: Tensor) -> Tensor:
        plain = tuple(part.detach() for part in given)
        middle = (len(plain) + split) // 2
        return operation.jvp(plain[:split], plain[split:middle], plain[middle:])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], operation: type[Operation], split: int, *given: Tensor) -> Any:
        dims, middle, size = in_dims[2:], (len(given) + split) // 2, info.batch_size
        if any(d is not None for d in dims[:middle]):
            each = _one_by_one(given, dims, size)
            return torch.stack([_Jvp.apply(operation, split, *one) for one in each]), 0
        pairs = zip(given[middle:], dims[middle:], strict=True)
        tangents = [_in_front(t, d, size).flatten(0, 1) for t, d in pairs]
        return _Jvp.apply(operation, split, *given[:middle], *tangents).unflatten(0, (size, -1)), 0


class _Vjp(_FirstOrder):
    """Of constants, inputs and `[T, ...]` cotangents."""

    @staticmethod
    def forward(operation: type[Operation], split: int, *given: Tensor) -> Tensors:
        plain = tuple(part.detach() for part in given)
        return operation.vjp(plain[:split], plain[split:-1], plain[-1])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], operation: type[Operation], split: int, *given: Tensor) -> Any:
        dims, size = in_dims[2:], info.batch_size
        if any(d is not None for d in dims[:-1]):
            found = [_Vjp.apply(operation, split, *one) for one in _one_by_one(given, dims, size)]
            stacked = tuple(torch.stack(column) for column in zip(*found, strict=True))
        else:
            cotangents = _in_front(given[-1], dims[-1], size).flatten(0, 1)
            found = _Vjp.apply(operation, split, *given[:-1], cotangents)
            stacked = tuple(part.unflatten(0, (size, -1)) for part in found)
        return stacked, (0,) * len(stacked)


def _second() -> RuntimeError:
    return RuntimeError(
        "renderer: the second derivative of a compiled operation was asked for; it has first derivatives, in reverse "
        "and in forward mode (torch.func.jvp, vmapped over tangents)"
    )


def _one_by_one(given: Tensors, dims: tuple[int | None, ...], size: int) -> list[Tensors]:
    columns = [[x] * size if d is None else list(x.unbind(d)) for x, d in zip(given, dims, strict=True)]
    return list(zip(*columns, strict=True))


def _in_front(value: Tensor, dim: int | None, size: int) -> Tensor:
    return value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
