"""A solved track in words for the terminal, and which of its frames want new plates."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from fileseq import framesToFrameRange

from deepenergy.scene.track import STATUSES, Cause, Track

_UNREAD = (Cause.PLATE_MISSING, Cause.PLATE_UNREADABLE)


def unread_frames(track: Track) -> list[int]:
    """Frames that could not be solved because a plate is missing or damaged (and not because of what it shows).

    Args:
        track: the solved shot; infilled frames count too, by the cause for which they had failed.

    Returns:
        frame numbers, ascending.
    """
    return track.frames[np.isin(track.cause, [cause.value for cause in _UNREAD])].tolist()


def summary(track: Track) -> str:
    """How many frames have which status, and the frames of every reason.

    Args:
        track: the solved shot.

    Returns:
        lines of text.
    """
    counts = {status: int((track.status == status).sum()) for status in STATUSES}
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
