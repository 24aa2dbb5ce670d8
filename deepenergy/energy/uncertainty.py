"""Standard deviations of solved parameters, from residuals that err together.

The covariance `s^2 (J^T J)^-1` takes every residual for a new witness. Pixels and landmarks of one cheek are not: a
highlight or a crease moves them all. The cluster-robust estimate (Liang and Zeger 1986) adds up what the residuals of
each patch of the face pull at the parameters, `g_c = sum_(r in c) J_r r`, and takes the patches for the witnesses:

    C = H^-1 (sum_c g_c g_c^T + J_p^T J_p) H^-1,    H = J^T J,

with `J_p` the rows of the prior, which is believed at its word.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.solve import Solution

# Metres, on the neutral face: about the size of a cheekbone.
PATCH = 0.025
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

    Half of what a patch pulls is taken from the frame itself and half from the mean of all frames: a single frame has
    too few patches to tell every parameter's.

    Args:
        solution: of B frames.
        roots: square roots of the robust kernels' weights at the solution.
        patch: the patch of every residual; -1 for rows of the prior.
        unit: a residual of one standard deviation, which is what the prior's rows are given in.
    """
    free = solution.free.to(solution.jacobian)
    jacobian = solution.jacobian * free[:, None, :]
    data = patch >= 0
    pull = jacobian[:, data] * (roots * solution.residual)[:, data, None]
    count = int(patch.max()) + 1 if bool(data.any()) else 0
    each = pull.new_zeros(len(pull), count, pull.shape[2]).index_add_(1, patch[data], pull)
    meat = each.mT @ each
    meat = (meat + meat.mean(0)) / 2
    prior = jacobian[:, ~data]
    meat = meat + unit**2 * prior.mT @ prior
    normal = jacobian.mT @ jacobian + torch.diag_embed(1 - free)
    scale = normal.diagonal(dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    even = scale[:, :, None] * normal * scale[:, None, :]
    root, failed = torch.linalg.cholesky_ex(even + _EPSILON * torch.eye(even.shape[1]).to(even))
    inverse = scale[:, :, None] * torch.cholesky_inverse(root) * scale[:, None, :]
    variance = (inverse @ meat @ inverse).diagonal(dim1=1, dim2=2)
    known = solution.free & (failed == 0)[:, None] & torch.isfinite(variance)
    return torch.where(known, variance.clamp_min(0).sqrt(), torch.full_like(variance, torch.nan))
