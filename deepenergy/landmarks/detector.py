"""Face detectors, and which of several faces is the actor's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import local
from types import ModuleType
from typing import Any, Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from deepenergy.landmarks.boxes import box_area, iou
from deepenergy.runtime.errors import InputError
from deepenergy.runtime.threads import map_in_threads
from deepenergy.runtime.weight_file import WeightFile

MMOD = WeightFile(
    field="detector 'cnn'",
    name="mmod_human_face_detector.dat",
    sha256="be467b1a76f48269",
    url="https://github.com/davisking/dlib-models/raw/master/mmod_human_face_detector.dat.bz2",
    source="davisking/dlib-models, CC0",
    builtin="the detector 'hog', which needs no file",
    unpack="bunzip2",
)

_OF_THREAD = local()


@dataclass(frozen=True)
class Candidates:
    """Every face found in one image: `boxes` `[N, 4]` float64 plate pixels, `scores` `[N]` float64, higher is surer."""

    boxes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Detections:
    """One face an image: `boxes` `[B, 4]` and `scores` `[B]`, float64; NaN where there is no face."""

    boxes: Tensor
    scores: Tensor


class Detector(Protocol):
    """Finds faces. Its boxes are constants to the solver (the paper's dD/dF = 0)."""

    @property
    def name(self) -> str:
        """How configurations and reports name it."""
        ...

    def candidates(self, images: Float[Tensor, "b 3 h w"]) -> list[Candidates]:
        """All faces of each image (float32 display-referred sRGB in [0, 1]); for a shot, pass to `track_faces`."""
        ...

    def detect(self, images: Float[Tensor, "b 3 h w"], near: Float[Tensor, "b 4"] | None = None) -> Detections:
        """One face an image: `choose_face` of its candidates, `near` a box where the face is expected."""
        ...


def choose_face(faces: Candidates, near: Float[Tensor, " 4"] | None = None) -> int | None:
    """Which candidate is the actor's; None where there is none.

    With `near`, the one that overlaps this box most; without (or `near` NaN, or where nothing overlaps it), the one of
    the greatest area, weighted down for low scores (by the logistic function of 4 x score).
    """
    if len(faces.scores) == 0:
        return None
    if near is not None:
        overlap = iou(faces.boxes, near.to(faces.boxes))
        if float(overlap.max()) > 0:
            return int(overlap.argmax())
    return int(_prominence(faces).argmax())


def _prominence(faces: Candidates) -> Tensor:
    return box_area(faces.boxes) * torch.sigmoid(4 * faces.scores)


def pick(faces: Sequence[Candidates], indices: Sequence[int | None]) -> Detections:
    """The detections of one chosen candidate an image (None for none)."""
    boxes = torch.full((len(faces), 4), torch.nan, dtype=torch.float64)
    scores = torch.full((len(faces),), torch.nan, dtype=torch.float64)
    for row, (found, index) in enumerate(zip(faces, indices, strict=True)):
        if index is not None:
            boxes[row], scores[row] = found.boxes[index], found.scores[index]
    return Detections(boxes, scores)


def track_faces(faces: Sequence[Candidates], min_iou: float = 0.2, max_gap: int = 12) -> Detections:
    """The same face through a shot, from the candidates of its consecutive frames.

    Candidates are linked, greatest overlap first, to the latest box of a track that overlaps by `min_iou` and was
    missing for at most `max_gap` frames; what is left starts tracks of its own. The track with the greatest summed
    prominence (see `choose_face`) is the actor's; tracks that lie wholly before or after what is chosen are added in
    the same order, so that an actor who left the frame is found again, while a false detection inside a dropout is
    not taken.
    """
    tracks: list[list[tuple[int, int]]] = []
    for frame, found in enumerate(faces):
        open_tracks = [track for track in tracks if frame - track[-1][0] <= max_gap + 1]
        links = []
        for track in open_tracks:
            last_frame, last = track[-1]
            overlap = iou(found.boxes, faces[last_frame].boxes[last]).tolist()
            links += [(value, track, index) for index, value in enumerate(overlap) if value >= min_iou]
        links.sort(key=lambda link: -link[0])
        free = set(range(len(found.scores)))
        extended: list[int] = []
        for _, track, index in links:
            if index in free and id(track) not in extended:
                track.append((frame, index))
                free.discard(index)
                extended.append(id(track))
        tracks += [[(frame, index)] for index in sorted(free)]
    prominence = [_prominence(found).tolist() for found in faces]
    tracks.sort(key=lambda track: -sum(prominence[frame][index] for frame, index in track))
    indices: list[int | None] = [None] * len(faces)
    spans: list[tuple[int, int]] = []
    for track in tracks:
        first, last = track[0][0], track[-1][0]
        if all(last < begin or first > end for begin, end in spans):
            spans.append((first, last))
            for frame, index in track:
                indices[frame] = index
    return pick(faces, indices)


class DlibHog:
    """dlib's frontal face detector (histograms of oriented gradients); needs no file.

    It finds faces of 80 pixels and more, and half of that with each upsampling. Upsampling costs four times the time,
    so an image is tried as it is first, and upsampled only while no face is found. Larger images than `max_side` are
    shrunk before, and the boxes scaled back: in a plate 3840 pixels wide, faces of 240 pixels and more (120 with one
    upsampling) are found at 1280.

    Args:
        upsample: how many times to double the image while no face is found.
        threshold: the lowest score taken; dlib's own is 0, lower finds more faces and more that are none.
        max_side: the longer side at which images are searched, pixels.

    Raises:
        InputError: a negative `upsample` or a `max_side` below 1.
    """

    name = "hog"

    def __init__(self, upsample: int = 1, threshold: float = -0.2, max_side: int = 1280) -> None:
        _check_settings(self.name, upsample, max_side)
        self.upsample, self.threshold, self.max_side = upsample, threshold, max_side

    def candidates(self, images: Float[Tensor, "b 3 h w"]) -> list[Candidates]:
        """All faces of each image.

        Raises:
            ValueError: images that are not `[B, 3, H, W]` floats in [0, 1].
            InputError: dlib is not installed.
        """

        def search(image: Tensor) -> Candidates:
            detector = _hog()
            for doublings in range(self.upsample + 1):
                rectangles, scores, _ = detector.run(image.numpy(), doublings, self.threshold)
                if len(rectangles):
                    break
            return _candidates(rectangles, list(scores), image, images)

        return list(map_in_threads(search, images_for_search(images, self.max_side)))

    def detect(self, images: Float[Tensor, "b 3 h w"], near: Float[Tensor, "b 4"] | None = None) -> Detections:
        """One face an image; see `Detector.detect` and `candidates`."""
        return _detect(self, images, near)


class DlibCnn:
    """dlib's convolutional face detector (max-margin object detection), the one of the paper.

    It finds faces of 80 pixels and more, turned ones too. On a CPU it takes about 1 s for 500 x 500 pixels, hence the
    small `max_side`.

    Args:
        path: the model file; None looks in `$DEEPENERGY_WEIGHTS` and `~/.cache/deepenergy`.
        upsample: how many times to double the image while no face is found.
        max_side: the longer side at which images are searched, pixels.
        verify: False takes a file with another hash than the published one.

    Raises:
        InputError: a negative `upsample` or a `max_side` below 1.
    """

    name = "cnn"

    def __init__(
        self, path: str | Path | None = None, upsample: int = 0, max_side: int = 640, verify: bool = True
    ) -> None:
        _check_settings(self.name, upsample, max_side)
        self.path, self.upsample, self.max_side, self.verify = path, upsample, max_side, verify
        self._model: Any = None

    def _load(self) -> Any:
        dlib = _dlib()
        path = MMOD.locate(self.path, [Path.home() / ".cache" / "deepenergy"])
        if self.verify:
            MMOD.check_hash(path)
        try:
            return dlib.cnn_face_detection_model_v1(str(path))
        except RuntimeError as error:
            raise InputError(
                MMOD.field, f"{path}, which dlib cannot read ({error})", MMOD.name, f"get it from {MMOD.url}"
            ) from error

    def candidates(self, images: Float[Tensor, "b 3 h w"]) -> list[Candidates]:
        """All faces of each image.

        Raises:
            ValueError: images that are not `[B, 3, H, W]` floats in [0, 1].
            InputError: dlib or the model file is missing, or the file is not the model.
        """
        if self._model is None:
            self._model = self._load()
        found = []
        for image in images_for_search(images, self.max_side):
            for doublings in range(self.upsample + 1):
                results = self._model(image.numpy(), doublings)
                if len(results):
                    break
            found.append(_candidates([r.rect for r in results], [r.confidence for r in results], image, images))
        return found

    def detect(self, images: Float[Tensor, "b 3 h w"], near: Float[Tensor, "b 4"] | None = None) -> Detections:
        """One face an image; see `Detector.detect` and `candidates`."""
        return _detect(self, images, near)


_DETECTORS = {DlibHog.name: DlibHog, DlibCnn.name: DlibCnn}


def detector_from_name(name: str) -> Detector:
    """The detector of a configuration's name, with its defaults.

    Raises:
        InputError: no such detector.
    """
    if name not in _DETECTORS:
        raise InputError("detector", f"'{name}'", " or ".join(f"'{n}'" for n in _DETECTORS), "use 'hog', the default")
    return _DETECTORS[name]()


def images_for_search(images: Float[Tensor, "b 3 h w"], max_side: int) -> UInt8[Tensor, "b h w 3"]:
    """8-bit images for a detector, shrunk (antialiased) to `max_side` pixels where they are larger.

    Raises:
        ValueError: images that are not `[B, 3, H, W]` floats in [0, 1].
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images: found {images.dtype} {tuple(images.shape)}; expected floats [B, 3, H, W]")
    images = images.detach().cpu()
    if images.numel() and not bool(((images >= 0) & (images <= 1)).all()):
        low, high = float(images.min()), float(images.max())
        raise ValueError(f"images: found values from {low:.3g} to {high:.3g}; expected display-referred [0, 1]")
    height, width = images.shape[2:]
    shrink = max_side / max(height, width)
    if shrink < 1:
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        images = torch.nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _check_settings(name: str, upsample: int, max_side: int) -> None:
    if upsample < 0:
        raise InputError(f"detector '{name}' upsample", str(upsample), "0 or more doublings", "leave it at its default")
    if max_side < 1:
        raise InputError(f"detector '{name}' max_side", str(max_side), "1 pixel or more", "leave it at its default")


def _candidates(rectangles: Any, scores: Sequence[float], searched: Tensor, images: Tensor) -> Candidates:
    # dlib's right and bottom are the last pixels inside the box; ours are its edges.
    edges = [(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in rectangles]
    boxes = torch.tensor(edges, dtype=torch.float64).reshape(-1, 4)
    x, y = images.shape[3] / searched.shape[1], images.shape[2] / searched.shape[0]
    scale = torch.tensor([x, y, x, y], dtype=torch.float64)
    return Candidates(boxes * scale, torch.tensor(scores, dtype=torch.float64))


def _detect(detector: Detector, images: Tensor, near: Tensor | None) -> Detections:
    if near is not None and near.shape != (len(images), 4):
        raise ValueError(f"near: found shape {tuple(near.shape)}; expected [{len(images)}, 4], one box an image")
    faces = detector.candidates(images)
    return pick(faces, [choose_face(f, None if near is None else near[i]) for i, f in enumerate(faces)])


def _hog() -> Any:
    """dlib's detector, which works in memory of its own: one for each thread."""
    dlib = _dlib()
    if not hasattr(_OF_THREAD, "hog"):
        _OF_THREAD.hog = dlib.get_frontal_face_detector()
    return _OF_THREAD.hog


def _dlib() -> ModuleType:
    try:
        import dlib
    except ImportError as error:
        raise InputError(
            "detector", f"no dlib ({error})", "the package dlib", "install it with `pip install dlib-bin`"
        ) from error
    return dlib
