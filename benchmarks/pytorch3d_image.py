"""Images by PyTorch3D's hard and soft rasteriser, of the same vertex colours as ours, to compare derivatives."""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.render import Renderer
from deepenergy.render.pytorch3d_backend import load_pytorch3d, to_ndc
from deepenergy.scene.camera import Camera
from deepenergy.scene.colour import srgb_to_linear

# Liu et al. 2019's defaults in PyTorch3D's own examples.
SIGMA, GAMMA, LAYERS = 1e-4, 1e-4, 10


def pytorch3d_image(
    renderer: Renderer, vertices: Float[Tensor, "1 v 3"], camera: Camera, soft: bool
) -> Float[Tensor, "1 3 h w"]:
    """A scene-linear image over the renderer's background, differentiable in the vertices.

    Args:
        renderer: gives the vertices their colours.
        vertices: world space, metres.
        camera: the view.
        soft: blend the nearest layers by distance and depth (SoftRas) instead of showing the nearest.

    Raises:
        InputError: PyTorch3D is not installed.
    """
    kernel, meshes = load_pytorch3d()
    from pytorch3d.ops import interpolate_face_attributes  # pyright: ignore[reportMissingImports]
    from pytorch3d.renderer.blending import BlendParams, softmax_rgb_blend  # pyright: ignore[reportMissingImports]

    size, faces = (camera.width, camera.height), renderer.rig.faces
    colour = renderer.vertex_colours(vertices)[0]
    seen = camera.camera_points(vertices)
    corners = torch.cat([to_ndc(camera.pixels(seen), size), seen[..., 2:]], -1)
    index, depth, weights, distance = kernel(
        meshes(verts=[corners[0]], faces=[faces]),
        image_size=size[::-1],
        blur_radius=math.log(1 / 1e-4 - 1) * SIGMA if soft else 0.0,
        faces_per_pixel=LAYERS if soft else 1,
        perspective_correct=True,
        clip_barycentric_coords=soft,
    )
    shaded = interpolate_face_attributes(index, weights, colour[faces])
    back = srgb_to_linear(torch.tensor(renderer.background))
    if soft:
        fragments = SimpleNamespace(pix_to_face=index, zbuf=depth, bary_coords=weights, dists=distance)
        params = BlendParams(SIGMA, GAMMA, tuple(back.tolist()))
        near, far = float(seen[..., 2].detach().min()) - 0.01, float(seen[..., 2].detach().max()) + 0.01
        return softmax_rgb_blend(shaded, fragments, params, znear=near, zfar=far)[..., :3].permute(0, 3, 1, 2)
    return torch.where(index[..., :1] >= 0, shaded[..., 0, :], back).permute(0, 3, 1, 2)
