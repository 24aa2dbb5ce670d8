"""Vertex colours into an image on the CPU, without derivatives: one loop over the samples, compiled by numba.

The same sums as `Surface.interpolate` and a box filter over the samples; a solve renders ten times for every time that
it differentiates.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.render.fragments import Fragments


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fill(
    index: NDArray[np.int64],
    bary: NDArray[np.float32],
    faces: NDArray[np.int64],
    colour: NDArray[np.float32],
    samples: int,
    image: NDArray[np.float32],
) -> None:
    share = np.float32(1.0 / (samples * samples))
    for i in range(index.shape[0]):
        for j in range(index.shape[1]):
            f = index[i, j]
            if f < 0:
                continue
            row, column = i // samples, j // samples
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            wa, wb, wc = bary[i, j, 0] * share, bary[i, j, 1] * share, bary[i, j, 2] * share
            for k in range(3):
                image[k, row, column] += wa * colour[a, k] + wb * colour[b, k] + wc * colour[c, k]
            image[3, row, column] += share


def shade_numba(
    fragments: Fragments, faces: Int[Tensor, "f 3"], colour: Float[Tensor, "b v 3"], samples: int
) -> Float[Tensor, "b 4 h w"]:
    """Colour, black where nothing is, and coverage; CPU tensors, no derivative.

    Args:
        fragments: visibility at `samples` times the image's size a side.
        colour: scene-linear colours of the vertices.
    """
    batch, height, width = fragments.face_index.shape
    image = np.zeros((batch, 4, height // samples, width // samples), np.float32)
    triangles = np.ascontiguousarray(faces.numpy(), np.int64)
    index, bary = fragments.face_index.numpy(), fragments.barycentrics.numpy()
    each = np.ascontiguousarray(colour.detach().numpy(), np.float32)
    for b in range(batch):
        _fill(index[b], bary[b], triangles, each[b], samples, image[b])
    return torch.from_numpy(image)
