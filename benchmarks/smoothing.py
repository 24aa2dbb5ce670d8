"""`smoothing`: every way of temporal refinement on the solve of one camera, against the answer (figures 14 to 17).

Jitter is the root mean square second difference of rotation, translation and vertices, as a multiple of the truth's
own; the excess is what is above 1 (or below: smoothing the performance away is no better). `excess_jitter_ratio` is the
worst of the three excesses, after over before. `rotation_ratio`, `translation_ratio` and `vertex_ratio` are median
errors against the truth, after over before. With `--figure` the curves behind the numbers are drawn.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import data_folder
from benchmarks.infill import true_track
from benchmarks.metrics import Metric, Outcome
from benchmarks.smoothing_figure import draw_smoothing
from benchmarks.truth import TruthShot
from deepenergy.energy.surface import SurfacePoints
from deepenergy.evaluation.evaluate import face_vertices
from deepenergy.fit.fit_context import FitContext
from deepenergy.flow import flow_network_from_name
from deepenergy.scene.rotation import rotation_angle, so3_log
from deepenergy.scene.state import State
from deepenergy.scene.track import Track
from deepenergy.scene.views import Views
from deepenergy.temporal.refine import METHODS, RefineConfig, refine

_EVERY = 10
_DRAWN = ("averaging", "hybrid")
_WHAT = ("rotation", "translation", "vertex")


def variants() -> dict[str, RefineConfig]:
    """Name in the table -> settings: every method as it is by default, and the paper's sweeps of the hybrid."""
    result = {method: RefineConfig(method) for method in METHODS}
    result["hybrid_jacobi"] = RefineConfig("hybrid", order="jacobi")
    result["hybrid_gauss_seidel"] = RefineConfig("hybrid", order="gauss_seidel")
    return result


def run(
    shot: Path | None = None,
    track: Track | None = None,
    camera: str = "left",
    network: str = "dis",
    figure: Path | None = None,
) -> Outcome:
    """Measure every variant.

    Args:
        shot: the shot's folder; `ict_stereo` of the test data when None.
        track: its solve from one camera; made here when None.
        camera: which.
        network: the flow network's name.
        figure: where to draw the frames by themselves, `averaging` and `hybrid` beside the truth, as PNG.
    """
    folder = shot if shot is not None else data_folder() / "shots" / "ict_stereo"
    if not folder.is_dir():
        return Outcome(skipped={"smoothing": f"no folder {folder} (set DEEPENERGY_TEST_DATA)"})
    loaded = TruthShot.load(folder)
    view, plates = loaded.camera(camera), loaded.plates(camera, None)
    if track is None:
        from deepenergy.settings.config import SolverConfig
        from deepenergy.solver import Solver

        track = Solver(SolverConfig(infill="none", refine="none")).fit_sequence(plates, loaded.rig, view)
    truth = true_track(loaded).states()
    skin = SurfacePoints.of(loaded.rig, torch.from_numpy(face_vertices(loaded.rig)[::_EVERY]))
    own = jitter(truth, skin)
    before, excess = median_errors(track.states(), truth, skin), jitter(track.states(), skin) / own - 1
    fitting = FitContext(Views.match(plates, view), loaded.rig, flow=flow_network_from_name(network))
    outcome = Outcome()
    drawn = {"truth": truth, "single frames": track.states()}
    for name, config in variants().items():
        start = time.perf_counter()
        refined = refine(track, fitting, config).states()
        seconds = (time.perf_counter() - start) / len(track)
        if name in _DRAWN:
            drawn[name] = refined
        ratios = jitter(refined, skin) / own
        left = ((ratios - 1).abs() / excess.abs()).numpy()
        after = median_errors(refined, truth, skin)
        context = {
            "shot": folder.name,
            "camera": camera,
            "jitter": ", ".join(f"{w} {e + 1:.2f} to {r:.2f}" for w, e, r in zip(_WHAT, excess, ratios, strict=True)),
            "seconds_per_frame": round(seconds, 3),
        }
        if config.order != "joint" or name == "self_flow":
            # Flow between the plates is found once, and is in the first sweep's share.
            context["seconds_per_sweep"] = round(seconds / config.sweeps, 3)
        prefix = f"smoothing.{name}"
        outcome.metrics.append(Metric(f"{prefix}.excess_jitter_ratio", float(left.max()), "x", "lower", context))
        for what, a, b in zip(_WHAT, after, before, strict=True):
            detail = {"before": f"{b:.3f}", "after": f"{a:.3f}", "unit": "deg" if what == "rotation" else "mm"}
            outcome.metrics.append(Metric(f"{prefix}.{what}_ratio", float(a / b), "x", "lower", detail))
    if figure is not None:
        accelerations = {name: second_differences(state, skin) for name, state in drawn.items()}
        away = {name: errors(state, truth, skin) for name, state in drawn.items() if name != "truth"}
        draw_smoothing(figure, track.frames, accelerations, away)
    return outcome


def second_differences(state: State, skin: SurfacePoints) -> tuple[Tensor, Tensor, Tensor]:
    """Sizes of the second differences of rotation (degrees), translation and vertices (mm), `[T - 2]` each."""
    turn = so3_log(state.rotation[1:] @ state.rotation[:-1].mT).rad2deg()
    world = skin.world(state).diff(n=2, dim=0).square().sum(-1).mean(1).sqrt()
    return turn.diff(dim=0).norm(dim=-1), state.translation.diff(n=2, dim=0).norm(dim=-1) * 1000, world * 1000


def jitter(state: State, skin: SurfacePoints) -> Tensor:
    """Root mean squares of `second_differences` over the frames."""
    return torch.stack([values.square().mean().sqrt() for values in second_differences(state, skin)])


def errors(state: State, truth: State, skin: SurfacePoints) -> tuple[Tensor, Tensor, Tensor]:
    """Of each frame, `[T]`: rotation (degrees), translation and mean vertex error (mm)."""
    return (
        rotation_angle(state.rotation, truth.rotation).rad2deg(),
        (state.translation - truth.translation).norm(dim=-1) * 1000,
        (skin.world(state) - skin.world(truth)).norm(dim=-1).mean(1) * 1000,
    )


def median_errors(state: State, truth: State, skin: SurfacePoints) -> np.ndarray:
    """Medians over the frames of `errors`."""
    return np.array([float(np.median(e.numpy())) for e in errors(state, truth, skin)])
