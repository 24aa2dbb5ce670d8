"""What tells one built-in head from another: proportions and colours."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Identity:
    """Proportions of a head. The first block is in millimetres added, the second is factors around 1.

    Attributes:
        eye_shift, mouth_shift, nose_shift, chin_shift: feature positions (outwards; up; down; down).
        jaw_width, face_width, forehead_slope, brow_ridge, cheekbone, cheek_fullness, chin_forward, nose_hump: relief.
        eye_tilt: outer eye corners up.
        nose_height, nose_width, lip_fullness, mouth_width, eye_opening: sizes of features.
        head_scale: size of everything, as (width, height, depth).
    """

    eye_shift: float = 0.0
    mouth_shift: float = 0.0
    nose_shift: float = 0.0
    chin_shift: float = 0.0
    jaw_width: float = 0.0
    face_width: float = 0.0
    forehead_slope: float = 0.0
    brow_ridge: float = 0.0
    brow_height: float = 0.0
    cheekbone: float = 0.0
    cheek_fullness: float = 0.0
    chin_forward: float = 0.0
    nose_hump: float = 0.0
    eye_tilt: float = 0.0
    nose_height: float = 1.0
    nose_width: float = 1.0
    lip_fullness: float = 1.0
    mouth_width: float = 1.0
    eye_opening: float = 1.0
    head_scale: Colour = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Palette:
    """Scene-linear colours of a head, and what is painted with them.

    Attributes:
        skin, hair, brow, lip, iris: albedo.
        brow_thickness, brow_density: factor around 1; share of hair in the brow's colour.
        hairline: millimetres above the eyes where the hair starts at the forehead; above 125 there is none.
        blush: how much redder cheeks, nose and ears are than the rest.
        freckles, stubble: 0 to 1.
        seed: of the fine mottling.
    """

    skin: Colour = (0.46, 0.265, 0.185)
    hair: Colour = (0.032, 0.021, 0.014)
    brow: Colour = (0.045, 0.027, 0.018)
    lip: Colour = (0.36, 0.125, 0.105)
    iris: Colour = (0.075, 0.105, 0.085)
    brow_thickness: float = 1.0
    brow_density: float = 0.85
    hairline: float = 66.0
    blush: float = 1.0
    freckles: float = 0.25
    stubble: float = 0.15
    seed: int = 7


# Standard deviations of the people in `random_identity`: millimetres, or shares of 1.
_SPREAD: dict[str, float] = {
    "eye_shift": 1.3,
    "mouth_shift": 1.8,
    "nose_shift": 2.2,
    "chin_shift": 4.0,
    "jaw_width": 3.5,
    "face_width": 3.0,
    "forehead_slope": 3.5,
    "brow_ridge": 1.6,
    "brow_height": 1.5,
    "cheekbone": 1.6,
    "cheek_fullness": 2.2,
    "chin_forward": 2.5,
    "nose_hump": 1.0,
    "eye_tilt": 0.9,
    "nose_height": 0.13,
    "nose_width": 0.12,
    "lip_fullness": 0.22,
    "mouth_width": 0.07,
    "eye_opening": 0.13,
}

_HAIR = np.array(
    [
        (0.010, 0.008, 0.007),
        (0.03, 0.019, 0.012),
        (0.09, 0.048, 0.024),
        (0.26, 0.16, 0.075),
        (0.14, 0.045, 0.017),
        (0.3, 0.29, 0.28),
    ]
)
_IRIS = np.array(
    [(0.035, 0.016, 0.007), (0.08, 0.04, 0.016), (0.09, 0.1, 0.05), (0.07, 0.13, 0.19), (0.13, 0.16, 0.17)]
)


def _colour(value: NDArray[np.float64]) -> Colour:
    red, green, blue = np.clip(value, 0.004, 0.9).tolist()
    return red, green, blue


def random_identity(draws: Float[NDArray[np.float64], "64"]) -> tuple[Identity, Palette]:
    """A plausible person from 64 independent standard normal draws (clipped to +-2.2)."""
    z = np.clip(draws, -2.2, 2.2)
    names = [f.name for f in fields(Identity) if f.name in _SPREAD]
    base = Identity()
    moved = {name: getattr(base, name) + _SPREAD[name] * z[i] for i, name in enumerate(names)}
    width, height, depth = (1 + 0.035 * z[24:27]).tolist()
    identity = replace(base, **moved, head_scale=(width, height, depth))
    # From light to dark along the line that melanin draws, with a little more or less blood.
    melanin = 0.5 + 0.5 * np.tanh(0.9 * z[30])
    skin = np.array([0.60, 0.385, 0.29]) * (np.array([0.13, 0.075, 0.055]) / np.array([0.60, 0.385, 0.29])) ** melanin
    skin = skin * np.exp(0.06 * z[31:34]) * np.array([1, 1 - 0.03 * z[34], 1 - 0.04 * z[34]])
    share = 0.5 + 0.5 * np.tanh(z[35:37])
    hair = _HAIR[int(share[0] * 5.999 * (1 - 0.6 * melanin))] * np.exp(0.25 * z[37])
    iris = _IRIS[int(share[1] * 4.999 * (1 - 0.7 * melanin))] * np.exp(0.25 * z[38:41])
    redness = np.array([1.0, 0.62, 0.68]) * np.exp(0.1 * z[41:44])
    brow_mix = np.clip(0.75 + 0.2 * z[44], 0.25, 1)
    palette = Palette(
        skin=_colour(skin),
        hair=_colour(hair),
        brow=_colour(brow_mix * hair + (1 - brow_mix) * 0.4 * skin),
        lip=_colour(skin * redness * (0.86 + 0.08 * z[45])),
        iris=_colour(iris),
        brow_thickness=float(np.exp(0.22 * z[46])),
        brow_density=float(np.clip(0.75 + 0.18 * z[47], 0.2, 0.97)),
        hairline=float(68 + 7 * z[48] + (80 if z[49] > 1.4 else 0)),
        blush=float(np.clip(1 + 0.5 * z[50], 0, 2.2)),
        freckles=float(np.clip(0.3 * z[51], 0, 1)),
        stubble=float(np.clip(0.25 * z[52], 0, 0.7)),
        seed=int(abs(draws[53]) * 1e6) % 2**31,
    )
    return identity, palette
