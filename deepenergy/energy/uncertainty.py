"""Standard deviations of solved parameters, from residuals that err together.

The covariance `s^2 (J^T J)^-1` takes every residual for a new witness. Pixels and landmarks of one cheek are not: a
highlight or a crease moves them all. So the patches of the face are the witnesses: each is left out in turn, and what
the parameters move by is how much they hang on it (the jackknife; with `g_c = sum_(r in c) J_r r`, `J_p` the rows of
the prior, which is believed at its word, and G patches)

    d_c = (J^T J - J_c^T J_c)^-1 g_c,    C = (G - 1)/G sum_c d_c d_c^T + (J^T J)^-1 J_p^T J_p (J^T J)^-1.

To add up the pulls `g_c` themselves (Liang and Zeger 1986) would promise two to three times too much: sixty parameters
are enough to take most of a patch's error out of its own residuals (MacKinnon, Nielsen and Webb 2023).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.solve import Solution

# Metres, on the neutral face: about a cheek. Errors of shading and shape are alike over that far (docs/decisions/0008).
PATCH = 0.05
_EPSILON = 1e-9


def patches(position: Float[Tensor, "n 3"], size: float = PATCH) -> Int[Tensor, " n"]:
    """The patch of each point of the neutral face: a cell of its front view."""
    cell = torch.floor(position[:, :2] / size).long()
    cell = cell - cell.amin(0)
    return cell[:, 0] + cell[:, 1] * (cell[:, 0].max() + 1)


def parameter_sigma(
    solution: Solution, roots: Float[Tensor, "b r"], patch: Int[Tensor, " r"], unit: float
) -> Float[Tensor, "b p"]:
    """Standard deviations of the free parameters; NaN for the others and where the data do not hold them.

    Half of the variance is the frame's own and half the mean of all frames: a single frame has too few patches to tell
    every parameter's.

    Args:
        solution: of B frames.
        roots: square roots of the robust kernels' weights at the solution.
        patch: the patch of every residual; -1 for rows of the prior.
        unit: a residual of one standard deviation, which is what the prior's rows are given in.
    """
    free = solution.free.to(solution.jacobian)
    jacobian = solution.jacobian * free[:, None, :]
    residual = roots * solution.residual
    normal = jacobian.mT @ jacobian + torch.diag_embed(1 - free)
    scale = normal.diagonal(dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    present = torch.unique(patch[patch >= 0])
    variance = torch.zeros_like(scale)
    for cell in present:
        own = jacobian[:, patch == cell]
        pull = (residual[:, None, patch == cell] @ own).squeeze(1)
        rest, held = _inverse(normal - own.mT @ own, scale)
        moved = (rest @ pull[..., None]).squeeze(2)
        variance = variance + torch.where(held, moved.square(), torch.nan)
    variance = variance * (1 - 1 / max(len(present), 1))
    inverse, held = _inverse(normal, scale)
    by_prior = inverse @ jacobian[:, patch < 0].mT
    variance = (variance + variance.nanmean(0)) / 2 + (unit * by_prior).square().sum(2)
    known = solution.free & held & torch.isfinite(variance)
    return torch.where(known, variance.sqrt(), torch.full_like(variance, torch.nan))


def _inverse(
    normal: Float[Tensor, "b p p"], scale: Float[Tensor, "b p"]
) -> tuple[Float[Tensor, "b p p"], Bool[Tensor, "b p"]]:
    """The inverse, and which parameters it holds: those that are not left to `_EPSILON`."""
    even = scale[:, :, None] * normal * scale[:, None, :]
    root, failed = torch.linalg.cholesky_ex(even + _EPSILON * torch.eye(even.shape[1]).to(even))
    inverse = torch.cholesky_inverse(root)
    held = (failed == 0)[:, None] & (inverse.diagonal(dim1=1, dim2=2) < 0.01 / _EPSILON)
    return scale[:, :, None] * inverse * scale[:, None, :], held
