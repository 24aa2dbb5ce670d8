"""A track in words, and which frames want new plates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tiny_shot import fail_frame, tiny_track

from deepenergy.report.terminal import summary, unread_frames
from deepenergy.scene.track import Cause, Track


def shot() -> Track:
    """Frames 1001-1005: solved, two without a face, an infilled one, a cut."""
    track = tiny_track(5)
    for row, reason in ((1, "no face"), (2, "no face"), (4, "cut")):
        track = fail_frame(track, row, reason)
    status, reason = track.status.copy(), track.reason.copy()
    status[3], reason[3] = "infilled", "weak"
    return replace(track, status=status, reason=reason, landmarks_px={}, render_landmarks_px={})


def test_the_summary_groups_frames_by_reason() -> None:
    assert summary(shot()).splitlines() == [
        "5 frames: 1 solved, 1 infilled, 3 failed",
        "  failed 1002-1003: no face",
        "  infilled 1004: weak",
        "  failed 1005: cut",
    ]


def test_a_camera_without_a_face_is_named_where_others_have_one() -> None:
    track = tiny_track(3)
    blind = track.landmarks_px["left"].copy()
    blind[1] = np.nan
    track = replace(track, landmarks_px={"left": track.landmarks_px["left"], "right": blind})
    assert summary(track).splitlines()[1:] == ["  no face in camera right, solved from the others: 1002"]


def test_frames_with_bad_plates_are_told_by_their_cause_and_not_by_words() -> None:
    track = shot()
    assert unread_frames(track) == []
    cause = [Cause.NONE, Cause.PLATE_MISSING, Cause.NO_FACE, Cause.PLATE_UNREADABLE, Cause.UNKNOWN]
    assert unread_frames(replace(track, cause=np.array(cause))) == [1002, 1004]
    words = track.reason.copy().astype("U64")
    words[1] = "plates 'left' have no frame 1002"
    assert unread_frames(replace(track, reason=words)) == []
