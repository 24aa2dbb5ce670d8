"""`network`: the landmark network `compact` on real clips of people that it was not trained on, its speed and size."""

from __future__ import annotations

import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.data import data_folder
from benchmarks.facemesh import read_labels
from benchmarks.metrics import Metric, Outcome
from deepenergy.landmarks.network import CROP_SIZE, HeatmapNetwork, landmark_box
from deepenergy.landmarks.readings import find_landmarks
from deepenergy.runtime.errors import InputError
from deepenergy.scene.plates import Plates
from deepenergy.scene.rig import Rig

if TYPE_CHECKING:
    from training.renders import Actor

INNER = slice(17, 68)
OUTER_EYE_CORNERS = (36, 45)
EVERY = 6
_TIMED_CROPS, _WARM_CROPS = 30, 5
_BATCH = 8
RENDERS = 100
# Training seeds are small numbers; nobody there is one of these people.
_RENDER_SEED = 181_202_899


def run() -> Outcome:
    """All metrics of `compact`."""
    from deepenergy.landmarks.compact import Compact

    try:
        network = Compact()
    except InputError as error:
        return Outcome(refused={"network.compact": str(error)})
    outcome = Outcome(metrics=[*speed(network, "compact")])
    outcome.metrics.append(
        Metric("network.compact.parameters", parameters(network), "", "lower", {"network": network.name})
    )
    clips = data_folder() / "clips"
    if clips.is_dir():
        outcome.metrics.append(nme_clips(network, "compact", clips, data_folder() / "labels"))
    else:
        outcome.skipped["network.compact.nme_clips"] = f"no folder {clips} (set DEEPENERGY_TEST_DATA)"
    kit = data_folder() / "ict-facekit.tar.xz"
    if kit.is_file():
        outcome.metrics.append(nme_renders(network, "compact", ict_actor(kit)))
    else:
        outcome.skipped["network.compact.nme_renders"] = f"no file {kit} (set DEEPENERGY_TEST_DATA)"
    return outcome


def nme_clips(network: HeatmapNetwork, name: str, clips: Path, labels: Path) -> Metric:
    """Normalised mean error on every sixth frame of the clips: the median over all frames.

    Per frame: mean distance over the 51 inner points over the distance of the labels' outer eye corners. The face
    box is that of the labels' 68 points, so that the number is the network's and not the detector's.
    """
    errors: dict[str, np.ndarray] = {}
    for clip in sorted(clips.glob("*.mp4")):
        truth = read_labels(labels / f"{clip.stem}_facemesh478.npz")
        errors[clip.stem] = clip_errors(network, Plates.open(clip), truth)
    everything = np.concatenate(list(errors.values()))
    context = {
        "frames": len(everything),
        "mean": round(float(everything.mean()), 5),
        "p95": round(float(np.percentile(everything, 95)), 5),
        "box": "of the labels",
        "median_of_clip": {clip: round(float(np.median(e)), 5) for clip, e in errors.items()},
    }
    return Metric(f"network.{name}.nme_clips", float(np.median(everything)), "share", "lower", context)


def clip_errors(network: HeatmapNetwork, plates: Plates, truth: Float[np.ndarray, "t 68 2"]) -> np.ndarray:
    """Normalised mean error of every sixth frame that has a label."""
    rows = [row for row in range(0, min(len(truth), len(plates.frames)), EVERY) if np.isfinite(truth[row]).all()]
    errors = []
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        images = torch.stack([plates.read(row) for row in batch])
        points = torch.from_numpy(truth[batch])
        with torch.inference_mode():
            found = find_landmarks(network, images, landmark_box(points)).points
        errors.append(normalised_mean_error(found, points))
    return torch.cat(errors).numpy() if errors else np.empty(0)


def normalised_mean_error(
    found: Float[Tensor, "b 68 2"], truth: Float[Tensor, "b 68 2"], points: slice = INNER
) -> Float[Tensor, " b"]:
    """Mean distance over `points`, as a share of the distance of the outer eye corners."""
    right, left = OUTER_EYE_CORNERS
    interocular = (truth[:, right] - truth[:, left]).norm(dim=-1)
    return (found - truth)[:, points].norm(dim=-1).mean(-1) / interocular


def ict_actor(kit: Path) -> Actor:
    """ICT-FaceKit with its identity basis, from its archive, ready for random renders."""
    from training.renders import Actor

    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(kit) as archive:
            archive.extractall(folder, filter="data")
        return Actor(Rig.load(Path(folder) / "ict-facekit"), ("skin",))


def nme_renders(network: HeatmapNetwork, name: str, actor: Actor, count: int = RENDERS) -> Metric:
    """Normalised mean error over all 68 points on renders with exact landmarks: the median over `count` of them.

    Every render is another random person with another expression, pose, light and lens. The seeds are the benchmark's
    own, so no network has seen these people. The face box is that of the exact landmarks.

    Args:
        network, name: the network, and what to call it.
        actor: a rig with an identity basis, which becomes another person in every render.
        count: renders.
    """
    from training.renders import render_sample

    errors = []
    for index in range(count):
        sample = render_sample(np.random.default_rng([_RENDER_SEED, index]), actor)
        points = torch.from_numpy(sample.landmarks).to(torch.float64)[None]
        image = torch.from_numpy(sample.image).permute(2, 0, 1)[None].to(torch.float32) / 255
        with torch.inference_mode():
            found = find_landmarks(network, image, landmark_box(points)).points
        errors.append(float(normalised_mean_error(found, points, slice(0, 68))[0]))
    context = {
        "renders": count,
        "mean": round(float(np.mean(errors)), 5),
        "p95": round(float(np.percentile(errors, 95)), 5),
        "box": "of the landmarks",
    }
    return Metric(f"network.{name}.nme_renders", float(np.median(errors)), "share", "lower", context)


def speed(network: HeatmapNetwork, name: str) -> list[Metric]:
    """Milliseconds for one crop on one thread: the median of single passes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        crop = torch.rand(1, 3, CROP_SIZE, CROP_SIZE, generator=torch.Generator().manual_seed(0))
        times = []
        with torch.inference_mode():
            for _ in range(_WARM_CROPS + _TIMED_CROPS):
                start = time.perf_counter()
                network(crop)
                times.append((time.perf_counter() - start) * 1000)
    finally:
        torch.set_num_threads(threads)
    median = float(np.median(times[_WARM_CROPS:]))
    return [Metric(f"network.{name}.ms_per_crop", median, "ms", "lower", {"threads": 1, "crops": _TIMED_CROPS})]


def parameters(network: HeatmapNetwork) -> int:
    """How many numbers the network learned."""
    modules = [network] if isinstance(network, torch.nn.Module) else vars(network).values()
    return sum(p.numel() for m in modules if isinstance(m, torch.nn.Module) for p in m.parameters())
