"""`degraded`: a shot of which frames are spoiled until the face detector loses the face, solved by the whole pipeline.

Forty frames of one camera; five are nearly black, five out of focus, and for ten something passes over the face. Every
frame has to come out solved or infilled; `degraded.infilled_ratio` is the median vertex error of the infilled frames
over that of all frames, `degraded.believed_ratio` the same for spoiled frames that were solved all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter
from torch import Tensor

from benchmarks.data import data_folder
from benchmarks.links import state_of
from benchmarks.metrics import Metric, Outcome
from benchmarks.truth import TruthShot
from deepenergy.energy.surface import SurfacePoints
from deepenergy.evaluation.evaluate import face_vertices
from deepenergy.landmarks.detector import detector_from_name
from deepenergy.scene.colour import linear_to_srgb, srgb_to_linear
from deepenergy.scene.plates import Plates
from deepenergy.scene.track import Track
from deepenergy.solver import Solver

FRAMES = 40
DARK, BLURRED, COVERED = range(4, 9), range(13, 18), range(23, 33)
_EXPOSURE, _READ_NOISE, _DEFOCUS_PX = 0.002, 2e-4, 14.0
_EVERY = 10


def run(shot: Path | None = None, first: int = 1041, camera: str = "left") -> Outcome:
    """Measure.

    Args:
        shot: the shot's folder; `ict_stereo` of the test data when None.
        first: the first of the frames.
        camera: which.
    """
    folder = shot if shot is not None else data_folder() / "shots" / "ict_stereo"
    if not folder.is_dir():
        return Outcome(skipped={"degraded": f"no folder {folder} (set DEEPENERGY_TEST_DATA)"})
    loaded = TruthShot.load(folder)
    view = loaded.camera(camera)
    rows = np.flatnonzero((loaded.truth.frames >= first) & (loaded.truth.frames < first + FRAMES))
    truth = state_of(loaded)[torch.from_numpy(rows)]
    small = loaded.rig.landmark_rig()
    marks = view.project(small.landmarks(small.vertices(truth)))
    clean = loaded.plates(camera, f"{first}-{first + len(rows) - 1}")
    spoiled = Plates.from_array(torch.stack(list(spoil(clean, marks))).numpy(), first_frame=first, name=camera)
    detector = detector_from_name("hog")
    lost = [row for row in range(len(rows)) if not len(detector.candidates(spoiled.read(row)[None])[0].boxes)]
    track = Solver().fit_sequence(spoiled, loaded.rig, view)
    skin = SurfacePoints.of(loaded.rig, torch.from_numpy(face_vertices(loaded.rig)[::_EVERY]))
    away = (skin.world(track.states()) - skin.world(truth)).norm(dim=-1).mean(1).numpy() * 1000
    return _outcome(track, away, lost, folder.name)


def _outcome(track: Track, away: np.ndarray, lost: list[int], shot: str) -> Outcome:
    damaged = np.isin(np.arange(len(track)), [*DARK, *BLURRED, *COVERED])
    infilled, typical = track.status == "infilled", float(np.median(away[track.usable]))
    context = {
        "shot": shot,
        "frames": len(track),
        "no face found": str([int(track.frames[row]) for row in lost]),
        "infilled": str(track.frames[infilled].tolist()),
        "median_mm": f"{typical:.2f}",
    }
    outcome = Outcome(
        [
            Metric("degraded.lost", len(lost), "frames", "lower", context),
            Metric("degraded.filled", float(track.usable.mean()), "share", "higher", context),
        ]
    )
    groups = {"infilled": infilled, "believed": damaged & track.solved}
    groups |= {name: damaged & np.isin(np.arange(len(track)), rows) for name, rows in _kinds().items()}
    for name, chosen in groups.items():
        if chosen.any():
            error = float(np.median(away[chosen]))
            each = {"frames": int(chosen.sum()), "mm": f"{error:.2f}", "worst": f"{away[chosen].max():.2f} mm"}
            outcome.metrics.append(Metric(f"degraded.{name}_ratio", error / typical, "x", "lower", each))
    return outcome


def _kinds() -> dict[str, range]:
    return {"dark": DARK, "blurred": BLURRED, "covered": COVERED}


def spoil(plates: Plates, marks: Float[Tensor, "t 68 2"]) -> Iterator[Float[Tensor, "3 h w"]]:
    """The plates, some of them spoiled.

    Args:
        marks: the true landmarks, plate pixels: what passes over the face has to find it.
    """
    generator = torch.Generator().manual_seed(6)
    noise = torch.rand(plates.height, plates.width, generator=generator).numpy()
    texture = torch.from_numpy(gaussian_filter(noise, 5.0, mode="wrap"))
    texture = (texture - texture.mean()) / texture.std() * 0.06
    for row in range(len(plates)):
        image = plates.read(row)
        if row in DARK:
            noise = _READ_NOISE * torch.randn(image.shape, generator=generator)
            image = linear_to_srgb((srgb_to_linear(image) * _EXPOSURE + noise).clamp(0, 1))
        elif row in BLURRED:
            image = _smooth(image[None], _DEFOCUS_PX)[0]
        elif row in COVERED:
            image = _covered(image, texture, marks[row], (row - COVERED.start + 0.5) / len(COVERED))
        # As a file of bytes would hold it.
        yield (image * 255).round() / 255


def _covered(image: Tensor, texture: Tensor, marks: Float[Tensor, "68 2"], time: float) -> Tensor:
    """Something skin-coloured and soft-edged, as long as the face is high, passes from one side to the other."""
    low, high = marks.amin(0), marks.amax(0)
    width, height = (high - low).tolist()
    # Slowest over the middle of the face.
    share = 0.5 + 0.5 * (2 * time - 1) ** 3 + 0.25 * (2 * time - 1)
    x, y = float(low[0]) + width * share, float(low[1]) + height * (0.35 + 0.3 * share)
    rows, columns = torch.meshgrid(
        torch.arange(image.shape[1]) + 0.5, torch.arange(image.shape[2]) + 0.5, indexing="ij"
    )
    shape = ((columns - x) / (0.30 * width)) ** 2 + ((rows - y) / (0.62 * height)) ** 2
    cover = torch.sigmoid((1 - shape) * 12)
    moved = torch.roll(texture, (round(y), round(x)), (0, 1))
    colour = torch.tensor([0.62, 0.47, 0.40])[:, None, None] + moved
    return image + cover * (colour.clamp(0, 1) - image)


def _smooth(images: Float[Tensor, "b 3 h w"], sigma: float) -> Float[Tensor, "b 3 h w"]:
    reach = round(3 * sigma)
    at = torch.arange(-reach, reach + 1).float()
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    wide = torch.nn.functional.pad(images, [reach] * 4, mode="replicate")
    wide = torch.nn.functional.conv2d(wide, kernel, groups=3)
    return torch.nn.functional.conv2d(wide, kernel.transpose(-1, -2), groups=3)
