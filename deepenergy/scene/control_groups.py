"""Which blendshape weights belong to which part of the face, from the weights' names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from deepenergy.runtime.errors import InputError

# The first pattern that is found in a name decides. Names are compared in lower case without separators and node
# prefixes, so that ARKit, ICT-FaceKit, Maya (`face_bs.jawOpen`) and viseme spellings land in the same group. The order
# settles names of two parts: mouthOpen is jaw_open, mouthFrown mouth, eyebrow brows, cheekSquint cheeks.
PATTERNS: tuple[tuple[str, str], ...] = (
    ("jaw_open", r"jawopen|jawdrop|mouthopen|openmouth|^(viseme)?aa$"),
    ("mouth", r"mouth|lip|smile|pucker|funnel|dimple|kiss|(?<!eye)corner|phoneme|viseme"),
    ("jaw", r"jaw|chin|mandible"),
    ("tongue", r"tongue"),
    ("brows", r"brow|frown"),
    ("cheeks", r"cheek|puff"),
    ("nose", r"nose|nostril|sneer"),
    ("eyes", r"eye|blink|lid|squint|pupil|gaze|look(up|down|in|out|left|right)"),
)
GROUPS = (*(name for name, _ in PATTERNS), "other")


def _plain(name: str) -> str:
    # A part without letters is a copy's number (`jawOpen.001`), not the name.
    parts = [part for part in re.split(r"[.:|]", name) if re.search(r"[A-Za-z]", part)]
    return re.sub(r"[^a-z0-9]", "", parts[-1].lower()) if parts else ""


def group_of(name: str) -> str:
    """The control group of one weight name (one of `GROUPS`)."""
    plain = _plain(name)
    return next((group for group, pattern in PATTERNS if re.search(pattern, plain)), "other")


def control_groups(
    weight_names: Sequence[str], overrides: Mapping[str, Sequence[str]] | None = None
) -> dict[str, tuple[int, ...]]:
    """Indices of the weights of every group; groups without weights are empty.

    Args:
        weight_names: the rig's weight names.
        overrides: group name -> weight names, which move there from where their names would put them. A group that
            is not one of `GROUPS` is made.

    Raises:
        InputError: an override names a weight that the rig does not have.
    """
    where = {name: group_of(name) for name in weight_names}
    for group, names in (overrides or {}).items():
        for name in names:
            if name not in where:
                near = ", ".join(weight_names[:6])
                raise InputError(
                    f"control groups '{group}'",
                    f"the weight '{name}'",
                    f"names of the rig's weights ({near}, ...)",
                    "see `deepenergy rig info`",
                )
            where[name] = group
    names = [*GROUPS, *(g for g in (overrides or {}) if g not in GROUPS)]
    return {group: tuple(i for i, n in enumerate(weight_names) if where[n] == group) for group in names}
