"""The renderer's steps: each picks its compiled form for CPU tensors and its reference, in torch, for all others.

Nothing else in the renderer asks for the device.
"""

from __future__ import annotations

from typing import Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.render.blend import Blend, EdgePoints
from deepenergy.render.compiled.edge_points import edge_colours_numba
from deepenergy.render.compiled.interpolate import shade_numba
from deepenergy.render.compiled.lighting import reflected_numba
from deepenergy.render.compiled.normals import vertex_normals_numba
from deepenergy.render.compiled.outlines import find_blend_numba
from deepenergy.render.compiled.project import project_numba
from deepenergy.render.compiled.rasterize import rasterize_numba
from deepenergy.render.compiled.resolve import resolve_numba
from deepenergy.render.fragments import Fragments
from deepenergy.render.mesh_edges import MeshEdges
from deepenergy.render.no_gradient import Visible
from deepenergy.render.pytorch3d_backend import rasterize_pytorch3d
from deepenergy.render.reference.interpolate import edge_colours_torch, shade_torch
from deepenergy.render.reference.lighting import reflected_torch
from deepenergy.render.reference.normals import vertex_normals_torch
from deepenergy.render.reference.outlines import find_outlines_torch
from deepenergy.render.reference.project import project_torch
from deepenergy.render.reference.rasterize import rasterize_torch
from deepenergy.render.reference.resolve import resolve_torch
from deepenergy.scene.camera import Camera

Backend = Literal["auto", "numba", "torch", "pytorch3d"]


def uses_compiled(tensor: Tensor) -> bool:
    """Whether a step takes its compiled form for a tensor: where it is on the CPU.

    Args:
        tensor: any of the step's inputs, all of which are on one device.

    Returns:
        False for a GPU, say, where the step is taken in torch.
    """
    return tensor.device.type == "cpu"


def project(
    vertices: Float[Tensor, "b v 3"], camera: Camera, scale: int = 1
) -> tuple[Float[Tensor, "b v 2"], Float[Tensor, "b v"]]:
    """Vertices to the image; differentiable in vertices and camera.

    Args:
        vertices: world space, metres.
        camera: one, or one a mesh.
        scale: samples a pixel's side.

    Returns:
        Image points in samples, and camera Z in metres, never within 1e-9 of 0.
    """
    if uses_compiled(vertices) and not bool((camera.distortion != 0).any()):
        return project_numba(vertices, camera, scale)
    return project_torch(vertices, camera, scale)


def vertex_normals(vertices: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "b v 3"]:
    """Normals of the vertices, area-weighted over the adjoining triangles; differentiable in the vertices.

    Args:
        vertices: of meshes of one topology, metres.
        faces: their triangles.

    Returns:
        Unit vectors, in the vertices' axes; zero for a vertex of degenerate triangles only.
    """
    return (vertex_normals_numba if uses_compiled(vertices) else vertex_normals_torch)(vertices, faces)


def reflected(
    normals: Float[Tensor, "b v 3"],
    light: Float[Tensor, "9 3"] | Float[Tensor, "b 9 3"],
    albedo: Float[Tensor, "v 3"],
    occlusion: Float[Tensor, " v"],
) -> Float[Tensor, "b v 3"]:
    """The light that vertices reflect; differentiable in the first three.

    Args:
        normals: unit, in the light's axes.
        light: spherical-harmonic coefficients, one set or one a mesh.
        albedo: scene-linear, in [0, 1].
        occlusion: share of the light that reaches each vertex, in [0, 1].

    Returns:
        Scene-linear colours: irradiance / pi, at least `DARKEST`, times that share, times albedo.

    Raises:
        ValueError: albedo or occlusion of another number of vertices.
    """
    count = normals.shape[1]
    for name, value, expected in (("albedo", albedo, (count, 3)), ("occlusion", occlusion, (count,))):
        if tuple(value.shape) != expected:
            raise ValueError(f"{name}: found shape {tuple(value.shape)}; expected {expected}, one for each vertex")
    return (reflected_numba if uses_compiled(normals) else reflected_torch)(normals, light, albedo, occlusion)


def shade(
    fragments: Fragments,
    faces: Int[Tensor, "f 3"],
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    colour: Float[Tensor, "b v 3"],
) -> Float[Tensor, "b 4 h w"]:
    """Colours of the vertices, interpolated at every sample; differentiable in the last three.

    Args:
        fragments: visibility.
        faces: triangles.
        pixels, depth: projected vertices, in samples and metres.
        colour: scene-linear colours of the vertices.

    Returns:
        Scene-linear colour, black where nothing is, and coverage (0 or 1).
    """
    return (shade_numba if uses_compiled(pixels) else shade_torch)(fragments, faces, pixels, depth, colour)


def edge_colours(
    points: EdgePoints, pixels: Float[Tensor, "b v 2"], depth: Float[Tensor, "b v"], colour: Float[Tensor, "b v 3"]
) -> Float[Tensor, "e 4"]:
    """Colours of the vertices, interpolated at points of edges; differentiable in the last three.

    Args:
        points: where.
        pixels, depth: projected vertices, in samples and metres.
        colour: scene-linear colours of the vertices.

    Returns:
        Scene-linear colour, and coverage, which is 1.
    """
    return (edge_colours_numba if uses_compiled(pixels) else edge_colours_torch)(points, pixels, depth, colour)


def resolve(
    samples: Float[Tensor, "b 4 h w"],
    blend: Blend | None,
    at_edges: Float[Tensor, "e 4"],
    background: Float[Tensor, " 3"],
    supersample: int,
) -> Float[Tensor, "b 4 h/s w/s"]:
    """From samples to the image; differentiable in samples, the blend's shares and `at_edges`.

    Args:
        samples: scene-linear colour, black where nothing is, and coverage.
        blend: what is mixed into samples at outlines.
        at_edges: colour and coverage at the blend's points.
        background: scene-linear colour behind.
        supersample: samples a pixel's side.

    Returns:
        Display-referred sRGB and coverage, both in [0, 1].
    """
    form = resolve_numba if uses_compiled(samples) else resolve_torch
    return form(samples, blend, at_edges, background, supersample)


def find_outlines(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    edges: MeshEdges,
    fragments: Fragments,
    focal: Float[Tensor, " b"],
    near: float = 1e-3,
) -> Visible:
    """Where outlines pass between the samples; no gradient.

    Args:
        pixels, depth: projected vertices, in samples and metres.
        edges: of the mesh.
        fragments: its visibility.
        focal: focal length in samples.
        near: as in `rasterize`.

    Returns:
        The fragments and those outlines.
    """
    if uses_compiled(pixels):
        return Visible(fragments, blend=find_blend_numba(pixels, depth, edges, fragments, focal, near))
    return Visible(fragments, *find_outlines_torch(pixels, depth, edges, fragments, focal, near))


def rasterize(
    pixels: Float[Tensor, "b v 2"],
    depth: Float[Tensor, "b v"],
    faces: Int[Tensor, "f 3"],
    size: tuple[int, int],
    near: float = 1e-3,
    backend: Backend = "auto",
) -> Fragments:
    """Which triangle covers each pixel, nearest first; no gradient.

    Args:
        pixels: projected vertices (x, y), pixel centres at half-integers.
        depth: camera Z of the vertices in metres.
        faces: triangles, shared by the batch.
        size: (width, height).
        near: nothing nearer than this (metres, more than 0) is seen; triangles that cross it are cut there.
        backend: "numba" (CPU), "torch" (any device), "auto": numba for CPU tensors, torch elsewhere; "pytorch3d": that
            package's rasteriser, where it is installed.

    Returns:
        Triangle, barycentrics and depth of every pixel.

    Raises:
        InputError: "pytorch3d" where that package is not there, or does not load.
        ValueError: an unknown backend, a near plane not in front, wrong shapes, triangles of vertices there are not,
            or numba asked for tensors that are not on the CPU.
    """
    batch, count = depth.shape if depth.dim() == 2 else (-1, -1)
    if pixels.shape != (batch, count, 2) or faces.dim() != 2 or faces.shape[1] != 3:
        found = ", ".join(str(tuple(part.shape)) for part in (pixels, depth, faces))
        raise ValueError(f"pixels, depth, faces: found shapes {found}; expected [B, V, 2], [B, V] and [F, 3]")
    if backend not in get_args(Backend):
        raise ValueError(f"backend: found {backend!r}; expected 'auto', 'numba' or 'torch' (ours), or 'pytorch3d'")
    if not near > 0:
        raise ValueError(f"near: found {near}; expected more than 0 metres")
    if backend == "pytorch3d":
        return rasterize_pytorch3d(pixels, depth, faces, size, near)
    compiled = uses_compiled(pixels)
    if backend == "numba" and not compiled:
        raise ValueError(f"backend 'numba' needs CPU tensors, found {pixels.device}; use 'torch'")
    if backend == "torch" or not compiled:
        return rasterize_torch(pixels, depth, faces, size, near)
    return rasterize_numba(pixels, depth, faces, size, near)
