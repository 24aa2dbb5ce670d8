"""Light estimated from plates, and baked ambient occlusion."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from spheres import sphere_rig, uv_sphere

from deepenergy import Camera, Rig
from deepenergy.render import Renderer
from deepenergy.render.ambient_occlusion import ambient_occlusion
from deepenergy.render.light_fit import fit_light


def test_the_light_of_a_render_is_found_again() -> None:
    generator = torch.Generator().manual_seed(0)
    rig = sphere_rig(0.2 + 0.4 * torch.rand(len(uv_sphere()[0]), 3, generator=generator))
    light = torch.zeros(9, 3)
    light[0] = torch.tensor([2.2, 2.0, 1.8])
    light[1:] = 0.35 * torch.randn(8, 3, generator=generator)
    cameras = [Camera.look_at(96, 96, 350.0, eye) for eye in ((0.0, 0, 1), (0.9, 0.2, 0.4), (-0.9, -0.2, 0.4))]
    renderer = Renderer(rig)
    vertices = rig.neutral.expand(3, -1, 3)
    plates = torch.cat([replace(renderer, light=light)(rig.neutral[None], c).image for c in cameras])
    found = fit_light(renderer, vertices, cameras, plates)
    again = torch.cat([replace(renderer, light=found)(rig.neutral[None], c).image for c in cameras])
    assert float((again - plates).abs().mean()) < 0.004
    torch.testing.assert_close(found[:4], light[:4], atol=0.12, rtol=0)


def test_an_occluder_does_not_decide_the_light() -> None:
    rig = sphere_rig(torch.full((len(uv_sphere()[0]), 3), 0.4))
    camera = Camera.look_at(96, 96, 350.0, (0.0, 0.0, 1.0))
    light = torch.zeros(9, 3)
    light[0] = 2.0
    plate = replace(Renderer(rig), light=light)(rig.neutral[None], camera).image.clone()
    plate[:, :, 40:60, 30:50] = torch.tensor([0.1, 0.9, 0.1])[None, :, None, None]
    found = fit_light(Renderer(rig), rig.neutral[None], [camera], plate)
    again = replace(Renderer(rig), light=found)(rig.neutral[None], camera).image
    clean = replace(Renderer(rig), light=light)(rig.neutral[None], camera).image
    assert float((again - clean).abs().mean()) < 0.01


def test_a_sphere_in_the_open_sees_all_of_its_sky() -> None:
    share = ambient_occlusion(sphere_rig())
    assert float(share.min()) > 0.95 and float(share.max()) <= 1 + 1e-6


def test_inside_a_box_it_is_dark_and_outside_light() -> None:
    points, faces = uv_sphere(16)
    inner = points * 0.4
    both = Rig(
        "nested",
        torch.cat([points, inner]),
        torch.cat([faces, faces + len(points)]),
        torch.zeros(0, 2 * len(points), 3),
        (),
    )
    share = ambient_occlusion(both)
    assert float(share[: len(points)].mean()) > 0.9
    assert float(share[len(points) :].max()) < 0.2


def test_the_open_mouth_of_the_built_in_head_is_darker_than_its_face() -> None:
    rig = Rig.load("builtin")
    share = ambient_occlusion(rig)
    regions = rig.face_regions
    assert regions is not None
    mouth = rig.faces[regions == rig.region_names.index("mouth")].unique()
    skin = rig.faces[regions == rig.region_names.index("skin")].unique()
    assert float(share[mouth].mean()) < 0.6 * float(share[skin].mean())
    assert math.isfinite(float(share.sum()))
