"""The paper's chain, differentiated (sections 3 and 4): `N(F(x_R(p)))` and its Jacobian by the chain rule.

    dN/dp = d(to plate)/dm  dm/dH  dH/dF  dF/dx_R  dx_R/dp

from the parameters to the rig's vertices (equation 1), the render `F`, the heatmaps `H`, the local soft-argmax `m`
(equation 3, its window held where the primal has it) and plate pixels. The crop's window is a constant: dD/dF = 0.

Forward, a tangent for each free parameter goes down the chain; reverse, each landmark's coordinate goes up. Either
way the visibility is found once for all that go together. The renderer has a forward mode of its own, for many tangents
at a time; through the network the tangents ride in one batch behind the primal (network_tangents.py).

The render is made straight in the crop's window, by the camera `crop(window, 256)`. That is the paper's crop C and
resize S of the full frame, with each pixel rendered where S would have interpolated it: the same map, sampled exactly.
`resample=True` does it to the letter, at the cost of the full frame.

Memory: the bytes that all operations of one primal view write are counted as it is computed. That is the most that its
graph keeps, and the most that one tangent or row can keep at a time; as many go together as `memory_mb` holds beside
the graph. The tangents of the vertices (12 bytes a vertex and parameter) come on top.

The derivative is exact where it exists. `N(F(x(p)))` has kinks (ReLUs, occlusion, colours that clip) and jumps (another
heatmap pixel becomes the highest; a pixel changes hands between triangles as far as the renderer does not blend), so
a finite difference over a jump has little to do with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deepenergy.energy.network_tangents import network_tangents
from deepenergy.landmarks.network import CROP_SIZE, HEATMAP_SIZE, HeatmapNetwork
from deepenergy.landmarks.soft_argmax import local_soft_argmax
from deepenergy.render import Renderer
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.state import State
from deepenergy.scene.window import crop_and_resize, heatmap_to_plate

Mode = Literal["auto", "forward", "reverse"]
# More at a time is not faster on a CPU, whose caches they leave.
_MOST_AT_ONCE = 16


def deep_landmarks(  # more than six: what N and F are, where they are taken, and how the derivative is to be had
    renderer: Renderer,
    network: HeatmapNetwork,
    base: State,
    step: Float[Tensor, "b p"],
    cameras: Sequence[Camera],
    windows: Float[Tensor, "b c 4"],
    free: Bool[Tensor, " p"],
    *,
    mode: Mode = "auto",
    memory_mb: float = 2000,
    resample: bool = False,
) -> tuple[Float[Tensor, "b c l 2"], Float[Tensor, "b c l 2 p"]]:
    """Landmarks of the network on renders of `base.retract(step)`, and their Jacobian by `step`.

    Args:
        renderer: renders in float32.
        network: differentiable in its crops.
        base: B states.
        step: from the base, see `State.retract`.
        cameras: C cameras.
        windows: windows in plate pixels; NaN where a view has none.
        free: which columns are wanted; the others are zero, and cost nothing.
        mode: "forward" (tangents), "reverse" (rows), or "auto": whichever are fewer.
        memory_mb: what the derivatives of one view may take at a time, in MB; one tangent is always computed.
        resample: render the full frame, then crop and resize it bilinearly, as the paper does to the letter.

    Returns:
        points in plate pixels, NaN where there is no window; their derivative, zero there. Float64.

    Raises:
        InputError: a network without derivatives, an unknown mode, no memory, or shapes that do not match.
    """
    _check(base, step, cameras, windows, free, mode, memory_mb)
    marks = network.layout.count
    points = torch.full((*windows.shape[:2], marks, 2), torch.nan, dtype=torch.float64, device=windows.device)
    jacobian = torch.zeros(*points.shape, step.shape[1], dtype=torch.float64, device=windows.device)
    columns = free.nonzero()[:, 0]
    forward = len(columns) <= 2 * marks if mode == "auto" else mode == "forward"
    for b in range(len(base)):
        seen = torch.isfinite(windows[b]).all(-1)
        if not bool(seen.any()):
            continue
        world = _World(renderer, base[[b]], step[[b]])
        tangents = world.tangents(columns) if forward and len(columns) else None
        for c in seen.nonzero()[:, 0].tolist():
            camera = cameras[c][[b]]
            view = _View(renderer, network, world.vertices, camera, windows[b, c][None], memory_mb, resample)
            if tangents is not None:
                slope = view.forward(tangents)
            else:
                slope = view.reverse(world)[..., columns] if len(columns) else jacobian.new_zeros(marks, 2, 0)
            # The inverse of crop and resize, whose window is a constant.
            window = windows[b, c].to(torch.float64)
            points[b, c] = heatmap_to_plate(view.points.detach().double(), window[None], HEATMAP_SIZE)[0].to(points)
            unit = ((window[2:] - window[:2]) / HEATMAP_SIZE)[:, None]
            jacobian[b, c, :, :, columns] = (slope.to(jacobian) * unit).to(jacobian)
    return points, jacobian


def heatmap_landmarks(
    network: HeatmapNetwork, image: Float[Tensor, "1 3 h w"], tangents: Float[Tensor, "t 3 h w"]
) -> tuple[Float[Tensor, "l 2"], Float[Tensor, "t l 2"]]:
    """Network and local soft-argmax of one image: landmarks in heatmap pixels, and their change along image tangents.

    In the network's own dtype; the place of each heatmap's highest pixel is held.
    """
    heatmaps, slopes = network_tangents(network, image, tangents)
    heatmaps = heatmaps.detach().requires_grad_()
    with torch.enable_grad():
        points = local_soft_argmax(heatmaps)[0]
        # A landmark depends on its own heatmap alone: one reverse pass gives the derivatives of all abscissae.
        own = [torch.autograd.grad(part.sum(), heatmaps, retain_graph=True)[0][0] for part in points.unbind(-1)]
    return points.detach(), torch.stack([(slopes * gradient).sum((-2, -1)) for gradient in own], -1)


def _check(  # more than six: what `deep_landmarks` was given
    base: State,
    step: Tensor,
    cameras: Sequence[Camera],
    windows: Tensor,
    free: Tensor,
    mode: str,
    memory_mb: float,
) -> None:
    if mode not in ("auto", "forward", "reverse"):
        raise InputError("jacobian mode", f"{mode!r}", "'auto', 'forward' or 'reverse'", "use 'auto'")
    if not memory_mb > 0:
        raise InputError("jacobian memory_mb", f"{memory_mb}", "a positive number of MB", "use 2000")
    size = 12 + base.weights.shape[1]
    for what, found, expected in (
        ("step", tuple(step.shape), (len(base), size)),
        ("windows", tuple(windows.shape), (len(base), len(cameras), 4)),
        ("free", tuple(free.shape), (size,)),
    ):
        if found != expected:
            raise InputError(f"deep jacobian {what}", f"shape {found}", f"{expected}", "check frames and parameters")


class _World:
    """One frame's vertices in world space, as a function of its step."""

    def __init__(self, renderer: Renderer, base: State, step: Tensor) -> None:
        self.renderer, self.base = renderer, base
        self.step = step.detach()
        with torch.no_grad():
            self.vertices = self(self.step)

    def __call__(self, step: Float[Tensor, "1 p"]) -> Float[Tensor, "1 v 3"]:
        return self.renderer.rig.vertices(self.base.retract(step).to(self.renderer.rig.neutral))

    def tangents(self, columns: Tensor) -> Float[Tensor, "t v 3"]:
        """Derivatives of the vertices by some columns of the step."""
        one = torch.nn.functional.one_hot(columns, self.step.shape[1]).to(self.step)
        with torch.no_grad():
            return vmap(lambda d: jvp(self, (self.step,), (d[None],))[1][0], chunk_size=_MOST_AT_ONCE)(one)


class _View:
    """One render of one frame, read by the network, ready to be differentiated.

    Attributes:
        points: `[1, L, 2]` heatmap pixels.
    """

    def __init__(  # more than six: what `deep_landmarks` knows of one view
        self,
        renderer: Renderer,
        network: HeatmapNetwork,
        vertices: Tensor,
        camera: Camera,
        window: Tensor,
        memory_mb: float,
        resample: bool,
    ) -> None:
        self.network = network
        self.vertices = vertices.detach().requires_grad_()

        def rendered(vertices: Tensor) -> Tensor:
            if resample:
                return crop_and_resize(renderer(vertices, camera).image, window, CROP_SIZE, antialias=False)
            return renderer(vertices, camera.crop(window, CROP_SIZE)).image

        self.rendered = rendered
        with torch.enable_grad(), _BytesWritten() as rendering:
            self.image = rendered(self.vertices)
        # A graph of its own, so that the render's and the network's parts can be used apart.
        self.seen = self.image.detach().requires_grad_()
        with torch.enable_grad(), _BytesWritten() as reading:
            try:
                self.points = local_soft_argmax(network(self.seen))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise _not_differentiable(network, str(error).strip().splitlines()[0]) from error
        if not self.points.requires_grad:
            raise _not_differentiable(network, "heatmaps without a derivative")
        room = memory_mb * 1e6 - rendering.total - reading.total
        # On a CPU only the network takes several at once, see `_vjps`.
        one = reading.total if self.image.device.type == "cpu" else max(rendering.total, reading.total)
        self.at_once = max(1, min(_MOST_AT_ONCE, int(room / one)))

    def forward(self, tangents: Float[Tensor, "t v 3"]) -> Float[Tensor, "l 2 t"]:
        """Derivatives of the heatmap points along tangents of the vertices."""
        vertices = self.vertices.detach()
        slopes = []
        for part in tangents.split(self.at_once):
            with torch.no_grad():
                image = vmap(lambda d: jvp(self.rendered, (vertices,), (d[None],))[1][0])(part)
            slopes.append(heatmap_landmarks(self.network, self.seen.detach(), image)[1])
        return torch.cat(slopes).permute(1, 2, 0)

    def reverse(self, world: _World) -> Float[Tensor, "l 2 p"]:
        """Derivatives of the heatmap points by the step, a row for each coordinate."""
        step = world.step.detach().requires_grad_()
        with torch.enable_grad():
            vertices = world(step)
        rows, marks = [], self.points.shape[1]
        every = torch.eye(2 * marks).to(self.points).view(2 * marks, *self.points.shape)
        for part in every.split(self.at_once):
            cotangent = part
            for output, source in ((self.points, self.seen), (self.image, self.vertices), (vertices, step)):
                cotangent = _vjps(output, source, cotangent)
            rows.append(cotangent[:, 0])
        return torch.cat(rows).view(marks, 2, -1)


def _vjps(output: Tensor, source: Tensor, cotangents: Float[Tensor, " n *out"]) -> Float[Tensor, " n *source"]:
    """Reverse passes of a graph, which is kept; on a CPU one by one, which takes half the time of a batch."""
    if cotangents.device.type == "cpu":
        every = [torch.autograd.grad(output, source, one, retain_graph=True)[0] for one in cotangents]
        return torch.stack(every)
    (result,) = torch.autograd.grad(output, source, cotangents, retain_graph=True, is_grads_batched=True)
    return result


def _not_differentiable(network: HeatmapNetwork, found: str) -> InputError:
    return InputError(
        f"landmark network '{network.name}'",
        found,
        "a network of differentiable torch operations, for jacobian 'deep'",
        "use jacobian 'geometric', which takes any network",
    )


class _BytesWritten(TorchDispatchMode):
    """Counts the bytes of what the operations inside give."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.total += sum(part.nbytes for part in tree_leaves(result) if isinstance(part, Tensor))
        return result
