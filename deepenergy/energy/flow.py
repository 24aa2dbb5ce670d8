"""The flow energy of sections 6 and 7 for single frames, its neighbours held.

`|| N(F1*, F2*) - N(F1, F2) ||`: the plates' flow by a network, the render's exactly, from the rig's motion. A point of
the surface that lies at `q(p1)` in frame 1 should lie at `q(p1) + N(F1*, F2*)(q(p1))` in frame 2; the residual is by
how much `q(p2)` misses that. This is the paper's energy with the render's flow read where the points are; its Jacobian
is that of the rig under projection (`geometric`). For `N(F2*, F3*)` with frame 2 unknown the flow is read from frame 3
back to frame 2, so that the place where it is read does not move with the unknown.

`deep_flow` is the paper's own Jacobian, through the network with respect to the second render.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.energy.prior import Deviation
from deepenergy.energy.stack import RowPlaces
from deepenergy.energy.surface import SurfacePoints
from deepenergy.render import Renderer
from deepenergy.scene.camera import Camera
from deepenergy.scene.rotation import left_jacobian
from deepenergy.scene.state import State
from deepenergy.solve import Block, Cauchy


@dataclass(frozen=True)
class FlowWeight:
    """How much flow counts.

    Attributes:
        weight: of the mean squared residual of a frame's points against one neighbour, per unit pixel squared (a pixel
            of a face window of 256x256). It stands for the number of independent observations over their variance.
        scale: residual in unit pixels from which a point counts less (Cauchy); all count alike when infinite.
    """

    weight: float = 20.0
    scale: float = 0.5


@dataclass(frozen=True)
class FlowEnergy:
    """Flow residuals of B frames against E neighbours in C cameras, and the deviation prior.

    Attributes:
        points: the N points that are followed.
        cameras: C cameras.
        targets: `[B, E, C, N, 2]` where the points should be, plate pixels; anything where the trust is 0.
        trust: `[B, E, C, N]` in [0, 1].
        units: `[B, C]` unit pixels in a plate pixel.
        base: where steps are taken from; `x` is a flat step for `State.retract`.
        flow: the weight.
        prior: what keeps the frames near their references, or None.
    """

    points: SurfacePoints
    cameras: tuple[Camera, ...]
    targets: Tensor
    trust: Tensor
    units: Tensor
    base: State
    flow: FlowWeight = field(default_factory=FlowWeight)
    prior: Deviation | None = None

    def take(self, rows: Int[Tensor, " n"]) -> FlowEnergy:
        """The energy of some frames."""
        prior = None if self.prior is None else self.prior.take(rows)
        parts = {name: getattr(self, name)[rows] for name in ("targets", "trust", "units", "base")}
        return replace(self, cameras=tuple(camera[rows] for camera in self.cameras), **parts, prior=prior)

    def places(self) -> RowPlaces:
        """The points on the neutral face."""
        count = self.targets[0].numel() // (2 * len(self.points))
        rows = torch.arange(len(self.points)).repeat_interleave(2).repeat(count)
        priors = 0 if self.prior is None else self.prior.rows(len(self.cameras))
        return RowPlaces(self.points.neutral, torch.cat([rows, rows.new_full((priors,), -1)]))

    def kernels(self) -> list[Block]:
        """The robust kernel on each point's two rows."""
        if self.flow.scale == float("inf"):
            return []
        count = self.targets[0].numel()
        return [Block(slice(0, count), Cauchy(self._factor * self.flow.scale), 2)]

    @property
    def _factor(self) -> float:
        return (self.flow.weight / len(self.points)) ** 0.5

    def __call__(self, x: Float[Tensor, "b p"]) -> tuple[Float[Tensor, "b r"], Float[Tensor, "b r p"]]:
        """Residuals and Jacobian at steps `x` from the base."""
        state = self.base.retract(x)
        rows: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(self.targets.shape[1])]
        for c, camera in enumerate(self.cameras):
            pixels, slopes = self.points.project_with_jacobian(state, camera)
            for e, part in enumerate(rows):
                factor = (self._factor * self.trust[:, e, c].sqrt() * self.units[:, c, None])[..., None]
                away = pixels - self.targets[:, e, c]
                # A point behind everything may have no finite projection.
                away = torch.where(factor > 0, away, torch.zeros_like(away))
                part.append(((away * factor).flatten(1), (slopes * factor[..., None]).flatten(1, 2)))
        every = [row for part in rows for row in part]
        if self.prior is not None:
            every.append(self.prior(state, self.cameras, self.units))
        residual, jacobian = torch.cat([r for r, _ in every], 1), torch.cat([j for _, j in every], 1)
        # A further step, seen from the base.
        turned = jacobian[..., :3] @ left_jacobian(x[:, :3])
        return residual, torch.cat([turned, jacobian[..., 3:]], -1)


FlowFunction = Callable[[Tensor, Tensor], Tensor]


def deep_flow(  # more than six: the paper's own chain, a reference that nothing else is built on
    renderer: Renderer,
    network: FlowFunction,
    first: State,
    base: State,
    step: Float[Tensor, "1 p"],
    camera: Camera,
    free: Bool[Tensor, " p"],
    most_points: int = 64,
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2 p"], Int[Tensor, "n 2"]]:
    """`N(F1, F2)` at pixels of the face and its Jacobian by the second frame's step, one reverse pass a number.

    Derivatives are those that the network gives: a network that detaches its positions between updates, as RAFT does,
    gives others than its function's.

    Args:
        renderer: draws the rig.
        network: `(a, b)` images `[1, 3, H, W]` to flow `[1, 2, H, W]` in pixels of the images.
        first: the first frame's state, a batch of one.
        base: the second frame's state, which `step` moves.
        camera: what both are seen through; its size is the images'.
        free: parameters whose columns are wanted; the others are zero.
        most_points: pixels of the first render's face that are read, evenly spread.

    Returns:
        flow at the pixels, its Jacobian, and the pixels' (row, column).
    """

    def image(state: State) -> tuple[Tensor, Tensor]:
        drawn = renderer(renderer.rig.vertices(state.to(renderer.rig.neutral)), camera)
        return drawn.image, drawn.mask

    with torch.no_grad():
        start, mask = image(first)
    inner = (mask[0, 0] > 0.99).nonzero()
    chosen = inner[:: max(1, -(-len(inner) // most_points))] if len(inner) else inner
    moving = step.detach().clone().requires_grad_()
    with torch.enable_grad():
        second, _ = image(base.retract(moving))
        flow = network(start, second)[0, :, chosen[:, 0], chosen[:, 1]].T
    jacobian = torch.zeros(len(chosen), 2, step.shape[1], dtype=step.dtype)
    for n in range(len(chosen)):
        for axis in range(2):
            (row,) = torch.autograd.grad(flow[n, axis], moving, retain_graph=True)
            jacobian[n, axis] = torch.where(free, row[0], torch.zeros_like(row[0]))
    return flow.detach().to(step), jacobian, chosen
