"""Local soft-argmax against a loop over equation 3, in all derivative modes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepenergy.landmarks.soft_argmax import local_soft_argmax

# torch's first forward-mode call loads decompositions that use its own deprecated torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def equation_3(heatmap: np.ndarray, beta: float, window: int) -> np.ndarray:
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    reach = window // 2
    where, values = [], []
    for y in range(row - reach, row + reach + 1):
        for x in range(column - reach, column + reach + 1):
            if 0 <= y < heatmap.shape[0] and 0 <= x < heatmap.shape[1]:
                where.append((x + 0.5, y + 0.5))
                values.append(heatmap[y, x])
    return scipy.special.softmax(beta * np.array(values)) @ np.array(where)


@pytest.mark.parametrize(
    ("shape", "beta", "window"), [((2, 5, 9, 7), 50.0, 3), ((1, 3, 4, 6), 3.0, 5), ((1, 4, 1, 2), 9.0, 3)]
)
def test_matches_a_loop_over_equation_3(shape: tuple[int, ...], beta: float, window: int) -> None:
    heatmaps = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = [[equation_3(h.numpy(), beta, window) for h in batch] for batch in heatmaps]
    np.testing.assert_allclose(local_soft_argmax(heatmaps, beta, window), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pixel", [(0, 0), (0, 63), (63, 0), (63, 63), (20, 31), (0, 30), (40, 63)])
def test_a_single_sharp_pixel_gives_its_centre(pixel: tuple[int, int]) -> None:
    heatmaps = torch.zeros(1, 1, 64, 64)
    heatmaps[0, 0, pixel[0], pixel[1]] = 1
    assert local_soft_argmax(heatmaps)[0, 0].tolist() == pytest.approx([pixel[1] + 0.5, pixel[0] + 0.5], abs=1e-5)


def test_equal_neighbours_give_the_middle_between_them() -> None:
    heatmaps = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    heatmaps[0, 0, 3, 4:6] = 1
    heatmaps[0, 1, 5:7, 7] = 1  # on the right border, where a column of the patch is missing
    assert local_soft_argmax(heatmaps)[0].flatten().tolist() == pytest.approx([5, 3.5, 7.5, 6], abs=1e-12)


def test_window_of_one_is_the_argmax() -> None:
    heatmaps = torch.rand(2, 4, 6, 5, generator=torch.Generator().manual_seed(2))
    flat = heatmaps.flatten(-2).argmax(-1)
    expected = torch.stack([flat % 5, flat // 5], -1) + 0.5
    assert torch.equal(local_soft_argmax(heatmaps, window=1), expected)


def test_finds_gaussian_centres_to_a_fraction_of_a_pixel() -> None:
    # The width that 3D-FAN was trained with.
    centres = 10 + 44 * torch.rand(1, 68, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    grid = torch.arange(64, dtype=torch.float64) + 0.5
    square = (grid - centres[..., 0, None])[..., None, :] ** 2 + (grid - centres[..., 1, None])[..., :, None] ** 2
    error = (local_soft_argmax(torch.exp(-square / (2 * 3.25**2))) - centres).abs()
    assert float(error.max()) < 0.1


def test_values_that_overflow_exp_are_harmless() -> None:
    heatmaps = torch.tensor([[[[0.0, 1e4, 1e4], [-1e4, 0, 0], [0, 0, 0]]]], requires_grad=True)
    points = local_soft_argmax(heatmaps)
    points.sum().backward()
    assert points.tolist() == [[[2.0, 0.5]]]
    assert heatmaps.grad is not None
    assert bool(torch.isfinite(heatmaps.grad).all())


def test_gradients_in_every_mode_against_finite_differences() -> None:
    heatmaps = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    assert torch.autograd.gradcheck(
        lambda h: local_soft_argmax(h, beta=5.0),
        (heatmaps.requires_grad_(),),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


def test_jvp_and_vmap_agree_with_a_batched_call() -> None:
    generator = torch.Generator().manual_seed(5)
    heatmaps, tangent = torch.rand(2, 4, 3, 8, 8, dtype=torch.float64, generator=generator).unbind(0)
    whole, derivative = torch.func.jvp(local_soft_argmax, (heatmaps,), (tangent,))[:2]
    assert torch.allclose(torch.func.vmap(local_soft_argmax)(heatmaps), whole, atol=1e-14)
    looped = torch.cat([local_soft_argmax(h[None]) for h in heatmaps])
    assert torch.allclose(looped, whole, atol=1e-14)
    along = torch.func.vmap(lambda t: torch.func.jvp(local_soft_argmax, (heatmaps,), (t,))[1])(tangent[None])
    assert torch.allclose(along[0], derivative, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    heatmaps = torch.zeros(1, 1, 64, 64, dtype=dtype)
    heatmaps[0, 0, 50, 60:62] = 1
    points = local_soft_argmax(heatmaps)
    assert points.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert points.flatten().tolist() == pytest.approx([61, 50.5], abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(2, 12), st.floats(0.1, 200))
def test_stays_within_the_patch_and_turns_with_the_image(seed: int, height: int, width: int, beta: float) -> None:
    heatmaps = torch.rand(1, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    points = local_soft_argmax(heatmaps, beta)
    flat = heatmaps.flatten(-2).argmax(-1)
    peak = torch.stack([flat % width, flat // width], -1) + 0.5
    assert bool(((points - peak).abs() <= 1).all())
    mirrored = local_soft_argmax(heatmaps.flip(-1), beta)
    assert torch.allclose(mirrored[..., 0], width - points[..., 0], atol=1e-9)
    assert torch.allclose(local_soft_argmax(heatmaps.transpose(-1, -2), beta), points.flip(-1), atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "window", "message"),
    [
        ((64, 64), 3, "heatmaps"),
        ((1, 68, 0, 64), 3, "heatmaps"),
        ((1, 1, 8, 8), 2, "window"),
        ((1, 1, 8, 8), -1, "window"),
    ],
)
def test_bad_input(shape: tuple[int, ...], window: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}: found"):
        local_soft_argmax(torch.zeros(shape), window=window)


def test_an_empty_batch_gives_an_empty_batch() -> None:
    assert local_soft_argmax(torch.zeros(0, 68, 64, 64)).shape == (0, 68, 2)
