"""Flat textured layers that move over each other: cheap pairs with exact flow, and the backgrounds of moving heads.

A layer's content is fixed in the first picture's pixels ("home"); at time t (0 the first picture, 1 the second) it is
moved by an affine map that grows linearly with t, plus t times a smooth displacement that is given as a function of the
moved place, so that the way home is exact and the way out is a fixed point.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.backgrounds import random_background
from training.face_texture import octave_noise
from training.flow_pairs import SIZE, VISIBLE, FlowPair

Array = NDArray[np.float32]
MARGIN = 72
CANVAS = SIZE + 2 * MARGIN
SUB_FRAMES = 5


@dataclass(frozen=True)
class Layer:
    """One textured sheet.

    Attributes:
        texture: [CANVAS, CANVAS, 4] scene-linear colour and cover, `MARGIN` pixels more than the picture on each side.
        motion: [2, 3] the affine displacement from time 0 to 1: x moves by motion @ (x, y, 1).
        bend: [SIZE, SIZE, 2] further displacement towards home at time 1, or None.
        fraction: [2] where in a pixel the texture sits, so that no picture is sampled without interpolation.
    """

    texture: Array
    motion: Array
    bend: Array | None
    fraction: Array

    def home(self, points: Array, time: float) -> Array:
        """Home positions [..., 2] of what is at `points` at a time."""
        linear = np.eye(2, dtype=np.float32) + time * self.motion[:, :2]
        back = (points - time * self.motion[:, 2]) @ np.linalg.inv(linear).T.astype(np.float32)
        return back if self.bend is None else back + time * _sampled(self.bend, points)

    def away(self, points: Array) -> Array:
        """Where at time 1 what has its home at `points` is."""
        found = points + points @ self.motion[:, :2].T + self.motion[:, 2]
        linear = np.eye(2, dtype=np.float32) + self.motion[:, :2]
        if self.bend is not None:
            for _ in range(12):
                found = (points - _sampled(self.bend, found)) @ linear.T + self.motion[:, 2]
        return found.astype(np.float32)

    def picture(self, time: float) -> Array:
        """[SIZE, SIZE, 4] at a time, colours times cover."""
        return _sampled(self.texture, self.home(PIXELS, time) + MARGIN + self.fraction)


def _pixels() -> Array:
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) + 0.5
    return np.stack([x, y], -1)


PIXELS = _pixels()


def _sampled(image: Array, points: Array) -> Array:
    """Bilinear, positions with pixel centres at half-integers, the border repeated."""
    at = np.ascontiguousarray(points - 0.5, np.float32)
    found = cv2.remap(image, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32)


@dataclass
class Photographs:
    """Pictures that textures are cut out of.

    Attributes:
        images: uint8 RGB pictures of any size.
        share: how often one of them is the texture rather than something invented.
    """

    images: list[NDArray[np.uint8]] = field(default_factory=list)
    share: float = 0.6

    def texture(self, rng: np.random.Generator) -> Array:
        """A random scene-linear texture [CANVAS, CANVAS, 3]."""
        if self.images and rng.uniform() < self.share:
            source = self.images[rng.integers(len(self.images))]
            side = int(rng.uniform(0.45, 1.0) * min(source.shape[:2]))
            top, left = rng.integers(0, source.shape[0] - side + 1), rng.integers(0, source.shape[1] - side + 1)
            cut = cv2.resize(source[top : top + side, left : left + side], (CANVAS, CANVAS)).astype(np.float32)
            cut /= np.float32(255)
            cut = cut[:, ::-1] if rng.uniform() < 0.5 else cut
        else:
            cut = random_background(rng, CANVAS)
            if rng.uniform() < 0.5:
                noise = octave_noise(rng, CANVAS, int(rng.integers(8, 40)), int(rng.integers(2, 4)))
                cut = cut + rng.uniform(0.02, 0.12) * noise[..., None]
        cut = np.asarray(cut, np.float32)
        return np.clip(cut, 0, 1) ** np.float32(2.2)


def random_motion(rng: np.random.Generator, size: float) -> Array:
    """An affine displacement about the picture's centre (with some turning and scaling) of about `size` pixels."""
    angle, direction = rng.uniform(0, 2 * np.pi), np.zeros(2)
    direction[:] = np.cos(angle), np.sin(angle)
    linear = rng.normal(0, 0.35, (2, 2)) * np.array([[0.35, 0.15], [0.15, 0.35]]) + rng.normal(0, 0.3) * np.array(
        [[0, -1], [1, 0]]
    )
    linear = linear * size / (SIZE / 2) * (rng.uniform() < 0.75)
    shift = direction * size * rng.uniform(0.5, 1.1) - linear @ np.full(2, SIZE / 2)
    return np.concatenate([linear, shift[:, None]], 1).astype(np.float32)


def motion_size(rng: np.random.Generator, largest: float = 16.0) -> float:
    """How far something moves between two pictures, in pixels: from a sixth to `largest`, rarely beyond."""
    chance = rng.uniform()
    if chance < 0.08:
        return float(rng.uniform(largest, 1.6 * largest))
    if chance < 0.5:
        return float(rng.uniform(0, largest))
    return float(np.exp(rng.uniform(np.log(0.15), np.log(largest))))


def random_bend(rng: np.random.Generator, size: float) -> Array:
    """A smooth displacement of about `size` pixels, nowhere steeper than a third."""
    cells = int(rng.integers(3, 8))
    size = min(size, 0.12 * SIZE / cells)
    coarse = rng.normal(0, size, (cells, cells, 2)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.float32)


def backdrop(rng: np.random.Generator, photographs: Photographs, still: float = 0.3) -> Layer:
    """A layer that fills the picture."""
    texture = photographs.texture(rng)
    cover = np.ones((CANVAS, CANVAS, 1), np.float32)
    size = 0.0 if rng.uniform() < still else motion_size(rng)
    bend = random_bend(rng, rng.uniform(0.3, 4)) if rng.uniform() < 0.35 and size > 0 else None
    return Layer(np.concatenate([texture, cover], 2), random_motion(rng, size), bend, _fraction(rng))


def cutout(rng: np.random.Generator, photographs: Photographs) -> Layer:
    """A layer of a random outline, somewhere in the picture."""
    texture = photographs.texture(rng)
    mask = np.zeros((CANVAS, CANVAS), np.float32)
    centre = rng.uniform(MARGIN, MARGIN + SIZE, 2)
    radius = rng.uniform(14, 85)
    if rng.uniform() < 0.4:
        axes = radius * rng.uniform(0.4, 1.2, 2)
        cv2.ellipse(
            mask,
            centre.astype(int).tolist(),
            axes.astype(int).tolist(),
            rng.uniform(0, 180),
            0,
            360,
            1.0,
            -1,
            cv2.LINE_AA,
        )
    else:
        turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 12))))
        spokes = radius * rng.uniform(0.35, 1.2, (len(turns), 1))
        outline = centre + spokes * np.stack([np.cos(turns), np.sin(turns)], 1)
        cv2.fillPoly(mask, [outline.astype(np.int32)], 1.0, cv2.LINE_AA)
    bend = random_bend(rng, rng.uniform(0.3, 4)) if rng.uniform() < 0.3 else None
    sheet = np.concatenate([texture * mask[..., None], mask[..., None]], 2)
    return Layer(sheet, random_motion(rng, motion_size(rng)), bend, _fraction(rng))


def _fraction(rng: np.random.Generator) -> Array:
    return rng.uniform(-0.5, 0.5, 2).astype(np.float32)


def sub_frame_times(shutter: float) -> NDArray[np.float64]:
    """When a picture at time 0 is exposed, for a shutter that is open for a share of the time between pictures."""
    return (np.arange(SUB_FRAMES) + 0.5 - SUB_FRAMES / 2) / SUB_FRAMES * shutter if shutter > 0 else np.zeros(1)


def compose(layers: list[Layer], time: float) -> Array:
    """The layers over each other, scene-linear [SIZE, SIZE, 3]."""
    image = np.zeros((SIZE, SIZE, 3), np.float32)
    for layer in layers:
        sheet = layer.picture(time)
        image = image * (1 - sheet[..., 3:]) + sheet[..., :3]
    return image


def to_srgb8(image: Array) -> NDArray[np.uint8]:
    """Scene-linear to display-referred bytes."""
    image = np.clip(image, 0, 1)
    coded = np.where(image <= 0.0031308, 12.92 * image, 1.055 * np.maximum(image, 1e-6) ** (1 / 2.4) - 0.055)
    return (coded * 255 + 0.5).astype(np.uint8)


def layer_truth(layers: list[Layer]) -> tuple[Array, NDArray[np.bool_], NDArray[np.int64]]:
    """Of both pictures: flow [2, SIZE, SIZE, 2] to the other, whether the place is seen there, the topmost layer."""
    tops = np.zeros((2, SIZE, SIZE), np.int64)
    flows = np.zeros((2, SIZE, SIZE, 2), np.float32)
    visible = np.zeros((2, SIZE, SIZE), bool)
    for time in (0, 1):
        for k, layer in enumerate(layers[1:], 1):
            tops[time][layer.picture(time)[..., 3] > 0.5] = k
    for time in (0, 1):
        for k, layer in enumerate(layers):
            mine = tops[time] == k
            there = layer.away(PIXELS) if time == 0 else layer.home(PIXELS, 1.0)
            flows[time][mine] = (there - PIXELS)[mine]
        landed = PIXELS + flows[time]
        inside = ((landed > 0) & (landed < SIZE)).all(-1)
        x, y = (np.clip(np.floor(landed[..., i]), 0, SIZE - 1).astype(int) for i in (0, 1))
        visible[time] = inside & (tops[1 - time][y, x] == tops[time])
    return flows, visible, tops


def layered_pair(rng: np.random.Generator, photographs: Photographs) -> FlowPair:
    """A pair of a backdrop and up to four cutouts over it."""
    layers = [backdrop(rng, photographs, still=0.1)] + [cutout(rng, photographs) for _ in range(rng.integers(0, 5))]
    times = sub_frame_times(rng.uniform(0.2, 0.7) if rng.uniform() < 0.4 else 0.0)
    images = [np.mean([compose(layers, t + centre) for t in times], 0) for centre in (0, 1)]
    flows, visible, _ = layer_truth(layers)
    return FlowPair(
        np.stack([to_srgb8(i) for i in images]),
        flows.transpose(0, 3, 1, 2).astype(np.float32),
        np.where(visible, VISIBLE, 0).astype(np.uint8),
    )


def stills(folder: Path, first: int = 0, last: int | None = None) -> list[NDArray[np.uint8]]:
    """Pictures of a folder, ordered by name."""
    found = [cv2.imread(str(p)) for p in sorted(folder.glob("*.jpg"))[first:last]]
    return [np.ascontiguousarray(i[..., ::-1], np.uint8) for i in found if i is not None]
