"""Standard deviations of solved parameters: against the plain covariance, and against repeated experiments."""

from __future__ import annotations

import torch

from deepenergy.energy.uncertainty import parameter_sigma, patches
from deepenergy.solve import Solution, covariance, minimise

F64 = torch.float64


def solved(noise: torch.Tensor, design: torch.Tensor, prior: float = 0.0) -> Solution:
    """Linear regressions of one design: the truth is 0."""
    eye = prior * torch.eye(design.shape[1], dtype=F64)[: design.shape[1] if prior else 0]
    jacobian = torch.cat([design, eye])

    def problem(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        data = torch.cat([noise, noise.new_zeros(len(noise), len(eye))], 1)
        return x @ jacobian.T - data, jacobian.expand(len(x), -1, -1)

    return minimise(problem, torch.zeros(len(noise), design.shape[1], dtype=F64))


def test_patches_are_cells_of_the_front_view() -> None:
    points = torch.tensor([[0, 0, 5], [0.02, 0.01, 0], [0.03, 0, 0], [0, 0.03, 0], [-0.01, 0, 0]], dtype=F64)
    found = patches(points, 0.025)
    assert found[0] == found[1]
    assert len(set(found.tolist())) == 4
    assert int(found.min()) >= 0


def test_with_a_patch_for_every_residual_it_is_the_plain_covariance() -> None:
    generator = torch.Generator().manual_seed(0)
    design = torch.randn(400, 3, generator=generator, dtype=F64)
    solution = solved(torch.randn(200, 400, generator=generator, dtype=F64), design)
    found = parameter_sigma(solution, torch.ones(200, 400, dtype=F64), torch.arange(400), 1.0)
    plain = covariance(solution).matrix.diagonal(dim1=1, dim2=2).sqrt()
    torch.testing.assert_close(found.mean(0), plain.mean(0), rtol=0.03, atol=0)


def test_residuals_that_err_together_are_seen_through() -> None:
    generator = torch.Generator().manual_seed(1)
    patch = torch.arange(400) // 10
    # Neighbours share design and noise, as pixels of one cheek do.
    design = torch.randn(40, 3, generator=generator, dtype=F64)[patch]
    noise = torch.randn(300, 40, generator=generator, dtype=F64)[:, patch]
    solution = solved(noise, design)
    true = solution.x.std(0)
    found = parameter_sigma(solution, torch.ones(300, 400, dtype=F64), patch, 1.0).mean(0)
    plain = covariance(solution).matrix.diagonal(dim1=1, dim2=2).sqrt().mean(0)
    assert bool((plain < 0.4 * true).all())
    torch.testing.assert_close(found, true, rtol=0.2, atol=0)


def test_parameters_that_follow_their_patches_are_not_taken_for_certain() -> None:
    """Two patches a parameter: residuals have little left of the errors that moved the solution."""
    generator = torch.Generator().manual_seed(3)
    patch = torch.arange(480) // 12
    design = torch.randn(480, 20, generator=generator, dtype=F64) + 2 * torch.randn(
        40, 20, generator=generator, dtype=F64
    ).index_select(0, patch)
    noise = torch.randn(200, 40, generator=generator, dtype=F64)[:, patch] + 0.3 * torch.randn(
        200, 480, generator=generator, dtype=F64
    )
    solution = solved(noise, design)
    true = solution.x.std(0)
    found = parameter_sigma(solution, torch.ones(200, 480, dtype=F64), patch, 1.0).square().mean(0).sqrt()
    pulls = torch.stack([(solution.jacobian[:, patch == c] * solution.residual[:, patch == c, None]).sum(1)
                         for c in range(40)], 1)  # fmt: skip
    normal = solution.jacobian.mT @ solution.jacobian
    summed = torch.linalg.solve(normal, pulls.mT).square().sum(2).mean(0).sqrt()
    assert float((summed / true).mean()) < 0.8
    assert 0.9 < float((found / true).mean()) < 1.8


def test_a_parameter_that_one_patch_alone_holds_is_unknown() -> None:
    design = torch.zeros(6, 2, dtype=F64)
    design[:3, 0], design[3:, 1], design[0, 1] = 1.0, 1.0, 0.5
    solution = solved(torch.randn(3, 6, generator=torch.Generator().manual_seed(4), dtype=F64), design)
    held = parameter_sigma(solution, torch.ones(3, 6, dtype=F64), torch.tensor([0, 1, 2, 3, 4, 5]), 1.0)
    alone = parameter_sigma(solution, torch.ones(3, 6, dtype=F64), torch.tensor([0, 0, 0, 1, 2, 3]), 1.0)
    assert bool(torch.isfinite(held).all())
    assert bool(torch.isnan(alone[:, 0]).all())


def test_the_prior_and_what_is_fixed() -> None:
    solution = solved(torch.zeros(2, 5, dtype=F64), torch.zeros(5, 2, dtype=F64), prior=4.0)
    patch = torch.tensor([0, 0, 0, 0, 0, -1, -1])
    # Data that say nothing leave the prior, whose rows are in units of 2: sigma = 2 / 4.
    found = parameter_sigma(solution, torch.ones(2, 7, dtype=F64), patch, 2.0)
    torch.testing.assert_close(found, torch.full((2, 2), 0.5, dtype=F64))
    design = torch.randn(6, 2, generator=torch.Generator().manual_seed(2), dtype=F64)

    def problem(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x @ design.T - 1, design.expand(len(x), -1, -1)

    held = minimise(problem, torch.zeros(1, 2, dtype=F64), free=torch.tensor([True, False]))
    found = parameter_sigma(held, torch.ones(1, 6, dtype=F64), torch.arange(6), 1.0)
    assert bool(torch.isfinite(found[0, 0]))
    assert bool(torch.isnan(found[0, 1]))
