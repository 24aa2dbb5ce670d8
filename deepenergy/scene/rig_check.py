"""Whether a rig's landmarks are a face in metres, upright, that looks down +Z: what a solve takes for granted.

Every anatomical bound of the solver (the jaw's sliding, what is visible from the front) is in these units and axes, and
a camera in metres takes a rig in centimetres for one a hundred times as far away, without any other sign of it.
"""

from __future__ import annotations

import torch

from deepenergy.runtime.errors import InputError
from deepenergy.scene.rig import Rig

# Between the outer eye corners of anybody from a doll to a giant, in metres; people have 0.08 to 0.10.
_NARROWEST, _WIDEST = 0.02, 0.5
# The cosine of 45 degrees: nearer to another axis than to its own.
_ALONG = 0.7071
_AXES = ("+X", "+Y", "+Z", "-X", "-Y", "-Z")


def check_face(rig: Rig) -> None:
    """Refuse a rig in other units or axes, and landmarks that are no face.

    Raises:
        InputError: landmarks on one spot or line, eyes too near or too far apart for metres, left and right exchanged,
            a head that does not stand along +Y or look down +Z.
    """
    points, layout = rig.landmarks(rig.neutral[None].double())[0], rig.layout
    field = f"rig '{rig.name}'"
    spread = torch.linalg.svdvals(points - points.mean(0))
    if not bool(spread[1] > 1e-3 * spread[0]):
        raise InputError(
            f"{field} landmarks",
            f"{layout.count} points on one spot or line",
            "a face",
            "mark a vertex of its own for every point",
        )
    right, left = layout.outer_eye_corners
    across = points[left] - points[right]
    width = float(torch.linalg.vector_norm(across))
    if not _NARROWEST <= width <= _WIDEST:
        raise InputError(
            f"{field} units",
            f"outer eye corners (landmarks {right} and {left}) {width:.3g} m apart",
            f"{_NARROWEST} to {_WIDEST} m, 0.09 as a rule",
            "scale the rig to metres (by 0.01 from centimetres), or mend its landmarks",
        )
    up = points[layout.bridge] - points[layout.chin]
    forward = torch.linalg.cross(across, up)
    if float(forward @ (points[layout.nose_tip] - points[list(layout.jaw_ends)].mean(0))) < 0:
        raise InputError(
            f"{field} landmarks",
            "the nose behind the ears, by the order of the eyes",
            f"{layout.title} order: {right} is the outer corner of the subject's own right eye, at -X",
            "exchange left and right in the landmarks",
        )
    axes = [_axis(direction) for direction in (up, forward)]
    if axes != ["+Y", "+Z"]:
        raise InputError(
            f"{field} axes",
            f"a head that stands along {axes[0]} and looks down {axes[1]}",
            "+Y up, looking down +Z",
            "turn the mesh and export again with its transforms applied",
        )


def _axis(direction: torch.Tensor) -> str:
    """The axis that a direction is nearest to, or the direction itself where it is near none."""
    unit = direction / torch.linalg.vector_norm(direction)
    both = torch.cat([unit, -unit])
    best = int(both.argmax())
    return _AXES[best] if float(both[best]) > _ALONG else "(" + ", ".join(f"{v:.2f}" for v in unit.tolist()) + ")"
