"""Texture lookup: bilinear and minified, in value and in both derivatives."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import jvp, vjp, vmap

from deepenergy.render.texture import bilinear_taps, face_footprints, mip_texture, sample_mips, sample_texture


def noise(height: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def box_mean(texture: Tensor, uv: Tensor, side: float) -> Tensor:
    """The exact mean of a repeating texture of square texels over axis-aligned squares: the reference."""
    height, width = texture.shape[:2]
    result = []
    for u, v in uv.tolist():
        x, y = u * width, (1 - v) * height

        def overlaps(centre: float, count: int) -> Tensor:
            weights = torch.zeros(count, dtype=torch.float64)
            low, high = centre - side / 2, centre + side / 2
            for cell in range(int(np.floor(low)), int(np.ceil(high))):
                weights[cell % count] += max(0.0, min(high, cell + 1) - max(low, cell)) / side
            return weights

        result.append(torch.einsum("h,w,hwc->c", overlaps(y, height), overlaps(x, width), texture))
    return torch.stack(result)


def test_bilinear_lookup_agrees_with_opencv() -> None:
    texture = noise(13, 17, dtype=torch.float32)
    uv = torch.rand(200, 2, generator=torch.Generator().manual_seed(1))
    x = (uv[:, 0] * 17 - 0.5).numpy().astype(np.float32)
    y = ((1 - uv[:, 1]) * 13 - 0.5).numpy().astype(np.float32)
    expected = cv2.remap(texture.numpy(), x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)[0]
    # OpenCV rounds its weights to 1/32 of a texel.
    np.testing.assert_allclose(sample_texture(texture, uv).numpy(), expected, atol=0.05)
    assert float((sample_texture(texture, uv) - torch.from_numpy(expected)).abs().mean()) < 0.008


def test_texel_centres_give_texels_and_taps_add_up() -> None:
    texture = noise(5, 8)
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(8.0), indexing="ij")
    uv = torch.stack([(columns + 0.5) / 8, 1 - (rows + 0.5) / 5], -1).reshape(-1, 2).double()
    torch.testing.assert_close(sample_texture(texture, uv), texture.reshape(-1, 3))
    index, weight = bilinear_taps(uv + 0.013, (8, 5))
    torch.testing.assert_close(weight.sum(1), torch.ones(40, dtype=torch.float64))
    assert int(index.min()) >= 0 and int(index.max()) < 40


@pytest.mark.parametrize("size", [(32, 32), (21, 37), (1, 5)])
def test_every_level_has_the_mean_of_the_texture(size: tuple[int, int]) -> None:
    texture = noise(*size)
    mips = mip_texture(texture)
    ends = [*mips.offsets[1:].tolist(), len(mips.texels)]
    for start, end in zip(mips.offsets.tolist(), ends, strict=True):
        torch.testing.assert_close(mips.texels[start:end].mean(0), texture.mean((0, 1)))
    assert int(mips.widths[-1]) == int(mips.heights[-1]) == 1


def test_a_level_is_opencvs_area_resize() -> None:
    texture = noise(24, 40, dtype=torch.float32)
    mips = mip_texture(texture)
    level = mips.texels[mips.offsets[2] : mips.offsets[3]].view(6, 10, 3)
    expected = cv2.resize(texture.numpy(), (10, 6), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(level.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("side", [1.0, 2.0, 4.0, 8.0])
def test_aligned_footprints_give_exact_means(side: float) -> None:
    texture = noise(32, 32)
    count = int(32 / side)
    rows, columns = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    uv = torch.stack([(columns + 0.5) / count, 1 - (rows + 0.5) / count], -1).reshape(-1, 2).double()
    torch.testing.assert_close(sample_mips(mip_texture(texture), uv, side), box_mean(texture, uv, side))


@pytest.mark.parametrize("side", [2.5, 5.0, 11.0])
def test_minified_lookups_are_near_the_area_mean_and_do_not_alias(side: float) -> None:
    texture = noise(64, 64)
    uv = torch.rand(150, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = box_mean(texture, uv, side)
    mips = (sample_mips(mip_texture(texture), uv, side) - expected).square().mean().sqrt()
    plain = (sample_texture(texture, uv) - expected).square().mean().sqrt()
    # White noise is the worst case: what a mip level cannot follow is the position within its texels.
    assert float(mips) < 0.45 * float(plain)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.3, 40.0), st.floats(-2, 2), st.floats(-2, 2))
def test_a_constant_stays_constant_and_lookups_are_continuous(side: float, u: float, v: float) -> None:
    uv = torch.tensor([[u, v]], dtype=torch.float64)
    flat = torch.full((9, 12, 3), 0.3, dtype=torch.float64)
    torch.testing.assert_close(sample_mips(mip_texture(flat), uv, side), flat[0, :1])
    mips = mip_texture(noise(9, 12))
    here, there = sample_mips(mips, uv, side), sample_mips(mips, uv + 1e-7, side * (1 + 1e-7))
    assert float((here - there).abs().max()) < 1e-4


def test_magnified_it_is_bilinear() -> None:
    texture = noise(16, 16)
    uv = torch.rand(50, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(sample_mips(mip_texture(texture), uv, 0.4), sample_texture(texture, uv))


def test_derivatives_in_both_modes_against_finite_differences() -> None:
    texture = noise(8, 11, seed=4)
    generator = torch.Generator().manual_seed(5)
    uv = torch.rand(20, 2, generator=generator, dtype=torch.float64)
    side = 1.2 + 4 * torch.rand(20, generator=generator, dtype=torch.float64)

    def look(t: Tensor, at: Tensor, s: Tensor) -> Tensor:
        return sample_mips(mip_texture(t), at, s)

    inputs = (texture, uv, side)
    assert torch.autograd.gradcheck(
        look, tuple(x.clone().requires_grad_() for x in inputs), eps=1e-7, atol=1e-5, check_forward_ad=True
    )
    directions = tuple(torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in inputs)
    value, forward = jvp(look, inputs, directions)[:2]
    cotangent = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    reverse = vjp(look, *inputs)[1](cotangent)
    product = sum(float((a * b).sum()) for a, b in zip(reverse, directions, strict=True))
    assert float((forward * cotangent).sum()) == pytest.approx(product, rel=1e-9)
    many = torch.randn(6, *uv.shape, generator=generator, dtype=torch.float64)
    batched = vmap(lambda d: jvp(lambda at: look(texture, at, side), (uv,), (d,))[1])(many)
    looped = torch.stack([jvp(lambda at: look(texture, at, side), (uv,), (d,))[1] for d in many])
    torch.testing.assert_close(batched, looped)


def test_the_footprint_is_the_root_of_the_area_ratio() -> None:
    uvs = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]])
    pixels = torch.tensor([[[0.0, 0.0], [16.0, 0.0], [0.0, 16.0]], [[3.0, 3.0], [3.0, 3.0], [3.0, 3.0]]])
    faces = torch.tensor([[0, 1, 2]])
    found = face_footprints(uvs, faces, pixels, faces, (64, 64))
    assert float(found[0, 0]) == pytest.approx(2.0)
    assert float(found[1, 0]) == 64.0
