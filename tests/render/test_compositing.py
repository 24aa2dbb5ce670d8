"""The render over its plate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from spheres import sphere_rig

from deepenergy import Camera
from deepenergy.render import Renderer
from deepenergy.render.compositing import over_plate
from deepenergy.scene.colour import linear_to_srgb, srgb_to_linear

CAMERA = Camera.look_at(64, 64, 230.0, (0.0, 0.0, 1.0))


def test_over_its_plate_the_render_shows_the_plate_where_it_covers_nothing() -> None:
    rig = sphere_rig(torch.full((len(sphere_rig().neutral), 3), 0.5))
    plate = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    renderer = Renderer(rig, supersample=4)
    render = renderer(rig.neutral[None], CAMERA)
    found = over_plate(renderer, render, plate)
    empty, full = render.mask[0, 0] == 0, render.mask[0, 0] == 1
    torch.testing.assert_close(found[0][:, empty], plate[0][:, empty], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[0][:, full], render.image[0][:, full], atol=1e-5, rtol=0)
    # A plate of the background's own colour changes nothing at the edges either.
    own = torch.tensor(renderer.background)[None, :, None, None].expand_as(plate)
    torch.testing.assert_close(over_plate(renderer, render, own), render.image, atol=1e-5, rtol=0)
    other = replace(renderer, background=(0.8, 0.1, 0.3))
    flat = torch.tensor(other.background)[None, :, None, None].expand_as(plate)
    same = other(rig.neutral[None], CAMERA).image
    torch.testing.assert_close(over_plate(renderer, render, flat), same, atol=1e-4, rtol=0)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(plate)), plate)
    with pytest.raises(ValueError, match="plates"):
        over_plate(renderer, render, plate[..., :32])
