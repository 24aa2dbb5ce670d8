"""The residuals of More, Garbow and Hillstrom 1981, in their numbering, batched: `[S, P]` to `[S, R]`.

Those of a fixed size are functions of x; those of any size take it from x; the data that they are fitted to stand by.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _count(first: int, last: int) -> Tensor:
    return torch.arange(first, last + 1, dtype=torch.float64)


def _stack(*columns: Tensor) -> Tensor:
    return torch.stack(columns, 1)


def _columns(x: Tensor) -> tuple[Tensor, ...]:
    """The parameters as `[S, 1]` each, to meet data along R."""
    return x[:, :, None].unbind(1)


def rosenbrock(x: Tensor) -> Tensor:
    """1 and 21, in pairs of parameters."""
    odd, even = x[:, ::2], x[:, 1::2]
    return torch.stack([10 * (even - odd**2), 1 - odd], 2).flatten(1)


def freudenstein_roth(x: Tensor) -> Tensor:
    """2."""
    a, b = x.unbind(1)
    return _stack(-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b)


def powell_badly_scaled(x: Tensor) -> Tensor:
    """3."""
    a, b = x.unbind(1)
    return _stack(1e4 * a * b - 1, (-a).exp() + (-b).exp() - 1.0001)


def brown_badly_scaled(x: Tensor) -> Tensor:
    """4."""
    a, b = x.unbind(1)
    return _stack(a - 1e6, b - 2e-6, a * b - 2)


def beale(x: Tensor) -> Tensor:
    """5."""
    a, b = _columns(x)
    y = torch.tensor([1.5, 2.25, 2.625], dtype=torch.float64)
    return y - a * (1 - torch.cat([b, b**2, b**3], 1))


def jennrich_sampson(x: Tensor) -> Tensor:
    """6, ten residuals."""
    a, b = _columns(x)
    i = _count(1, 10)
    return 2 + 2 * i - ((i * a).exp() + (i * b).exp())


def helical_valley(x: Tensor) -> Tensor:
    """7; the turn runs from -1/4 to 3/4, with its jump on the half-plane a = 0, b < 0."""
    a, b, c = x.unbind(1)
    turn = torch.atan2(b, a) / (2 * math.pi)
    turn = torch.where((a < 0) & (b < 0), turn + 1, turn)
    return _stack(10 * (c - 10 * turn), 10 * ((a**2 + b**2).sqrt() - 1), c)


_BARD = (0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39)


def bard(x: Tensor) -> Tensor:
    """8."""
    a, b, c = _columns(x)
    u = _count(1, 15)
    v = 16 - u
    return torch.tensor(_BARD, dtype=torch.float64) - (a + u / (v * b + torch.minimum(u, v) * c))


_GAUSSIAN = (0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989)


def gaussian(x: Tensor) -> Tensor:
    """9."""
    height, sharpness, centre = _columns(x)
    t = (8 - _count(1, 15)) / 2
    y = torch.tensor(_GAUSSIAN + _GAUSSIAN[-2::-1], dtype=torch.float64)
    return height * (-sharpness * (t - centre) ** 2 / 2).exp() - y


_MEYER = (34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872)


def meyer(x: Tensor) -> Tensor:
    """10."""
    scale, over, shift = _columns(x)
    return scale * (over / (45 + 5 * _count(1, 16) + shift)).exp() - torch.tensor(_MEYER, dtype=torch.float64)


def gulf(x: Tensor, count: int = 99) -> Tensor:
    """11, `count` residuals; with y - b within the power, where the paper's print has a product of indices."""
    a, b, c = _columns(x)
    t = _count(1, count) / 100
    y = 25 + (-50 * t.log()) ** (2 / 3)
    return (-((y - b).abs() ** c) / a).exp() - t


def box(x: Tensor) -> Tensor:
    """12, ten residuals."""
    a, b, c = _columns(x)
    t = 0.1 * _count(1, 10)
    return (-t * a).exp() - (-t * b).exp() - c * ((-t).exp() - (-10 * t).exp())


def powell_singular(x: Tensor) -> Tensor:
    """13 and 22, in fours of parameters."""
    a, b, c, d = (x[:, k::4] for k in range(4))
    rows = [a + 10 * b, math.sqrt(5) * (c - d), (b - 2 * c) ** 2, math.sqrt(10) * (a - d) ** 2]
    return torch.stack(rows, 2).flatten(1)


def wood(x: Tensor) -> Tensor:
    """14."""
    a, b, c, d = x.unbind(1)
    return _stack(
        10 * (b - a**2), 1 - a, math.sqrt(90) * (d - c**2), 1 - c, math.sqrt(10) * (b + d - 2), (b - d) / math.sqrt(10)
    )


_KOWALIK_Y = (0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246)
_KOWALIK_U = (4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625)


def kowalik_osborne(x: Tensor) -> Tensor:
    """15."""
    a, b, c, d = _columns(x)
    y, u = torch.tensor(_KOWALIK_Y, dtype=torch.float64), torch.tensor(_KOWALIK_U, dtype=torch.float64)
    return y - a * (u**2 + u * b) / (u**2 + u * c + d)


def brown_dennis(x: Tensor) -> Tensor:
    """16, twenty residuals."""
    a, b, c, d = _columns(x)
    t = _count(1, 20) / 5
    return (a + t * b - t.exp()) ** 2 + (c + d * t.sin() - t.cos()) ** 2


_OSBORNE1 = (
    0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751, 0.718, 0.685, 0.658, 0.628, 0.603,
    0.580, 0.558, 0.538, 0.522, 0.506, 0.490, 0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411,
    0.406,
)  # fmt: skip


def osborne1(x: Tensor) -> Tensor:
    """17."""
    a, b, c, d, e = _columns(x)
    t = 10 * _count(0, 32)
    return torch.tensor(_OSBORNE1, dtype=torch.float64) - (a + b * (-t * d).exp() + c * (-t * e).exp())


def biggs(x: Tensor) -> Tensor:
    """18, thirteen residuals."""
    a, b, c, d, e, f = _columns(x)
    t = 0.1 * _count(1, 13)
    y = (-t).exp() - 5 * (-10 * t).exp() + 3 * (-4 * t).exp()
    return c * (-t * a).exp() - d * (-t * b).exp() + f * (-t * e).exp() - y


_OSBORNE2 = (
    1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608, 0.655, 0.616, 0.606,
    0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661, 0.612, 0.558, 0.533, 0.495, 0.500, 0.423,
    0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428, 0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668,
    0.645, 0.632, 0.591, 0.559, 0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098,
    0.054,
)  # fmt: skip


def osborne2(x: Tensor) -> Tensor:
    """19."""
    t = 0.1 * _count(0, 64)
    p = _columns(x)
    model = p[0] * (-t * p[4]).exp()
    for height, sharpness, centre in zip(p[1:4], p[5:8], p[8:11], strict=True):
        model = model + height * (-sharpness * (t - centre) ** 2).exp()
    return torch.tensor(_OSBORNE2, dtype=torch.float64) - model


def watson(x: Tensor) -> Tensor:
    """20, of any size up to 31."""
    t = (_count(1, 29) / 29)[:, None]
    j = _count(0, x.shape[1] - 1)
    powers = t**j
    # The derivative of the polynomial, its first term apart: t^-1 has no place in it.
    slopes = j[1:] * t ** (j[1:] - 1)
    equation = x[:, 1:] @ slopes.T - (x @ powers.T) ** 2 - 1
    return torch.cat([equation, x[:, :1], x[:, 1:2] - x[:, :1] ** 2 - 1], 1)


def penalty1(x: Tensor) -> Tensor:
    """23."""
    return torch.cat([math.sqrt(1e-5) * (x - 1), (x**2).sum(1, keepdim=True) - 0.25], 1)


def penalty2(x: Tensor) -> Tensor:
    """24."""
    n = x.shape[1]
    root, e = math.sqrt(1e-5), (x / 10).exp()
    y = (_count(2, n) / 10).exp() + (_count(1, n - 1) / 10).exp()
    weighted = ((n - _count(0, n - 1)) * x**2).sum(1, keepdim=True) - 1
    pairs, singles = root * (e[:, 1:] + e[:, :-1] - y), root * (e[:, 1:] - math.exp(-0.1))
    return torch.cat([x[:, :1] - 0.2, pairs, singles, weighted], 1)


def variably_dimensioned(x: Tensor) -> Tensor:
    """25."""
    total = (_count(1, x.shape[1]) * (x - 1)).sum(1, keepdim=True)
    return torch.cat([x - 1, total, total**2], 1)


def trigonometric(x: Tensor) -> Tensor:
    """26."""
    n = x.shape[1]
    return n - x.cos().sum(1, keepdim=True) + _count(1, n) * (1 - x.cos()) - x.sin()


def brown_almost_linear(x: Tensor) -> Tensor:
    """27."""
    total = x.sum(1, keepdim=True) - (x.shape[1] + 1)
    return torch.cat([x[:, :-1] + total, x.prod(1, keepdim=True) - 1], 1)


def _neighbours(x: Tensor) -> tuple[Tensor, Tensor]:
    """The parameter before and the one after, 0 beyond the ends."""
    padded = torch.nn.functional.pad(x, (1, 1))
    return padded[:, :-2], padded[:, 2:]


def discrete_boundary_value(x: Tensor) -> Tensor:
    """28."""
    step = 1 / (x.shape[1] + 1)
    t = step * _count(1, x.shape[1])
    before, after = _neighbours(x)
    return 2 * x - before - after + step**2 * (x + t + 1) ** 3 / 2


def discrete_integral_equation(x: Tensor) -> Tensor:
    """29."""
    step = 1 / (x.shape[1] + 1)
    t = step * _count(1, x.shape[1])
    cube = (x + t + 1) ** 3
    # Green's function of the second derivative: t_j (1 - t_i) up to the diagonal, t_i (1 - t_j) after it.
    green = torch.minimum(t[:, None], t) * (1 - torch.maximum(t[:, None], t))
    return x + step / 2 * cube @ green.T


def broyden_tridiagonal(x: Tensor) -> Tensor:
    """30."""
    before, after = _neighbours(x)
    return (3 - 2 * x) * x - before - 2 * after + 1


def broyden_banded(x: Tensor) -> Tensor:
    """31: five neighbours before, one after."""
    i = _count(1, x.shape[1])
    ahead = i - i[:, None]
    band = ((ahead >= -5) & (ahead <= 1) & (ahead != 0)).to(x)
    return x * (2 + 5 * x**2) + 1 - (x * (1 + x)) @ band.T


LINEAR_RESIDUALS = 20


def linear_full_rank(x: Tensor) -> Tensor:
    """32, twenty residuals."""
    total = 2 / LINEAR_RESIDUALS * x.sum(1, keepdim=True)
    return torch.nn.functional.pad(x, (0, LINEAR_RESIDUALS - x.shape[1])) - total - 1


def linear_rank_1(x: Tensor) -> Tensor:
    """33, twenty residuals."""
    return _count(1, LINEAR_RESIDUALS) * (_count(1, x.shape[1]) * x).sum(1, keepdim=True) - 1


def linear_rank_1_with_zeros(x: Tensor) -> Tensor:
    """34, twenty residuals: nothing depends on the first and the last parameter."""
    n = x.shape[1]
    total = (_count(2, n - 1) * x[:, 1:-1]).sum(1, keepdim=True)
    inner = _count(1, LINEAR_RESIDUALS - 2) * total - 1
    return torch.nn.functional.pad(inner, (1, 1), value=-1.0)


def chebyquad(x: Tensor) -> Tensor:
    """35: means of the shifted Chebyshev polynomials less their integrals, as many as parameters."""
    before, now = torch.ones_like(x), 2 * x - 1
    rows = []
    for i in range(1, x.shape[1] + 1):
        integral = 0.0 if i % 2 else -1 / (i * i - 1)
        rows.append(now.mean(1) - integral)
        before, now = now, 2 * (2 * x - 1) * now - before
    return torch.stack(rows, 1)
