"""Training pictures from real clips and stills with FaceMesh labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from training.renders import CANVAS, CANVAS_SCALE, Sample

# FaceMesh's 478 points to the 68 of iBUG. The jaw is a silhouette in one and anatomy in the other.
FACEMESH_TO_68 = np.array(
    [127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356]
    + [70, 63, 105, 66, 107, 336, 296, 334, 293, 300]
    + [168, 197, 5, 4, 75, 97, 2, 326, 305]
    + [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]
    + [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181]
    + [78, 82, 13, 312, 308, 317, 14, 87]
)
LABEL_WEIGHTS = np.concatenate([np.full(17, 0.1), np.full(10, 0.7), np.full(41, 1.0)]).astype(np.float32)


def labels(path: Path) -> NDArray[np.float32]:
    """[T, 68, 2] pixels of a labels file; NaN where no face was found."""
    with np.load(path, allow_pickle=False) as file:
        raw = file["xy_sixteenth_px"]
    points = raw[:, FACEMESH_TO_68].astype(np.float32) / 16
    points[(raw < 0).all((1, 2))] = np.nan
    return points


def clip_frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The frames of a clip, RGB."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def canvas_sample(image: NDArray[np.uint8], points: NDArray[np.float32]) -> Sample:
    """Cut the training canvas around labelled points."""
    low, high = points.min(0), points.max(0)
    scale = CANVAS / (CANVAS_SCALE * float((high - low).max()))
    shift = CANVAS / 2 - scale * (low + high) / 2
    if scale < 0.7:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 / scale), np.uint8)
    # warpAffine counts from pixel centres: x' + 0.5 = scale * (x + 0.5) + shift.
    matrix = np.array([[scale, 0, shift[0] + (scale - 1) / 2], [0, scale, shift[1] + (scale - 1) / 2]])
    cut = cv2.warpAffine(image, matrix, (CANVAS, CANVAS), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return Sample(np.asarray(cut, np.uint8), (points * scale + shift).astype(np.float32))


def clip_samples(clip: Path, label_file: Path, every: int) -> list[Sample]:
    """Every n-th labelled frame of a clip."""
    points = labels(label_file)
    return [
        canvas_sample(frame, points[i])
        for i, frame in enumerate(clip_frames(clip))
        if i % every == 0 and np.isfinite(points[i]).all()
    ]


def still_samples(folder: Path, label_file: Path) -> list[Sample]:
    """The labelled stills."""
    points = labels(label_file)
    with np.load(label_file, allow_pickle=False) as file:
        names = [str(n) for n in file["names"]]
    found = []
    for name, marks in zip(names, points, strict=True):
        image = cv2.imread(str(folder / name))
        if image is not None and np.isfinite(marks).all():
            found.append(canvas_sample(np.ascontiguousarray(image[..., ::-1], np.uint8), marks))
    return found
