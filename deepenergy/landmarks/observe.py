"""What the plates say: detected faces and landmarks of every frame and camera (`N(F*)` of the paper)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepenergy.landmarks.boxes import fill_gaps, smooth_boxes
from deepenergy.landmarks.detector import Candidates, Detector, track_faces
from deepenergy.landmarks.network import HeatmapNetwork, LandmarkSet, landmark_box
from deepenergy.landmarks.one_euro import one_euro
from deepenergy.landmarks.readings import find_landmarks
from deepenergy.landmarks.search import LEAST_CONFIDENCE, FoundFace, search_face
from deepenergy.runtime.threads import map_in_threads
from deepenergy.scene.plates import PlateError, Plates

Progress = Callable[[str, int, int], None]
# Share of the usual confidence on detected faces; beside a face it is 0.6 of that at most (compact).
_SURE = 0.75
# Frames that are searched without a detector.
_SEARCHED = 3
# Images that a thread has the network read together.
_READ_AT_ONCE = 4


@dataclass(frozen=True)
class Observations:
    """Landmarks on the plates of T frames and C cameras.

    Attributes:
        points: `[T, C, 68, 2]` plate pixels, NaN where there is no face.
        confidence: `[T, C, 68]`, 0 where there is no face.
        windows: `[T, C, 4]` windows that the network saw, plate pixels; NaN where there is no face.
        covariance: `[T, C, 68, 2, 2]` covariance of each landmark by its heatmap, plate pixels squared.
        problems: `(frame index, camera index)` -> why there is nothing.
    """

    points: Tensor
    confidence: Tensor
    windows: Tensor
    covariance: Tensor
    problems: dict[tuple[int, int], str] = field(default_factory=dict)

    def __getitem__(self, rows: Tensor) -> Observations:
        """The observations of some frames, by their places; their problems are left behind."""
        return Observations(self.points[rows], self.confidence[rows], self.windows[rows], self.covariance[rows])


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
    window moves with the face and not with the detector's grid. Where the detector found nothing, or what is no
    face to the network, the face is searched where the neighbours have it (`_follow`).

    Args:
        plates: C plates.
        frames: frame numbers to solve; one that a camera lacks is a problem of that frame.
        box_window: frames of smoothing, odd.
        max_gap: frames in a row without a face that are searched near their neighbours'.
        batch: images in memory at once.
        readings: how often the network reads each face in the second pass (`read_landmarks`).
        frame_rate: frames a second for a one-euro filter on boxes and landmarks; None for no filter.
    """
    shape = (len(frames), len(plates))
    points = torch.full((*shape, 68, 2), torch.nan, dtype=torch.float64)
    confidence = torch.zeros(*shape, 68, dtype=torch.float64)
    windows = torch.full((*shape, 4), torch.nan, dtype=torch.float64)
    covariance = torch.full((*shape, 68, 2, 2), torch.nan, dtype=torch.float64)
    problems: dict[tuple[int, int], str] = {}
    for c, plate in enumerate(plates):
        numbers = {number: i for i, number in enumerate(plate.frames)}
        candidates: list[Candidates] = []
        nothing = Candidates(torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
        for start in range(0, len(frames), batch):
            images = [_read(plate, numbers.get(number), number) for number in frames[start : start + batch]]
            problems |= {(start + i, c): image for i, image in enumerate(images) if isinstance(image, str)}
            good = [image for image in images if not isinstance(image, str)]
            faces = iter(detector.candidates(torch.stack(good)) if good else ())
            candidates += [nothing if isinstance(image, str) else next(faces) for image in images]
            progress(f"faces ({plate.name})", len(candidates), len(frames))
        found = track_faces(candidates).boxes
        boxes = fill_gaps(found, max_gap)
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
                    stack = torch.stack([i for _, i in good])

                    def landmarks(
                        part: Tensor, images: Tensor = stack, here: Tensor = boxes[at], repeat: int = repeat
                    ) -> LandmarkSet:
                        return find_landmarks(network, images[part].to(device), here[part], repeat)

                    parts = torch.arange(len(at)).split(_READ_AT_ONCE)
                    for part, marks in zip(parts, map_in_threads(landmarks, parts), strict=True):
                        to = at[part]
                        points[to, c], confidence[to, c] = marks.points.cpu(), marks.confidence.cpu()
                        windows[to, c], covariance[to, c] = marks.windows.cpu(), marks.covariance.cpu()
                progress(f"landmarks ({plate.name})", min(start + batch, len(frames)) + number_of_pass, len(frames) + 1)
            if number_of_pass == 0:

                def read_at(
                    t: int, box: Tensor, plate: Plates = plate, numbers: dict[int, int] = numbers
                ) -> LandmarkSet | None:
                    image = _read(plate, numbers.get(frames[t]), frames[t])
                    if isinstance(image, str):
                        return None
                    return find_landmarks(network, image[None].to(device), box[None])

                detected = torch.isfinite(found).all(1)
                usual = _usual_confidence(confidence[:, c], detected)
                if max_gap > 0 and not usual >= LEAST_CONFIDENCE:
                    # The detector found nothing, or what it found is no face to the network.
                    at, face = _searched(network, plate, numbers, frames, device)
                    if at is not None and face is not None:
                        marks = read_at(at, face.box)
                        assert marks is not None
                        points[at, c], confidence[at, c] = marks.points[0].cpu(), marks.confidence[0].cpu()
                        usual = float(confidence[at, c].mean())
                sure = _follow(points[:, c], confidence[:, c], _SURE * usual, read_at, max_gap)
                seen = torch.isfinite(points[:, c]).all((1, 2))
                own = landmark_box(torch.nan_to_num(points[:, c]))
                # Landmarks that are not sure would move the windows of their neighbours.
                boxes = fill_gaps(torch.where(sure[:, None], own, torch.nan), max_gap)
                boxes = torch.where((seen & torch.isnan(boxes).any(1))[:, None], own, boxes)
        if frame_rate is not None:
            points[:, c] = one_euro(points[:, c], frame_rate)
        for t in range(len(frames)):
            if (t, c) not in problems and not bool(torch.isfinite(points[t, c]).all()):
                problems[t, c] = f"no face found by '{detector.name}' in camera '{plate.name}'"
    return Observations(points, confidence, windows, covariance, problems)


def _read(plate: Plates, index: int | None, number: int) -> Tensor | str:
    if index is None:
        return f"plates '{plate.name}' have no frame {number}"
    try:
        return plate.read(index)
    except PlateError as error:
        return str(error)


def _usual_confidence(confidence: Float[Tensor, "t 68"], detected: Bool[Tensor, " t"]) -> float:
    """Median over the frames in which the detector found a face; NaN where there is none."""
    mean = confidence.mean(1)
    return float(mean[detected & (mean > 0)].quantile(0.5)) if bool((detected & (mean > 0)).any()) else math.nan


def _searched(
    network: HeatmapNetwork, plate: Plates, numbers: dict[int, int], frames: Sequence[int], device: str
) -> tuple[int | None, FoundFace | None]:
    """The first of a few frames, spread over the shot, in which the landmark network finds a face by itself."""
    tried = torch.linspace(0, len(frames) - 1, min(_SEARCHED, len(frames))).round().long().tolist()
    # From the middle outwards: actors come and go at the ends.
    for t in sorted(tried, key=lambda t: abs(t - (len(frames) - 1) / 2)):
        image = _read(plate, numbers.get(frames[t]), frames[t])
        if not isinstance(image, str):
            face = search_face(network, image.to(device))
            if face is not None:
                return t, face
    return None, None


def _follow(
    points: Float[Tensor, "t 68 2"],
    confidence: Float[Tensor, "t 68"],
    level: float,
    read_at: Callable[[int, Tensor], LandmarkSet | None],
    reach: int,
) -> Bool[Tensor, " t"]:
    """Carry the face from frames in which it is sure into their neighbours, forwards and then backwards.

    A detector loses heads that turn away; the network finds a face again from where it was a frame ago, and its
    confidence tells when it does not. Up to `reach` frames in a row may be unsure before the search ends.

    Args:
        points, confidence: of one camera; what is surer than before is written into them.
        level: the mean confidence from which a face is sure.
        read_at: landmarks of a frame near a box; None where there is no image.

    Returns:
        which frames are sure.
    """
    mean = confidence.mean(1)
    for order in (range(len(mean)), range(len(mean) - 1, -1, -1)):
        box, lost = None, 0
        for t in order:
            if mean[t] < level and box is not None and lost < reach:
                marks = read_at(t, box)
                lost += 1
                if marks is not None and float(marks.confidence.mean()) > mean[t]:
                    points[t], confidence[t] = marks.points[0].cpu(), marks.confidence[0].cpu()
                    mean[t] = confidence[t].mean()
            if mean[t] >= level:
                box, lost = landmark_box(points[t][None])[0], 0
    return mean >= level
