"""Training pictures on disk: JPEG bytes with landmarks and landmark weights, in `.npz` shards without pickle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.renders import Sample


@dataclass(frozen=True)
class Shard:
    """Pictures of one source.

    Attributes:
        pictures: JPEG bytes, RGB order kept inside.
        landmarks: [N, 68, 2] canvas pixels.
        weights: [N, 68] how far to trust each landmark.
    """

    pictures: list[NDArray[np.uint8]]
    landmarks: NDArray[np.float32]
    weights: NDArray[np.float32]

    def picture(self, index: int) -> NDArray[np.uint8]:
        """One decoded picture [H, W, 3] uint8 RGB."""
        decoded = cv2.imdecode(self.pictures[index], cv2.IMREAD_COLOR)
        assert decoded is not None
        return np.asarray(decoded[..., ::-1], np.uint8)


def pack(samples: list[Sample], weights: NDArray[np.float32], path: Path) -> None:
    """Write samples; `weights` [68] or [N, 68]."""
    coded = [cv2.imencode(".jpg", s.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 96])[1].reshape(-1) for s in samples]
    np.savez(
        path,
        coded=np.concatenate(coded),
        ends=np.cumsum([len(c) for c in coded]),
        landmarks=np.stack([s.landmarks for s in samples]),
        weights=np.broadcast_to(weights, (len(samples), 68)).astype(np.float32),
    )


def unpack(path: Path) -> Shard:
    """Read a shard."""
    with np.load(path, allow_pickle=False) as file:
        return Shard(np.split(file["coded"], file["ends"][:-1]), file["landmarks"], file["weights"])
