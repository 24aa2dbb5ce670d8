"""The two linear problems of appearance estimation: albedo with the light held, and light with the albedo held.

The radiance of a pixel is bilinear in albedo and light (paper, section 3):

    I_p = (W albedo)_p * shade_p,      shade_p = (basis_p @ light) * occlusion_p

W blends the unknowns (texels or vertices) of the pixel's samples, basis and occlusion are means over them. Either
problem is weighted least squares; the weights (Geman-McClure) come from the residual of the round before, so that what
the bulk of the views contradicts, as a highlight or a hand, counts little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix, csr_matrix

from deepenergy.render.reference.lighting import DARKEST

# Ridge on the coefficients beyond the ambient one, as a share of the data's weight: what no normal sees stays dark.
_LIGHT_RIDGE = 3e-3
# Width of the kernels in standard deviations. The light's is wide enough for skin; the albedo's is a least one.
_LIGHT_KERNEL, _ALBEDO_KERNEL = 2.5, 3.0
# Noise and model error grow with the signal: residuals are relative, with a floor for the darks.
_FLOOR = 0.05
# No plate is truer than this, relatively: without it, clean plates would be at odds with their own penalties.
_NOISE = 0.02
_STEPS = 25
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class PixelData:
    """What the usable pixels of some views saw.

    Attributes:
        colour: `[P, 3]` scene-linear plate values.
        trust: `[P]` weight before any residual is known, in (0, 1].
        skin: `[P]` weight of the pixel when the light is estimated, in (0, 1]: the rig's own albedo is a guess of the
            skin's, hardly of hair and clothes.
        blend: W, `[P, U]`, float32; rows add up to 1.
        basis: `[P, 9]` convolved harmonics of the normals (world).
        occlusion: `[P, 1]` share of the light that arrives.
    """

    colour: np.ndarray
    trust: np.ndarray
    skin: np.ndarray
    blend: csr_matrix
    basis: np.ndarray
    occlusion: np.ndarray

    def shade(self, light: Float[np.ndarray, "9 3"]) -> Float[np.ndarray, "p 3"]:
        """Irradiance / pi that arrives at each pixel."""
        return np.maximum(self.basis @ light, DARKEST) * self.occlusion

    def radiance(self, albedo: Float[np.ndarray, "u 3"], light: Float[np.ndarray, "9 3"]) -> Float[np.ndarray, "p 3"]:
        """The model's colour of every pixel."""
        return (self.blend @ albedo) * self.shade(light)


def light_weights(
    data: PixelData, albedo: Float[np.ndarray, "u 3"], light: Float[np.ndarray, "9 3"]
) -> Float[np.ndarray, " p"]:
    """Geman-McClure weights of the residual when the light is estimated: what is not like most skin counts little."""
    distance = _residual(data, albedo, light)
    return data.trust / (1 + (distance / (_LIGHT_KERNEL * _typical(data, distance))) ** 2) ** 2


def albedo_weights(
    data: PixelData, albedo: Float[np.ndarray, "u 3"], light: Float[np.ndarray, "9 3"]
) -> Float[np.ndarray, " p"]:
    """Geman-McClure weights of the residual when the albedo is estimated: what other views contradict counts little.

    Scaled by the mean residual of all pixels that see the same unknowns. A marker that every view shows fits worse than
    plain skin, because the penalties hold it back; by the common scale it would count less and be held back more each
    round, until it is gone. A pixel that alone sees its unknowns is never doubted.
    """
    distance = _residual(data, albedo, light)
    share = np.asarray(data.blend.sum(0)).reshape(-1)
    local = data.blend @ ((data.blend.T @ distance) / np.maximum(share, 1e-9))
    unit = np.maximum(_ALBEDO_KERNEL * _typical(data, distance), local)
    return data.trust / (1 + (distance / unit) ** 2) ** 2


def _residual(data: PixelData, albedo: np.ndarray, light: np.ndarray) -> Float[np.ndarray, " p"]:
    model = data.radiance(albedo, light)
    # By the mean of both, so that too dark and too bright by the same factor count alike.
    return np.linalg.norm((data.colour - model) / ((data.colour + model) / 2 + _FLOOR), axis=1)


def _typical(data: PixelData, distance: np.ndarray) -> float:
    """The residual's standard deviation by its median on the face's skin, never less than a plate's noise."""
    return 1.4826 * max(float(np.median(distance[data.skin >= data.skin.max()])), _NOISE)


def solve_light(
    data: PixelData, albedo: Float[np.ndarray, "u 3"], weights: Float[np.ndarray, " p"]
) -> Float[np.ndarray, "9 3"]:
    """Nine SH coefficients a channel with the albedo held: three 9x9 normal equations with a slight ridge."""
    colours = (data.blend @ albedo) * data.occlusion
    light = np.zeros((9, 3), np.float32)
    for c in range(3):
        rows = (data.basis * colours[:, c : c + 1]).astype(np.float64)
        weighted = rows * (weights * data.skin)[:, None]
        normal = weighted.T @ rows
        ridge = np.full(9, _LIGHT_RIDGE * normal.diagonal().max() + 1e-12)
        ridge[0] = 1e-12
        light[:, c] = np.linalg.solve(normal + np.diag(ridge), weighted.T @ data.colour[:, c])
    return light


def solve_albedo(  # more than six: a linear system and its weights
    data: PixelData,
    start: Float[np.ndarray, "u 3"],
    prior: Float[np.ndarray, "u 3"],
    light: Float[np.ndarray, "9 3"],
    weights: Float[np.ndarray, " p"],
    edges: Int[np.ndarray, "e 2"],
    smooth: float,
    ridge: Float[np.ndarray, " u"],
) -> Float[np.ndarray, "u 3"]:
    """Albedo with the light held, by conjugate gradients with a Jacobi preconditioner.

    Minimised is the weighted squared residual plus, on the change d from the prior, `smooth` times the squared
    difference of d over every edge and `ridge` times its square, both relative to the mean weight of what is seen.
    Unknowns that no pixel sees are left as they are in `start`.

    Args:
        data: the pixels.
        start: where to start.
        prior: the rig's own albedo.
        light: held.
        weights: of the pixels.
        edges: pairs of neighbouring unknowns.
        smooth, ridge: see above.
    """
    touched = np.zeros(len(start), bool)
    touched[data.blend.indices] = True
    used = np.flatnonzero(touched)
    if not len(used):
        return start
    blend = data.blend[:, used]
    back = blend.T.tocsr()
    shade, weight = data.shade(light).astype(np.float32), weights[:, None].astype(np.float32)
    # Rows of the blend add up to one, so that this bounds the Gauss-Newton diagonal from above: it preconditions well.
    diagonal = back @ (weight * shade**2)
    unit = float(diagonal.mean())
    pull = unit * ridge[used, None]
    laplacian = _laplacian(edges, used, len(start)) * (unit * smooth)
    degree = laplacian.diagonal()[:, None]

    def operator(d: np.ndarray) -> np.ndarray:
        return back @ ((blend @ d) * (weight * shade**2)) + laplacian @ d + pull * d

    right = back @ ((data.colour - (blend @ prior[used]) * shade) * (weight * shade))
    change = _conjugate_gradients(operator, right, diagonal + degree + pull, start[used] - prior[used])
    albedo = start.copy()
    albedo[used] = prior[used] + change
    return albedo


def _laplacian(edges: np.ndarray, used: np.ndarray, unknowns: int) -> csr_matrix:
    """The graph Laplacian of the used unknowns, float32."""
    number = np.full(unknowns, -1)
    number[used] = np.arange(len(used))
    one, other = number[edges].T
    keep = (one >= 0) & (other >= 0)
    one, other = one[keep], other[keep]
    ones = np.ones(len(one), np.float32)
    size = (len(used), len(used))
    adjacency = coo_matrix((ones, (one, other)), size).tocsr()
    adjacency = adjacency + adjacency.T
    degree = np.asarray(adjacency.sum(1)).reshape(-1)
    on = np.arange(len(used))
    return (coo_matrix((degree, (on, on)), size).tocsr() - adjacency).astype(np.float32).tocsr()


def _conjugate_gradients(
    operator: Callable[[np.ndarray], np.ndarray], right: np.ndarray, diagonal: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """The channels are systems of their own, solved side by side."""
    x = start.copy()
    residual = right - operator(x)
    z = residual / diagonal
    direction = z.copy()
    rho = (residual * z).sum(0)
    first = (right * right / diagonal).sum(0)
    for _ in range(_STEPS):
        if (rho <= _TOLERANCE**2 * first).all():
            break
        moved = operator(direction)
        step = rho / np.maximum((direction * moved).sum(0), 1e-30)
        x += step * direction
        residual -= step * moved
        z = residual / diagonal
        new = (residual * z).sum(0)
        direction = z + (new / np.maximum(rho, 1e-30)) * direction
        rho = new
    return x
