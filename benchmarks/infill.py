"""`infill`: frames taken out of a shot whose answer is known, and brought back by flow or by interpolation.

Runs of 3, 6 and 12 frames are taken out where the face moves most, 20 runs in all. In `infill.N.vertex_ratio` the
frames around a run are the true ones, so that nothing but the infill is measured; `infill.N.solved.*` starts from the
solve of one camera, whose own error in depth the infill inherits, and `infill.N.stereo.*` from that of two, by the flow
of both; the error of the frames' own solve stands beside it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import data_folder
from benchmarks.links import state_of
from benchmarks.metrics import Metric, Outcome
from benchmarks.truth import TruthShot
from deepenergy.energy.surface import SurfacePoints
from deepenergy.evaluation.evaluate import face_vertices
from deepenergy.fit.fit_context import FitContext
from deepenergy.flow import flow_network_from_name
from deepenergy.scene.rotation import rotation_angle
from deepenergy.scene.state import State
from deepenergy.scene.track import Track
from deepenergy.scene.views import Views
from deepenergy.settings.config import SolverConfig
from deepenergy.solver import Solver
from deepenergy.temporal.infill import METHODS, InfillConfig, infill

# Length of a run -> number of runs.
RUNS = {3: 8, 6: 7, 12: 5}
# Every so manieth vertex of the face is measured.
_EVERY = 10
_CAMERAS = ("left", "right")
_INNER_LIPS = (62, 66)
_ERRORS = (("rotation_deg", "deg"), ("translation_mm", "mm"), ("vertex_mm", "mm"), ("mouth_mm", "mm"))


def run(shot: Path | None = None, network: str = "dis") -> Outcome:
    """Measure.

    Args:
        shot: the shot's folder; `ict_stereo` of the test data when None.
        network: the flow network's name.
    """
    folder = shot if shot is not None else data_folder() / "shots" / "ict_stereo"
    if not folder.is_dir():
        return Outcome(skipped={"infill": f"no folder {folder} (set DEEPENERGY_TEST_DATA)"})
    loaded = TruthShot.load(folder)
    cameras = [loaded.camera(name) for name in _CAMERAS]
    plates = [loaded.plates(name, None) for name in _CAMERAS]
    solver = Solver(SolverConfig(infill="none", refine="none"))
    truth = true_track(loaded)
    # What the frames around a run come from, and by how many cameras the run is filled.
    starts = (
        ("", truth, 1),
        ("solved.", solver.fit_sequence(plates[0], loaded.rig, cameras[0]), 1),
        ("stereo.", solver.fit_sequence(plates, loaded.rig, cameras), 2),
    )
    flow = flow_network_from_name(network)
    measure = _Measure(loaded, truth.states())
    outcome = Outcome()
    seconds, frames = 0.0, 0
    for length, count in RUNS.items():
        runs = lively_runs(measure.vertices, length, count)
        contexts = {
            n: FitContext(Views.match(plates[:n], cameras[:n]), loaded.rig, flow=flow)
            for n in {v for _, _, v in starts}
        }
        for name, start, views in starts:
            errors: dict[str, list[np.ndarray]] = {method: [] for method in (*METHODS, "own")}
            for first in runs:
                # The shot around the run is all that the infill looks at.
                part = range(max(0, first - 1), min(len(start), first + length + 1))
                rows = np.arange(first, first + length)
                holed = without(_cut(start, part), rows - part.start)
                errors["own"].append(measure.errors(start.states()[torch.from_numpy(rows)], rows))
                for method in METHODS:
                    began = time.perf_counter()
                    filled = infill(holed, contexts[views], InfillConfig(method))
                    if method == "flow" and views == 1:
                        seconds, frames = seconds + time.perf_counter() - began, frames + length
                    errors[method].append(measure.errors(filled.states()[torch.tensor(rows - part.start)], rows))
            mean = {method: np.concatenate(found).mean(0) for method, found in errors.items()}
            context = {
                "shot": folder.name,
                "runs": len(runs),
                "network": network,
                "anchors": name[:-1] or "true",
                "cameras": views,
            }
            outcome.metrics += _metrics(f"infill.{length}.{name}", mean, context)
    context = {"frames": frames, "network": network}
    outcome.metrics.append(Metric("infill.seconds_per_frame", seconds / max(1, frames), "s", "lower", context))
    return outcome


def true_track(shot: TruthShot) -> Track:
    """The answer as a track."""
    state, count = state_of(shot), len(shot.truth.frames)
    text = np.full(count, "")
    return Track(
        frames=shot.truth.frames,
        rotation=state.rotation.numpy(),
        translation=state.translation.numpy(),
        jaw=state.jaw.numpy(),
        weights=state.weights.numpy(),
        weight_names=shot.rig.weight_names,
        status=np.full(count, "solved"),
        reason=text,
        confidence=np.ones(count),
        landmark_residual_px=np.full(count, np.nan),
        rig_name=shot.rig.name,
    )


def _cut(track: Track, rows: range) -> Track:
    """Some frames of a track, without landmarks."""
    part = slice(rows.start, rows.stop)
    names = ("frames", "rotation", "translation", "jaw", "weights", "status", "reason", "confidence")
    arrays = {name: getattr(track, name)[part] for name in (*names, "landmark_residual_px")}
    return Track(**arrays, weight_names=track.weight_names, rig_name=track.rig_name)


def without(track: Track, rows: np.ndarray) -> Track:
    """The track with some frames failed."""
    arrays = {name: getattr(track, name).copy() for name in ("rotation", "translation", "jaw", "weights")}
    for array in arrays.values():
        array[rows] = np.nan
    status, reason = track.status.astype("U8"), track.reason.astype("U16")
    status[rows], reason[rows] = "failed", "taken out"
    return replace(track, **arrays, status=status, reason=reason)


def lively_runs(vertices: Tensor, length: int, count: int) -> list[int]:
    """First rows of runs, each with a frame before and after, where the vertices move most; they do not overlap."""
    speed = (vertices[1:] - vertices[:-1]).norm(dim=-1).mean(1)
    starts = range(1, len(vertices) - length)
    order = sorted(starts, key=lambda first: -float(speed[first - 1 : first + length].mean()))
    chosen: list[int] = []
    for first in order:
        if len(chosen) < count and all(abs(first - other) > length for other in chosen):
            chosen.append(first)
    return sorted(chosen)


class _Measure:
    """Errors against the truth, a row a frame, in the order of `_ERRORS`."""

    def __init__(self, shot: TruthShot, truth: State) -> None:
        self._skin = SurfacePoints.of(shot.rig, torch.from_numpy(face_vertices(shot.rig)[::_EVERY]))
        self._marks = shot.rig.landmark_rig()
        self._truth = truth
        self.vertices = self._skin.world(truth)

    def _mouth(self, state: State) -> Tensor:
        upper, lower = _INNER_LIPS
        marks = self._marks.landmarks(self._marks.vertices(state))
        return (marks[:, upper] - marks[:, lower]).norm(dim=-1)

    def errors(self, state: State, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        index = torch.as_tensor(np.asarray(rows))
        truth = self._truth[index]
        columns = (
            rotation_angle(state.rotation, truth.rotation).rad2deg(),
            (state.translation - truth.translation).norm(dim=-1) * 1000,
            (self._skin.world(state) - self.vertices[index]).norm(dim=-1).mean(1) * 1000,
            (self._mouth(state) - self._mouth(truth)).abs() * 1000,
        )
        return torch.stack(columns, 1).numpy()


def _metrics(prefix: str, mean: dict[str, np.ndarray], context: dict[str, object]) -> list[Metric]:
    result = []
    for i, (name, unit) in enumerate(_ERRORS):
        flow, plain = float(mean["flow"][i]), float(mean["interpolation"][i])
        what = name.rsplit("_", 1)[0]
        detail = {**context, "flow": f"{flow:.3f} {unit}", "interpolation": f"{plain:.3f} {unit}"}
        if mean["own"][i]:
            detail["own solve"] = f"{float(mean['own'][i]):.3f} {unit}"
        result.append(Metric(f"{prefix}{what}_ratio", flow / plain if plain else np.nan, "x", "lower", detail))
        result.append(Metric(f"{prefix}{name}", flow, unit, "lower", context))
    return result
