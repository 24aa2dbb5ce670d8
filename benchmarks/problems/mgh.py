"""The test problems of More, Garbow and Hillstrom, with their starts, known minima, and Gay's bounds.

J. J. More, B. S. Garbow, K. E. Hillstrom: Testing unconstrained optimization software. ACM Transactions on Mathematical
Software 7 (1981), 17-41. Bounds: D. M. Gay: A trust-region approach to linearly constrained optimization. Numerical
Analysis, Lecture Notes in Mathematics 1066 (1984), 72-105, as handed down by the collections of TOMLAB, of Ceres and of
N. Mayorov, which agree where they overlap but for what a note says. The standard start is moved onto the bounds where
it lies outside of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.problems import mgh_residuals as r

INF = float("inf")


@dataclass(frozen=True)
class MghProblem:
    """One problem at one size.

    Attributes:
        number: that of the paper, 1 to 35.
        name: with the number of parameters where the paper leaves it open.
        residual: `[S, P]` to `[S, R]`.
        start: `[P]`, the standard one.
        minima: known values of the sum of squares at minima without bounds, published to six digits, the least first.
        lower, upper: Gay's bounds `[P]`; None where he gives none.
        bounded_minima: likewise within the bounds; where nothing is published, the least of 400 starts.
        note: what else a reader should know, such as minima at infinity.
    """

    number: int
    name: str
    residual: Callable[[Tensor], Tensor]
    start: Float[Tensor, " p"]
    minima: tuple[float, ...]
    lower: Float[Tensor, " p"] | None = None
    upper: Float[Tensor, " p"] | None = None
    bounded_minima: tuple[float, ...] = ()
    note: str = ""

    @property
    def bounded(self) -> bool:
        """Whether there are bounds."""
        return self.lower is not None

    def bounded_start(self) -> Float[Tensor, " p"]:
        """The standard start, moved onto the bounds."""
        if self.lower is None or self.upper is None:
            return self.start
        return torch.minimum(torch.maximum(self.start, self.lower), self.upper)


@dataclass(frozen=True)
class _Bounds:
    lower: Sequence[float]
    upper: Sequence[float]
    minima: tuple[float, ...]


def _problem(
    number: int,
    name: str,
    residual: Callable[[Tensor], Tensor],
    start: Sequence[float] | Tensor,
    minima: Sequence[float],
    bounds: _Bounds | None = None,
    note: str = "",
) -> MghProblem:
    def tensor(values: Sequence[float] | Tensor) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float64)

    if bounds is None:
        return MghProblem(number, name, residual, tensor(start), tuple(minima), note=note)
    low, high = tensor(bounds.lower), tensor(bounds.upper)
    return MghProblem(number, name, residual, tensor(start), tuple(minima), low, high, bounds.minima, note)


@cache
def mgh_problems() -> tuple[MghProblem, ...]:
    """All 35, some of them at several sizes."""
    return (*_of_fixed_size(), *_of_any_size())


def _of_fixed_size() -> list[MghProblem]:
    return [
        _problem(
            1, "Rosenbrock", r.rosenbrock, [-1.2, 1], [0.0],
            _Bounds([-50, 0], [0.5, 100], (0.25,)),
        ),
        _problem(
            2, "Freudenstein and Roth", r.freudenstein_roth, [0.5, -2], [0.0, 48.9842],
            _Bounds([0, -30], [20, -0.9], (48.985202,)),
            "The standard start lies in the basin of the upper minimum.",
        ),
        _problem(
            3, "Powell badly scaled", r.powell_badly_scaled, [0, 1], [0.0],
            _Bounds([0, 1], [1, 9], (0.15125900e-9,)),
        ),
        _problem(
            4, "Brown badly scaled", r.brown_badly_scaled, [1, 1], [0.0],
            _Bounds([0, 3e-5], [1e6, 100], (784.0,)),
        ),
        _problem(5, "Beale", r.beale, [1, 1], [0.0], _Bounds([0.6, 0.5], [10, 100], (0.0,))),
        _problem(
            6, "Jennrich and Sampson", r.jennrich_sampson, [0.3, 0.4], [124.362],
            _Bounds([0.26, 0], [10, 20], (124.383113,)),
        ),
        _problem(
            7, "Helical valley", r.helical_valley, [-1, 0, 0], [0.0],
            _Bounds([-100, -1, -1], [0.8, 1, 1], (0.99042212,)),
        ),
        _problem(
            8, "Bard", r.bard, [1, 1, 1], [8.21487e-3],
            _Bounds([0.1, 0, 0], [50, 100, 50], (9.5822847e-3,)),
            "Another minimum, 17.4286, with the second and third parameter at minus infinity.",
        ),
        _problem(
            9, "Gaussian", r.gaussian, [0.4, 1, 0], [1.12793e-8],
            _Bounds([0.398, 1, -0.5], [4.2, 2, 0.1], (1.12793e-8,)),
        ),
        _problem(
            10, "Meyer", r.meyer, [0.02, 4000, 250], [87.9458],
            _Bounds([0.006, 0, 0], [2, 3e5, 3e4], (127.4517712,)),
        ),
        _problem(11, "Gulf, 99 residuals", r.gulf, [5, 2.5, 0.15], [0.0]),
        _problem(
            11, "Gulf, 3 residuals", partial(r.gulf, count=3), [5, 2.5, 0.15], [0.0],
            _Bounds([0, 0, 0], [10, 10, 10], (0.58281431e-4,)),
        ),
        _problem(
            12, "Box", r.box, [0, 10, 20], [0.0],
            _Bounds([0, 5, 0], [2, 9.5, 20], (1.1434818e-4,)),
            "Zero at (1, 10, 1), (10, 1, -1) and wherever the first two agree and the third is 0.",
        ),
        _problem(
            13, "Powell singular", r.powell_singular, [3, -1, 0, 1], [0.0],
            _Bounds([0.1, -20, -1, -1], [100, 20, 1, 50], (1.8781963e-4,)),
            "The Jacobian is singular at the solution without bounds, where the approach is linear.",
        ),
        _problem(
            14, "Wood", r.wood, [-3, -1, -3, -1], [0.0],
            _Bounds([-100, -100, -100, -100], [0, 10, 100, 100], (1.5567008,)),
            "A saddle at 7.877 on the way.",
        ),
        _problem(
            15, "Kowalik and Osborne", r.kowalik_osborne, [0.25, 0.39, 0.415, 0.39], [3.07505e-4],
            _Bounds([0, -1, 0.13, 0.12], [10, 12, 13, 12], (3.0783072e-4,)),
            "Another minimum, 1.02734e-3, at infinity.",
        ),
        _problem(
            16, "Brown and Dennis", r.brown_dennis, [25, 5, -5, -1], [85822.2],
            _Bounds([-10, 0, -100, -20], [100, 15, 0, 0.2], (88860.479,)),
        ),
        _problem(
            17, "Osborne 1", r.osborne1, [0.5, 1.5, -1, 0.01, 0.02], [5.46489e-5],
            _Bounds([0, 0, -50, 0, 0], [50, 1.9, -0.1, 10, 10], (5.4702833e-5,)),
        ),
        _problem(
            18, "Biggs EXP6", r.biggs, [1, 2, 1, 1, 1, 1], [0.0, 5.65565e-3],
            _Bounds([0, 0, 0, 1, 0, 0], [2, 8, 1, 7, 5, 5], (0.53209865e-3,)),
        ),
        _problem(
            19, "Osborne 2", r.osborne2, [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5], [4.01377e-2],
            _Bounds(
                [1, 0.5, 0, 0.6, 0, 0, 0, 0, 0, 0, 0],
                [150, 100, 100, 100, 100, 500, 500, 500, 100, 10, 0],
                (0.30256436, 0.51023052, 0.51038325),
            ),
            "The bounds fix the last parameter at 0. Published is the last of the minima; 400 starts found the first.",
        ),
    ]  # fmt: skip


def _of_any_size() -> list[MghProblem]:
    return [
        *_watson(),
        _problem(21, "Extended Rosenbrock 10", r.rosenbrock, [-1.2, 1] * 5, [0.0]),
        _problem(22, "Extended Powell singular 12", r.powell_singular, [3, -1, 0, 1] * 3, [0.0]),
        _problem(23, "Penalty I 4", r.penalty1, _count(4), [2.24997e-5]),
        _problem(
            23, "Penalty I 10", r.penalty1, _count(10), [7.08765e-5],
            _Bounds([0, 1, 0, 0, 0, 1, 0, 0, 0, 1], [100] * 10, (7.56257,)),
        ),
        _problem(
            24, "Penalty II 4", r.penalty2, [0.5] * 4, [9.37629e-6],
            _Bounds([-10, 0.3, 0, -1], [50, 50, 50, 0.5], (9.4342047e-6,)),
        ),
        _problem(
            24, "Penalty II 10", r.penalty2, [0.5] * 10, [2.93660e-4],
            _Bounds([-10, 0.1, 0, 0.05, 0, -10, 0, 0.2, 0, 0], [50] * 9 + [0.5], (2.9434445e-4,)),
        ),
        _problem(
            25, "Variably dimensioned 10", r.variably_dimensioned, 1 - _count(10) / 10, [0.0],
            _Bounds([0] * 10, [10, 20, 30, 40, 50, 60, 70, 80, 90, 0.5], (0.33741268,)),
        ),
        _problem(
            26, "Trigonometric 10", r.trigonometric, [0.1] * 10, [0.0, 2.79506e-5],
            _Bounds([10 * i for i in range(10)], [10 * i + 10 for i in range(10)], (2.79506e-5, 609.51535)),
            "Periodic, with many minima.",
        ),
        _problem(
            27, "Brown almost linear 10", r.brown_almost_linear, [0.5] * 10, [0.0, 1.0],
            _Bounds([0, 1] + [0] * 8, [100, 100, 0.9] + [100] * 7, (6.0931786e-3,)),
        ),
        _problem(28, "Discrete boundary value 10", r.discrete_boundary_value, _arch(10), [0.0]),
        _problem(29, "Discrete integral equation 10", r.discrete_integral_equation, _arch(10), [0.0]),
        _problem(30, "Broyden tridiagonal 10", r.broyden_tridiagonal, [-1.0] * 10, [0.0]),
        _problem(31, "Broyden banded 10", r.broyden_banded, [-1.0] * 10, [0.0]),
        *_linear(10),
        _problem(35, "Chebyquad 7", r.chebyquad, _count(7) / 8, [0.0],
                 _Bounds([0] * 7, [0.05, 0.23, 0.333, 1, 1, 1, 1], (6.0261028e-4,))),
        _problem(
            35, "Chebyquad 8", r.chebyquad, _count(8) / 9, [3.51687e-3],
            _Bounds([0, 0, 0.1, 0, 0, 0, 0, 0], [0.04, 0.2, 0.3, 1, 1, 1, 1, 1], (3.5922424e-3,)),
        ),
        _problem(35, "Chebyquad 9", r.chebyquad, _count(9) / 10, [0.0]),
        _problem(
            35, "Chebyquad 10", r.chebyquad, _count(10) / 11, [4.77271e-3, 6.50395e-3],
            _Bounds(
                [0, 0.1, 0.2, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5],
                [1, 0.2, 0.3, 0.4, 0.5, 1, 1, 1, 1, 1],
                (4.77271e-3, 6.50395e-3),
            ),
            "The upper bound of the fifth is 0.4 in TOMLAB's collection and 0.5 in Mayorov's.",
        ),
    ]  # fmt: skip


def _watson() -> list[MghProblem]:
    return [
        _problem(
            20, "Watson 6", r.watson, [0.0] * 6, [2.28767e-3],
            _Bounds([-0.015] + [-10] * 5, [10] + [100] * 4 + [0.99], (2.2896064e-3,)),
        ),
        _problem(
            20, "Watson 9", r.watson, [0.0] * 9, [1.39976e-6],
            _Bounds([-1e-5, 0, 0, 0, 0, -3, 0, -3, 0], [1e-5, 0.9, 0.1, 1, 1, 0, 4, 0, 2], (3.7401398e-2,)),
        ),
        _problem(
            20, "Watson 12", r.watson, [0.0] * 12, [4.72238e-10],
            _Bounds(
                [-1, 0, -1, -1, -1, 0, -3, 0, -10, 0, -5, 0], [0, 0.9, 0, 0.3, 0, 1, 0, 10, 0, 10, 0, 1],
                (7.1642807e-2,),
            ),
            "The upper bound of the second is 0 in TOMLAB's collection and 0.9 in Mayorov's.",
        ),
    ]  # fmt: skip


def _linear(n: int) -> list[MghProblem]:
    m = r.LINEAR_RESIDUALS
    start = [1.0] * n
    rank_1 = m * (m - 1) / (2 * (2 * m + 1))
    # Within the bounds the sum that everything depends on is at least 2 (-0.4) + 3 (0.3) = 0.1.
    with_zeros = 2 + sum((0.1 * i - 1) ** 2 for i in range(1, m - 1))
    free = [-2.0] * (n - 1)
    return [
        _problem(
            32, f"Linear, full rank {n}", r.linear_full_rank, start, [m - n],
            _Bounds([-0.5, *free], [100] * n, (m - n + 0.25,)),
        ),
        _problem(33, f"Linear, rank 1 {n}", r.linear_rank_1, start, [rank_1],
                 _Bounds([-0.9, *free], [100] * n, (rank_1,))),
        _problem(
            34, f"Linear, rank 1 with zeros {n}", r.linear_rank_1_with_zeros, start,
            [(m * m + 3 * m - 6) / (2 * (2 * m - 3))],
            _Bounds([0, -0.4, 0.3] + [0] * (n - 3), [100] * n, (with_zeros,)),
        ),
    ]  # fmt: skip


def _count(n: int) -> Tensor:
    return torch.arange(1, n + 1, dtype=torch.float64)


def _arch(n: int) -> Tensor:
    t = _count(n) / (n + 1)
    return t * (t - 1)
