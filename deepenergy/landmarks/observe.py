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
from deepenergy.runtime.progress import Progress, silent
from deepenergy.runtime.threads import map_in_threads
from deepenergy.scene.plates import PlateError
from deepenergy.scene.track import Cause
from deepenergy.scene.views import Views

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
        points: `[T, C, L, 2]` plate pixels, NaN where there is no face.
        confidence: `[T, C, L]`, 0 where there is no face.
        windows: `[T, C, 4]` windows that the network saw, plate pixels; NaN where there is no face.
        covariance: `[T, C, L, 2, 2]` covariance of each landmark by its heatmap, plate pixels squared.
        problems: `(frame index, camera index)` -> why there is nothing.
        causes: the same as codes.
    """

    points: Tensor
    confidence: Tensor
    windows: Tensor
    covariance: Tensor
    problems: dict[tuple[int, int], str] = field(default_factory=dict)
    causes: dict[tuple[int, int], Cause] = field(default_factory=dict)

    def __getitem__(self, rows: Tensor) -> Observations:
        """The observations of some frames, by their places; their problems are left behind."""
        return Observations(self.points[rows], self.confidence[rows], self.windows[rows], self.covariance[rows])


@dataclass(frozen=True)
class ObserveSettings:
    """How plates are observed.

    Attributes:
        box_window: frames of smoothing of the face boxes, odd.
        max_gap: frames in a row without a face that are searched near their neighbours'.
        device: where the network runs.
        batch: images in memory at once.
        readings: how often the network reads each face in the second pass (`read_landmarks`).
        frame_rate: frames a second for a one-euro filter on boxes and landmarks; None for no filter.
    """

    box_window: int = 5
    max_gap: int = 12
    device: str = "cpu"
    batch: int = 8
    readings: int = 1
    frame_rate: float | None = None


def observe(
    views: Views,
    frames: Sequence[int],
    detector: Detector,
    network: HeatmapNetwork,
    settings: ObserveSettings | None = None,
    progress: Progress = silent,
) -> Observations:
    """Find the actor's face and landmarks in every frame.

    The detector's boxes start a first pass; the landmarks' own boxes, smoothed over time, frame the second, so that the
    window moves with the face and not with the detector's grid. Where the detector found nothing, or what is no
    face to the network, the face is searched where the neighbours have it (`_follow`).

    Args:
        views: C cameras and their plates.
        frames: T frame numbers; one that a camera lacks is a problem of that frame.
        detector: finds faces.
        network: finds landmarks.
        settings: how; the defaults when None.
        progress: told how far the search is.
    """
    settings = settings or ObserveSettings()
    each = [_Observer(views, c, tuple(frames), detector, network, settings, progress).run() for c in range(len(views))]
    names = ("points", "confidence", "windows", "covariance")
    parts = (torch.stack([getattr(one, name) for one in each], 1) for name in names)
    problems = {(t, c): text for c, one in enumerate(each) for t, text in one.problems.items()}
    causes = {(t, c): cause for c, one in enumerate(each) for t, cause in one.causes.items()}
    return Observations(*parts, problems=problems, causes=causes)


class _Observer:
    """The face of one camera.

    Attributes:
        points, confidence, windows, covariance: as those of `Observations`, for one camera.
        problems, causes: place among the frames -> why there is nothing.
    """

    def __init__(  # more than six: what `observe` was given, and which camera
        self,
        views: Views,
        camera: int,
        frames: tuple[int, ...],
        detector: Detector,
        network: HeatmapNetwork,
        settings: ObserveSettings,
        progress: Progress,
    ) -> None:
        self.views, self.camera, self.frames = views, camera, frames
        self.detector, self.network, self.settings, self.progress = detector, network, settings, progress
        self.name, count = views.names[camera], len(frames)
        marks = network.layout.count
        self.points = torch.full((count, marks, 2), torch.nan, dtype=torch.float64)
        self.confidence = torch.zeros(count, marks, dtype=torch.float64)
        self.windows = torch.full((count, 4), torch.nan, dtype=torch.float64)
        self.covariance = torch.full((count, marks, 2, 2), torch.nan, dtype=torch.float64)
        self.problems: dict[int, str] = {}
        self.causes: dict[int, Cause] = {}

    def run(self) -> _Observer:
        settings = self.settings
        detected = track_faces(self.candidates()).boxes
        self.read_boxes(fill_gaps(detected, settings.max_gap), 1, 0)
        boxes = smooth_boxes(self.boxes_of_landmarks(detected), settings.box_window)
        if settings.frame_rate is not None:
            boxes = one_euro(boxes, settings.frame_rate)
        self.read_boxes(boxes, settings.readings, 1)
        if settings.frame_rate is not None:
            self.points = one_euro(self.points, settings.frame_rate)
        for t in range(len(self.frames)):
            if t not in self.problems and not bool(torch.isfinite(self.points[t]).all()):
                self.problems[t] = f"no face found by '{self.detector.name}' in camera '{self.name}'"
                self.causes[t] = Cause.NO_FACE
        return self

    def candidates(self) -> list[Candidates]:
        """What the detector finds in every frame."""
        found: list[Candidates] = []
        nothing = Candidates(torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
        for start in range(0, len(self.frames), self.settings.batch):
            rows = range(start, min(start + self.settings.batch, len(self.frames)))
            images = [self.image(t) for t in rows]
            good = [image for image in images if image is not None]
            faces = iter(self.detector.candidates(torch.stack(good)) if good else ())
            found += [nothing if image is None else next(faces) for image in images]
            self.progress(f"faces ({self.name})", len(found), len(self.frames))
        return found

    def image(self, t: int) -> Tensor | None:
        """The plate; None where it cannot be read, and then the reason is among the problems."""
        try:
            return self.views.read(self.camera, self.frames[t])
        except PlateError as error:
            plates = self.views.plates[self.camera]
            absent = self.frames[t] not in plates.frames or self.frames[t] in plates.problems()
            self.problems[t], self.causes[t] = str(error), Cause.PLATE_MISSING if absent else Cause.PLATE_UNREADABLE
            return None

    def read_boxes(self, boxes: Float[Tensor, "t 4"], readings: int, passed: int) -> None:
        """Landmarks of the faces in the boxes."""
        count, batch = len(self.frames), self.settings.batch
        for start in range(0, count, batch):
            rows = range(start, min(start + batch, count))
            wanted = [t for t in rows if t not in self.problems and bool(torch.isfinite(boxes[t]).all())]
            good = [(t, image) for t in wanted if (image := self.image(t)) is not None]
            if good:
                at = torch.tensor([t for t, _ in good])
                stack = torch.stack([image for _, image in good])

                def landmarks(part: Tensor, images: Tensor = stack, here: Tensor = boxes[at]) -> LandmarkSet:
                    return find_landmarks(self.network, images[part].to(self.settings.device), here[part], readings)

                parts = torch.arange(len(at)).split(_READ_AT_ONCE)
                for part, marks in zip(parts, map_in_threads(landmarks, parts), strict=True):
                    self.put(at[part], marks)
            self.progress(f"landmarks ({self.name})", min(start + batch, count) + passed, count + 1)

    def put(self, rows: Tensor, marks: LandmarkSet) -> None:
        for name in ("points", "confidence", "windows", "covariance"):
            getattr(self, name)[rows] = getattr(marks, name).cpu()

    def read_at(self, t: int, box: Tensor) -> LandmarkSet | None:
        """Landmarks of a frame near a box."""
        image = self.image(t)
        if image is None:
            return None
        return find_landmarks(self.network, image[None].to(self.settings.device), box[None])

    def boxes_of_landmarks(self, detected: Float[Tensor, "t 4"]) -> Float[Tensor, "t 4"]:
        """Boxes by the landmarks of the first pass, carried into frames whose own are not sure."""
        max_gap = self.settings.max_gap
        usual = _usual_confidence(self.confidence, torch.isfinite(detected).all(1))
        if max_gap > 0 and not usual >= LEAST_CONFIDENCE:
            # The detector found nothing, or what it found is no face to the network.
            at, face = self.search()
            if at is not None and face is not None:
                marks = self.read_at(at, face.box)
                assert marks is not None
                self.points[at], self.confidence[at] = marks.points[0].cpu(), marks.confidence[0].cpu()
                usual = float(self.confidence[at].mean())
        sure = _follow(self.points, self.confidence, _SURE * usual, self.read_at, max_gap)
        seen = torch.isfinite(self.points).all((1, 2))
        own = landmark_box(torch.nan_to_num(self.points))
        # Landmarks that are not sure would move the windows of their neighbours.
        boxes = fill_gaps(torch.where(sure[:, None], own, torch.nan), max_gap)
        return torch.where((seen & torch.isnan(boxes).any(1))[:, None], own, boxes)

    def search(self) -> tuple[int | None, FoundFace | None]:
        """The first of a few frames, spread over the shot, in which the landmark network finds a face by itself."""
        count = len(self.frames)
        tried = torch.linspace(0, count - 1, min(_SEARCHED, count)).round().long().tolist()
        # From the middle outwards: actors come and go at the ends.
        for t in sorted(tried, key=lambda t: abs(t - (count - 1) / 2)):
            image = self.image(t)
            if image is not None:
                face = search_face(self.network, image.to(self.settings.device))
                if face is not None:
                    return t, face
        return None, None


def _usual_confidence(confidence: Float[Tensor, "t l"], detected: Bool[Tensor, " t"]) -> float:
    """Median over the frames in which the detector found a face; NaN where there is none."""
    mean = confidence.mean(1)
    return float(mean[detected & (mean > 0)].quantile(0.5)) if bool((detected & (mean > 0)).any()) else math.nan


def _follow(
    points: Float[Tensor, "t l 2"],
    confidence: Float[Tensor, "t l"],
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
