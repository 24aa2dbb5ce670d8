"""`raster`: the renderer's speed and memory on the ICT actor (44,028 triangles), one sample a pixel, two sizes.

Medians of repeated runs, after one that compiles. Where PyTorch3D is installed, its rasteriser interpolates the vertex
colours of one 720x540 image, once forward and once backward (minutes on a CPU).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vmap

from benchmarks.data import data_folder
from benchmarks.links import state_of
from benchmarks.metrics import Metric, Outcome, PeakMemory
from benchmarks.truth import TruthShot
from deepenergy.render import Renderer, rasterize
from deepenergy.render.ambient_occlusion import ambient_occlusion
from deepenergy.render.pytorch3d_backend import load_pytorch3d, to_ndc
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.state import State

# At least as many runs, and for as many seconds: what takes 2 ms would be measured within 40 ms, in which torch's other
# thread still spins from what came before.
REPEATS, SECONDS = 21, 0.5
FRAME, TANGENTS, BATCH = 40, 60, 8


def run(shot: Path | None = None) -> Outcome:
    """Measure."""
    folder = shot if shot is not None else data_folder() / "shots" / "ict_stereo"
    if not folder.is_dir():
        return Outcome(skipped={"raster": f"no folder {folder} (set DEEPENERGY_TEST_DATA)"})
    loaded = TruthShot.load(folder)
    state = state_of(loaded)[[FRAME]]
    vertices = loaded.rig.vertices(State(*(part.float() for part in vars(state).values())))
    renderer = Renderer(loaded.rig, ambient_occlusion(loaded.rig), supersample=1)
    full = loaded.camera("left")
    marks = full.project(loaded.rig.landmarks(vertices))[0].double()
    centre, half = (marks.amin(0) + marks.amax(0)) / 2, 0.85 * (marks.amax(0) - marks.amin(0)).max()
    crop = full.crop(torch.cat([centre - half, centre + half]), 256)
    outcome = Outcome()
    for name, camera in (("", full), (".256", crop)):
        outcome.metrics += _ours(name, renderer, vertices, camera)
    outcome.metrics += [_tangents(renderer, vertices, crop), *_memory(renderer, vertices, full)]
    try:
        theirs = _pytorch3d(renderer, vertices, full)
    except InputError as error:
        outcome.skipped["raster.speedup_vs_pytorch3d"] = str(error)
        return outcome
    ours = {m.name: m.value for m in outcome.metrics}
    for what, seconds in theirs.items():
        context = {"pytorch3d s": seconds, "triangles": len(loaded.rig.faces), "size": "720x540"}
        ratio = 1e3 * seconds / ours[f"raster.ms_{what}"]
        outcome.metrics.append(Metric(f"raster.speedup_vs_pytorch3d.{what}", ratio, "x", "higher", context))
    return outcome


def _median(work: Callable[[], Any]) -> float:
    """Milliseconds."""
    work()
    times: list[float] = []
    while len(times) < REPEATS or sum(times) < SECONDS:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def _ours(name: str, renderer: Renderer, vertices: Tensor, camera: Camera) -> list[Metric]:
    seen = camera.camera_points(vertices)
    pixels, depth = camera.pixels(seen), seen[..., 2]
    size = (camera.width, camera.height)
    batch = vertices.expand(BATCH, -1, -1)

    def forward(meshes: Tensor) -> None:
        with torch.no_grad():
            renderer(meshes, camera)

    def both(meshes: Tensor) -> None:
        at = meshes.clone().requires_grad_()
        renderer(at, camera).image.square().sum().backward()

    visibility = _median(lambda: rasterize(pixels, depth, renderer.rig.faces, size))
    times = {"ms_visibility": (visibility, {})}
    for what, work in (("ms_forward", forward), ("ms_forward_backward", both)):
        many = _median(lambda work=work: work(batch)) / BATCH
        times[what] = (_median(lambda work=work: work(vertices)), {f"ms a frame, batch {BATCH}": many})
    context = {"size": f"{size[0]}x{size[1]}", "threads": torch.get_num_threads()}
    return [Metric(f"raster{name}.{n}", value, "ms", "lower", {**context, **c}) for n, (value, c) in times.items()]


def _tangents(renderer: Renderer, vertices: Tensor, camera: Camera) -> Metric:
    along = 1e-3 * torch.randn(TANGENTS, *vertices.shape, generator=torch.Generator().manual_seed(0))

    def image(at: Tensor) -> Tensor:
        return renderer(at, camera).image

    def work() -> None:
        with torch.no_grad():
            vmap(lambda one: jvp(image, (vertices,), (one,))[1])(along)

    return Metric("raster.256.ms_tangents", _median(work), "ms", "lower", {"tangents": TANGENTS})


def _memory(renderer: Renderer, vertices: Tensor, camera: Camera) -> list[Metric]:
    """Peak of eight frames forward and backward, one after the other and together."""
    peaks = {}
    for size in (1, BATCH):
        memory = PeakMemory()
        for part in vertices.expand(BATCH, -1, -1).split(size):
            at = part.clone().requires_grad_()
            renderer(at, camera).image.square().sum().backward()
        peaks[size] = (memory.mb(), memory.scope)
    context = {"frames at once": 1, f"{BATCH} at once": peaks[BATCH][0], "of": peaks[1][1]}
    return [Metric("raster.peak_mb", peaks[1][0], "MB", "lower", context)]


def _pytorch3d(renderer: Renderer, vertices: Tensor, camera: Camera) -> dict[str, float]:
    """Seconds of PyTorch3D's rasteriser with the interpolation of vertex colours.

    Raises:
        InputError: it is not installed.
    """
    kernel, meshes = load_pytorch3d()
    from pytorch3d.ops import interpolate_face_attributes  # pyright: ignore[reportMissingImports]

    faces, size = renderer.rig.faces, (camera.width, camera.height)
    colour = vertices.detach().abs()[0]

    def image(at: Tensor) -> Tensor:
        seen = camera.camera_points(at)
        corners = torch.cat([to_ndc(camera.pixels(seen), size), seen[..., 2:]], -1)
        found, _, weights, _ = kernel(
            meshes(verts=[corners[0]], faces=[faces]),
            image_size=size[::-1],
            faces_per_pixel=1,
            perspective_correct=True,
        )
        return interpolate_face_attributes(found, weights, colour[faces])

    start = time.perf_counter()
    with torch.no_grad():
        image(vertices)
    forward = time.perf_counter() - start
    at = vertices.clone().requires_grad_()
    start = time.perf_counter()
    image(at).square().sum().backward()
    return {"forward": forward, "forward_backward": time.perf_counter() - start}
