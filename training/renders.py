"""Training renders: random people, expressions, poses, light and lenses, with exact landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deepenergy import Rig
from deepenergy.render.compiled.rasterize import rasterize_numba
from deepenergy.scene.rotation import euler_to_matrix, so3_exp
from training.backgrounds import random_background
from training.face_texture import face_texture, skin_tone
from training.shade import MATERIAL_EYE, MATERIAL_TEXTURE, MATERIAL_VERTEX, shade

CANVAS = 352
# The canvas spans this many sides of the landmarks' tight box, so that every augmented crop finds pixels.
CANVAS_SCALE = 2.0

Array = NDArray[np.float32]

_SH = np.array([0.282095] + [0.488603 * 2 / 3] * 3 + [1.092548 / 4] * 2 + [0.315392 / 4, 1.092548 / 4, 0.546274 / 4])


@dataclass(frozen=True)
class Sample:
    """One training picture.

    Attributes:
        image: [CANVAS, CANVAS, 3] uint8 sRGB.
        landmarks: [68, 2] canvas pixels, pixel centres at half-integers.
    """

    image: NDArray[np.uint8]
    landmarks: Array


class Actor:
    """A rig prepared for fast random renders."""

    def __init__(self, rig: Rig, textured_regions: tuple[str, ...] = ()) -> None:
        self.rig = rig
        self.neutral = rig.neutral.numpy().astype(np.float32)
        self.faces = rig.faces.numpy()
        self.shapes = rig.blendshapes.numpy().reshape(len(rig.weight_names), -1)
        self.basis = (
            None if rig.identity_basis is None else rig.identity_basis.numpy().reshape(len(rig.identity_names), -1)
        )
        regions = rig.face_regions.numpy() if rig.face_regions is not None else np.zeros(len(self.faces), np.int64)
        names = rig.region_names
        self.material = np.full(len(self.faces), MATERIAL_VERTEX)
        for region, name in enumerate(names):
            if name in textured_regions:
                self.material[regions == region] = MATERIAL_TEXTURE
            if name == "eyes":
                self.material[regions == region] = MATERIAL_EYE
        self.region_vertices = {name: np.unique(self.faces[regions == region]) for region, name in enumerate(names)}
        self.eyes = self._eyeballs()
        lf, lb = rig.require_landmarks()
        self.landmark_corners = self.faces[lf.numpy()]
        self.landmark_bary = lb.numpy().astype(np.float32)
        self.textured = bool(textured_regions)
        if rig.uvs is not None and rig.uv_faces is not None:
            self.uvs, self.uv_faces = rig.uvs.numpy().astype(np.float32), rig.uv_faces.numpy()
        else:
            self.uvs, self.uv_faces = np.zeros((1, 2), np.float32), np.zeros_like(self.faces)
        self.landmark_uv = (self.uvs[self.uv_faces[lf.numpy()]] * self.landmark_bary[..., None]).sum(1)
        albedo = rig.vertex_albedo
        self.albedo = None if albedo is None else albedo.numpy().astype(np.float32)
        self._painted: list[tuple[Array, Array, Array]] = []

    def texture(self, rng: np.random.Generator, tone: Array, hair: Array) -> tuple[Array, Array, Array]:
        """A painted skin with its tone and hair colour; most calls take one painted before, for painting is slow."""
        if len(self._painted) < 4 or rng.uniform() < 0.15:
            self._painted.append((face_texture(rng, self.landmark_uv, tone, hair), tone, hair))
            if len(self._painted) > 200:
                del self._painted[rng.integers(len(self._painted))]
        return self._painted[rng.integers(len(self._painted))]

    def _eyeballs(self) -> list[tuple[NDArray[np.int64], Array]]:
        found = []
        vertices = self.region_vertices.get("eyes", np.zeros(0, np.int64))
        for side in (-1, 1):
            mine = vertices[self.neutral[vertices, 0] * side > 0]
            if len(mine):
                points = self.neutral[mine]
                # Least-squares sphere: |p|^2 = 2 p.c + d.
                a = np.concatenate([2 * points, np.ones((len(points), 1), np.float32)], 1)
                centre = np.linalg.lstsq(a, (points**2).sum(1), rcond=None)[0][:3]
                found.append((mine, centre.astype(np.float32)))
        return found

    def normals(self, vertices: Array) -> Array:
        a, b, c = (vertices[self.faces[:, i]] for i in range(3))
        face = np.cross(b - a, c - a)
        total = np.zeros_like(vertices)
        for axis in range(3):
            for corner in range(3):
                total[:, axis] += np.bincount(self.faces[:, corner], face[:, axis], len(vertices))
        return (total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-12)).astype(np.float32)


def random_weights(rng: np.random.Generator, names: tuple[str, ...]) -> Array:
    """A random expression: a few shapes, most of them on both sides alike, the jaw and blinks often."""
    weights = np.zeros(len(names), np.float32)
    stems: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        stem = name.removesuffix("_L").removesuffix("_R").removesuffix("Left").removesuffix("Right")
        stems.setdefault(stem if stem not in ("jaw", "mouth") else name, []).append(i)
    keys = list(stems)
    for key in rng.choice(len(keys), min(len(keys), rng.integers(0, 8)), replace=False):
        value = rng.beta(1.0, 1.4)
        for i in stems[keys[key]]:
            weights[i] = value if rng.uniform() < 0.6 else rng.beta(1.0, 1.4) * (rng.uniform() < 0.7)
    lower = [n.lower() for n in names]
    opening = rng.beta(1, 1.5) if rng.uniform() < 0.55 else 0.0
    lids = rng.beta(0.6, 0.6) if rng.uniform() < 0.3 else 0.0
    for i, name in enumerate(lower):
        if name == "jawopen":
            weights[i] = opening
        if name == "mouthclose":
            weights[i] = opening * rng.uniform(0, 1) if rng.uniform() < 0.15 else 0.0
        if name.startswith("eyeblink"):
            weights[i] = np.clip(lids + rng.normal(0, 0.03), 0, 1) if lids else 0.0
        if "pupil" in name or "tongue" in name:
            weights[i] = 0
    return weights


def random_euler(rng: np.random.Generator) -> Array:
    """Pitch, yaw, roll in radians: mostly near frontal, some to profile."""
    yaw = rng.normal(0, 28) if rng.uniform() < 0.7 else rng.uniform(-85, 85)
    return np.radians([rng.normal(0, 13), np.clip(yaw, -88, 88), rng.normal(0, 9)]).astype(np.float32)


def render_sample(
    rng: np.random.Generator, actor: Actor, weights: Array | None = None, euler: Array | None = None, samples: int = 2
) -> Sample:
    """One random picture of an actor (an actor with an identity basis is another person every time)."""
    rig = actor.rig
    weights = random_weights(rng, rig.weight_names) if weights is None else weights
    local = actor.neutral.reshape(-1) + weights @ actor.shapes
    if actor.basis is not None:
        local = local + (rng.normal(0, 0.8, len(actor.basis)).astype(np.float32)) @ actor.basis
    local = local.reshape(-1, 3)
    if rig.jaw is not None:
        local = _with_jaw(rng, rig, local)
    polar = _look(rng, actor, local)
    euler = random_euler(rng) if euler is None else euler
    rotation = euler_to_matrix(torch.from_numpy(euler)).numpy()
    distance = np.exp(rng.uniform(np.log(0.4), np.log(4.0)))
    centre = local[actor.landmark_corners.reshape(-1)].mean(0)
    world = ((local - centre) @ rotation.T + np.array([rng.normal(0, 0.04), rng.normal(0, 0.04), 0])).astype(np.float32)
    # OpenCV axes: the camera looks along -Z of the world from +Z.
    in_camera = world * np.array([1, -1, -1], np.float32) + np.array([0, 0, distance], np.float32)
    flat = in_camera[:, :2] / np.maximum(in_camera[:, 2:], 0.05)
    marks = (flat[actor.landmark_corners] * actor.landmark_bary[..., None]).sum(1)
    low, high = marks.min(0), marks.max(0)
    scale = CANVAS / (CANVAS_SCALE * (high - low).max())
    offset = CANVAS / 2 - scale * (low + high) / 2
    size = CANVAS * samples
    pixels = torch.from_numpy(((flat * scale + offset) * samples)[None])
    fragments = rasterize_numba(pixels, torch.from_numpy(in_camera[None, :, 2].copy()), rig.faces, (size, size), 0.06)
    linear = _shade(rng, actor, world, polar, fragments, distance)
    mask = (fragments.face_index[0].numpy() >= 0).astype(np.float32)[..., None]
    both = cv2.resize(np.concatenate([linear * mask, mask], 2), (CANVAS, CANVAS), interpolation=cv2.INTER_AREA)
    exposure = rng.uniform(0.75, 1.25)
    picture = both[..., :3] * exposure
    back = random_background(rng, CANVAS)
    picture = np.where(picture <= 0.0031308, 12.92 * picture, 1.055 * np.maximum(picture, 1e-6) ** (1 / 2.4) - 0.055)
    cover = both[..., 3:]
    image = picture * np.minimum(1, cover + 1e-6) + back * (1 - cover)
    return Sample((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), (marks * scale + offset).astype(np.float32))


def _with_jaw(rng: np.random.Generator, rig: Rig, local: Array) -> Array:
    assert rig.jaw is not None
    jaw = torch.zeros(1, 6)
    if rng.uniform() < 0.6:
        jaw[0, 0] = float(rng.beta(1, 1.5)) * float(rig.jaw.upper[0])
    for axis in range(1, 6):
        jaw[0, axis] = float(rng.normal(0, 0.25)) * float(rig.jaw.upper[axis])
    pivot, skin = rig.jaw.pivot.numpy(), rig.jaw.skin_weights.numpy()[:, None]
    turned = (local - pivot) @ so3_exp(jaw[:, :3])[0].numpy().T + pivot + jaw[0, 3:].numpy()
    return (local + skin * (turned - local)).astype(np.float32)


def _look(rng: np.random.Generator, actor: Actor, local: Array) -> Array:
    """Per vertex the angle from a random gaze (radians); pi away from the eyes."""
    polar = np.full(len(local), np.pi, np.float32)
    pitch, yaw = np.radians(rng.normal(0, 9)), np.radians(rng.normal(0, 13))
    gaze = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], np.float32)
    for vertices, _ in actor.eyes:
        points = local[vertices]
        a = np.concatenate([2 * points, np.ones((len(points), 1), np.float32)], 1)
        centre = np.linalg.lstsq(a, (points**2).sum(1), rcond=None)[0][:3]
        out = points - centre
        out /= np.linalg.norm(out, axis=1, keepdims=True)
        polar[vertices] = np.arccos(np.clip(out @ gaze, -1, 1))
    return polar


def _shade(
    rng: np.random.Generator,
    actor: Actor,
    world: Array,
    polar: Array,
    fragments,
    distance: float,
) -> Array:
    hair = np.exp(rng.uniform(np.log(0.008), np.log(0.25))) * np.array(
        [1.0, rng.uniform(0.6, 0.9), rng.uniform(0.35, 0.8)]
    )
    hair = hair.astype(np.float32)
    tone = skin_tone(rng)
    if actor.textured:
        texture, tone, hair = actor.texture(rng, tone, hair)
        colours = _region_colours(rng, actor, tone, hair)
    else:
        assert actor.albedo is not None
        colours = actor.albedo * (1 + rng.normal(0, 0.03, (len(actor.albedo), 1))).astype(np.float32)
        texture = np.zeros((2, 2, 3), np.float32)
    iris_tone = np.array([[0.10, 0.05, 0.02], [0.03, 0.015, 0.008], [0.10, 0.17, 0.25], [0.10, 0.14, 0.07]], np.float32)
    iris = np.stack(
        [
            iris_tone[rng.integers(4)] * rng.uniform(0.6, 1.6),
            np.full(3, 0.004),
            [rng.uniform(0.42, 0.52), rng.uniform(0.12, 0.26), 0.06],
        ]
    ).astype(np.float32)
    light = np.zeros((9, 3), np.float32)
    light[0] = rng.uniform(0.5, 1.5) * rng.uniform(0.85, 1.15, 3)
    for degree, rows in ((1, slice(1, 4)), (2, slice(4, 9))):
        spread = rng.uniform(0, 0.55 if degree == 1 else 0.35)
        light[rows] = (
            light[0]
            * spread
            * (
                rng.standard_normal((rows.stop - rows.start, 1))
                + 0.15 * rng.standard_normal((rows.stop - rows.start, 3))
            )
        )
    light[2] += light[0] * rng.uniform(0, 0.5)
    light = (light * _SH[:, None] / _SH[0]).astype(np.float32)
    direction = rng.standard_normal(3) + [0, 0.5, 1.2]
    key = np.stack([direction / np.linalg.norm(direction), rng.uniform(0, 1.0) * rng.uniform(0.85, 1.15, 3)]).astype(
        np.float32
    )
    gloss = np.array(
        [rng.uniform(0, 0.12), rng.uniform(6, 40), rng.uniform(0.1, 1.2), rng.uniform(60, 300)], np.float32
    )
    index = fragments.face_index[0].numpy()
    out = np.zeros((*index.shape, 3), np.float32)
    shade(
        index, fragments.barycentrics[0].numpy(), actor.faces, world, actor.normals(world), colours, actor.uvs,
        actor.uv_faces, texture, actor.material, polar, iris, light, key,
        np.array([0, 0, distance], np.float32), gloss, out,
    )  # fmt: skip
    return out


def _region_colours(rng: np.random.Generator, actor: Actor, tone: Array, hair: Array) -> Array:
    colours = np.broadcast_to(tone, actor.neutral.shape).copy()
    sets = actor.region_vertices
    mouth = np.array([0.28, 0.08, 0.07], np.float32) * rng.uniform(0.25, 1.0)
    for name, colour in (
        ("mouth", mouth),
        ("teeth", np.array([0.65, 0.60, 0.50], np.float32) * rng.uniform(0.45, 1.1)),
        ("eyes", np.array([0.72, 0.68, 0.64], np.float32) * rng.uniform(0.55, 1.1)),
        ("eye_socket", tone * 0.3),
    ):
        colours[sets.get(name, [])] = colour
    # It gets darker towards the throat.
    inside = np.concatenate([sets.get("mouth", np.zeros(0, np.int64)), sets.get("teeth", np.zeros(0, np.int64))])
    depth = np.clip((actor.neutral[inside, 2] - 0.045) / 0.05, 0.05, 1) ** rng.uniform(1.0, 2.5)
    colours[inside] *= depth[:, None]
    if rng.uniform() < 0.85:
        # Hair as paint on the cranium, above a wandering hairline.
        p = actor.neutral
        head = sets.get("head", np.zeros(0, np.int64))
        line = 0.075 + 0.02 * rng.standard_normal() + 0.25 * np.clip(0.03 - p[head, 2], -0.2, 0) * rng.uniform(0.5, 1)
        side = p[head, 2] < rng.uniform(-0.02, 0.03)
        low = p[head, 1] > rng.uniform(-0.15, 0.02)
        covered = head[(p[head, 1] > line) | (side & low & (np.abs(p[head, 0]) > 0.03))]
        colours[covered] = hair * rng.uniform(0.7, 1.3, (len(covered), 1))
    return colours.astype(np.float32)
