"""From a rig's vertices to an image (paper, section 3: `F(x_R)`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.camera import Camera
from deepenergy.colour import linear_to_srgb, srgb_to_linear
from deepenergy.render.fragments import Fragments
from deepenergy.render.interpolate import Surface, surface_points
from deepenergy.render.lighting import frontal_light, sh_shade
from deepenergy.render.normals import vertex_normals
from deepenergy.render.rasterize import Backend, rasterize
from deepenergy.render.shade_numba import shade_numba
from deepenergy.render.texture import sample_texture
from deepenergy.rig import Rig

_GREY_SKIN = (0.42, 0.27, 0.20)
# Nine coefficients can give negative light; a black hole in the face would be worse than a little too much.
_DARKEST = 0.02


@dataclass(frozen=True)
class Render:
    """A batch of renders.

    Attributes:
        image: `[B, 3, H, W]` display-referred sRGB in [0, 1].
        mask: `[B, 1, H, W]` coverage in [0, 1].
        fragments: visibility at the sampled resolution (`supersample` times the image's).
    """

    image: Tensor
    mask: Tensor
    fragments: Fragments


@dataclass(frozen=True)
class Renderer:
    """Renders a rig with SH lighting and its albedo.

    Args:
        rig: the rig; albedo from its texture, else its vertex albedo, else a grey-pink skin.
        occlusion: `[V]` share of the light that reaches each vertex (see `ambient_occlusion`); all of it when None.
        light: `[9, 3]` or `[B, 9, 3]` SH coefficients in world axes; a soft frontal key when None.
        background: `[3]` sRGB colour behind the head.
        supersample: samples per pixel side, box-filtered in linear light.
        backend: see `rasterize`.
    """

    rig: Rig
    occlusion: Tensor | None = None
    light: Tensor | None = None
    background: tuple[float, float, float] = (0.35, 0.35, 0.35)
    supersample: int = 2
    backend: Backend = "auto"

    def __call__(self, vertices: Float[Tensor, "b v 3"], camera: Camera) -> Render:
        """Render world-space vertices (metres) through a camera, or a batch of cameras of one size.

        Differentiable in the vertices (interior and shading; supersampled edges carry no boundary gradient).
        """
        batch, s = vertices.shape[0], self.supersample
        width, height = camera.width * s, camera.height * s
        vertices = vertices.float()
        pixels, depth, fragments = self._fragments(vertices, camera)
        faces = self.rig.faces.to(vertices.device)
        colour = self._vertex_colours(vertices)
        if self._textured or torch.is_grad_enabled() or vertices.device.type != "cpu":
            surface = surface_points(fragments, pixels, depth, faces)
            shaded = surface.interpolate(colour)
            if self._textured:
                shaded = shaded * self._texels(surface)
            flat = torch.zeros(batch * height * width, 4, dtype=shaded.dtype, device=shaded.device)
            flat = flat.index_copy(0, surface.where, torch.cat([shaded, torch.ones_like(shaded[:, :1])], 1))
            samples = flat.view(batch, height, width, 4).permute(0, 3, 1, 2)
            if s > 1:
                samples = torch.nn.functional.avg_pool2d(samples, s)
        else:
            samples = shade_numba(fragments, faces, colour, s)
        image, mask = samples[:, :3], samples[:, 3:]
        back = srgb_to_linear(torch.tensor(self.background)).to(image)[None, :, None, None]
        return Render(linear_to_srgb((image + (1 - mask) * back).clamp(0, 1)), mask, fragments)

    def surface(
        self, vertices: Float[Tensor, "b v 3"], camera: Camera
    ) -> tuple[Surface, Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Covered pixels at the camera's own size with their unit normals (world) and albedo (scene-linear)."""
        vertices = vertices.float()
        pixels, depth, fragments = replace(self, supersample=1)._fragments(vertices, camera)
        surface = surface_points(fragments, pixels, depth, self.rig.faces.to(vertices.device))
        return surface, self._normals(surface, vertices), self._albedo(surface)

    def _fragments(self, vertices: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Fragments]:
        in_camera = camera.camera_points(vertices)
        pixels, depth = camera.pixels(in_camera) * self.supersample, in_camera[..., 2]
        size = (camera.width * self.supersample, camera.height * self.supersample)
        return pixels, depth, rasterize(pixels, depth, self.rig.faces.to(vertices.device), size, backend=self.backend)

    @property
    def _textured(self) -> bool:
        return self.rig.texture is not None and self.rig.uvs is not None and self.rig.uv_faces is not None

    def _texels(self, surface: Surface) -> Tensor:
        rig = self.rig
        assert rig.texture is not None and rig.uvs is not None and rig.uv_faces is not None
        uv = rig.uvs.to(surface.barycentrics)[rig.uv_faces[surface.face]]
        return sample_texture(rig.texture, (uv * surface.barycentrics[..., None]).sum(1))

    def _vertex_albedo(self, like: Tensor) -> Tensor:
        if self.rig.vertex_albedo is not None:
            return self.rig.vertex_albedo.to(like)
        return torch.tensor(_GREY_SKIN).to(like).expand(self.rig.neutral.shape[0], 3)

    def _vertex_colours(self, vertices: Tensor) -> Tensor:
        """Light at the vertices `[B, V, 3]`, reflected unless a texture says how.

        At the vertices, and interpolated from there: nine harmonics vary slowly over a mesh of faces, and samples are
        ten times as many.
        """
        normals = vertex_normals(vertices, self.rig.faces.to(vertices.device))
        light = (frontal_light() if self.light is None else self.light).to(normals)
        batch, count = normals.shape[:2]
        image = torch.arange(batch, device=normals.device).repeat_interleave(count)
        colour = sh_shade(normals.flatten(0, 1), light, image).clamp_min(_DARKEST).view(batch, count, -1)
        if self.occlusion is not None:
            colour = colour * self.occlusion.to(colour)[:, None]
        return colour if self._textured else colour * self._vertex_albedo(colour)

    def _albedo(self, surface: Surface) -> Tensor:
        albedo = (
            self._texels(surface) if self._textured else surface.interpolate(self._vertex_albedo(surface.barycentrics))
        )
        if self.occlusion is None:
            return albedo
        return albedo * surface.interpolate(self.occlusion[:, None].to(surface.barycentrics))

    def _normals(self, surface: Surface, vertices: Tensor) -> Tensor:
        normals = surface.interpolate(vertex_normals(vertices, self.rig.faces.to(vertices.device)))
        return normals / normals.norm(dim=-1, keepdim=True).clamp_min(1e-8)
