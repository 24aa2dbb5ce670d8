"""The deviation prior of section 7: what keeps a frame near a reference while flow moves it.

The reference's landmarks are held in the image rather than its pose in space: what a camera cannot tell, as depth, is
then held as loosely as it is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.energy.surface import SurfacePoints
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Rig
from deepenergy.scene.rotation import left_jacobian, so3_log
from deepenergy.scene.state import State


@dataclass(frozen=True)
class Deviation:
    """Prior residuals of T frames about references.

    Attributes:
        reference: states of T frames.
        marks: points that are held in the image.
        image: `[T]` weight of the points' mean squared displacement in each camera, per unit pixel squared (a pixel of
            a face window of 256x256).
        controls: `[T]` weight of the squared change of each control, per unit of weight (jaw: per share of its range).
        rotation: `[T]` weight of the squared rotation, per degree squared.
        translation: `[T]` weight of the squared translation, per millimetre squared.
    """

    reference: State
    marks: SurfacePoints
    image: Float[Tensor, " t"]
    controls: Float[Tensor, " t"]
    rotation: Float[Tensor, " t"]
    translation: Float[Tensor, " t"]

    @staticmethod
    def about(
        reference: State,
        rig: Rig,
        image: float = 0.0,
        controls: float = 0.0,
        rotation: float = 0.0,
        translation: float = 0.0,
    ) -> Deviation:
        """The same weights in every frame; the points are vertices at the rig's landmarks.

        Raises:
            InputError: the rig has no landmarks.
        """
        faces, barycentrics = rig.require_landmarks()
        corner = barycentrics.argmax(1)
        marks = SurfacePoints.of(rig, rig.faces[faces][torch.arange(len(corner)), corner])
        weights = (torch.full((len(reference),), float(w), dtype=torch.float64) for w in
                   (image, controls, rotation, translation))  # fmt: skip
        return Deviation(reference, marks, *weights)

    def take(self, rows: Int[Tensor, " n"]) -> Deviation:
        """The prior of some frames."""
        parts = (self.image[rows], self.controls[rows], self.rotation[rows], self.translation[rows])
        return Deviation(self.reference[rows], self.marks, *parts)

    def rows(self, cameras: int) -> int:
        """How many residuals there are for a number of cameras."""
        images = 2 * len(self.marks) * cameras if bool((self.image > 0).any()) else 0
        return images + self.reference.size

    def __call__(
        self, state: State, cameras: Sequence[Camera], units: Float[Tensor, "t c"]
    ) -> tuple[Float[Tensor, "t r"], Float[Tensor, "t r p"]]:
        """Residuals at states, and their derivative by the step of `State.retract` at zero.

        Args:
            units: unit pixels in a plate pixel.
        """
        count, size = len(state), state.size
        residuals, slopes = [], []
        if bool((self.image > 0).any()):
            for c, camera in enumerate(cameras):
                factor = (self.image / len(self.marks)).sqrt() * units[:, c]
                pixels, slope = self.marks.project_with_jacobian(state, camera)
                away = pixels - self.marks.pixels(self.reference, camera)
                residuals.append((away * factor[:, None, None]).flatten(1))
                slopes.append((slope * factor[:, None, None, None]).flatten(1, 2))
        turn = so3_log(state.rotation @ self.reference.rotation.mT)
        rotation = self.rotation.sqrt()[:, None] * (180 / torch.pi)
        translation = self.translation.sqrt()[:, None] * 1000
        span = torch.ones(size - 6, dtype=torch.float64)
        if self.marks.jaw is not None:
            span[:6] = (self.marks.jaw.upper - self.marks.jaw.lower).double()
        controls = self.controls.sqrt()[:, None] / span
        change = torch.cat([state.jaw - self.reference.jaw, state.weights - self.reference.weights], 1)
        residuals += [
            rotation * turn,
            translation * (state.translation - self.reference.translation),
            controls * change,
        ]
        own = torch.zeros(count, size, size, dtype=torch.float64)
        own[:, :3, :3] = rotation[:, :, None] * torch.linalg.inv(left_jacobian(turn))
        own[:, 3:6, 3:6] = torch.diag_embed(translation.expand(count, 3))
        own[:, 6:, 6:] = torch.diag_embed(controls)
        return torch.cat(residuals, 1), torch.cat([*slopes, own], 1)
