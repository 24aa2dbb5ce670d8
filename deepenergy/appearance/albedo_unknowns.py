"""What the unknowns of an albedo estimate are: values at the vertices, or texels of an atlas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from deepenergy.appearance.uv_atlas import Atlas, make_atlas, with_texture
from deepenergy.render.operations import vertex_normals
from deepenergy.render.reference.interpolate import Surface
from deepenergy.render.texture import bilinear_taps, sample_texture
from deepenergy.scene.rig import Rig

_GREY_SKIN = (0.42, 0.27, 0.20)
# A vertex has a value from this weight of texels about it.
_ENOUGH = 0.05


class AlbedoUnknowns(Protocol):
    """U unknown colours on a rig's surface.

    Attributes:
        prior: `[U, 3]` the rig's own albedo.
        edges: `[E, 2]` pairs of neighbours.
        surface: `[N]` the unknowns that lie on the surface (texels between islands do not).
    """

    @property
    def prior(self) -> Tensor: ...
    @property
    def edges(self) -> Tensor: ...
    @property
    def surface(self) -> Tensor: ...

    def taps(self, surface: Surface) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Which unknowns a surface point's colour is blended from, and how."""
        ...

    def places(self) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Points and normals of the neutral, in the order of `surface`."""
        ...

    def at_vertices(
        self, values: Float[Tensor, "u d"], known: Bool[Tensor, " u"]
    ) -> tuple[Float[Tensor, "v d"], Bool[Tensor, " v"]]:
        """Known values carried to the vertices, and which vertices got one."""
        ...

    def from_vertices(self, values: Float[Tensor, "v d"]) -> Float[Tensor, "u d"]:
        """Vertex values at the unknowns."""
        ...

    def of_faces(self, labels: Int[Tensor, " f"]) -> Int[Tensor, " u"]:
        """A triangle's label at the unknowns; 0 off the surface, the lowest where triangles meet."""
        ...

    def finish(self, albedo: Float[Tensor, "u 3"]) -> Rig:
        """The rig with this albedo."""
        ...

    def shape(self, values: Float[Tensor, " u"]) -> Tensor:
        """Values in the layout of the albedo: `[V]`, or `[H, W]`."""
        ...


def vertex_unknowns(rig: Rig) -> AlbedoUnknowns:
    """Albedo at the vertices."""
    pairs = torch.cat([rig.faces[:, [0, 1]], rig.faces[:, [1, 2]], rig.faces[:, [2, 0]]])
    edges = torch.unique(pairs.sort(1).values, dim=0)
    return _Vertices(rig, _vertex_prior(rig), edges, torch.arange(len(rig.neutral)).to(edges))


def texel_unknowns(rig: Rig, size: int) -> AlbedoUnknowns:
    """Albedo at the texels of a square texture; the rig must have UVs."""
    atlas = make_atlas(rig, size)
    covered = atlas.face_index >= 0
    on_surface = covered.reshape(-1).nonzero()[:, 0]
    # Next to the surface too: bilinear taps reach one texel over its edge.
    near = torch.nn.functional.max_pool2d(covered[None, None].float(), 3, 1, 1)[0, 0] > 0
    number = torch.arange(size * size, device=covered.device).view(size, size)
    across, down = near[:, :-1] & near[:, 1:], near[:-1] & near[1:]
    edges = torch.cat(
        [
            torch.stack([number[:, :-1][across], number[:, 1:][across]], 1),
            torch.stack([number[:-1][down], number[1:][down]], 1),
        ]
    )
    prior = torch.zeros(size * size, 3).to(rig.neutral).index_copy(0, on_surface, _texel_prior(rig, atlas))
    return _Texels(rig, atlas, bleed(prior.view(size, size, 3), covered).view(-1, 3), edges, on_surface)


@dataclass(frozen=True)
class _Vertices:
    rig: Rig
    prior: Tensor
    edges: Tensor
    surface: Tensor

    def taps(self, surface: Surface) -> tuple[Tensor, Tensor]:
        return surface.corners, surface.barycentrics

    def places(self) -> tuple[Tensor, Tensor]:
        return self.rig.neutral, vertex_normals(self.rig.neutral[None], self.rig.faces)[0]

    def at_vertices(self, values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        return values, known

    def from_vertices(self, values: Tensor) -> Tensor:
        return values

    def of_faces(self, labels: Tensor) -> Tensor:
        lowest = torch.full((len(self.rig.neutral),), int(labels.max()) + 1, device=labels.device)
        lowest.scatter_reduce_(0, self.rig.faces.reshape(-1), labels.repeat_interleave(3), "amin")
        return torch.where(lowest <= labels.max(), lowest, 0)

    def finish(self, albedo: Tensor) -> Rig:
        return replace(self.rig, vertex_albedo=albedo.to(self.rig.neutral), texture=None)

    def shape(self, values: Tensor) -> Tensor:
        return values


@dataclass(frozen=True)
class _Texels:
    rig: Rig
    atlas: Atlas
    prior: Tensor
    edges: Tensor
    surface: Tensor

    def taps(self, surface: Surface) -> tuple[Tensor, Tensor]:
        corners = self.atlas.uvs[self.atlas.uv_faces[surface.face]]
        uv = (corners * surface.barycentrics.to(corners)[..., None]).sum(1)
        return bilinear_taps(uv, (self.atlas.size, self.atlas.size))

    def places(self) -> tuple[Tensor, Tensor]:
        normals = vertex_normals(self.rig.neutral[None], self.rig.faces)[0]
        both = self.atlas.points(torch.cat([self.rig.neutral, normals], 1), self.rig.faces)
        return both[:, :3], torch.nn.functional.normalize(both[:, 3:], dim=1)

    def at_vertices(self, values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the known texels of the triangles about every vertex."""
        face = self.atlas.face_index.reshape(-1)[self.surface]
        share = self.atlas.barycentrics.reshape(-1, 3)[self.surface].to(values)
        share = share * known[self.surface][:, None]
        total = torch.zeros(len(self.rig.neutral), values.shape[1] + 1).to(values)
        for i in range(3):
            weighted = torch.cat([values[self.surface], torch.ones_like(share[:, :1])], 1) * share[:, i : i + 1]
            total.index_add_(0, self.rig.faces[face, i], weighted)
        return total[:, :-1] / total[:, -1:].clamp_min(1e-9), total[:, -1] > _ENOUGH

    def from_vertices(self, values: Tensor) -> Tensor:
        result = torch.zeros(self.atlas.size**2, values.shape[1]).to(values)
        return result.index_copy(0, self.surface, self.atlas.points(values, self.rig.faces))

    def of_faces(self, labels: Tensor) -> Tensor:
        face = self.atlas.face_index.reshape(-1)
        return torch.where(face >= 0, labels[face.clamp_min(0)], 0)

    def finish(self, albedo: Tensor) -> Rig:
        size = self.atlas.size
        texture = bleed(albedo.view(size, size, 3).to(self.rig.neutral), self.atlas.face_index >= 0)
        return with_texture(self.rig, self.atlas, texture)

    def shape(self, values: Tensor) -> Tensor:
        return values.view(self.atlas.size, self.atlas.size)


def bleed(texture: Float[Tensor, "h w c"], covered: Bool[Tensor, "h w"]) -> Float[Tensor, "h w c"]:
    """Texels off the surface take the value of the nearest texel on it, so that no lookup at an edge sees a seam."""
    row, column = distance_transform_edt(~covered.cpu().numpy(), return_distances=False, return_indices=True)  # pyright: ignore
    return texture[torch.from_numpy(row).long(), torch.from_numpy(column).long()]


def _vertex_prior(rig: Rig) -> Tensor:
    if rig.texture is not None and rig.uvs is not None and rig.uv_faces is not None:
        colours = sample_texture(rig.texture, rig.uvs)
        prior = torch.zeros_like(rig.neutral)
        # A vertex at a seam takes the last of its corners.
        prior[rig.faces.reshape(-1)] = colours[rig.uv_faces.reshape(-1)].to(prior)
        return prior
    if rig.vertex_albedo is not None:
        return rig.vertex_albedo
    return torch.tensor(_GREY_SKIN).to(rig.neutral).expand(len(rig.neutral), 3).clone()


def _texel_prior(rig: Rig, atlas: Atlas) -> Tensor:
    if rig.texture is None or rig.uvs is None or rig.uv_faces is None:
        return atlas.points(_vertex_prior(rig), rig.faces)
    covered = atlas.face_index >= 0
    corners = rig.uvs[rig.uv_faces[atlas.face_index[covered]]]
    return sample_texture(rig.texture, (corners * atlas.barycentrics[covered][..., None]).sum(1))
