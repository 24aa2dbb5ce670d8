"""The appearance of a solved shot: which frames to learn it from, the files to write, and how good it is.

The paper's precomputation (section 3) takes one near-neutral frame. Its shadows and highlights then stay in the
albedo; a few frames more with the head turned tell them apart, so frames whose heads are turned differently are added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.appearance.estimate import Appearance, estimate_appearance
from deepenergy.render import Renderer
from deepenergy.render.ambient_occlusion import ambient_occlusion
from deepenergy.render.compositing import over_plate
from deepenergy.render.materials import face_skin
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Rig
from deepenergy.scene.rotation import rotation_angle
from deepenergy.scene.state import State
from deepenergy.scene.track import Track
from deepenergy.scene.views import Views

Progress = Callable[[str, int, int], None]
VIEW_FRAMES = 5
# How many times the difference is brightened in the picture.
_GAIN = 4.0


@dataclass(frozen=True)
class ShotAppearance:
    """What was estimated, from which frames, and how well it renders the first of them, the anchor.

    Attributes:
        appearance: rig and light.
        frames: frame numbers, the anchor (the one nearest neutral) first.
        psnr: camera name -> dB of the render against the anchor's plate, on the face's visible skin.
        picture: `[3, H, W]` plate, render over the plate, and difference of the anchor in the first camera.
    """

    appearance: Appearance
    frames: tuple[int, ...]
    psnr: dict[str, float]
    picture: Tensor


def choose_frames(states: State, count: int) -> list[int]:
    """Rows to learn from: the one nearest neutral, then those whose heads are turned farthest from all chosen so far.

    Args:
        states: T finite states.
        count: at most this many.

    Raises:
        ValueError: no state, or a count below 1.
    """
    if len(states) == 0 or count < 1:
        raise ValueError(f"found {len(states)} states and a count of {count}; expected 1 or more of both")
    expression = states.weights.square().sum(1) + states.jaw[:, :3].square().sum(1)
    chosen = [int(expression.argmin())]
    apart = rotation_angle(states.rotation, states.rotation[chosen[0]].expand_as(states.rotation))
    while len(chosen) < min(count, len(states)) and float(apart.max()) > 0:
        chosen.append(int(apart.argmax()))
        more = rotation_angle(states.rotation, states.rotation[chosen[-1]].expand_as(states.rotation))
        apart = torch.minimum(apart, more)
    return chosen


def appearance_of_shot(
    views: Views,
    rig: Rig,
    track: Track,
    frames: int = VIEW_FRAMES,
    texture_size: int = 1024,
    progress: Progress | None = None,
) -> ShotAppearance:
    """Estimate albedo and light from a solved shot.

    Args:
        views: cameras and their plates.
        rig: the track's rig.
        track: gives the poses; frames with status "solved" are used, any usable ones where there is none.
        frames: how many frames to learn from, in every camera.
        texture_size: side of the texture, 0 for vertex albedo.
        progress: called with ("appearance", done, total).

    Raises:
        InputError: a track of another rig, without a usable frame, or of other frames than the plates.
    """
    track.check_rig(rig)
    wanted = track.solved if track.solved.any() else track.usable
    rows = np.flatnonzero(wanted & np.isin(track.frames, views.frames))
    if len(rows) == 0:
        raise InputError(
            "appearance track",
            f"{int(wanted.sum())} usable frames, none of them in the plates",
            "a frame with a pose and a plate",
            "solve the shot, or give the track that belongs to these plates with --track",
        )
    states = track.parameters()[torch.from_numpy(rows)]
    chosen = choose_frames(states, frames)
    renderer = Renderer(rig, ambient_occlusion(rig))
    seen: list[tuple[int, Camera, Tensor, Tensor]] = []
    for done, row in enumerate(chosen):
        number = int(track.frames[rows[row]])
        mesh = rig.vertices(states[[row]].to(rig.neutral))
        for index in range(len(views)):
            # A damaged frame is no reason to refuse the others.
            plate = views.image(index, number)
            if plate is not None:
                seen.append((number, views.camera(index, [number]), mesh, plate))
        if progress is not None:
            progress("appearance", done, len(chosen))
    if not seen:
        raise InputError("appearance plates", "no readable frame", "one frame at least", "export the plates again")
    cameras = [camera for _, camera, _, _ in seen]
    appearance = estimate_appearance(
        renderer, torch.cat([mesh for _, _, mesh, _ in seen]), cameras, [plate for *_, plate in seen], texture_size
    )
    if progress is not None:
        progress("appearance", len(chosen), len(chosen))
    lit = appearance.apply(renderer)
    anchor = [one for one in seen if one[0] == seen[0][0]]
    quality = {camera.name: skin_psnr(lit, mesh, camera, plate) for _, camera, mesh, plate in anchor}
    _, camera, mesh, plate = anchor[0]
    used = tuple(dict.fromkeys(number for number, *_ in seen))
    return ShotAppearance(appearance, used, quality, side_by_side(lit, mesh, camera, plate))


@torch.no_grad()
def skin_mask(renderer: Renderer, mesh: Float[Tensor, "1 v 3"], camera: Camera) -> Bool[Tensor, "h w"]:
    """Pixels that show nothing but the face's skin."""
    skin = face_skin(renderer.rig).to(mesh)
    render = renderer(mesh, camera)
    visible = render.fragments.face_index
    shown = torch.where(visible >= 0, skin[visible.clamp_min(0)], torch.zeros_like(skin[:1]))[:, None]
    per_side = shown.shape[-1] // camera.width
    whole = -torch.nn.functional.max_pool2d(-shown, per_side) if per_side > 1 else shown
    return (whole[0, 0] > 0.5) & (render.mask[0, 0] > 0.999)


@torch.no_grad()
def skin_psnr(renderer: Renderer, mesh: Float[Tensor, "1 v 3"], camera: Camera, plate: Float[Tensor, "3 h w"]) -> float:
    """Peak signal-to-noise ratio (dB, display-referred) of a render on the face's visible skin; NaN without any."""
    mask = skin_mask(renderer, mesh, camera)
    difference = (renderer(mesh, camera).image[0] - plate)[:, mask]
    return float(-10 * torch.log10(difference.square().mean()))


@torch.no_grad()
def side_by_side(
    renderer: Renderer, mesh: Float[Tensor, "1 v 3"], camera: Camera, plate: Float[Tensor, "3 h w"]
) -> Float[Tensor, "3 h 3w"]:
    """Plate, render over the plate, and the absolute difference brightened four times."""
    image = over_plate(renderer, renderer(mesh, camera), plate[None])[0]
    return torch.cat([plate, image, ((image - plate).abs() * _GAIN).clamp(0, 1)], 2)
