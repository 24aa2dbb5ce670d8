"""A forward-only renderer for training images: richer than the solver's (speculars, iris, textures)."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

# What a triangle's material does with the colours that it is given.
MATERIAL_VERTEX, MATERIAL_TEXTURE, MATERIAL_EYE = 0, 1, 2


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def shade(
    index: NDArray[np.int64],
    bary: NDArray[np.float32],
    faces: NDArray[np.int64],
    positions: NDArray[np.float32],
    normals: NDArray[np.float32],
    colours: NDArray[np.float32],
    uvs: NDArray[np.float32],
    uv_faces: NDArray[np.int64],
    texture: NDArray[np.float32],
    material: NDArray[np.int64],
    eye_polar: NDArray[np.float32],
    iris: NDArray[np.float32],
    light: NDArray[np.float32],
    key: NDArray[np.float32],
    eye_point: NDArray[np.float32],
    gloss: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Shade every covered pixel into `out` [H, W, 3], scene-linear.

    Args:
        eye_polar: per vertex, angle from the gaze axis (radians), for `MATERIAL_EYE`.
        iris: rows (iris colour, pupil colour, (iris radius, pupil radius, limbus width) in radians).
        light: [9, 3] SH coefficients with the cosine factors and basis constants folded in.
        key: rows (direction to the key light, its colour).
        gloss: (skin specular, skin exponent, eye specular, eye exponent).
    """
    height, width = index.shape
    size_y, size_x = texture.shape[0], texture.shape[1]
    for i in range(height):
        for j in range(width):
            f = index[i, j]
            if f < 0:
                continue
            n0 = n1 = n2 = p0 = p1 = p2 = u = v = polar = np.float32(0)
            c0 = c1 = c2 = np.float32(0)
            for k in range(3):
                w = bary[i, j, k]
                q = faces[f, k]
                n0 += w * normals[q, 0]
                n1 += w * normals[q, 1]
                n2 += w * normals[q, 2]
                p0 += w * positions[q, 0]
                p1 += w * positions[q, 1]
                p2 += w * positions[q, 2]
                c0 += w * colours[q, 0]
                c1 += w * colours[q, 1]
                c2 += w * colours[q, 2]
                t = uv_faces[f, k]
                u += w * uvs[t, 0]
                v += w * uvs[t, 1]
                polar += w * eye_polar[q]
            length = np.sqrt(n0 * n0 + n1 * n1 + n2 * n2) + 1e-9
            n0, n1, n2 = n0 / length, n1 / length, n2 / length
            e0, e1, e2 = eye_point[0] - p0, eye_point[1] - p1, eye_point[2] - p2
            length = np.sqrt(e0 * e0 + e1 * e1 + e2 * e2) + 1e-9
            e0, e1, e2 = e0 / length, e1 / length, e2 / length
            spec, exponent = gloss[0], gloss[1]
            if material[f] == MATERIAL_TEXTURE:
                x = (u - np.floor(u)) * size_x - 0.5
                y = (1 - (v - np.floor(v))) * size_y - 0.5
                x0, y0 = int(np.floor(x)), int(np.floor(y))
                fx, fy = x - x0, y - y0
                xa, xb = max(0, min(size_x - 1, x0)), max(0, min(size_x - 1, x0 + 1))
                ya, yb = max(0, min(size_y - 1, y0)), max(0, min(size_y - 1, y0 + 1))
                for c in range(3):
                    value = (texture[ya, xa, c] * (1 - fx) + texture[ya, xb, c] * fx) * (1 - fy) + (
                        texture[yb, xa, c] * (1 - fx) + texture[yb, xb, c] * fx
                    ) * fy
                    if c == 0:
                        c0 = value
                    elif c == 1:
                        c1 = value
                    else:
                        c2 = value
            elif material[f] == MATERIAL_EYE:
                spec, exponent = gloss[2], gloss[3]
                if polar < iris[2, 1]:
                    c0, c1, c2 = iris[1, 0], iris[1, 1], iris[1, 2]
                elif polar < iris[2, 0]:
                    rim = min(1.0, (iris[2, 0] - polar) / iris[2, 2])
                    shade_rim = 0.35 + 0.65 * rim
                    c0, c1, c2 = iris[0, 0] * shade_rim, iris[0, 1] * shade_rim, iris[0, 2] * shade_rim
            h0, h1, h2 = e0 + key[0, 0], e1 + key[0, 1], e2 + key[0, 2]
            length = np.sqrt(h0 * h0 + h1 * h1 + h2 * h2) + 1e-9
            glint = max(0.0, (n0 * h0 + n1 * h1 + n2 * h2) / length) ** exponent * spec
            facing = max(0.0, n0 * key[0, 0] + n1 * key[0, 1] + n2 * key[0, 2])
            for c in range(3):
                irradiance = (
                    light[0, c]
                    + light[1, c] * n1
                    + light[2, c] * n2
                    + light[3, c] * n0
                    + light[4, c] * n0 * n1
                    + light[5, c] * n1 * n2
                    + light[6, c] * (3 * n2 * n2 - 1)
                    + light[7, c] * n0 * n2
                    + light[8, c] * (n0 * n0 - n1 * n1)
                )
                irradiance = max(0.02, irradiance) + facing * key[1, c]
                base = c0 if c == 0 else (c1 if c == 1 else c2)
                out[i, j, c] = base * irradiance + glint * (key[1, c] + 0.2)
