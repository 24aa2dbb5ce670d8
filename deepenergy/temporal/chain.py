"""A shot as a chain: states of frames, held together by the plates' flow between neighbours.

With `q(p)` the projections of the face's points, the flow energy of neighbours a and b (sections 6 and 7),
`N(F_a*, F_b*) - N(F_a, F_b)` with the render's flow taken from the rig, is

    r_n = sqrt(w_n) (m_n - (q_n(p_b) - q_n(p_a)))

for each point n, where `m_n` is the displacement that the plates show at the point and `w_n` says how far to trust it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.energy.surface import SurfacePoints, face_window, visible_points
from deepenergy.fit.fit_context import FitContext
from deepenergy.flow.plate_flows import UNIT_PIXELS, PairFlow, PlateFlows
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Rig
from deepenergy.scene.state import State
from deepenergy.temporal.occluders import Appearance

_DEPTH_SIZE = 256


@dataclass
class Chain:
    """The fixed parts of a shot's flow problem.

    Args:
        rig: the whole rig, which decides what is visible.
        points: points whose motion is followed.
        cameras: C cameras, the same in every frame or with a row for each of the T.
        flows: flows between the plates.
        start: states of all T frames, finite; windows and visibility are taken from them.
        appearance: tells where a plate shows something else; None trusts them all.
    """

    rig: Rig
    points: SurfacePoints
    cameras: Sequence[Camera]
    flows: PlateFlows
    start: State
    appearance: Appearance | None = None
    _visible: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    _own: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    _windows: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    @staticmethod
    def along(
        context: FitContext,
        frames: Sequence[int] | np.ndarray,
        start: State,
        known: Bool[Tensor, " t"],
        points: SurfacePoints,
        size: int = 512,
    ) -> Chain:
        """The chain of a stretch of frames.

        Args:
            context: whose views, rig and flow network.
            frames: T frame numbers.
            start: T states, finite.
            known: frames that were solved, whose plates show the face for certain.
            points: points whose motion is followed.
            size: side of the square that the flow network sees, pixels.
        """
        numbers = [int(n) for n in frames]
        flows = PlateFlows(context.views, numbers, context.flow, size)
        appearance = Appearance(context.views, numbers, points, start, known)
        return Chain(context.rig, points, context.views.cameras_at(numbers), flows, start, appearance)

    def __len__(self) -> int:
        return len(self.start)

    def window(self, row: int, camera: int) -> Float[Tensor, "4"]:
        """Around the face in frames `row` and `row + 1`."""
        key = (row, camera)
        if key not in self._windows:
            both = self.points.pixels(self.start[row : row + 2], self.cameras[camera][row : row + 2])
            self._windows[key] = face_window(both)
        return self._windows[key]

    def units(self, row: int) -> Float[Tensor, " c"]:
        """Unit pixels in a plate pixel of a frame, for each camera."""
        windows = [self._own_window(row, c) for c in range(len(self.cameras))]
        return torch.stack([UNIT_PIXELS / (window[2] - window[0]) for window in windows])

    def _own_window(self, row: int, camera: int) -> Tensor:
        key = (row, camera)
        if key not in self._own:
            self._own[key] = face_window(self.points.pixels(self.start[[row]], self.cameras[camera][[row]]))
        return self._own[key]

    def visible(self, row: int, camera: int) -> Bool[Tensor, " n"]:
        """Points that a camera sees in a frame's start."""
        key = (row, camera)
        if key not in self._visible:
            state = self.start[[row]]
            view = self.cameras[camera][[row]].crop(self._own_window(row, camera), _DEPTH_SIZE)
            vertices = self.rig.vertices(state.to(self.rig.neutral))
            self._visible[key] = visible_points(self.rig, vertices, view, self.points.indices)[0]
        return self._visible[key]

    def pair(self, row: int, camera: int) -> PairFlow | None:
        """Flow between the plates of frames `row` and `row + 1`."""
        return self.flows.pair(row, camera, self.window(row, camera))

    def motion(
        self, row: int, camera: int, first: Float[Tensor, "n 2"] | None, second: Float[Tensor, "n 2"] | None
    ) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
        """The points' displacement on the plates from frame `row` to `row + 1`, plate pixels, and its weight in [0, 1].

        Args:
            first, second: the points' projections in the two frames; None leaves out what would be read there.
        """
        total = torch.zeros(len(self.points), 2, dtype=torch.float64)
        weight = torch.zeros(len(self.points), dtype=torch.float64)
        pair = self.pair(row, camera)
        if pair is None:
            return total, weight
        for places, at, sign in ((first, row, 1.0), (second, row + 1, -1.0)):
            if places is not None:
                moved, trust = pair.displacement(places, backward=sign < 0)
                trust = trust * self.visible(at, camera)
                if self.appearance is not None and bool(trust.any()):
                    for frame, where in ((at, places), (2 * row + 1 - at, places + moved)):
                        trust = trust * self.appearance.trust(frame, camera, where, self.visible(at, camera))
                total += sign * moved * trust[:, None]
                weight += trust
        mean = total / weight.clamp_min(1e-12)[:, None]
        return mean, weight / sum(p is not None for p in (first, second))
