"""`truth`: a whole solve against a shot whose answer is known."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import data_folder
from benchmarks.metrics import Metric, Outcome, PeakMemory
from benchmarks.shares import Shares
from deepenergy.energy import LandmarkEnergy
from deepenergy.energy.photometric import PhotometricEnergy
from deepenergy.evaluation.evaluate import Evaluation, evaluate
from deepenergy.evaluation.ground_truth import GroundTruth
from deepenergy.fit import frames as fit
from deepenergy.pipeline import shot as sequence
from deepenergy.render import Renderer
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.plates import Plates
from deepenergy.scene.rig import Rig
from deepenergy.scene.track import Track
from deepenergy.solver import Solver

# Frames in which the shares of the time are measured.
SHARED_FRAMES = 24
VARIANTS = {"mono_left": ("left",), "mono_right": ("right",), "stereo": ("left", "right")}
_ERRORS = (
    ("rotation_deg", "deg"), ("pitch_deg", "deg"), ("yaw_deg", "deg"), ("roll_deg", "deg"), ("inplane_mm", "mm"),
    ("x_mm", "mm"), ("y_mm", "mm"), ("depth_mm", "mm"), ("translation_mm", "mm"), ("vertex_mm", "mm"),
    ("landmark_px", "px"), ("weights_mae", "weight"),
)  # fmt: skip


@dataclass(frozen=True)
class TruthShot:
    """A shot with its answer.

    Attributes:
        folder: laid out like `ict_stereo`: `actor.glb`, `landmarks.json`, `cameras.json` (each camera with its
            `plates` pattern), `ground_truth.npz`.
        rig, truth: the actor and the answer.
    """

    folder: Path
    rig: Rig
    truth: GroundTruth

    @staticmethod
    def load(folder: Path) -> TruthShot:
        """Read the shot.

        Raises:
            InputError: a file that is missing or wrong.
        """
        rig = Rig.load(folder / "actor.glb", landmarks=folder / "landmarks.json")
        return TruthShot(folder, rig, GroundTruth.load(folder / "ground_truth.npz"))

    def camera(self, name: str) -> Camera:
        """A camera of the shot."""
        return Camera.load(self.folder / "cameras.json", name=name)

    def plates(self, name: str, frames: str | None) -> Plates:
        """The plates of a camera; `frames` is a range ("1001-1024"), or None for all that the truth has."""
        described = json.loads((self.folder / "cameras.json").read_text(encoding="utf-8"))["cameras"]
        pattern = next((c.get("plates") for c in described if c["name"] == name), None)
        if pattern is None:
            raise InputError(
                f"cameras.{name}.plates", "none", "the pattern of the plates, from the shot's folder", "add it"
            )
        span = f"{self.truth.frames[0]}-{self.truth.frames[-1]}"
        return Plates.open(self.folder / pattern, frames=frames or span)


def run(shot: Path | None = None, variants: Sequence[str] | None = None, frames: str | None = None) -> Outcome:
    """Solve and evaluate every variant.

    Args:
        shot: the shot's folder; `ict_stereo` of the test data when None.
        variants: names from `VARIANTS`; all when None.
        frames: a range instead of the whole shot.
    """
    folder = shot if shot is not None else data_folder() / "shots" / "ict_stereo"
    if not folder.is_dir():
        if shot is not None:
            raise InputError("--shot", f"no folder {shot}", "a folder laid out like ict_stereo", "check the path")
        return Outcome(skipped={"truth": f"no folder {folder} (set DEEPENERGY_TEST_DATA, or give --shot)"})
    chosen = list(VARIANTS) if variants is None else list(variants)
    unknown = [v for v in chosen if v not in VARIANTS]
    if unknown:
        raise InputError("--variant", ", ".join(unknown), f"one of {', '.join(VARIANTS)}", "choose from these")
    outcome = Outcome(skipped={f"truth.{v}": "not asked for" for v in VARIANTS if v not in chosen})
    loaded = TruthShot.load(folder)
    for variant in chosen:
        outcome.compared.append(f"truth.{variant}")
        try:
            outcome.metrics += solve_variant(loaded, variant, frames)
        except InputError as error:
            # One variant that the solver refuses must not cost the numbers of the others.
            outcome.refused[f"truth.{variant}"] = str(error)
    return outcome


def solve_variant(shot: TruthShot, variant: str, frames: str | None = None) -> list[Metric]:
    """Solve one variant and measure it."""
    names = VARIANTS[variant]
    cameras = [shot.camera(name) for name in names]
    plates = [shot.plates(name, frames) for name in names]
    memory, start = PeakMemory(), time.perf_counter()
    track = _fitted(Solver(), plates, shot.rig, cameras)
    seconds = time.perf_counter() - start
    peak = memory.mb()
    evaluation = evaluate(track, shot.truth, shot.rig, cameras)
    context = {"shot": shot.folder.name, "frames": len(evaluation.frames)}
    some = [p.select(f"{p.frames[0]}-{p.frames[:SHARED_FRAMES][-1]}") for p in plates]
    parts = {f"{name} %": share for name, share in _shares(some, shot.rig, cameras).items()}
    timed = {**context, "threads": torch.get_num_threads(), **parts, "% of one thread's, frames": SHARED_FRAMES}
    return [
        *metrics_of(evaluation, variant, context),
        Metric(f"truth.{variant}.seconds_per_frame", seconds / max(1, len(track)), "s", "lower", timed),
        Metric(f"truth.{variant}.peak_mb", peak, "MB", "lower", {**context, "of": memory.scope}),
    ]


def _fitted(solver: Solver, plates: list[Plates], rig: Rig, cameras: list[Camera]) -> Track:
    single = len(plates) == 1
    return solver.fit_sequence(plates[0] if single else plates, rig, cameras[0] if single else cameras)


def _shares(plates: list[Plates], rig: Rig, cameras: list[Camera]) -> dict[str, float]:
    """Where the time goes, in one thread: of several at once no clock says which of them a second belongs to."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    solver, shares = Solver(), Shares()
    try:
        with shares.of(_parts(solver)), shares.part("other"):
            _fitted(solver, plates, rig, cameras)
    finally:
        torch.set_num_threads(threads)
    return shares.percent()


def _parts(solver: Solver) -> dict[str, list[tuple[Any, str]]]:
    """What `Shares` counts under which name."""
    return {
        "render": [(Renderer, "__call__")],
        "network": [(type(solver.network), "__call__")],
        "detector": [(type(solver.detector), "candidates")],
        "jacobian": [(LandmarkEnergy, "__call__"), (PhotometricEnergy, "__call__")],
        "step": [(fit, "minimise")],
        "plates": [(Plates, "read")],
        "refine": [(sequence, "refine"), (sequence, "infill")],
    }


def metrics_of(evaluation: Evaluation, variant: str, context: dict[str, object]) -> list[Metric]:
    """The accuracy metrics of an evaluation: medians over the solved frames, the share solved."""
    prefix = f"truth.{variant}"
    result = [Metric(f"{prefix}.solved", evaluation.solved, "share", "higher", context)]
    result += [Metric(f"{prefix}.{n}", getattr(evaluation, n), unit, "lower", context) for n, unit in _ERRORS]
    for name, value in evaluation.calibration.items():
        # Further from 1 is worse, on either side.
        result.append(
            Metric(
                f"{prefix}.calibration_{name}",
                max(value, 1 / value),
                "x",
                "lower",
                {**context, "rms_error_over_sigma": value},
            )
        )
    return result
