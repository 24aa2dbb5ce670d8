"""What a compositor or an overlay wants beside the image: mask, depth, normal, uv, material, wireframe; and the
render over its plate.

Passes are sampled once a pixel, at its centre, and not filtered: a depth or a normal that is the mean of two surfaces
lies on neither. The wireframe is antialiased. No gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.render.materials import material_regions
from deepenergy.render.reference.interpolate import Surface
from deepenergy.render.renderer import Render, Renderer
from deepenergy.scene.camera import Camera
from deepenergy.scene.colour import linear_to_srgb, srgb_to_linear


@dataclass(frozen=True)
class Passes:
    """Passes of a batch. Where nothing covers the pixel: False, infinity, zeros, -1.

    Attributes:
        mask: `[B, 1, H, W]` whether the mesh covers the pixel's centre.
        depth: `[B, 1, H, W]` camera Z, metres.
        normal: `[B, 3, H, W]` unit, world axes; `normal_image` shows it.
        uv: `[B, 2, H, W]` texture coordinates, origin bottom-left, +v up; zeros for a rig without UVs.
        material: `[B, 1, H, W]` int64 into `regions.MATERIALS`.
        wireframe: `[B, 1, H, W]` coverage in [0, 1] of the edges of the visible triangles.
    """

    mask: Bool[Tensor, "b 1 h w"]
    depth: Float[Tensor, "b 1 h w"]
    normal: Float[Tensor, "b 3 h w"]
    uv: Float[Tensor, "b 2 h w"]
    material: Int[Tensor, "b 1 h w"]
    wireframe: Float[Tensor, "b 1 h w"]


@torch.no_grad()
def render_passes(renderer: Renderer, vertices: Float[Tensor, "b v 3"], camera: Camera, line_px: float = 1.0) -> Passes:
    """Passes of world-space vertices (metres) through a camera, or a batch of cameras of one size.

    Args:
        renderer: its rig and visibility backend.
        vertices: world space, metres.
        camera: as the renderer takes it.
        line_px: width of the wireframe's lines in pixels.

    Raises:
        ValueError: a line width that is not positive.
    """
    if not line_px > 0:
        raise ValueError(f"line_px: found {line_px}; expected more than 0 pixels")
    rig = renderer.rig
    surface, normals, _ = renderer.surface(vertices, camera)
    seen = camera.camera_points(vertices.float())
    depth = surface.interpolate(seen[..., 2:].contiguous())
    uv = torch.zeros(len(surface.where), 2).to(normals)
    if rig.uvs is not None and rig.uv_faces is not None:
        corners = rig.uvs.to(normals)[rig.uv_faces.to(surface.face.device)[surface.face]]
        uv = (corners * surface.barycentrics.to(normals)[..., None]).sum(1)
    material = material_regions(rig).to(surface.face.device)[surface.face]
    lines = _edge_coverage(surface, camera.pixels(seen), (camera.width, camera.height), line_px)

    def image(values: Tensor, empty: float) -> Tensor:
        batch, channels = len(vertices), values.shape[1]
        flat = torch.full((batch * camera.height * camera.width, channels), empty).to(values)
        flat[surface.where] = values
        return flat.view(batch, camera.height, camera.width, channels).permute(0, 3, 1, 2)

    return Passes(
        mask=image(torch.ones_like(depth, dtype=torch.bool), False),
        depth=image(depth, torch.inf),
        normal=image(normals, 0.0),
        uv=image(uv, 0.0),
        material=image(material[:, None], -1),
        wireframe=image(lines, 0.0),
    )


def _edge_coverage(
    surface: Surface, pixels: Float[Tensor, "b v 2"], size: tuple[int, int], width: float
) -> Float[Tensor, "n 1"]:
    """How much of each pixel lies on a line along the nearest edge of its own triangle."""
    row = (surface.where - surface.batch * (size[0] * size[1])) // size[0]
    point = torch.stack([surface.where % size[0] + 0.5, row + 0.5], 1).to(pixels)
    corners = [pixels.reshape(-1, 2)[surface.corners[:, i] + surface.batch * pixels.shape[1]] for i in range(3)]
    distances = []
    for start, end in ((0, 1), (1, 2), (2, 0)):
        along, across = corners[end] - corners[start], point - corners[start]
        area = along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]
        distances.append(area.abs() / along.norm(dim=1).clamp_min(1e-9))
    nearest = torch.stack(distances).amin(0)
    # A box filter one pixel wide over the line's profile, capped for lines thinner than a pixel.
    return (width / 2 + 0.5 - nearest).clamp(0, min(1.0, width))[:, None]


def normal_image(passes: Passes) -> Float[Tensor, "b 3 h w"]:
    """Normals as colours, -1 to 1 shown as 0 to 1; black where there is no surface."""
    return torch.where(passes.mask, (passes.normal + 1) / 2, torch.zeros_like(passes.normal))


def depth_image(passes: Passes) -> Float[Tensor, "b 1 h w"]:
    """Depth as grey, the nearest of the batch white, the farthest a dark grey, nothing black."""
    depth = passes.depth[passes.mask]
    if depth.numel() == 0:
        return torch.zeros_like(passes.depth)
    near, far = depth.amin(), depth.amax()
    grey = 1 - 0.9 * (passes.depth - near) / (far - near).clamp_min(1e-9)
    return torch.where(passes.mask, grey, torch.zeros_like(grey))


def over_plate(renderer: Renderer, render: Render, plates: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """The render over its plates instead of the renderer's plain background, mixed in linear light by coverage.

    Args:
        renderer: that made the render.
        render: B images.
        plates: display-referred sRGB in [0, 1], of the render's size.

    Raises:
        ValueError: plates of another size.
    """
    if plates.shape != render.image.shape:
        raise ValueError(f"plates: found shape {tuple(plates.shape)}; expected {tuple(render.image.shape)}")
    back = srgb_to_linear(torch.as_tensor(renderer.background).to(render.image))[:, None, None]
    behind = (srgb_to_linear(plates.to(render.image)) - back) * (1 - render.mask)
    return linear_to_srgb((srgb_to_linear(render.image) + behind).clamp(0, 1))


def wireframe_over(
    image: Float[Tensor, "b 3 h w"], passes: Passes, colour: tuple[float, float, float] = (0.1, 0.9, 0.4)
) -> Float[Tensor, "b 3 h w"]:
    """The wireframe in one sRGB colour over an image."""
    line = torch.tensor(colour).to(image)[None, :, None, None]
    return torch.lerp(image, line.expand_as(image), passes.wireframe.to(image).expand_as(image))
