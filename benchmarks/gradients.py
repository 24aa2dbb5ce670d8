"""`gradients`: the renderer's derivatives against central differences of a supersampled image.

The ICT actor of the truth shot in a 256x256 window about its face, at frames spread over the shot. A random direction
in each of rotation, translation, three blendshapes, lighting and albedo; the derivative along it of 32 random
functionals of the image, which are the sums of its pixels times smooth noise (white noise blurred by 4 pixels, the
width of one pixel of a landmark network's heatmap). The reference is rendered without blending of outlines and without
derivatives, at 16 samples a pixel's side, and differenced over a motion of half a pixel. Pixels are scene-linear: over
half a pixel the encoding of a dark pixel bends too much to be differenced, and its own derivative is a known factor.

An error is relative to the root mean square of the reference over the functionals of its direction: by chance some
functionals hardly change at all, and dividing by those would measure chance. `context` has the errors divided by each
functional's own derivative, too, and those of white noise.

Silhouettes by themselves: functionals of the coverage, and of the mouth's interior painted white on a black head, which
have no other derivative than that of their outlines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp
from torch.nn.functional import conv2d

from benchmarks.data import data_folder
from benchmarks.links import state_of
from benchmarks.metrics import Metric, Outcome
from benchmarks.pytorch3d_image import pytorch3d_image
from benchmarks.truth import TruthShot
from deepenergy.render import Render, Renderer
from deepenergy.render.ambient_occlusion import ambient_occlusion
from deepenergy.render.lighting import frontal_light
from deepenergy.render.materials import MATERIALS, material_regions
from deepenergy.render.pytorch3d_backend import load_pytorch3d
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.colour import srgb_to_linear
from deepenergy.scene.rig import Rig
from deepenergy.scene.state import State

SIZE, FUNCTIONALS, BLUR = 256, 32, 4.0
REFERENCE_SAMPLES, MOTION = 16, 0.25
FRAMES = (12, 40, 76)
SHAPES = ("jawOpen", "mouthSmile_L", "browInnerUp_L")
# Samples a side of the derivatives that are measured; the first, the reference's own, is held to the baseline. With
# fewer the image itself is another one: edges of teeth and slits thinner than a sample have colours that none sees.
SAMPLES = (16, 6, 4, 2, 1)
# PyTorch3D looks at every triangle for every pixel on a CPU.
PEER_SIZE, PEER_FUNCTIONALS, PEER_BLUR = 48, 8, 1.0
Image = Callable[[Tensor], Tensor]


def run(shot: Path | None = None) -> Outcome:
    """Measure."""
    folder = shot if shot is not None else data_folder() / "shots" / "ict_stereo"
    if not folder.is_dir():
        return Outcome(skipped={"gradients": f"no folder {folder} (set DEEPENERGY_TEST_DATA)"})
    loaded = TruthShot.load(folder)
    outcome = Outcome(metrics=measure(loaded))
    try:
        outcome.metrics += measure_peers(loaded)
    except InputError as error:
        outcome.skipped["gradients.small"] = str(error)
    return outcome


@dataclass(frozen=True)
class Direction:
    """An image as a function of one number, which moves by about one pixel where it is 1.

    Attributes:
        kind: what varies.
        image: of that number and of a renderer's settings.
        smooth: whether no outline moves, so that differences need no half pixel.
        vertices: of that number, where it is they that move.
    """

    kind: str
    image: Callable[[Renderer, Tensor], Tensor]
    smooth: bool = False
    vertices: Image | None = None


def window(shot: TruthShot, state: State, size: int = SIZE) -> Camera:
    """The left camera, cropped to the face."""
    camera = shot.camera("left")
    marks = camera.project(shot.rig.landmarks(shot.rig.vertices(state)))[0]
    centre = (marks.amin(0) + marks.amax(0)) / 2
    half = 0.85 * (marks.amax(0) - marks.amin(0)).max()
    return camera.crop(torch.cat([centre - half, centre + half]), size)


def directions(rig: Rig, state: State, view: Camera, generator: torch.Generator) -> list[Direction]:
    """Random directions, scaled to a pixel at the fastest vertex."""
    count = 12 + len(rig.weight_names)
    steps = {"rotation": torch.zeros(count), "translation": torch.zeros(count)}
    steps["rotation"][:3] = torch.randn(3, generator=generator)
    steps["translation"][3:6] = torch.randn(3, generator=generator)
    for name in SHAPES:
        steps[name] = torch.zeros(count)
        steps[name][12 + rig.weight_names.index(name)] = 1

    def vertices(step: Tensor, at: Tensor) -> Tensor:
        moved = state.retract((step.double() * at.double())[None])
        return rig.vertices(State(*(part.float() for part in vars(moved).values())))

    result = []
    for kind, step in steps.items():
        there, here = (view.project(vertices(step, torch.tensor(h))) for h in (1e-4, 0.0))
        scaled = step / float((there - here).norm(dim=-1).max() / 1e-4)

        def moved(at: Tensor, step: Tensor = scaled) -> Tensor:
            return vertices(step, at)

        result.append(Direction(kind, lambda r, at, v=moved: _linear(r(v(at), view)), vertices=moved))
    still = vertices(torch.zeros(count), torch.tensor(0.0))
    light, tint = torch.randn(9, 3, generator=generator), torch.randn(3, generator=generator)
    colours = rig.vertex_albedo
    assert colours is not None
    # A smooth change of albedo over the face.
    waves = 0.05 * torch.sin(rig.neutral * 60 + tint)

    def lit(renderer: Renderer, at: Tensor) -> Tensor:
        return _linear(replace(renderer, light=frontal_light() + 0.1 * at * light)(still, view))

    def painted(renderer: Renderer, at: Tensor) -> Tensor:
        albedo = colours + at * waves
        return _linear(replace(renderer, albedo=albedo)(still, view))

    return [*result, Direction("lighting", lit, True), Direction("albedo", painted, True)]


def _linear(render: Render) -> Tensor:
    return srgb_to_linear(render.image)


def functionals(
    generator: torch.Generator, channels: int, blur: float, size: int = SIZE, count: int = FUNCTIONALS
) -> Float[Tensor, "n c h w"]:
    """Random weights of an image's pixels."""
    noise = torch.randn(count, channels, size, size, generator=generator)
    if not blur:
        return noise
    reach = int(3 * blur)
    line = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * blur**2))
    line = (line / line.sum()).expand(channels, 1, 1, -1)
    noise = conv2d(noise, line, padding=(0, reach), groups=channels)
    return conv2d(noise, line.transpose(2, 3), padding=(reach, 0), groups=channels)


def errors(
    image: Callable[[Renderer, Tensor], Tensor], ours: Renderer, reference: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Of every functional: the error over the root mean square of the reference, and over its own derivative."""
    zero = torch.zeros(())
    with torch.no_grad():
        slope = jvp(partial(image, ours), (zero,), (torch.ones(()),))[1]
    found, expected = ((weights * part).sum((1, 2, 3)) for part in (slope, reference))
    off = (found - expected).abs()
    return off / expected.square().mean().sqrt(), off / expected.abs()


def difference(image: Callable[[Renderer, Tensor], Tensor], renderer: Renderer, motion: float) -> Tensor:
    """The central difference of a supersampled image without blended outlines."""
    sampled = replace(renderer, supersample=REFERENCE_SAMPLES, antialias=False)
    with torch.no_grad():
        return (image(sampled, torch.tensor(motion)) - image(sampled, torch.tensor(-motion))) / (2 * motion)


def measure(shot: TruthShot) -> list[Metric]:
    """The metrics of one shot."""
    generator = torch.Generator().manual_seed(0)
    renderer = Renderer(shot.rig, ambient_occlusion(shot.rig))
    smooth, white = functionals(generator, 3, BLUR), functionals(generator, 3, 0)
    states = state_of(shot)
    relative: dict[str, dict[int, list[Tensor]]] = {}
    own: dict[int, list[Tensor]] = {s: [] for s in SAMPLES}
    rough: dict[int, list[Tensor]] = {s: [] for s in SAMPLES}
    outlines: dict[int, list[Tensor]] = {s: [] for s in SAMPLES}
    adjoint = []
    for frame in FRAMES:
        state = states[[frame % len(states)]]
        view = window(shot, state)
        for direction in directions(shot.rig, state, view, generator):
            expected = difference(direction.image, renderer, MOTION if not direction.smooth else 0.05)
            for s in SAMPLES:
                ours = replace(renderer, supersample=s)
                one, each = errors(direction.image, ours, expected, smooth)
                relative.setdefault(direction.kind, {}).setdefault(s, []).append(one)
                own[s].append(each)
                rough[s].append(errors(direction.image, ours, expected, white)[0])
            adjoint.append(_adjoint(partial(direction.image, replace(renderer, supersample=2)), generator))
        for image in _silhouettes(shot.rig, state, view, generator):
            expected = difference(image, renderer, MOTION)
            for s in SAMPLES:
                outlines[s].append(errors(image, replace(renderer, supersample=s), expected, smooth)[0])
    first = SAMPLES[0]
    every = {s: torch.cat([e for kind in relative.values() for e in kind[s]]) for s in SAMPLES}
    context = {"samples": first**2, "frames": len(FRAMES), "functionals": FUNCTIONALS}
    metrics = [
        Metric(
            "gradients.median_relative_error",
            float(every[first].median()),
            "share",
            "lower",
            {
                **context,
                "over its own": float(torch.cat(own[first]).median()),
                "white noise": float(torch.cat(rough[first]).median()),
                **{f"{s * s} samples": float(every[s].median()) for s in SAMPLES[1:]},
            },
        ),
        Metric(
            "gradients.p95_relative_error",
            float(every[first].quantile(0.95)),
            "share",
            "lower",
            {**context, **{f"{s * s} samples": float(every[s].quantile(0.95)) for s in SAMPLES[1:]}},
        ),
        Metric(
            "gradients.silhouette_median",
            float(torch.cat(outlines[first]).median()),
            "share",
            "lower",
            {**context, **{f"{s * s} samples": float(torch.cat(outlines[s]).median()) for s in SAMPLES[1:]}},
        ),
        Metric("gradients.adjoint_error", max(adjoint), "share", "lower", {"directions": len(adjoint), "samples": 4}),
    ]
    for kind, by_samples in relative.items():
        values = {s: torch.cat(by_samples[s]) for s in SAMPLES}
        each = {**context, "p95": float(values[first].quantile(0.95))}
        each |= {f"{s * s} samples": float(values[s].median()) for s in SAMPLES[1:]}
        metrics.append(Metric(f"gradients.{kind}.median", float(values[first].median()), "share", "lower", each))
    return metrics


def measure_peers(shot: TruthShot) -> list[Metric]:
    """Ours beside PyTorch3D's hard and soft rasteriser, in a small window.

    Raises:
        InputError: PyTorch3D is not installed.
    """
    load_pytorch3d()
    generator = torch.Generator().manual_seed(1)
    renderer, state = Renderer(shot.rig, ambient_occlusion(shot.rig)), state_of(shot)[[FRAMES[1]]]
    view = window(shot, state, PEER_SIZE)
    weights = functionals(generator, 3, PEER_BLUR, PEER_SIZE, PEER_FUNCTIONALS)
    found: dict[str, list[Tensor]] = {}
    for direction in directions(shot.rig, state, view, generator):
        move = direction.vertices
        if move is None:
            continue
        # As many samples as the large window has over the face.
        expected = (weights * difference(direction.image, renderer, MOTION)).sum((1, 2, 3))
        images: dict[str, Image] = {
            f"ours_{s * s}_samples": partial(direction.image, replace(renderer, supersample=s)) for s in (4, 1)
        }
        for name, soft in (("pytorch3d_hard", False), ("pytorch3d_soft", True)):
            images[name] = lambda at, soft=soft, move=move: pytorch3d_image(renderer, move(at), view, soft)
        for name, image in images.items():
            at = torch.zeros((), requires_grad=True)
            seen = image(at)
            slopes = [torch.autograd.grad((seen * w).sum(), at, retain_graph=True)[0] for w in weights]
            off = (torch.stack(slopes) - expected).abs() / expected.square().mean().sqrt()
            found.setdefault(name, []).append(off)
    context = {"size": PEER_SIZE, "directions": len(found["pytorch3d_hard"]), "functionals": PEER_FUNCTIONALS}
    return [
        Metric(
            f"gradients.small.{name}",
            float(torch.cat(parts).median()),
            "share",
            "lower",
            {**context, "p95": float(torch.cat(parts).quantile(0.95))},
        )
        for name, parts in found.items()
    ]


def _silhouettes(
    rig: Rig, state: State, view: Camera, generator: torch.Generator
) -> list[Callable[[Renderer, Tensor], Tensor]]:
    """Coverage of the head as it turns, and the white inside of a mouth that opens in a black head."""
    material = material_regions(rig)
    inside = torch.zeros(len(rig.neutral))
    inside[rig.faces[(material == MATERIALS.index("mouth")) | (material == MATERIALS.index("teeth"))]] = 1
    inside[rig.faces[material == MATERIALS.index("skin")]] = 0
    turned, _, opened = directions(rig, state, view, generator)[:3]
    even = torch.zeros(9, 3)
    even[0] = 2.0

    def coverage(renderer: Renderer, at: Tensor) -> Tensor:
        # White on black, in one light.
        white = replace(renderer, albedo=torch.full((len(inside), 3), 0.9), light=even, background=(0.0,) * 3)
        return turned.image(replace(white, occlusion=None), at)

    def mouth(renderer: Renderer, at: Tensor) -> Tensor:
        painted = replace(renderer, albedo=inside[:, None].expand(-1, 3) * 0.9, light=even, background=(0.0,) * 3)
        return opened.image(replace(painted, occlusion=None), at)

    return [coverage, mouth]


def _adjoint(image: Image, generator: torch.Generator) -> float:
    """How far <Jv, u> and <v, J^T u> are apart."""
    at = torch.zeros((), requires_grad=True)
    seen = image(at)
    given = torch.randn(seen.shape, generator=generator)
    (back,) = torch.autograd.grad((seen * given).sum(), at)
    with torch.no_grad():
        forward = (jvp(image, (torch.zeros(()),), (torch.ones(()),))[1] * given).sum()
    size = float((given.square().sum() * seen.detach().square().sum()).sqrt())
    return abs(float(forward) - float(back)) / max(abs(float(back)), 1e-3 * size)
