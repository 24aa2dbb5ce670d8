"""A solved track in words for the terminal, and which of its frames want new plates."""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np
from fileseq import framesToFrameRange

from deepenergy.scene.track import Track

# How every `PlateError` begins.
_UNREAD = r"plates '.*' (have no )?frame \d+"


def unread_frames(track: Track) -> list[int]:
    """Frames that failed because a plate is missing or damaged (and not because of what it shows)."""
    return [int(n) for n, why in zip(track.frames, track.reason, strict=True) if re.search(_UNREAD, str(why))]


def summary(track: Track) -> str:
    """How many frames have which status, and the frames of every reason, as text for the terminal."""
    counts = {status: int((track.status == status).sum()) for status in ("solved", "infilled", "failed")}
    lines = [f"{len(track)} frames: " + ", ".join(f"{count} {status}" for status, count in counts.items())]
    frames_of: dict[tuple[str, str], list[int]] = defaultdict(list)
    for frame, status, reason in zip(track.frames.tolist(), track.status, track.reason, strict=True):
        if reason:
            frames_of[str(status), str(reason)].append(frame)
    for (status, reason), numbers in frames_of.items():
        lines.append(f"  {status} {framesToFrameRange(numbers)}: {reason}")
    for camera, points in track.landmarks_px.items():
        blind = track.frames[track.solved & ~np.isfinite(points).all((1, 2))].tolist()
        if blind and len(track.landmarks_px) > 1:
            lines.append(f"  no face in camera {camera}, solved from the others: {framesToFrameRange(blind)}")
    return "\n".join(lines)
