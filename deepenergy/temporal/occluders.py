"""Whether a plate still shows the face where its points are believed to be: what passes in front of it has flow, too.

Flow follows whatever the plate shows; a hand before the face moves consistently, but not as the face does. The colours
at the points are compared with those in the nearest frames that were solved, up to a gain and an offset, so that a
darker or paler plate does not matter. Colours are read from small pictures, so that a little misplacement does not
matter either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.energy.surface import SurfacePoints, face_window
from deepenergy.scene.state import State
from deepenergy.scene.views import Views

_SIZE = 48
# Difference, in standard deviations of the face's own colours, at which a point counts a quarter.
_DIFFERENT = 1.0
# Correlation with the solved frames from which a plate begins to count, and from which it counts in full.
_UNLIKE, _ALIKE = 0.5, 0.8
# Nearest points that a point is looked at with; their correlation from which it begins to count, and counts in full.
_NEIGHBOURS = 48
_LOCALLY_UNLIKE, _LOCALLY_ALIKE = 0.3, 0.7
_FITS = 5
# Variance of colours below which there is nothing to compare.
_FLAT = 1e-5


@dataclass
class Appearance:
    """The face's colours in a stretch of frames.

    Args:
        views: C cameras and their plates.
        frames: T frame numbers.
        points: the points that are followed.
        start: states of all T frames, finite.
        known: `[T]` frames that were solved: they are what the others are compared with, and always trusted.
    """

    views: Views
    frames: Sequence[int]
    points: SurfacePoints
    start: State
    known: Bool[Tensor, " t"]
    _pictures: dict[tuple[int, int], tuple[Tensor, Tensor] | None] = field(default_factory=dict)
    _neighbours: Tensor | None = None

    def trust(
        self, row: int, camera: int, places: Float[Tensor, "n 2"], visible: Bool[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """How far a frame shows the face's points at `places` (plate pixels), each in [0, 1]."""
        everywhere = torch.ones(len(places), dtype=torch.float64)
        if bool(self.known[row]) or not bool(self.known.any()):
            return everywhere
        now = self._colours(row, camera, places)
        then = [self._colours(r, camera, None) for r in self._nearest(row)]
        then = [colours for colours in then if colours is not None]
        if now is None or not then:
            return everywhere
        before = torch.stack(then).mean(0)
        if self._neighbours is None:
            near = torch.cdist(self.points.neutral, self.points.neutral)
            self._neighbours = near.topk(min(_NEIGHBOURS, len(near)), largest=False).indices
        # The fit starts from where the pattern is still there, so that a large flat thing does not win it.
        nearby = local_correlation(before, now, visible, self._neighbours)
        return nearby * compare(before, now, visible, nearby)

    def _nearest(self, row: int) -> list[int]:
        """The solved frames next to a frame, one on either side."""
        rows = self.known.nonzero()[:, 0].tolist()
        before, after = [r for r in rows if r < row], [r for r in rows if r > row]
        return before[-1:] + after[:1]

    def _colours(self, row: int, camera: int, places: Tensor | None) -> Float[Tensor, "n 3"] | None:
        key = (row, camera)
        view = self.views.camera(camera, [int(self.frames[row])])
        own = self.points.pixels(self.start[[row]], view)[0]
        if key not in self._pictures:
            self._pictures[key] = self._picture(row, camera, face_window(own[None]))
        held = self._pictures[key]
        if held is None:
            return None
        picture, window = held
        at = ((own if places is None else places) - window[:2]) * (_SIZE / (window[2:] - window[:2])) - 0.5
        at = torch.nan_to_num(at).clamp(0, _SIZE - 1)
        low = at.floor().clamp(max=_SIZE - 2).long()
        share = (at - low)[:, None, :]
        corner = [picture[:, low[:, 1] + dy, low[:, 0] + dx].double().T for dy in (0, 1) for dx in (0, 1)]
        x, y = share[..., 0], share[..., 1]
        return (corner[0] * (1 - x) + corner[1] * x) * (1 - y) + (corner[2] * (1 - x) + corner[3] * x) * y

    def _picture(self, row: int, camera: int, window: Tensor) -> tuple[Tensor, Tensor] | None:
        picture = self.views.window(camera, int(self.frames[row]), window, _SIZE)
        return None if picture is None else (picture, window)


def compare(
    before: Float[Tensor, "n 3"],
    now: Float[Tensor, "n 3"],
    visible: Bool[Tensor, " n"],
    start: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, " n"]:
    """How alike the colours of points are, each in [0, 1]: a robust fit `now ~ gain * before + offset`, gain above 0.

    0 for all where the fitted colours hardly correlate. `start` says which points the fit begins with.
    """
    weight = visible.double() if start is None else visible * start
    correlation = torch.zeros(())
    for _ in range(_FITS):
        total = weight.sum().clamp_min(1e-9)
        x, y = ((c - (weight[:, None] * c).sum(0) / total) for c in (before, now))
        across, own, other = ((weight[:, None] * a * b).sum() / total for a, b in ((x, y), (x, x), (y, y)))
        correlation = across / ((own + _FLAT) * (other + _FLAT)).sqrt()
        gain = (across / (own + _FLAT)).clamp_min(0)
        scale = gain**2 * own * _DIFFERENT**2 + _FLAT
        weight = visible / (1 + (y - gain * x).square().sum(1) / scale) ** 2
    return weight * ((correlation - _UNLIKE) / (_ALIKE - _UNLIKE)).clamp(0, 1)


def local_correlation(
    before: Float[Tensor, "n 3"], now: Float[Tensor, "n 3"], visible: Bool[Tensor, " n"], neighbours: Int[Tensor, "n k"]
) -> Float[Tensor, " n"]:
    """By how far the pattern around each point is still there, each in [0, 1]: something skin-coloured lacks it."""
    weight = visible.double()[neighbours][..., None]
    total = weight.sum(1, keepdim=True).clamp_min(1)
    x, y = ((c[neighbours] - (weight * c[neighbours]).sum(1, keepdim=True) / total) for c in (before, now))
    across, own, other = ((weight * a * b).sum((1, 2)) / total[:, 0, 0] for a, b in ((x, y), (x, x), (y, y)))
    correlation = across / ((own + _FLAT) * (other + _FLAT)).sqrt()
    return ((correlation - _LOCALLY_UNLIKE) / (_LOCALLY_ALIKE - _LOCALLY_UNLIKE)).clamp(0, 1)
