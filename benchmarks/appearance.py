"""`appearance`: how close renders come to plates with estimated albedo and light, at the true parameters.

Two estimates are measured on a shot whose answer is known: from the frame nearest neutral alone, in all cameras (the
paper's precomputation), and from five frames, as `deepenergy appearance` takes them. Peak signal-to-noise ratio on the
face's visible skin, display-referred: on the frame nearest neutral, and the worst of ten other frames, which took no
part; of the two cameras the worse.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import data_folder
from benchmarks.metrics import Metric, Outcome
from benchmarks.truth import TruthShot
from deepenergy.appearance.estimate import estimate_appearance
from deepenergy.appearance.shot import VIEW_FRAMES, choose_frames, skin_psnr
from deepenergy.render import Renderer
from deepenergy.render.ambient_occlusion import ambient_occlusion
from deepenergy.scene.camera import Camera
from deepenergy.scene.state import State

CAMERAS = ("left", "right")
OTHERS = 10


def run(shot: Path | None = None) -> Outcome:
    """Estimate twice and measure."""
    folder = shot if shot is not None else data_folder() / "shots" / "ict_stereo"
    if not folder.is_dir():
        return Outcome(skipped={"appearance": f"no folder {folder} (set DEEPENERGY_TEST_DATA)"})
    return Outcome(metrics=measure(TruthShot.load(folder)))


def _states(shot: TruthShot) -> State:
    truth = shot.truth
    jaw = np.zeros((len(truth.frames), 6)) if truth.jaw is None else truth.jaw
    parts = (truth.rotation, truth.translation, jaw, truth.weights)
    return State(*(torch.as_tensor(part, dtype=torch.float64) for part in parts))


def measure(shot: TruthShot, texture_size: int = 1024) -> list[Metric]:
    """The metrics of one shot."""
    states = _states(shot)
    renderer = Renderer(shot.rig, ambient_occlusion(shot.rig))
    chosen = choose_frames(states, VIEW_FRAMES)
    rest = [row for row in range(len(states)) if row not in chosen]
    others = [rest[i] for i in np.linspace(0, len(rest) - 1, OTHERS).round().astype(int)]
    plates = {name: shot.plates(name, None) for name in CAMERAS}
    cameras = {name: shot.camera(name) for name in CAMERAS}

    def mesh(row: int) -> Tensor:
        return shot.rig.vertices(State(*(part.float() for part in vars(states[[row]]).values())))

    def estimated(rows: Sequence[int]) -> tuple[Renderer, float]:
        views = [(row, name) for row in rows for name in CAMERAS]
        images = [plates[name].read(row) for row, name in views]
        view_cameras: list[Camera] = [cameras[name] for _, name in views]
        start = time.perf_counter()
        meshes = torch.cat([mesh(row) for row, _ in views])
        found = estimate_appearance(renderer, meshes, view_cameras, images, texture_size)
        return found.apply(renderer), time.perf_counter() - start

    metrics: list[Metric] = []
    for prefix, rows in (("appearance.one_frame", chosen[:1]), ("appearance", chosen)):
        lit, seconds = estimated(rows)
        scores = {row: [skin_psnr(lit, mesh(row), cameras[n], plates[n].read(row)) for n in CAMERAS] for row in
                  [chosen[0], *others]}  # fmt: skip
        rest_scores = np.array([scores[row] for row in others])
        context = {"shot": shot.folder.name, "frames": len(rows), "cameras": len(CAMERAS), "texture": texture_size}
        median = {**context, "median": float(np.median(rest_scores))}
        metrics += [
            Metric(f"{prefix}.psnr_anchor", min(scores[chosen[0]]), "dB", "higher", context),
            Metric(f"{prefix}.psnr_others", float(rest_scores.min()), "dB", "higher", median),
            Metric(f"{prefix}.seconds", seconds, "s", "lower", context),
        ]
    return metrics
