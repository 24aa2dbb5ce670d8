"""Landmark schemes: how many points a face has, which are its brows and its mouth, which swap places in a mirror.

Everything that depends on the numbering of landmarks asks a `LandmarkLayout`: the schedule for its sets, drawings for
their contours, networks for their mirror. Another scheme is another instance, listed in `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deepenergy.runtime.errors import InputError, did_you_mean

# What every scheme has; the sets of the schedule, and the lines that a face is drawn with.
SETS = ("jaw", "brows", "nose", "eyes", "mouth")
CONTOURS = (
    "jaw", "right_brow", "left_brow", "bridge", "nose_base", "right_eye", "left_eye", "outer_lips", "inner_lips",
)  # fmt: skip


@dataclass(frozen=True)
class Contour:
    """A line through landmarks.

    Attributes:
        points: numbers of the landmarks, along the line.
        closed: whether the last one is joined to the first.
    """

    points: tuple[int, ...]
    closed: bool = False

    @property
    def rows(self) -> list[int]:
        """The points, as a list that arrays and tensors can be indexed with."""
        return list(self.points)

    @property
    def line(self) -> list[int]:
        """The points to join one after the other: those of a closed contour end with its first."""
        return [*self.points, *(self.points[:1] if self.closed else ())]


@dataclass(frozen=True)
class LandmarkLayout:
    """A landmark scheme. Points are numbered from 0; "right" is the subject's own right, at -X of the rig.

    Attributes:
        name: how files and settings name it.
        title: how messages name it.
        names: a name for every point.
        sets: disjoint sets of points that together are all of them, by the names in `SETS`.
        contours: lines to draw, by the names in `CONTOURS`. The jaw's runs from the right ear to the left one, the
            bridge from between the eyes to the tip of the nose.
        mirror: for every point, the one that takes its place when the face is seen in a mirror.
        midline: points on the plane of symmetry.
        chin: the lowest point of the jaw.
        outer_eye_corners, inner_eye_corners: of the right eye, then of the left one.
        lid_pairs: (upper, lower) points that lie above each other on the lids, of both eyes.
        mouth_corners: right, left; on the outer lips.
        lip_middles: upper, lower; on the outer lips.
        inner_lip_pairs: (upper, lower) points that touch where the mouth is closed.

    Raises:
        ValueError: a set or contour is missing, sets that are no partition, a mirror that is not its own inverse, or a
            number out of range.
    """

    name: str
    title: str
    names: tuple[str, ...]
    sets: Mapping[str, tuple[int, ...]]
    contours: Mapping[str, Contour]
    mirror: tuple[int, ...]
    midline: tuple[int, ...]
    chin: int
    outer_eye_corners: tuple[int, int]
    inner_eye_corners: tuple[int, int]
    lid_pairs: tuple[tuple[int, int], ...]
    mouth_corners: tuple[int, int]
    lip_middles: tuple[int, int]
    inner_lip_pairs: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        every = list(range(self.count))
        lines = [contour.points for contour in self.contours.values()]
        single = (self.midline, (self.chin,), self.outer_eye_corners, self.inner_eye_corners, self.mouth_corners)
        used = [*lines, *single, self.lip_middles, *self.lid_pairs, *self.inner_lip_pairs]
        checks = (
            ("names", len(set(self.names)) == self.count > 0, "different names"),
            ("sets", set(self.sets) == set(SETS), f"the sets {', '.join(SETS)}"),
            ("sets", sorted(point for points in self.sets.values() for point in points) == every, "every point once"),
            ("contours", set(self.contours) == set(CONTOURS), f"the contours {', '.join(CONTOURS)}"),
            ("mirror", sorted(self.mirror) == every, "every point once"),
            ("mirror", all(self.mirror[other] == point for point, other in enumerate(self.mirror)), "its own inverse"),
            ("points", all(0 <= point < self.count for points in used for point in points), "numbers of points"),
        )
        for attribute, good, expected in checks:
            if not good:
                raise ValueError(f"landmark layout '{self.name}' {attribute}: expected {expected}")

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def count(self) -> int:
        """How many points the scheme has."""
        return len(self.names)

    @property
    def bridge(self) -> int:
        """The top of the nose's bridge, between the eyes."""
        return self.contours["bridge"].points[0]

    @property
    def nose_tip(self) -> int:
        """The lower end of the nose's bridge."""
        return self.contours["bridge"].points[-1]

    @property
    def jaw_ends(self) -> tuple[int, int]:
        """The ends of the jaw line, at the ears: right, left."""
        jaw = self.contours["jaw"].points
        return jaw[0], jaw[-1]


def _span(first: int, end: int) -> tuple[int, ...]:
    return tuple(range(first, end))


_IBUG_CONTOURS = {
    "jaw": Contour(_span(0, 17)),
    "right_brow": Contour(_span(17, 22)),
    "left_brow": Contour(_span(22, 27)),
    "bridge": Contour(_span(27, 31)),
    "nose_base": Contour(_span(31, 36)),
    "right_eye": Contour(_span(36, 42), closed=True),
    "left_eye": Contour(_span(42, 48), closed=True),
    "outer_lips": Contour(_span(48, 60), closed=True),
    "inner_lips": Contour(_span(60, 68), closed=True),
}

# The markup of 300-W (ibug.doc.ic.ac.uk/resources/300-W), after Multi-PIE.
IBUG_68 = LandmarkLayout(
    name="ibug68",
    title="iBUG",
    names=tuple(f"{name}_{i}" for name, contour in _IBUG_CONTOURS.items() for i in range(len(contour.points))),
    sets={
        "jaw": _span(0, 17),
        "brows": _span(17, 27),
        "nose": _span(27, 36),
        "eyes": _span(36, 48),
        "mouth": _span(48, 68),
    },
    contours=_IBUG_CONTOURS,
    mirror=(
        *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37,
        36, 41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
    ),
    midline=(8, 27, 28, 29, 30, 33, 51, 57, 62, 66),
    chin=8,
    outer_eye_corners=(36, 45),
    inner_eye_corners=(39, 42),
    lid_pairs=((37, 41), (38, 40), (43, 47), (44, 46)),
    mouth_corners=(48, 54),
    lip_middles=(51, 57),
    inner_lip_pairs=((61, 67), (62, 66), (63, 65)),
)  # fmt: skip

LAYOUTS: dict[str, LandmarkLayout] = {layout.name: layout for layout in (IBUG_68,)}


def layout_from_name(name: str) -> LandmarkLayout:
    """The landmark scheme of a name.

    Raises:
        InputError: no such scheme.
    """
    if name not in LAYOUTS:
        raise InputError("landmark layout", f"'{name}'", f"one of {', '.join(LAYOUTS)}", did_you_mean(name, LAYOUTS))
    return LAYOUTS[name]


def expected_count(found: int) -> int:
    """How many points an array of `found` landmarks ought to have: as many, where a scheme has so many; else iBUG's."""
    return found if any(layout.count == found for layout in LAYOUTS.values()) else IBUG_68.count
