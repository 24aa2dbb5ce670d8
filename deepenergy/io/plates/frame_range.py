"""Frame ranges in the vocabulary of image sequences: "1001-1096", "1001-1096x2", "1001,1005,1010-1020"."""

from __future__ import annotations

from fileseq import FrameSet
from fileseq.exceptions import FileSeqException

from deepenergy.runtime.errors import InputError

_EXPECTED = "a frame range like 1001-1096, 1001-1096x2 or 1001,1005,1010-1020"


def parse_frames(text: str, field: str) -> tuple[int, ...]:
    """The whole frame numbers of a range, ascending and once each.

    Raises:
        InputError: the range cannot be parsed, is empty, or has fractions of frames.
    """
    try:
        numbers = list(FrameSet(text))
    except (FileSeqException, ValueError):
        raise InputError(field, f"'{text}'", _EXPECTED, "correct the frame range") from None
    if not numbers:
        raise InputError(field, f"an empty range '{text}'", _EXPECTED, "name at least one frame, or leave it out")
    if any(number != int(number) for number in numbers):
        raise InputError(field, f"fractions of frames in '{text}'", "whole frame numbers", "correct the frame range")
    return tuple(sorted({int(number) for number in numbers}))
