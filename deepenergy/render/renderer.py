"""From a rig's vertices to an image (paper, section 3: `F(x_R)`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.render.blend import Blend
from deepenergy.render.derivatives import differentiated
from deepenergy.render.fragments import Fragments
from deepenergy.render.lighting import frontal_light
from deepenergy.render.mesh_edges import MeshEdges, mesh_edges
from deepenergy.render.no_gradient import Visible, without_derivative
from deepenergy.render.operations import (
    Backend,
    edge_colours,
    find_outlines,
    project,
    rasterize,
    reflected,
    resolve,
    shade,
    vertex_normals,
)
from deepenergy.render.reference.interpolate import Surface, edge_surface, scattered, surface_points
from deepenergy.render.reference.outlines import blend_of
from deepenergy.render.texture import MipTexture, face_footprints, mip_texture, sample_mips
from deepenergy.scene.camera import Camera
from deepenergy.scene.colour import srgb_to_linear
from deepenergy.scene.rig import Rig

_GREY_SKIN = (0.42, 0.27, 0.20)
# Metres.
NEAR = 1e-3


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
        antialias: blend samples at outlines by what of them is covered (reference/outlines.py), so that the image is
            continuous in the vertices and its boundaries have gradients.
        albedo: `[V, 3]` scene-linear vertex albedo in place of the rig's own and of its texture.
    """

    rig: Rig
    occlusion: Tensor | None = None
    light: Tensor | None = None
    background: tuple[float, float, float] = (0.35, 0.35, 0.35)
    supersample: int = 2
    backend: Backend = "auto"
    antialias: bool = True
    albedo: Tensor | None = None

    def __call__(self, vertices: Float[Tensor, "b v 3"], camera: Camera) -> Render:
        """Render world-space vertices (metres) through a camera, or a batch of cameras of one size.

        Differentiable in vertices, camera, albedo, texture and light, in reverse and forward mode (`torch.func.jvp`,
        vmapped over tangents); on the CPU once.

        Args:
            vertices: of the rig's mesh, world space, metres.
            camera: one, or one a mesh.

        Returns:
            Images and masks of the camera's size.

        Raises:
            ValueError: vertices of another mesh, or cameras of another number than meshes.
        """
        self._check(vertices, camera)
        vertices = vertices.float()
        pixels, depth, visible = self._find_visible(vertices, camera)
        blend = self._blend(visible, pixels, depth)
        samples, at_edges = self._shade(visible.fragments, blend, pixels, depth, vertices)
        behind = srgb_to_linear(torch.tensor(self.background)).to(samples)
        resolved = resolve(samples, blend, at_edges, behind, self.supersample)
        return Render(resolved[:, :3], resolved[:, 3:], visible.fragments)

    def _shade(
        self,
        fragments: Fragments,
        blend: Blend | None,
        pixels: Float[Tensor, "b v 2"],
        depth: Float[Tensor, "b v"],
        vertices: Float[Tensor, "b v 3"],
    ) -> tuple[Float[Tensor, "b 4 h w"], Float[Tensor, "e 4"]]:
        """Scene-linear colour and coverage of the samples, and of the points at edges that are mixed into them."""
        faces, colour = self._faces(vertices), self.vertex_colours(vertices)
        if not self._textured:
            samples = shade(fragments, faces, pixels, depth, colour)
            none = samples.new_zeros(0, 4)
            return samples, none if blend is None else edge_colours(blend.points, pixels, depth, colour)
        surface, count, points = surface_points(fragments, pixels, depth, faces), fragments.face_index.numel(), 0
        if blend is not None:
            # Points at edges are numbered after the samples.
            surface = surface.and_then(edge_surface(blend.points, pixels, depth, faces, count))
            points = len(blend.points.line)
        shaded = surface.interpolate(colour) * self._texels(surface, pixels)
        flat = scattered(surface, shaded, count + points)
        return flat[:count].view(*fragments.face_index.shape, 4).permute(0, 3, 1, 2), flat[count:]

    def _check(self, vertices: Tensor, camera: Camera) -> None:
        # Compiled code reads and writes wherever the faces point to.
        count = len(self.rig.neutral)
        if vertices.dim() != 3 or vertices.shape[1:] != (count, 3):
            raise ValueError(
                f"vertices: found shape {tuple(vertices.shape)}; expected [B, {count}, 3], the vertices of rig "
                f"'{self.rig.name}'"
            )
        cameras = camera.intrinsics.shape[:-1]
        if cameras not in ((), (1,), (len(vertices),)):
            raise ValueError(
                f"camera: found a batch of shape {tuple(cameras)}; expected one camera, or one for each of "
                f"{len(vertices)} meshes"
            )

    def _faces(self, like: Tensor) -> Tensor:
        # `to` wraps a constant where `torch.func` is at work.
        return self.rig.faces if self.rig.faces.device == like.device else self.rig.faces.to(like.device)

    @cached_property
    def _edges(self) -> MeshEdges:
        return mesh_edges(self.rig.faces)

    def _find_visible(self, vertices: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Visible]:
        """Projected vertices in samples, their depth, and what is seen."""
        pixels, depth = project(vertices, camera, self.supersample)
        size = (camera.width * self.supersample, camera.height * self.supersample)
        faces = self._faces(vertices)
        focal = (camera.intrinsics.detach()[..., :2].mean(-1) * self.supersample).expand(len(vertices))

        def find(xy: Tensor, z: Tensor) -> Visible:
            fragments = rasterize(xy, z, faces, size, NEAR, backend=self.backend)
            if not self.antialias:
                return Visible(fragments)
            edges = self._edges if faces is self.rig.faces else self._edges.to(faces.device)
            return find_outlines(xy, z, edges, fragments, focal, NEAR)

        return pixels, depth, without_derivative(find, pixels, depth)

    def _blend(self, visible: Visible, pixels: Tensor, depth: Tensor) -> Blend | None:
        if visible.blend is not None:
            return visible.blend.at(pixels, depth)
        if visible.crossings is None or visible.intersections is None or visible.depth_steps is None:
            return None
        height, width = visible.fragments.face_index.shape[1:]
        return blend_of(visible.crossings, visible.intersections, visible.depth_steps, pixels, depth, (width, height))

    def surface(
        self, vertices: Float[Tensor, "b v 3"], camera: Camera
    ) -> tuple[Surface, Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """What is seen at the camera's own size, one sample a pixel.

        Args:
            vertices, camera: as a render takes them.

        Returns:
            The covered pixels, their unit normals in world axes, and their scene-linear albedo.

        Raises:
            ValueError: as a render does.
        """
        self._check(vertices, camera)
        vertices = vertices.float()
        alone = replace(self, supersample=1, antialias=False)
        pixels, depth, visible = alone._find_visible(vertices, camera)
        surface = surface_points(visible.fragments, pixels, depth, self._faces(vertices))
        return surface, self._normals(surface, vertices), self._albedo(surface, pixels)

    @property
    def _textured(self) -> bool:
        return (
            self.albedo is None
            and self.rig.texture is not None
            and self.rig.uvs is not None
            and self.rig.uv_faces is not None
        )

    @cached_property
    def _mips(self) -> MipTexture:
        assert self.rig.texture is not None
        return mip_texture(self.rig.texture)

    def _texels(self, surface: Surface, pixels: Tensor) -> Tensor:
        """The texture under the samples, averaged over what each of them covers."""
        rig = self.rig
        assert rig.texture is not None and rig.uvs is not None and rig.uv_faces is not None
        uvs, faces = rig.uvs.to(surface.barycentrics), rig.uv_faces.to(pixels.device)
        uv = (uvs[faces[surface.face]] * surface.barycentrics[..., None]).sum(1)
        # A texture to be differentiated by has a graph of its own at every call.
        mips = mip_texture(rig.texture) if differentiated(rig.texture) else self._mips
        size = (rig.texture.shape[1], rig.texture.shape[0])
        side = face_footprints(uvs, faces, pixels, rig.faces.to(pixels.device), size)
        return sample_mips(mips, uv, side[surface.batch, surface.face].to(uv))

    def _vertex_albedo(self, like: Tensor) -> Tensor:
        if self.albedo is not None:
            return self.albedo.to(like)
        if self.rig.vertex_albedo is not None:
            return self.rig.vertex_albedo.to(like)
        return torch.tensor(_GREY_SKIN).to(like).expand(self.rig.neutral.shape[0], 3)

    def vertex_colours(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b v 3"]:
        """The light at the vertices.

        At the vertices, and interpolated from there: nine harmonics vary slowly over a mesh of faces, and samples are
        ten times as many.

        Args:
            vertices: of the rig's mesh, world space, metres.

        Returns:
            Scene-linear colours: reflected light, or what arrives where a texture has the albedo.
        """
        normals = vertex_normals(vertices, self._faces(vertices))
        light = frontal_light().to(normals.device) if self.light is None else self.light.to(normals.device)
        count = vertices.shape[1]
        albedo = torch.ones(count, 3).to(normals) if self._textured else self._vertex_albedo(normals)
        occlusion = torch.ones(count) if self.occlusion is None else self.occlusion
        return reflected(normals, light, albedo, occlusion.to(normals))

    def _albedo(self, surface: Surface, pixels: Tensor) -> Tensor:
        albedo = (
            self._texels(surface, pixels)
            if self._textured
            else surface.interpolate(self._vertex_albedo(surface.barycentrics))
        )
        if self.occlusion is None:
            return albedo
        return albedo * surface.interpolate(self.occlusion[:, None].to(surface.barycentrics))

    def _normals(self, surface: Surface, vertices: Tensor) -> Tensor:
        normals = surface.interpolate(vertex_normals(vertices, self._faces(vertices)))
        return normals / normals.norm(dim=-1, keepdim=True).clamp_min(1e-8)
