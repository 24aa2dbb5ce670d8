"""The exact minimum of the linear model within a radius, for every radius from one factorisation (More 1978).

    s(mu) = -(J^T J + mu D^2)^-1 J^T r,    mu >= 0 such that |D s(mu)| = radius, or 0 where that is shorter.

With the singular values of `J D^-1 = U diag(v) V^T`, made once at an accepted point, the length of the step is
`|v c / (v^2 + mu)|`, `c = U^T r`, so that the root is found by Newton's method on `1 / length`, between bounds, in no
more than elementwise work. Singular values below `eps max(R, P)` times the largest count as zero, so that the step for
`mu = 0` is the shortest of the minimisers: a parameter without influence stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_ROOT_STEPS = 40


@dataclass
class Spectrum:
    """`J D^-1 = U diag(values) basis^T`, `turned = U^T r`, `k = min(R, P)`."""

    values: Float[Tensor, "s k"]
    basis: Float[Tensor, "s p k"]
    turned: Float[Tensor, "s k"]

    @staticmethod
    def of(
        jacobian: Float[Tensor, "s r p"],
        residual: Float[Tensor, "s r"],
        scale: Float[Tensor, "s p"],
        active: Bool[Tensor, "s p"],
        damping: Float[Tensor, "s p"],
    ) -> Spectrum:
        """Factorise; `active` parameters do not move, `damping` stands as rows below the Jacobian.

        By QR first, so that the SVD is of a small matrix.
        """
        if bool((damping > 0).any()):
            jacobian = torch.cat([jacobian, torch.diag_embed(damping.sqrt())], 1)
            residual = torch.cat([residual, torch.zeros_like(damping)], 1)
        q, r = torch.linalg.qr(jacobian * ((~active) / scale)[:, None, :])
        u, values, vt = torch.linalg.svd(r, full_matrices=False)
        turned = (u.mT @ (q.mT @ residual[:, :, None])).squeeze(2)
        least = torch.finfo(values.dtype).eps * max(jacobian.shape[1:]) * values[:, :1]
        values = torch.where(values > least, values, torch.zeros_like(values))
        # Rounding would move active parameters by a trace.
        return Spectrum(values, torch.where(active[:, :, None], 0.0, vt.mT), turned)

    def step(self, radius: Float[Tensor, " s"]) -> tuple[Float[Tensor, "s p"], Bool[Tensor, " s"]]:
        """The scaled step `D s` to the minimum within the radius, and whether it is that of the model altogether."""
        values, turned = self.values, self.turned

        def coefficients(mu: Tensor) -> Tensor:
            below = values.square() + mu[:, None]
            return torch.where(values > 0, values * turned / torch.where(below > 0, below, 1.0), 0.0)

        def length(mu: Tensor) -> Tensor:
            return torch.linalg.vector_norm(coefficients(mu), dim=1)

        low = torch.zeros_like(radius)
        full = length(low) <= radius
        high = torch.linalg.vector_norm(values * turned, dim=1) / radius
        mu = low
        for _ in range(_ROOT_STEPS):
            size = length(mu)
            low = torch.where(size > radius, mu, low)
            high = torch.where(size <= radius, torch.minimum(mu, high), high)
            below = values.square() + mu[:, None]
            slope = (coefficients(mu).square() / torch.where(below > 0, below, 1.0)).sum(1)
            wanted = mu + size.square() / torch.where(slope > 0, slope, 1.0) * (size - radius) / radius
            # Outside of what is left, the geometric middle: mu spans many orders of magnitude.
            middle = (low.clamp_min(1e-3 * high) * high).sqrt()
            mu = torch.where((wanted > low) & (wanted < high), wanted, middle)
        mu = torch.where(full, torch.zeros_like(mu), mu)
        size = length(mu)
        shrink = torch.where(full | (size <= radius), torch.ones_like(size), radius / torch.where(size > 0, size, 1.0))
        return -(self.basis @ (coefficients(mu) * shrink[:, None])[:, :, None]).squeeze(2), full
