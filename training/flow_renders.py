"""Pairs of a moving, talking head over a moving backdrop, with exact flow from the rig's motion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deepenergy import Rig
from deepenergy.render.fragments import Fragments
from deepenergy.render.operations import rasterize
from deepenergy.scene.rotation import euler_to_matrix, so3_exp
from training.face_texture import skin_tone
from training.flow_layers import (
    PIXELS,
    Layer,
    Photographs,
    backdrop,
    cutout,
    layer_truth,
    motion_size,
    random_motion,
    sub_frame_times,
    to_srgb8,
)
from training.flow_pairs import HEAD, SIZE, VISIBLE, FlowPair
from training.renders import Actor, _look, _shade, random_euler, random_weights

Array = NDArray[np.float32]
# How far apart in depth two surfaces may be and still count as one when a pixel is looked for in the other picture.
SAME_SURFACE = 0.004
_FLIP = np.array([1, -1, -1], np.float32)


class FlowActor(Actor):
    """An actor that keeps its skin while the sub-frames of a pair are rendered."""

    held: tuple[Array, Array, Array] | None = None

    def dress(self, rng: np.random.Generator) -> None:
        """Choose the skin for the next pair."""
        if self.textured:
            hair = np.exp(rng.uniform(np.log(0.008), np.log(0.25))) * np.array([1.0, 0.75, 0.6], np.float32)
            self.held = super().texture(rng, skin_tone(rng), hair.astype(np.float32))

    def texture(self, rng: np.random.Generator, tone: Array, hair: Array) -> tuple[Array, Array, Array]:
        """The skin that was chosen; draws nothing, so that every sub-frame draws the same light and eyes."""
        assert self.held is not None
        return self.held


@dataclass(frozen=True)
class Take:
    """A head's performance: everything at time 0, and what it changes by to time 1.

    Attributes:
        identity: [V, 3] displacement of the neutral.
        weights, jaw, shift: blendshape weights, jaw joint (6), translation (metres); each [2, ...], value and change.
        turn: [3] axis-angle change of the head's orientation `base` [3, 3].
        centre: [3] what the head turns about.
        distance, scale, offset: the camera: metres to the head, pixels per unit of x / z, pixel of the axis.
    """

    identity: Array
    weights: Array
    jaw: Array
    turn: Array
    shift: Array
    base: Array
    centre: Array
    distance: float
    scale: float
    offset: Array

    def world(self, actor: Actor, time: float) -> Array:
        """[V, 3] world vertices at a time."""
        local = actor.neutral + self.identity
        local = local + ((self.weights[0] + time * self.weights[1]) @ actor.shapes).reshape(-1, 3)
        if actor.rig.jaw is not None:
            jaw = actor.rig.jaw
            pose = torch.from_numpy(self.jaw[0] + time * self.jaw[1])[None]
            pivot, skin = jaw.pivot.numpy(), jaw.skin_weights.numpy()[:, None]
            turned = (local - pivot) @ so3_exp(pose[:, :3])[0].numpy().T + pivot + pose[0, 3:].numpy()
            local = local + skin * (turned - local)
        turn = so3_exp(torch.from_numpy(time * self.turn)[None])[0].numpy() @ self.base
        return ((local - self.centre) @ turn.T + self.shift[0] + time * self.shift[1]).astype(np.float32)

    def projected(self, world: Array) -> tuple[Array, Array]:
        """Pixels [V, 2] and depth [V] of world points."""
        in_camera = world * _FLIP + np.array([0, 0, self.distance], np.float32)
        return (in_camera[:, :2] / in_camera[:, 2:] * self.scale + self.offset).astype(np.float32), in_camera[:, 2]


def random_take(rng: np.random.Generator, actor: Actor, motion: float | None = None) -> Take:
    """A random person, pose, lens and motion; heads from a third of the picture to all of it.

    Args:
        motion: the landmarks' mean motion without the expression's, pixels; None: any.
    """
    rig = actor.rig
    names = rig.weight_names
    identity = np.zeros_like(actor.neutral)
    if actor.basis is not None:
        identity = ((rng.normal(0, 0.8, len(actor.basis)).astype(np.float32)) @ actor.basis).reshape(-1, 3)
    before, after = random_weights(rng, names), random_weights(rng, names)
    pace = rng.uniform(0, 0.5) ** 1.5 if rng.uniform() < 0.8 else 0.0
    jaw = np.zeros((2, 6), np.float32)
    if rig.jaw is not None:
        upper = rig.jaw.upper.numpy()
        for k in (0, 1):
            jaw[k, 0] = rng.beta(1, 1.5) * upper[0] * (rng.uniform() < 0.6)
            jaw[k, 1:] = rng.normal(0, 0.25, 5) * upper[1:]
        jaw[1] = pace * (jaw[1] - jaw[0])
    base = euler_to_matrix(torch.from_numpy(random_euler(rng) * rng.uniform(0.4, 1.0))).numpy().astype(np.float32)
    distance = float(np.exp(rng.uniform(np.log(0.45), np.log(4.0))))
    centre = (actor.neutral + identity)[actor.landmark_corners.reshape(-1)].mean(0)
    face = float(np.exp(rng.uniform(np.log(75), np.log(215))))
    scale = face / 0.16 * distance
    offset = (SIZE / 2 + rng.normal(0, 0.11, 2) * SIZE).astype(np.float32)
    turn = rng.normal(0, 0.03, 3).astype(np.float32)
    shift = np.zeros((2, 3), np.float32)
    shift[1] = rng.normal(0, 0.16, 3) / face * rng.uniform(0.5, 8, 3) * np.array([1, 1, 1.5])
    weights = np.stack([before, pace * (after - before)]).astype(np.float32)
    take = Take(identity, weights, jaw, turn, shift, base, centre, distance, scale, offset)
    # Make the landmarks' mean motion what was drawn for it.
    rigid = replace(take, weights=weights * [[1], [0]], jaw=jaw * [[1], [0]])
    marks = np.unique(actor.landmark_corners)
    ends = [rigid.projected(rigid.world(actor, t)[marks])[0] for t in (0.0, 1.0)]
    size = motion if motion is not None else motion_size(rng) if rng.uniform() < 0.92 else 0.0
    factor = np.float32(size / (np.linalg.norm(ends[1] - ends[0], axis=1).mean() + 1e-6))
    return replace(take, turn=turn * factor, shift=shift * [[1], [factor]])


def head_pair(
    rng: np.random.Generator,
    actor: FlowActor,
    photographs: Photographs,
    motion: float | None = None,
    shutter: float | None = None,
) -> FlowPair:
    """A pair of pictures of a random take, both flows exact.

    Args:
        rng, actor, photographs: chance, who, and in front of what.
        motion: see `random_take`.
        shutter: how long it is open, as a share of the time between pictures; None: any, often not at all.
    """
    take = random_take(rng, actor, motion)
    back = backdrop(rng, photographs)
    if rng.uniform() < 0.25:
        back = Layer(back.texture, random_motion(rng, 0.0), None, back.fraction)
    front = cutout(rng, photographs) if rng.uniform() < 0.15 else None
    if shutter is None:
        shutter = rng.uniform(0.2, 0.6) if rng.uniform() < 0.6 else 0.0
    times = sub_frame_times(shutter)
    actor.dress(rng)
    polar = _look(rng, actor, take.world(actor, 0.0))
    seed, exposure = int(rng.integers(2**31)), rng.uniform(0.75, 1.25)
    times = np.repeat(times, 4) if len(times) == 1 else times
    # The sub-frames lie at other places within a pixel, which also smooths the outline.
    jitter = (np.stack([(np.arange(len(times)) * 0.618) % 1, (np.arange(len(times)) * 0.414 + 0.2) % 1], 1) - 0.5) * 0.9
    images = []
    for centre in (0.0, 1.0):
        total = np.zeros((SIZE, SIZE, 3), np.float32)
        for time, step in zip(times + centre, jitter, strict=True):
            world = take.world(actor, time)
            fragments = _fragments(take, actor, world, step)
            shaded = _shade(np.random.default_rng(seed), actor, world, polar, fragments, take.distance)
            cover = (fragments.face_index[0].numpy() >= 0)[..., None]
            image = np.where(cover, shaded * exposure, back.picture(time)[..., :3])
            if front is not None:
                sheet = front.picture(time)
                image = image * (1 - sheet[..., 3:]) + sheet[..., :3]
            total += image / len(times)
        images.append(to_srgb8(total))
    layers = [back] if front is None else [back, front]
    flows, visible, tops = layer_truth(layers)
    heads, flags = _head_truth(take, actor), np.zeros((2, SIZE, SIZE), np.uint8)
    for k in (0, 1):
        flow, head, head_seen = heads[k]
        mine = head & (tops[k] == 0)
        flows[k][mine] = flow[mine]
        there = PIXELS + flows[k]
        x, y = (np.clip(np.floor(there[..., i]), 0, SIZE - 1).astype(int) for i in (0, 1))
        covered = tops[1 - k][y, x] > 0
        seen_head = head_seen & ~covered
        seen_back = visible[k] & ~(heads[1 - k][1][y, x] & (tops[k] == 0))
        visible[k] = np.where(mine, seen_head, seen_back)
        flags[k] = np.where(visible[k], VISIBLE, 0) | np.where(mine, HEAD, 0)
    return FlowPair(np.stack(images), flows.transpose(0, 3, 1, 2).astype(np.float32), flags)


def _fragments(take: Take, actor: Actor, world: Array, step: NDArray[np.float64]) -> Fragments:
    pixels, depth = take.projected(world)
    pixels = torch.from_numpy((pixels + step).astype(np.float32))[None]
    return rasterize(pixels, torch.from_numpy(depth)[None].contiguous(), actor.rig.faces, (SIZE, SIZE), 0.06)


def _head_truth(take: Take, actor: Actor) -> list[tuple[Array, Array, Array]]:
    """Of both pictures: (flow [SIZE, SIZE, 2], where the head is, where its place is seen in the other picture)."""
    worlds = [take.world(actor, t) for t in (0.0, 1.0)]
    seen = [_fragments(take, actor, w, np.zeros(2)) for w in worlds]
    found = []
    for k in (0, 1):
        index, bary = seen[k].face_index[0].numpy(), seen[k].barycentrics[0].numpy()
        head = index >= 0
        corners = worlds[1 - k][actor.faces[np.maximum(index, 0)]]
        places = (corners * bary[..., None]).sum(-2)
        landed, depth = take.projected(places.reshape(-1, 3))
        landed, depth = landed.reshape(SIZE, SIZE, 2), depth.reshape(SIZE, SIZE)
        other = seen[1 - k].depth[0].numpy()
        # One of the four pixels about the place must show this surface.
        low = np.floor(landed - 0.5).astype(int)
        same = np.zeros((SIZE, SIZE), bool)
        for dy in (0, 1):
            for dx in (0, 1):
                x, y = np.clip(low[..., 0] + dx, 0, SIZE - 1), np.clip(low[..., 1] + dy, 0, SIZE - 1)
                same |= np.abs(other[y, x] - depth) < SAME_SURFACE
        inside = ((landed > 0) & (landed < SIZE)).all(-1)
        flow = np.where(head[..., None], landed - PIXELS, 0).astype(np.float32)
        found.append((flow, head, head & same & inside))
    return found


def ict_actor(folder: str) -> FlowActor:
    """ICT-FaceKit: another person in every take."""
    return FlowActor(Rig.load(folder), ("skin",))


def mean_motion(pair: FlowPair) -> float:
    """Mean length of the head's flow in the first picture, pixels."""
    head = (pair.flags[0] & HEAD) > 0
    return float(np.linalg.norm(pair.flows[0][:, head], axis=0).mean()) if head.any() else 0.0


def contact_sheet(pairs: list[FlowPair]) -> NDArray[np.uint8]:
    """First pictures, second ones, second ones flowed back, and what is visible, one row a pair; to be looked at."""
    rows = []
    for pair in pairs:
        at = PIXELS + pair.flows[0].transpose(1, 2, 0) - 0.5
        warped = cv2.remap(pair.images[1], at[..., 0], at[..., 1], cv2.INTER_LINEAR)
        seen = np.repeat((((pair.flags[0] & VISIBLE) > 0) * 255).astype(np.uint8)[..., None], 3, 2)
        rows.append(np.hstack([pair.images[0], pair.images[1], warped, seen]))
    return np.vstack(rows)
