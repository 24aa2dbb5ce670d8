"""Random backgrounds: gradients, noise, clutter and pieces of the photographs that ship inside scikit-image."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from training.face_texture import octave_noise

_PHOTOGRAPHS = (
    "coffee",
    "chelsea",
    "rocket",
    "retina",
    "hubble_deep_field",
    "immunohistochemistry",
    "brick",
    "grass",
    "gravel",
    "page",
    "coins",
)


@functools.cache
def _photographs() -> list[NDArray[np.float32]]:
    from skimage import data

    found = []
    for name in _PHOTOGRAPHS:
        try:
            image = getattr(data, name)()
        except Exception as error:  # those that are not in the wheel want a download
            print(f"background {name} left out: {type(error).__name__}")
            continue
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, 2)
        found.append(np.ascontiguousarray(image[..., :3], np.float32) / 255)
    return found


def random_background(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """[size, size, 3] sRGB in [0, 1]."""
    kind = rng.uniform()
    colours = rng.uniform(0, 1, (2, 3)).astype(np.float32) * rng.uniform(0.2, 1)
    if kind < 0.25:
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[:size, :size].astype(np.float32) / size
        t = np.clip(0.5 + np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5), 0, 1)[..., None]
        image = colours[0] * (1 - t) + colours[1] * t
    elif kind < 0.6 and _photographs():
        source = _photographs()[rng.integers(len(_photographs()))]
        side = int(rng.uniform(0.2, 1.0) * min(source.shape[:2]))
        top, left = rng.integers(0, source.shape[0] - side + 1), rng.integers(0, source.shape[1] - side + 1)
        image = cv2.resize(source[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
        image = image[:, ::-1] if rng.uniform() < 0.5 else image
        if rng.uniform() < 0.6:
            image = cv2.GaussianBlur(np.ascontiguousarray(image), (0, 0), rng.uniform(1, 10))
    else:
        noise = np.stack(
            [octave_noise(rng, size, int(rng.integers(2, 12)), int(rng.integers(1, 6))) for _ in range(3)], -1
        )
        image = colours[0] + rng.uniform(0.03, 0.3) * noise
    image = np.ascontiguousarray(image, np.float32)
    for _ in range(rng.integers(0, 9)):
        colour = tuple(float(v) for v in rng.uniform(0, 1, 3))
        a, b = rng.integers(0, size, 2).tolist(), rng.integers(0, size, 2).tolist()
        pick = rng.uniform()
        if pick < 0.35:
            cv2.line(image, a, b, colour, int(rng.integers(1, 14)), cv2.LINE_AA)
        elif pick < 0.7:
            cv2.rectangle(image, a, b, colour, -1 if rng.uniform() < 0.6 else 3)
        else:
            cv2.circle(image, a, int(rng.integers(4, 70)), colour, -1 if rng.uniform() < 0.6 else 2, cv2.LINE_AA)
    return np.clip(image, 0, 1)
