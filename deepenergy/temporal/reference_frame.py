"""In whose axes a head's path is steady: those of the world, or those of the camera that films it.

Terms in time compare a head's pose with its poses a frame before and after. Where the camera moves, that must be done
in axes in which the head moves as heads do. A hand-held camera shakes while its world stands still, and then the world
is right: its shake is not the head's. But a world can also be one that was made up frame by frame (a stabilised track,
a stage that turns, a solve without a fixed scale), and then only what the camera sees is steady. The path itself tells:
the axes in which its second differences are smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.fit.fit_context import FitContext
from deepenergy.scene.camera import inverse_rigid
from deepenergy.scene.rotation import rotation_angle
from deepenergy.scene.state import State
from deepenergy.scene.track import Track
from deepenergy.scene.views import Views

# A degree of rotation counts as much as these metres: what a head's turn moves its own surface by.
_METRES_PER_RADIAN = 0.1


@dataclass(frozen=True)
class ReferenceFrame:
    """Axes to work in, for each of T frames.

    Attributes:
        frames: T frame numbers.
        transform: `[T, 4, 4]` rigid, from the world into these axes; `[1, 4, 4]` where it is always the same, None
            where they are the world's.
    """

    frames: tuple[int, ...]
    transform: Float[Tensor, "t 4 4"] | None = None

    def views(self, views: Views) -> Views:
        """The views, in these axes."""
        return views if self.transform is None else views.moved(self.frames, self.transform)

    def context(self, context: FitContext) -> FitContext:
        """The context with its views in these axes."""
        return context if self.transform is None else replace(context, views=self.views(context.views))

    def track_here(self, track: Track) -> Track:
        """The track, from the world into these axes."""
        return track if self.transform is None else track.moved(self.transform)

    def track_back(self, track: Track) -> Track:
        """The track, from these axes into the world."""
        return track if self.transform is None else track.moved(inverse_rigid(self.transform))

    def state_back(self, state: State, frames: Sequence[int]) -> State:
        """States of some of the frames, from these axes into the world."""
        if self.transform is None:
            return state
        back = inverse_rigid(self.transform)
        return state.moved(back if len(back) == 1 else back[[self.frames.index(int(n)) for n in frames]])


def steady_frame(
    views: Views, frames: Sequence[int] | np.ndarray, state: State, known: Bool[Tensor, " t"]
) -> ReferenceFrame:
    """The world's axes, or those of the first camera where the head's path is steadier in them.

    Args:
        views: the cameras; where none moves, the world's axes are as good as any.
        frames: T frame numbers, ascending.
        state: T states in the world.
        known: which of them count.
    """
    numbers = tuple(int(n) for n in frames)
    if all(camera.frames is None for camera in views.cameras):
        return ReferenceFrame(numbers)
    camera = views.camera(0, numbers)
    transform = camera.world_to_camera.expand(len(numbers), 4, 4)
    here, there = (_roughness(numbers, s, known) for s in (state, state.moved(transform)))
    return ReferenceFrame(numbers, transform if there < here else None)


def solving_frame(views: Views, frames: Sequence[int], state: State, known: Bool[Tensor, " t"]) -> ReferenceFrame:
    """The axes that a shot is solved in: those of the first camera, in each frame or as it is in the first one.

    Steps, scales and rounding (renders are float32) then do not depend on where the world has its origin and its axes;
    which of the two, see `steady_frame`.
    """
    steady = steady_frame(views, frames, state, known)
    if steady.transform is not None:
        return steady
    first = views.camera(0, steady.frames[:1]).world_to_camera
    return ReferenceFrame(steady.frames, first.reshape(1, 4, 4))


def _roughness(frames: tuple[int, ...], state: State, known: Bool[Tensor, " t"]) -> float:
    """Median second difference of the poses, metres; 0 where no three frames in a row are known."""
    numbers = torch.tensor(frames)
    if len(numbers) < 3:
        return 0.0
    step = numbers[1:] - numbers[:-1]
    even = (step[1:] == step[:-1]) & known[2:] & known[1:-1] & known[:-2]
    turns = state.rotation[1:] @ state.rotation[:-1].mT
    turn = rotation_angle(turns[1:], turns[:-1])
    move = (state.translation[2:] - 2 * state.translation[1:-1] + state.translation[:-2]).norm(dim=1)
    size = (turn * _METRES_PER_RADIAN + move)[even]
    return float(size.median()) if len(size) else 0.0
