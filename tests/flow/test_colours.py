"""Middlebury's colour code against known values and torchvision's implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision_raft import import_torchvision

from deepenergy.flow.colours import colour_wheel, flow_colours


def colour_of(x: float, y: float, longest: float = 1.0) -> list[int]:
    image = flow_colours(torch.tensor([x, y]).view(1, 2, 1, 1), longest=longest)
    return (image.flatten() * 255).floor().int().tolist()


def test_wheel_has_the_benchmarks_corners() -> None:
    wheel = (colour_wheel() * 255).round().int().tolist()
    assert len(wheel) == 55
    corners = {
        0: [255, 0, 0],
        15: [255, 255, 0],
        21: [0, 255, 0],
        25: [0, 255, 255],
        36: [0, 0, 255],
        49: [255, 0, 255],
    }
    assert {row: wheel[row] for row in corners} == corners
    assert wheel[1] == [255, 17, 0]
    assert wheel[54] == [255, 0, 43]


def test_known_colours() -> None:
    assert colour_of(0, 0) == [255, 255, 255]
    assert colour_of(1, 0) == [255, 0, 0]
    assert colour_of(0.5, 0) == [255, 127, 127]
    # Left is half way around, at place 27 of 54: two steps of eleven from cyan to blue.
    assert colour_of(-1, 0) == [0, 209, 255]
    # Beyond the longest: three quarters of the colour.
    assert colour_of(3, 0) == [191, 0, 0]


def test_same_as_torchvision() -> None:
    torchvision = import_torchvision()
    flow = torch.randn(3, 2, 20, 30, generator=torch.Generator().manual_seed(0)) * 5
    # torchvision takes the longest of the whole batch.
    ours = torch.cat([flow_colours(f[None]) for f in flow])
    theirs = torch.stack([torchvision.utils.flow_to_image(f) for f in flow]).float() / 255
    assert float((ours - theirs).abs().max()) <= 1 / 255 + 1e-4
    assert torch.allclose(flow_colours(flow), ours, atol=1e-6)


def test_unknown_flow_is_black_and_does_not_set_the_scale() -> None:
    flow = torch.zeros(1, 2, 1, 4)
    flow[0, 0] = torch.tensor([1.0, 2.0, 1000.0, torch.nan])
    validity = torch.tensor([1.0, 1, 0, 1]).view(1, 1, 1, 4)
    image = flow_colours(flow, validity)[0, :, 0].T
    assert np.allclose(image, [[1, 0.5, 0.5], [1, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"expected \[B, 2, H, W\]"):
        flow_colours(torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match="longest"):
        flow_colours(torch.zeros(1, 2, 4, 4), longest=0)
