"""The actor's albedo and the shot's light from plates with known poses (paper, section 3: the precomputation).

Alternating weighted linear least squares (albedo_solve.py): light from the rig's own albedo first, then albedo, then
both again with weights from the residual. Scale and the slow shades that light and albedo could trade stay as the
rig's own albedo has them. What no plate shows is mirrored from the other side of the face, or carried on over the mesh
(inpaint.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from deepenergy.appearance.albedo_solve import PixelData, albedo_weights, light_weights, solve_albedo, solve_light
from deepenergy.appearance.albedo_unknowns import AlbedoUnknowns, texel_unknowns, vertex_unknowns
from deepenergy.appearance.inpaint import inpaint, mirror_values
from deepenergy.render.lighting import frontal_light, sh_basis_cosine
from deepenergy.render.materials import EYES, HAIR, MOUTH, SKIN, TEETH, face_skin, material_regions
from deepenergy.render.reference.interpolate import Surface
from deepenergy.render.renderer import Renderer
from deepenergy.scene.camera import Camera
from deepenergy.scene.colour import srgb_to_linear
from deepenergy.scene.rig import Rig

_LIGHT_ROUNDS = 4
_ROUNDS = 3
# Penalties on the change of the albedo, relative to the data (see `solve_albedo`). The lips' shadow on the teeth is no
# albedo, and a pose that is a little off paints lips on teeth: there the rig's own colours are trusted more.
_SMOOTH = 0.01
_RIDGE = {SKIN: 0.01, HAIR: 0.01, EYES: 0.02, TEETH: 10.0, MOUTH: 10.0}
# An unknown counts as seen from this weight, relative to the mean of those that any pixel touches.
_SEEN = 0.15
# The share that hair, neck and clothes have in the light.
_OFF_FACE = 0.1
_ALBEDO = (0.002, 1.0)
# A surface that turns away more than this (cosine) shows too little of itself, and its edge.
_GRAZING = (0.15, 0.4)
# Fewer usable pixels are no view of a face.
_FEWEST_PIXELS = 100


@dataclass(frozen=True)
class Appearance:
    """An estimated appearance.

    Attributes:
        rig: the rig with the albedo: vertex albedo, or a texture with UVs to go with it.
        light: `[9, 3]` SH coefficients, world axes.
        seen: share of the evidence, in [0, 1]: `[V]` with vertex albedo, `[H, W]` with a texture; 0 where the albedo
            was mirrored or carried on.
    """

    rig: Rig
    light: Tensor
    seen: Tensor

    def apply(self, renderer: Renderer) -> Renderer:
        """The renderer with this albedo and light."""
        return replace(renderer, rig=self.rig, light=self.light.to(self.rig.neutral))


@torch.no_grad()
def estimate_appearance(  # more than six: views, and how the estimate is made
    renderer: Renderer,
    vertices: Float[Tensor, "b v 3"],
    cameras: Sequence[Camera],
    plates: Float[Tensor, "b 3 h w"] | Sequence[Float[Tensor, "3 h w"]],
    texture_size: int = 1024,
    samples: int = 2,
    mirror: bool = True,
) -> Appearance:
    """Albedo and light that make renders look like plates.

    Args:
        renderer: whose rig (albedo as the prior) and occlusion are used.
        vertices: world space, metres, of every view. Poses that are a degree or some pixels off blur the albedo.
        cameras: one a view, of its plate's size (a crop's camera for a crop).
        plates: display-referred sRGB in [0, 1]; several frames and cameras may be mixed.
        texture_size: side of the texture; 0 for vertex albedo, which is also what a rig without UVs gets.
        samples: samples a pixel side.
        mirror: fill unseen parts from the other side of the face before carrying on over the mesh.

    Returns:
        The appearance; the rig's own albedo and the renderer's light where no view shows the face.

    Raises:
        ValueError: no view, or lists of different lengths.
    """
    if not len(vertices) == len(cameras) == len(plates) or len(plates) == 0:
        raise ValueError(
            f"found {len(vertices)} meshes, {len(cameras)} cameras, {len(plates)} plates; expected as many, 1 or more"
        )
    rig = renderer.rig
    unknowns = texel_unknowns(rig, texture_size) if texture_size and rig.uvs is not None else vertex_unknowns(rig)
    materials = material_regions(rig)
    views = zip(vertices.to(rig.neutral).split(1), cameras, plates, strict=True)
    light_weight = _light_weight(rig)
    data = _joined([_view(renderer, materials, light_weight, unknowns, *view, samples) for view in views])
    prior = np.clip(unknowns.prior.cpu().numpy(), *_ALBEDO)
    if len(data.colour) < _FEWEST_PIXELS:
        light = frontal_light() if renderer.light is None else renderer.light
        return Appearance(unknowns.finish(torch.from_numpy(prior)), light, unknowns.shape(torch.zeros(len(prior))))
    light = solve_light(data, prior, data.trust)
    for _ in range(_LIGHT_ROUNDS):
        light = solve_light(data, prior, light_weights(data, prior, light))
    albedo, weights = prior, data.trust
    material = unknowns.of_faces(materials)
    edges, ridge = unknowns.edges.cpu().numpy(), _ridge(rig, material)
    for i in range(_ROUNDS):
        if i > 0:
            light = solve_light(data, albedo, light_weights(data, albedo, light))
            weights = albedo_weights(data, albedo, light)
        albedo = solve_albedo(data, albedo, prior, light, weights, edges, _SMOOTH, ridge).clip(*_ALBEDO)
    evidence = data.blend.T @ weights
    evidence = (evidence / evidence[evidence > 0].mean()).clip(0, 1)
    evidence[evidence < _SEEN] = 0
    seen = torch.from_numpy(evidence).to(rig.neutral)
    filled = _fill(rig, unknowns, torch.from_numpy(albedo).to(rig.neutral), seen > 0, material if mirror else None)
    return Appearance(unknowns.finish(filled), torch.from_numpy(light).to(rig.neutral), unknowns.shape(seen))


def _view(  # more than six: one view and what is known of it
    renderer: Renderer,
    materials: Int[Tensor, " f"],
    light_weight: Float[Tensor, " f"],
    unknowns: AlbedoUnknowns,
    mesh: Float[Tensor, "1 v 3"],
    camera: Camera,
    plate: Float[Tensor, "3 h w"],
    per_side: int,
) -> PixelData:
    height, width = plate.shape[-2:]
    surface, normals, _ = renderer.surface(mesh, camera.resize(width * per_side, height * per_side))
    trust = _trust(surface, normals, materials, mesh, camera, (height, width), per_side)
    # Blown pixels say nothing about the albedo.
    usable = (trust > 1e-2) & (plate.to(trust).amax(0) < 0.995).reshape(-1)
    row, column = surface.where // (width * per_side), surface.where % (width * per_side)
    pixel = (row // per_side) * width + column // per_side
    keep = usable[pixel]
    number = (torch.cumsum(usable, 0) - 1)[pixel[keep]]
    texel, weight = unknowns.taps(surface)
    occlusion = renderer.occlusion
    lit = torch.ones_like(normals[:, :1]) if occlusion is None else surface.interpolate(occlusion[:, None].to(normals))
    tell = light_weight[surface.face][:, None].to(normals)
    means = torch.zeros(int(usable.sum()), 11).to(normals)
    means.index_add_(0, number, torch.cat([sh_basis_cosine(normals), lit, tell], 1)[keep] / per_side**2)
    taps = texel.shape[1]
    entries = (weight[keep] / per_side**2).reshape(-1).cpu().numpy().astype(np.float32)
    where = (number.repeat_interleave(taps).cpu().numpy(), texel[keep].reshape(-1).cpu().numpy())
    return PixelData(
        colour=srgb_to_linear(plate.to(normals)).reshape(3, -1).T[usable].cpu().numpy(),
        trust=trust[usable].cpu().numpy(),
        skin=means[:, 10].clamp(0, 1).cpu().numpy(),
        blend=csr_matrix((entries, where), (len(means), len(unknowns.prior))),
        basis=means[:, :9].cpu().numpy(),
        occlusion=means[:, 9:10].cpu().numpy(),
    )


def _joined(views: list[PixelData]) -> PixelData:
    return PixelData(
        colour=np.concatenate([v.colour for v in views]),
        trust=np.concatenate([v.trust for v in views]),
        skin=np.concatenate([v.skin for v in views]),
        blend=csr_matrix(vstack([v.blend for v in views])),
        basis=np.concatenate([v.basis for v in views]),
        occlusion=np.concatenate([v.occlusion for v in views]),
    )


def _light_weight(rig: Rig) -> Float[Tensor, " f"]:
    """How much each triangle tells about the light: all where no landmarks say where the face is."""
    if rig.landmark_faces is None:
        return torch.ones(len(rig.faces)).to(rig.neutral)
    return torch.where(face_skin(rig), 1.0, _OFF_FACE).to(rig.neutral)


def _trust(  # more than six: one view and what is known of it
    surface: Surface,
    normals: Float[Tensor, "n 3"],
    materials: Int[Tensor, " f"],
    mesh: Float[Tensor, "1 v 3"],
    camera: Camera,
    size: tuple[int, int],
    per_side: int,
) -> Float[Tensor, " p"]:
    """How far each pixel is trusted: full where the surface faces the camera, none where it or its material ends."""
    height, width = size
    matrix = camera.world_to_camera.to(normals)
    eye = -matrix[:3, :3].T @ matrix[:3, 3]
    towards = torch.nn.functional.normalize(eye - surface.interpolate(mesh[0]), dim=1)
    facing = ((normals * towards).sum(1) - _GRAZING[0]) / (_GRAZING[1] - _GRAZING[0])
    material = materials[surface.face].to(normals)
    fine = torch.zeros(3, height * per_side * width * per_side).to(normals)
    fine[:, surface.where] = torch.stack([facing.clamp(1e-3, 1), 1 + material, -material])
    # The least trusted sample decides, and those of the pixels about: nothing of the background, nothing past an edge.
    lowest = -torch.nn.functional.max_pool2d(-fine.view(3, height * per_side, width * per_side), per_side)
    lowest = -torch.nn.functional.max_pool2d(torch.nn.functional.pad(-lowest, [1] * 4), 3, 1)
    trust, least, most = lowest.flatten(1)
    return torch.where(least - 1 == -most, trust, torch.zeros_like(trust))


def _ridge(rig: Rig, material: Int[Tensor, " u"]) -> Float[np.ndarray, " u"]:
    """How firmly each unknown is held at the rig's own albedo, where it has one."""
    if rig.vertex_albedo is None and rig.texture is None:
        return np.full(len(material), _RIDGE[SKIN], np.float32)
    by_material = np.array([_RIDGE[label] for label in range(len(_RIDGE))], np.float32)
    return by_material[material.cpu().numpy()]


def _fill(rig: Rig, unknowns: AlbedoUnknowns, albedo: Tensor, known: Tensor, material: Tensor | None) -> Tensor:
    """The albedo with what was not seen replaced: mirrored (`material` tells what goes with what, None: not mirrored),
    else the prior times a gain carried on over the mesh."""
    prior = unknowns.prior.clamp(*_ALBEDO)
    if material is not None:
        on = unknowns.surface
        points, normals = unknowns.places()
        values, filled = mirror_values(rig, points, normals, albedo[on], known[on], material[on])
        albedo, known = albedo.index_copy(0, on, values), known.index_copy(0, on, known[on] | filled)
    gain, has_gain = unknowns.at_vertices((albedo / prior).log(), known)
    carried = prior * unknowns.from_vertices(inpaint(rig, gain, has_gain)).exp()
    return torch.where(known[:, None], albedo, carried).clamp(*_ALBEDO)
