"""Random painted skin textures for a front-projected face UV layout, laid out by the landmarks' own UVs."""

from __future__ import annotations

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

SIZE = 512
Array = NDArray[np.float32]


def octave_noise(rng: np.random.Generator, size: int, coarsest: int, octaves: int) -> Array:
    """Smooth noise [size, size], about zero mean and unit deviation."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        cells = min(size, coarsest * 2**octave)
        field = rng.standard_normal((cells, cells)).astype(np.float32)
        total += cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return total / (total.std() + 1e-6)


def skin_tone(rng: np.random.Generator) -> Array:
    """A scene-linear skin albedo, from very dark to very fair."""
    melanin = rng.uniform(0, 1) ** 0.8
    fair, dark = np.array([0.62, 0.40, 0.30]), np.array([0.075, 0.038, 0.022])
    tone = np.exp((1 - melanin) * np.log(fair) + melanin * np.log(dark))
    return (tone * rng.uniform(0.85, 1.15, 3) ** 0.5).astype(np.float32)


def face_texture(rng: np.random.Generator, uv: Array, tone: Array, hair: Array) -> Array:
    """A texture [SIZE, SIZE, 3], scene-linear: skin, lips, brows, lids, stubble, blemishes.

    Args:
        uv: [68, 2] texture coordinates of the landmarks.
        tone, hair: scene-linear colours.
    """
    at = np.stack([uv[:, 0] * SIZE, (1 - uv[:, 1]) * SIZE], 1).astype(np.float32)
    image = np.broadcast_to(tone, (SIZE, SIZE, 3)).copy()
    image *= 1 + rng.uniform(0.02, 0.10) * octave_noise(rng, SIZE, 4, 6)[..., None]
    image *= 1 + rng.uniform(0, 0.06) * np.stack([octave_noise(rng, SIZE, 5, 3) for _ in range(3)], -1)
    image *= 1 + rng.uniform(0, 0.05) * rng.standard_normal((SIZE, SIZE, 1)).astype(np.float32)
    red = np.array([1.12, 0.88, 0.86], np.float32)
    for centre, radius in ((at[1] * 0.45 + at[31] * 0.55, 45), (at[15] * 0.45 + at[35] * 0.55, 45), (at[30], 22)):
        _tint(image, _blob(centre, radius * rng.uniform(0.7, 1.4)) * rng.uniform(0, 0.9), red)
    for eye in (at[36:42], at[42:48]):
        shadow = _blob(eye.mean(0) + [0, rng.uniform(-8, 12)], rng.uniform(20, 34))
        _tint(image, shadow * rng.uniform(0, 0.7), np.array([0.72, 0.66, 0.68], np.float32) * rng.uniform(0.8, 1.2))
    _lips(rng, image, at, tone)
    _brows(rng, image, at, hair)
    _lashes(rng, image, at, hair)
    if rng.uniform() < 0.3:
        _beard(rng, image, at, hair)
    for _ in range(rng.integers(0, 14)):
        spot = (rng.uniform(0.2, 0.8) * SIZE, rng.uniform(0.15, 0.85) * SIZE)
        _tint(image, _blob(np.array(spot), rng.uniform(1.0, 3.0)), np.full(3, rng.uniform(0.15, 0.8), np.float32))
    # Shadow in the nostrils and the mouth line, which the lighting model does not cast.
    for point in (at[32] * 0.6 + at[33] * 0.4, at[34] * 0.6 + at[33] * 0.4):
        _tint(image, _blob(point + [0, 1], rng.uniform(2.5, 4.5)), np.full(3, rng.uniform(0.15, 0.6), np.float32))
    return np.clip(image, 0.003, 0.95)


def _tint(image: Array, mask: Array, factor: Array) -> None:
    image *= 1 + mask[..., None] * (factor - 1)


def _blob(centre: Array, radius: float) -> Array:
    y, x = np.ogrid[:SIZE, :SIZE]
    return np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * radius**2)).astype(np.float32)


def _unit(image: MatLike) -> Array:
    """Bytes as [0, 1]."""
    return np.divide(image, 255, dtype=np.float32)


def _filled(polygon: Array, soft: float) -> Array:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    return _unit(cv2.GaussianBlur(mask, (0, 0), soft))


def _lips(rng: np.random.Generator, image: Array, at: Array, tone: Array) -> None:
    mask = _filled(at[48:60], rng.uniform(0.8, 2.5))
    lips = tone * np.array([0.95, 0.55, 0.55], np.float32) * rng.uniform(0.6, 1.15)
    if rng.uniform() < 0.25:
        lips = np.array([rng.uniform(0.15, 0.5), rng.uniform(0.01, 0.12), rng.uniform(0.02, 0.15)], np.float32)
    strength = rng.uniform(0.35, 1.0)
    image += mask[..., None] * strength * (lips * (1 + 0.1 * octave_noise(rng, SIZE, 60, 2)[..., None]) - image)
    line = np.zeros((SIZE, SIZE), np.uint8)
    inner = np.concatenate([at[60:65], at[64:68], at[60:61]])
    cv2.polylines(line, [np.round(inner * 16).astype(np.int32)], False, 255, 2, cv2.LINE_AA, 4)
    _tint(
        image,
        _unit(cv2.GaussianBlur(line, (0, 0), 1.2)),
        np.full(3, rng.uniform(0.2, 0.7), np.float32),
    )


def _brows(rng: np.random.Generator, image: Array, at: Array, hair: Array) -> None:
    thickness, density = rng.uniform(5, 13), rng.uniform(0.35, 1.0)
    lift = rng.uniform(-2, 3)
    for brow, outwards in ((at[17:22], -1.0), (at[22:27][::-1], 1.0)):
        taper = np.array([0.35, 0.75, 1.0, 1.05, 0.9], np.float32)[:, None] * thickness / 2
        centre = brow + np.array([0, lift], np.float32)
        upper, lower = centre - [0, 1] * taper, centre + [0, 1] * taper
        mask = _filled(np.concatenate([upper, lower[::-1]]).astype(np.float32), rng.uniform(0.8, 2.2))
        strokes = np.zeros((SIZE, SIZE), np.uint8)
        for _ in range(int(rng.uniform(60, 200))):
            t = rng.uniform(0, 3.999)
            k = int(t)
            root = centre[k] * (1 - t + k) + centre[k + 1] * (t - k) + rng.normal(0, taper[k, 0] * 0.5, 2) * [0.3, 1]
            tip = root + np.array([outwards * rng.uniform(3, 9), rng.uniform(-7, 1)])
            cv2.line(strokes, (root * 16).astype(int).tolist(), (tip * 16).astype(int).tolist(), 255, 1, cv2.LINE_AA, 4)
        both = np.clip(mask * density * rng.uniform(0.5, 1) + strokes.astype(np.float32) / 255 * density * 0.6, 0, 1)
        image += both[..., None] * (hair * 0.7 - image)


def _lashes(rng: np.random.Generator, image: Array, at: Array, hair: Array) -> None:
    strength = rng.uniform(0.2, 1.0)
    for eye in (at[36:42], at[42:48]):
        for points, share in ((eye[:4], 1.0), (np.concatenate([eye[3:], eye[:1]]), 0.5)):
            line = np.zeros((SIZE, SIZE), np.uint8)
            width = int(rng.integers(1, 4))
            cv2.polylines(line, [np.round(points * 16).astype(np.int32)], False, 255, width, cv2.LINE_AA, 4)
            mask = cv2.GaussianBlur(line, (0, 0), 1.0).astype(np.float32) / 255 * strength * share
            image += mask[..., None] * (hair * 0.3 - image)


def _beard(rng: np.random.Generator, image: Array, at: Array, hair: Array) -> None:
    jaw = at[2:15]
    inner = np.concatenate([at[48:49] - [12, 8], at[33:34] + [0, 8], at[54:55] + [12, -8]])
    mask = _filled(np.concatenate([jaw, inner[::-1]]).astype(np.float32), rng.uniform(4, 12))
    mask *= 1 - _filled(at[48:60], 1.5)
    grain = np.clip(0.5 + 0.35 * octave_noise(rng, SIZE, 128, 2), 0, 1)
    image += (mask * grain * rng.uniform(0.15, 0.95))[..., None] * (hair * 0.8 - image)
