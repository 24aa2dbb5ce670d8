"""Compiled operations as differentiable ones: reverse mode, forward mode, and `vmap` over tangents or cotangents.

An operation knows how to compute itself, to push tangents forward and to pull cotangents back, many at a time. First
derivatives only: a derivative of a derivative is refused.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


class Operation(Protocol):
    """A differentiable function of tensors, given constants, compiled for the CPU."""

    @staticmethod
    def compute(constants: Tensors, inputs: Tensors) -> Tensor:
        """The function."""
        ...

    @staticmethod
    def push(constants: Tensors, inputs: Tensors, tangents: Tensors) -> Tensor:
        """Its derivatives along `[T, ...]` tangents of the inputs, `[T, ...]`."""
        ...

    @staticmethod
    def pull(constants: Tensors, inputs: Tensors, cotangents: Tensor) -> Tensors:
        """The transpose: `[T, ...]` of each input for `[T, ...]` of the output."""
        ...


def apply_compiled(operation: type[Operation], constants: Tensors, inputs: Tensors) -> Tensor:
    """`operation` of CPU tensors, differentiable in its inputs.

    Constants are passed as arguments of the operation, and not with it, since `torch.func` wraps tensors and has to
    unwrap them.
    """
    return _Compute.apply(operation, len(constants), *constants, *inputs)


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
        found = _Pull.apply(ctx.operation, ctx.split, *ctx.saved_tensors, cotangents[0])
        return (None,) * (2 + ctx.split) + found

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        inputs = ctx.saved_tensors[ctx.split :]
        pairs = zip(inputs, tangents[2 + ctx.split :], strict=True)
        known = [torch.zeros_like(x) if t is None else t for x, t in pairs]
        return _Push.apply(ctx.operation, ctx.split, *ctx.saved_tensors, *known)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], operation: type[Operation], split: int, *given: Tensor) -> Any:
        each = _one_by_one(given, in_dims[2:], info.batch_size)
        return torch.stack([_Compute.apply(operation, split, *one) for one in each]), 0


class _Push(torch.autograd.Function):
    """Of constants, inputs and as many tangents."""

    @staticmethod
    def forward(operation: type[Operation], split: int, *given: Tensor) -> Tensor:
        plain = tuple(part.detach() for part in given)
        middle = (len(plain) + split) // 2
        tangents = tuple(part[None] for part in plain[middle:])
        return operation.push(plain[:split], plain[split:middle], tangents)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing is kept: there is no derivative of it."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise _second()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], operation: type[Operation], split: int, *given: Tensor) -> Any:
        dims, middle = in_dims[2:], (len(given) + split) // 2
        if any(d is not None for d in dims[:middle]):
            each = _one_by_one(given, dims, info.batch_size)
            return torch.stack([_Push.apply(operation, split, *one) for one in each]), 0
        pairs = zip(given[middle:], dims[middle:], strict=True)
        tangents = tuple(_in_front(t, d, info.batch_size) for t, d in pairs)
        return operation.push(given[:split], given[split:middle], tangents), 0


class _Pull(torch.autograd.Function):
    """Of constants, inputs and a cotangent."""

    @staticmethod
    def forward(operation: type[Operation], split: int, *given: Tensor) -> Tensors:
        plain = tuple(part.detach() for part in given)
        found = operation.pull(plain[:split], plain[split:-1], plain[-1][None])
        return tuple(part[0] for part in found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        """Nothing is kept: there is no derivative of it."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise _second()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], operation: type[Operation], split: int, *given: Tensor) -> Any:
        dims = in_dims[2:]
        if any(d is not None for d in dims[:-1]):
            each = _one_by_one(given, dims, info.batch_size)
            found = [_Pull.apply(operation, split, *one) for one in each]
            stacked = tuple(torch.stack(column) for column in zip(*found, strict=True))
        else:
            cotangents = _in_front(given[-1], dims[-1], info.batch_size)
            stacked = operation.pull(given[:split], given[split:-1], cotangents)
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
