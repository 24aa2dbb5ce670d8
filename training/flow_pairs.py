"""Pairs of pictures with their exact flow both ways, and the `.npz` shards that hold them (no pickle)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIZE = 256
# Flows are stored as whole multiples of this many pixels.
STEP = 1 / 64
VISIBLE, HEAD = 1, 2


@dataclass(frozen=True)
class FlowPair:
    """Two pictures of a moving scene and the truth about them.

    Attributes:
        images: [2, SIZE, SIZE, 3] uint8 sRGB.
        flows: [2, 2, SIZE, SIZE] float32 pixels: of the first picture to the second, and of the second to the first.
        flags: [2, SIZE, SIZE] uint8 bits: `VISIBLE` (the pixel's place is seen in the other picture), `HEAD`.
    """

    images: NDArray[np.uint8]
    flows: NDArray[np.float32]
    flags: NDArray[np.uint8]


@dataclass(frozen=True)
class FlowShard:
    """Many pairs; arrays of `FlowPair` with one more axis in front, flows as int16 multiples of `STEP`."""

    images: NDArray[np.uint8]
    flows: NDArray[np.int16]
    flags: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)

    def pair(self, index: int) -> FlowPair:
        """One pair."""
        return FlowPair(self.images[index], self.flows[index].astype(np.float32) * STEP, self.flags[index])


def pack(pairs: list[FlowPair], path: Path) -> None:
    """Write pairs; a flow beyond 500 px is stored as 500 px, far outside any picture."""
    flows = np.clip(np.stack([p.flows for p in pairs]) / STEP, -32000, 32000)
    np.savez(
        path,
        images=np.stack([p.images for p in pairs]),
        flows=np.round(flows).astype(np.int16),
        flags=np.stack([p.flags for p in pairs]),
    )


def unpack(path: Path) -> FlowShard:
    """Read a shard."""
    with np.load(path, allow_pickle=False) as file:
        return FlowShard(file["images"], file["flows"], file["flags"])
