"""Augmentation: from a stored canvas to a 256x256 network input with its landmarks."""

from __future__ import annotations

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from training.backgrounds import random_background
from training.renders import CANVAS, CANVAS_SCALE

SIZE = 256
CROP_SCALE = 1.45
# Mirrored, a landmark is another one.
MIRROR = np.concatenate(
    [
        np.arange(16, -1, -1),
        np.arange(26, 16, -1),
        np.arange(27, 31),
        np.arange(35, 30, -1),
        [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],
        [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55],
        [64, 63, 62, 61, 60, 67, 66, 65],
    ]
)

Array = NDArray[np.float32]


def network_input(image: NDArray[np.uint8], landmarks: Array) -> tuple[Array, Array]:
    """The plain crop without augmentation: image [256, 256, 3] in [0, 1] and landmarks in its pixels."""
    return _warp(image, landmarks, 0.0, 1.0, np.zeros(2, np.float32), False)


def augmented(rng: np.random.Generator, image: NDArray[np.uint8], landmarks: Array) -> tuple[Array, Array]:
    """A random variant."""
    angle = rng.normal(0, 14) if rng.uniform() < 0.85 else rng.uniform(-45, 45)
    scale = float(np.exp(rng.normal(0, 0.11)))
    shift = rng.normal(0, 0.035, 2).astype(np.float32) * SIZE
    crop, marks = _warp(image, landmarks, angle, scale, shift, rng.uniform() < 0.5)
    if rng.uniform() < 0.35:
        _occlude(rng, crop)
    return _camera(rng, crop), marks


def _warp(
    image: NDArray[np.uint8], landmarks: Array, angle: float, scale: float, shift: Array, mirror: bool
) -> tuple[Array, Array]:
    k = scale * SIZE * CANVAS_SCALE / (CROP_SCALE * CANVAS)
    c, s = k * np.cos(np.radians(angle)), k * np.sin(np.radians(angle))
    linear = np.array([[c, -s], [s, c]], np.float32)
    if mirror:
        linear = linear @ np.diag([-1.0, 1.0]).astype(np.float32)
    offset = SIZE / 2 + shift - linear @ np.full(2, CANVAS / 2, np.float32)
    matrix = np.concatenate([linear, (offset + linear @ np.full(2, 0.5, np.float32) - 0.5)[:, None]], 1)
    crop = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR).astype(np.float32)
    crop /= np.float32(255)
    marks = landmarks @ linear.T + offset
    return crop, (marks[MIRROR] if mirror else marks).astype(np.float32)


def _occlude(rng: np.random.Generator, crop: MatLike) -> None:
    cover = random_background(rng, SIZE)
    if rng.uniform() < 0.5:
        cover = cover * 0.3 + rng.uniform(0, 1) * np.array([0.8, 0.6, 0.5], np.float32)
    mask = np.zeros((SIZE, SIZE), np.float32)
    centre = rng.uniform(30, SIZE - 30, 2)
    if rng.uniform() < 0.6:
        size = rng.uniform(12, 55, 2)
        cv2.ellipse(
            mask,
            centre.astype(int).tolist(),
            size.astype(int).tolist(),
            rng.uniform(0, 180),
            0,
            360,
            1.0,
            -1,
            cv2.LINE_AA,
        )
    else:
        polygon = centre + rng.uniform(-60, 60, (int(rng.integers(3, 7)), 2))
        cv2.fillPoly(mask, [polygon.astype(np.int32)], 1.0, cv2.LINE_AA)
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 2))[..., None]
    crop += mask * (np.clip(cover, 0, 1) - crop)


def _camera(rng: np.random.Generator, crop: MatLike) -> Array:
    if rng.uniform() < 0.25:
        small = int(SIZE * rng.uniform(0.2, 0.9))
        crop = cv2.resize(cv2.resize(crop, (small, small), interpolation=cv2.INTER_AREA), (SIZE, SIZE))
    pick = rng.uniform()
    if pick < 0.25:
        crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.4, 2.2))
    elif pick < 0.4:
        length = int(rng.integers(3, 12))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0)
        crop = cv2.filter2D(crop, -1, kernel / kernel.sum())
    crop = np.clip(crop, 0, 1) ** np.exp(rng.normal(0, 0.25))
    crop = (crop - 0.5) * rng.uniform(0.6, 1.3) + 0.5 + rng.normal(0, 0.08)
    crop = crop * (1 + rng.normal(0, 0.07, 3).astype(np.float32))
    if rng.uniform() < 0.12:
        crop = np.repeat(crop @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, 2)
    if rng.uniform() < 0.5:
        crop = crop + rng.uniform(0, 0.05) * rng.standard_normal(crop.shape, dtype=np.float32)
    crop = np.clip(crop, 0, 1).astype(np.float32)
    if rng.uniform() < 0.3:
        quality = int(rng.integers(25, 90))
        coded = cv2.imencode(".jpg", (crop * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        assert decoded is not None
        crop = decoded.astype(np.float32)
        crop /= np.float32(255)
    return crop
