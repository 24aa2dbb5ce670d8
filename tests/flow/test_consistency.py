"""Warping, agreement of both directions, and the face region."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch import Tensor

from deepenergy.flow.consistency import SPREAD, consistency, face_region, warp
from deepenergy.flow.network import Flow, landing_validity


def constant(x: float, y: float, size: tuple[int, int] = (20, 30), batch: int = 1) -> Flow:
    pixels = torch.tensor([x, y], dtype=torch.float32).view(1, 2, 1, 1).expand(batch, 2, *size).clone()
    return Flow(pixels, landing_validity(pixels))


def test_warp_is_scipys_linear_interpolation() -> None:
    rng = np.random.default_rng(0)
    image, flow = rng.random((3, 17, 23)), rng.normal(0, 4, (2, 11, 19))
    ours, inside = warp(torch.from_numpy(image)[None], torch.from_numpy(flow)[None])
    y, x = np.mgrid[:11, :19]
    at = [y + flow[1], x + flow[0]]
    theirs = np.stack([map_coordinates(c, at, order=1, mode="nearest") for c in image])
    expected = (at[0] >= -0.5) & (at[0] <= 16.5) & (at[1] >= -0.5) & (at[1] <= 22.5)
    assert np.array_equal(inside[0, 0], expected)
    assert 0.1 < expected.mean() < 0.95
    assert np.allclose(ours[0], theirs * expected, atol=1e-12)


def test_warp_of_whole_pixels_is_a_shift_and_broken_flow_sees_nothing() -> None:
    image = torch.rand(1, 2, 6, 8)
    flow = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 6, 8).clone()
    seen, inside = warp(image, flow)
    assert torch.equal(seen[..., :5, :6], image[..., 1:, 2:])
    assert int(inside.sum()) == 30
    flow[0, 0, 0, 0], flow[0, 1, 0, 1] = torch.nan, torch.inf
    seen, inside = warp(image, flow)
    assert inside[0, 0, 0, :3].tolist() == [False, False, True]
    assert torch.equal(seen[0, :, 0, :2], torch.zeros(2, 2))


def test_warp_bad_shapes() -> None:
    with pytest.raises(ValueError, match="warp: found"):
        warp(torch.zeros(1, 3, 4, 4), torch.zeros(2, 2, 4, 4))
    with pytest.raises(ValueError, match="warp: found"):
        warp(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))


@settings(max_examples=30, deadline=None)
@given(st.floats(-6, 6), st.floats(-6, 6))
def test_opposite_flows_agree_wherever_they_stay_inside(x: float, y: float) -> None:
    found = consistency(constant(x, y), constant(-x, -y))
    stays = landing_validity(constant(x, y).pixels) > 0
    # A backward flow may leave the image from there, which the validity carries over.
    assert torch.equal(~found.occluded, stays)
    assert float(found.distance[stays].max()) < 1e-4
    assert bool(torch.isinf(found.distance[~stays]).all())
    assert not found.weight[~stays].any()


def test_disagreement_is_measured_and_weighed() -> None:
    off = 0.5
    found = consistency(constant(2, 0), constant(-2, off))
    middle = np.s_[0, 0, 8, 10]
    assert float(found.distance[middle]) == pytest.approx(off)
    assert float(found.weight[middle]) == pytest.approx(np.exp(-0.5 * (off / SPREAD) ** 2), abs=1e-6)
    # 0.01 (4 + 4) + 0.5 = 0.58 = 0.76^2: less is seen, more is occluded.
    assert not consistency(constant(2, 0), constant(-2, 0.74)).occluded[middle]
    assert consistency(constant(2, 0), constant(-2, 0.79)).occluded[middle]


def test_a_square_that_moves_hides_what_it_covers() -> None:
    forward, backward = torch.zeros(1, 2, 24, 32), torch.zeros(1, 2, 24, 32)
    forward[0, 0, 8:16, 8:16] = 5
    backward[0, 0, 8:16, 13:21] = -5
    found = consistency(
        Flow(forward, landing_validity(forward)), Flow(backward, landing_validity(backward))
    ).occluded[0, 0]  # fmt: skip
    expected = torch.zeros(24, 32, dtype=torch.bool)
    expected[8:16, 16:21] = True
    assert torch.equal(found, expected)


def test_broken_flow_is_occluded() -> None:
    forward = constant(1, 0)
    forward.pixels[0, 0, 3, 4] = torch.nan
    found = consistency(Flow(forward.pixels, landing_validity(forward.pixels)), constant(-1, 0))
    assert found.occluded[0, 0, 3, 4]
    assert torch.isfinite(found.weight).all()
    assert torch.isinf(found.distance[0, 0, 3, 4])


def test_consistency_batched_equals_looped_and_bad_input() -> None:
    generator = torch.Generator().manual_seed(2)
    f, b = (torch.randn(3, 2, 9, 11, generator=generator) for _ in range(2))

    def both(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        there, back = (Flow(x[rows], landing_validity(x[rows])) for x in (f, b))
        found = consistency(there, back)
        return found.distance, found.occluded, found.weight

    looped = [torch.cat(parts) for parts in zip(*(both(slice(i, i + 1)) for i in range(3)), strict=True)]
    assert all(torch.equal(x, y) for x, y in zip(both(slice(0, 3)), looped, strict=True))
    with pytest.raises(ValueError, match="the same shape twice"):
        consistency(constant(0, 0), constant(0, 0, (20, 31)))
    with pytest.raises(ValueError, match="spread"):
        consistency(constant(0, 0), constant(0, 0), spread=0)


def test_face_region_stays_off_the_outlines_of_both_images() -> None:
    a, b = torch.zeros(1, 1, 20, 30), torch.zeros(1, 1, 20, 30)
    a[..., 4:16, 5:20] = 1
    b[..., 4:16, 8:20] = 1
    found = face_region(a, b, constant(3, 0), margin=2)[0, 0]
    expected = torch.zeros(20, 30, dtype=torch.bool)
    # In a: 7..17; in b: 10..17, seen from a at 7..14.
    expected[6:14, 7:15] = True
    assert torch.equal(found, expected)
    assert int(face_region(a, b, constant(3, 0), margin=0).sum()) == 12 * 12
    with pytest.raises(ValueError, match="margin"):
        face_region(a, b, constant(3, 0), margin=-1)
    with pytest.raises(ValueError, match="masks of shapes"):
        face_region(a[0], b, constant(3, 0))
