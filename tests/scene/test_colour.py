"""The sRGB transfer function against published values, its inverse and its derivative."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepenergy.scene.colour import linear_to_srgb, srgb_to_linear


@pytest.mark.parametrize(
    ("linear", "srgb"),
    [
        (0.0, 0.0),
        (1.0, 1.0),
        (0.0031308, 0.04045),
        (0.001, 0.01292),
        (0.18, 0.46135612950044164),  # middle grey: 1.055 * 0.18 ** (1 / 2.4) - 0.055
        (0.21404114048223255, 0.5),  # ((0.5 + 0.055) / 1.055) ** 2.4
    ],
)
def test_known_values(linear: float, srgb: float) -> None:
    x = torch.tensor([linear, srgb], dtype=torch.float64)
    assert float(linear_to_srgb(x)[0]) == pytest.approx(srgb, abs=2e-7)
    assert float(srgb_to_linear(x)[1]) == pytest.approx(linear, abs=2e-7)


def test_matches_scikit_image() -> None:
    color = pytest.importorskip("skimage.color.colorconv")
    srgb = torch.linspace(0, 1, 256 * 3, dtype=torch.float64).reshape(16, 16, 3)
    # Linear to XYZ and back is a matrix; what is left of rgb2xyz is the transfer function.
    xyz = color.rgb2xyz(srgb.numpy())
    linear = xyz @ color.rgb_from_xyz.T
    assert torch.allclose(srgb_to_linear(srgb), torch.from_numpy(linear), atol=1e-9)


@given(st.floats(-1, 4))
def test_round_trip(value: float) -> None:
    x = torch.tensor(value, dtype=torch.float64)
    assert float(srgb_to_linear(linear_to_srgb(x))) == pytest.approx(value, abs=1e-6)


def test_monotonic_and_unclipped() -> None:
    x = torch.linspace(-0.5, 3, 10001, dtype=torch.float64)
    assert bool((linear_to_srgb(x).diff() > 0).all())
    assert float(linear_to_srgb(x).max()) > 1
    assert float(linear_to_srgb(x).min()) < 0


def test_batched_equals_looped_and_keeps_dtype() -> None:
    x = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    looped = torch.stack([linear_to_srgb(v) for v in x.reshape(-1)]).reshape(x.shape)
    # A vector unit's power and the scalar one may differ in the last bit.
    torch.testing.assert_close(linear_to_srgb(x), looped, rtol=2e-7, atol=0)
    assert linear_to_srgb(x.double()).dtype == torch.float64


@pytest.mark.parametrize("function", [linear_to_srgb, srgb_to_linear])
def test_gradient(function) -> None:
    x = torch.tensor([-0.2, 0.0, 0.001, 0.02, 0.3, 1.0, 1.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, x)
