"""What the plates say: detected faces and landmarks of every frame and camera (`N(F*)` of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deepenergy.landmarks.boxes import fill_gaps, smooth_boxes
from deepenergy.landmarks.detector import Candidates, Detector, track_faces
from deepenergy.landmarks.network import HeatmapNetwork, landmark_box
from deepenergy.landmarks.readings import find_landmarks
from deepenergy.plates import PlateError, Plates
from deepenergy.temporal.one_euro import one_euro

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Observations:
    """Landmarks on the plates of T frames and C cameras.

    Attributes:
        points: `[T, C, 68, 2]` plate pixels, NaN where there is no face.
        confidence: `[T, C, 68]`, 0 where there is no face.
        crops: `[T, C, 4]` windows that the network saw, plate pixels; NaN where there is no face.
        spread: `[T, C, 68, 2, 2]` covariance of each landmark by its heatmap, plate pixels squared.
        problems: `(frame index, camera index)` -> why there is nothing.
    """

    points: Tensor
    confidence: Tensor
    crops: Tensor
    spread: Tensor
    problems: dict[tuple[int, int], str] = field(default_factory=dict)


def observe(
    plates: Sequence[Plates],
    frames: Sequence[int],
    detector: Detector,
    network: HeatmapNetwork,
    progress: Progress,
    box_window: int = 5,
    max_gap: int = 12,
    device: str = "cpu",
    batch: int = 8,
    readings: int = 1,
    frame_rate: float | None = None,
) -> Observations:
    """Find the actor's face and landmarks in every frame.

    The detector's boxes start a first pass; the landmarks' own boxes, smoothed over time, frame the second, so that the
    window moves with the face and not with the detector's grid. Where the detector found nothing, up to `max_gap`
    frames are searched at boxes between its neighbours'.

    Args:
        plates: C plates.
        frames: frame numbers to solve; one that a camera lacks is a problem of that frame.
        box_window: frames of smoothing, odd.
        batch: images in memory at once.
        readings: how often the network reads each face in the second pass (`read_landmarks`).
        frame_rate: frames a second for a one-euro filter on boxes and landmarks; None for no filter.
    """
    shape = (len(frames), len(plates))
    points = torch.full((*shape, 68, 2), torch.nan, dtype=torch.float64)
    confidence = torch.zeros(*shape, 68, dtype=torch.float64)
    crops = torch.full((*shape, 4), torch.nan, dtype=torch.float64)
    spread = torch.full((*shape, 68, 2, 2), torch.nan, dtype=torch.float64)
    problems: dict[tuple[int, int], str] = {}
    for c, plate in enumerate(plates):
        numbers = {number: i for i, number in enumerate(plate.frames)}
        candidates: list[Candidates] = []
        nothing = Candidates(torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
        for t, number in enumerate(frames):
            image = _read(plate, numbers.get(number), number)
            if isinstance(image, str):
                problems[t, c] = image
                candidates.append(nothing)
            else:
                candidates.append(detector.candidates(image[None])[0])
            progress(f"faces ({plate.name})", t + 1, len(frames))
        found = track_faces(candidates).boxes
        boxes = _carry_ends(fill_gaps(found, max_gap), max_gap)
        for number_of_pass in range(2):
            repeat = readings if number_of_pass == 1 else 1
            if number_of_pass == 1:
                boxes = smooth_boxes(boxes, box_window)
                if frame_rate is not None:
                    boxes = one_euro(boxes, frame_rate)
            for start in range(0, len(frames), batch):
                rows = [
                    t
                    for t in range(start, min(start + batch, len(frames)))
                    if (t, c) not in problems and bool(torch.isfinite(boxes[t]).all())
                ]
                images = [_read(plate, numbers.get(frames[t]), frames[t]) for t in rows]
                good = [(t, i) for t, i in zip(rows, images, strict=True) if not isinstance(i, str)]
                if good:
                    at = torch.tensor([t for t, _ in good])
                    marks = find_landmarks(network, torch.stack([i for _, i in good]).to(device), boxes[at], repeat)
                    points[at, c], confidence[at, c] = marks.points.cpu(), marks.confidence.cpu()
                    crops[at, c], spread[at, c] = marks.crops.cpu(), marks.spread.cpu()
                progress(f"landmarks ({plate.name})", min(start + batch, len(frames)) + number_of_pass, len(frames) + 1)
            seen = torch.isfinite(points[:, c]).all((1, 2))
            boxes = torch.where(seen[:, None], landmark_box(torch.nan_to_num(points[:, c])), torch.nan)
        if frame_rate is not None:
            points[:, c] = one_euro(points[:, c], frame_rate)
        for t in range(len(frames)):
            if (t, c) not in problems and not bool(torch.isfinite(points[t, c]).all()):
                problems[t, c] = f"no face found by '{detector.name}' in camera '{plate.name}'"
    return Observations(points, confidence, crops, spread, problems)


def _read(plate: Plates, index: int | None, number: int) -> Tensor | str:
    if index is None:
        return f"plates '{plate.name}' have no frame {number}"
    try:
        return plate.read(index)
    except PlateError as error:
        return str(error)


def _carry_ends(boxes: Tensor, reach: int) -> Tensor:
    """Boxes carried past the first and last detection, `reach` frames at most."""
    known = torch.isfinite(boxes).all(1).nonzero()[:, 0].tolist()
    boxes = boxes.clone()
    if known:
        boxes[max(0, known[0] - reach) : known[0]] = boxes[known[0]]
        boxes[known[-1] + 1 : known[-1] + 1 + reach] = boxes[known[-1]]
    return boxes
