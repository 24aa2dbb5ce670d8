"""Optical flow between neighbouring plates of a shot, `N(F1*, F2*)` of section 6, sampled where the face's points are.

Both plates of a pair are seen through one window around the face, resized to a square (512x512 in the paper). Flow is
taken in both directions. A point's displacement is read at its projection in either frame; it counts by how well the
two directions agree there (forward-backward consistency), and not at all outside of window or plate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.flow import FlowNetwork
from deepenergy.scene.views import Views
from deepenergy.scene.window import crop_and_resize

# The side of a face window that pixel tolerances are for, as the landmark network's.
UNIT_PIXELS = 256.0
# Disagreement of the two directions, unit pixels, at which a point counts 60 %.
_CONSISTENCY = 0.7
# Pairs that are remembered, under a megabyte each.
_KEPT = 512


@dataclass(frozen=True)
class PairFlow:
    """Flow between two plates of one camera, both ways.

    Attributes:
        window: `[4]` what was seen, plate pixels.
        fields: `[2, 3, S, S]` float16: from the first plate to the second, and back; x and y in plate pixels, validity.
        plate: (width, height).
    """

    window: Tensor
    fields: Tensor
    plate: tuple[int, int]

    @property
    def unit(self) -> float:
        """Unit pixels in a plate pixel."""
        return UNIT_PIXELS / float(self.window[2] - self.window[0])

    def displacement(
        self, places: Float[Tensor, "n 2"], backward: bool = False
    ) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
        """How the plate's content at `places` (plate pixels) moves into the other frame, and how far that counts.

        Args:
            backward: the places are in the second frame, and the displacement leads into the first.
        """
        way, back = (1, 0) if backward else (0, 1)
        there, inside = self._sample(way, places)
        again, inside_too = self._sample(back, places + there[:, :2])
        off = (there[:, :2] + again[:, :2]).norm(dim=1) * self.unit
        trust = torch.exp(-0.5 * (off / _CONSISTENCY) ** 2) * there[:, 2].clamp(0, 1)
        return there[:, :2], trust * inside * inside_too

    def _sample(self, way: int, places: Tensor) -> tuple[Tensor, Tensor]:
        """Bilinear samples `[N, 3]` of a field, and 1 where the place is in window and plate."""
        size = self.fields.shape[-1]
        at = (places - self.window[:2]) * (size / (self.window[2:] - self.window[:2])) - 0.5
        width, height = self.plate
        inside = ((at >= 0) & (at <= size - 1)).all(1) & (places >= 0).all(1)
        inside &= (places[:, 0] <= width) & (places[:, 1] <= height)
        # A place that is not finite has no flow.
        at = torch.nan_to_num(at).clamp(0, size - 1)
        low = at.floor().clamp(max=size - 2).long()
        share = (at - low)[:, :, None]
        flat = self.fields[way].flatten(1)

        def corner(dx: int, dy: int) -> Tensor:
            return flat[:, (low[:, 1] + dy) * size + low[:, 0] + dx].double().T

        top = corner(0, 0) * (1 - share[:, 0]) + corner(1, 0) * share[:, 0]
        bottom = corner(0, 1) * (1 - share[:, 0]) + corner(1, 1) * share[:, 0]
        return top * (1 - share[:, 1]) + bottom * share[:, 1], inside.double()


@dataclass
class PlateFlows:
    """Flows between consecutive frames of a shot, computed when first asked for.

    Args:
        views: C cameras and their plates.
        frames: T frame numbers, ascending; pairs are of consecutive entries.
        network: the flow network; without one no pair has a flow.
        size: side of the square that the window is resized to, pixels.
        kept: how many pairs are remembered.
    """

    views: Views
    frames: Sequence[int]
    network: FlowNetwork | None
    size: int = 512
    kept: int = _KEPT
    _pairs: dict[tuple[int, int], PairFlow | None] = field(default_factory=dict)
    # Pairs are asked for by several threads.
    _lock: Lock = field(default_factory=Lock)

    def pair(self, row: int, camera: int, window: Float[Tensor, "4"]) -> PairFlow | None:
        """The flow between frames `row` and `row + 1`; None where one of the plates cannot be read.

        Args:
            window: around the face in both frames, plate pixels; that of the first call counts.
        """
        key = (row, camera)
        with self._lock:
            if key in self._pairs:
                return self._pairs[key]
        found = self._compute(row, camera, window)
        with self._lock:
            if len(self._pairs) >= self.kept:
                self._pairs.pop(next(iter(self._pairs)))
            self._pairs[key] = found
        return found

    def _compute(self, row: int, camera: int, window: Tensor) -> PairFlow | None:
        plates = self.views.plates[camera]
        both = [self.views.image(camera, int(self.frames[r])) for r in (row, row + 1)]
        if both[0] is None or both[1] is None or self.network is None:
            return None
        images = crop_and_resize(torch.stack([both[0], both[1]]), window.expand(2, 4), self.size)
        with torch.no_grad():
            flow = self.network(images, images.flip(0))
        in_plate = float(window[2] - window[0]) / self.size
        known = torch.isfinite(flow.pixels).all(1, keepdim=True)
        pixels = torch.where(known, flow.pixels * in_plate, torch.zeros_like(flow.pixels))
        fields = torch.cat([pixels, flow.validity.to(pixels) * known], 1).float().cpu()
        # Half the size holds what a flow network knows, in a quarter of the memory.
        if self.size % 2 == 0:
            fields = torch.nn.functional.avg_pool2d(fields, 2)
        # Half precision: a hundredth of a pixel for a motion of twenty.
        return PairFlow(window.double(), fields.half(), (plates.width, plates.height))
