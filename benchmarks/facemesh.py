"""The FaceMesh labels of the test clips as 68 iBUG points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

# Jaw points are a silhouette in one convention and anatomy in the other: 0-16 are no more than near.
FACEMESH_TO_68 = (
    127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip


def read_labels(path: Path) -> Float[np.ndarray, "t 68 2"]:
    """The 68 points of every frame, pixels of the clip (corner origin); NaN where no face was found."""
    with np.load(path, allow_pickle=False) as file:
        points = file["xy_sixteenth_px"][:, list(FACEMESH_TO_68)].astype(np.float64)
    absent = (points == -16).all((1, 2))
    points /= 16
    points[absent] = np.nan
    return points
