"""Image sequences: `shot.####.png` and its relatives, one file a frame, numbered by their names."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import fileseq
from fileseq import FileSequence
from fileseq.exceptions import FileSeqException
from jaxtyping import Float
from torch import Tensor

from deepenergy.io.plates.frame_range import parse_frames
from deepenergy.io.plates.images import SUFFIXES, read_still, still_size
from deepenergy.runtime.errors import InputError
from deepenergy.scene.plates import PlateError

# Each `#` is one digit, as artists write it; a lone `#` is any number of them.
_STYLE = fileseq.PAD_STYLE_HASH1
_FRAME_FIELD = re.compile(r"#+|@+|%\d*d|\$F\d*")
_EXPECTED = "a pattern like shot.####.png, shot.%04d.png or shot.1001-1096#.png, or a folder with one sequence"
# A stray number (shot.99999999.png) must not turn a shot into millions of missing frames.
_MOST_HOLES = 1000


class ImageSequence:
    """The files of one sequence, over the frames that were asked for.

    Args:
        sequence: the files on disk, for their names.
        frames: frame numbers, ascending; those without a file fail when read.
        name: what the plates are called.
    """

    def __init__(self, sequence: FileSequence, frames: tuple[int, ...], name: str) -> None:
        self.frames = frames
        self._name, self._sequence = name, sequence

    def path(self, frame: int) -> Path:
        """The file of a frame, whether it exists or not."""
        return Path(self._sequence.frame(frame))

    def size(self, frame: int) -> tuple[int, int]:
        """(width, height) by the file's header; raises `PlateError`."""
        return self._guard(still_size, frame)

    def read(self, frame: int) -> Float[Tensor, "3 height width"]:
        """The frame, see `deepenergy.io.plates.images`; raises `PlateError`."""
        return self._guard(read_still, frame)

    def problems(self, frames: Sequence[int]) -> dict[int, str]:
        """The frames without a file, by one look at the folder."""
        folder = Path(self._sequence.dirname() or ".")
        present = set(os.listdir(folder)) if folder.is_dir() else set()
        return {frame: f"no file {self.path(frame)}" for frame in frames if self.path(frame).name not in present}

    def _guard(self, reader, frame: int):
        try:
            return reader(self.path(frame), "frame")
        except InputError as error:
            raise PlateError(
                frame, f"plates '{self._name}' frame {frame}", error.found, error.expected, error.remedy
            ) from None


def open_image_sequence(path: Path, frames: str | None, name: str, first_frame: int | None) -> ImageSequence:
    """Find the sequence that a pattern, one of its files, or its folder names; see `Plates.open`.

    Raises:
        InputError: as `Plates.open`.
    """
    field = f"plates '{name}'"
    if first_frame is not None:
        raise InputError(
            field, f"first_frame={first_frame} for an image sequence", "first_frame for videos only",
            "leave it out: the files' names have the numbers",
        )  # fmt: skip
    wanted_range = frames
    if path.is_dir():
        sequence = _in_folder(path, field)
    elif path.is_file():
        sequence = _of_file(path, field)
    else:
        pattern = _parse(path, field)
        sequence = _matching(pattern, path, field)
        if frames is None and pattern.frameSet() is not None:
            wanted_range = str(pattern.frameSet())
    existing = sorted(int(frame) for frame in sequence.frameSet() or ())
    if wanted_range is None:
        wanted = _whole_range(existing, field, str(sequence))
    else:
        wanted = parse_frames(wanted_range, f"{field} frames")
        if not set(wanted) & set(existing):
            raise InputError(
                f"{field} frames",
                f"'{wanted_range}', none of which is in {sequence}",
                f"frames within {existing[0]}-{existing[-1]}",
                "correct the frame range",
            )
    return ImageSequence(sequence, wanted, name)


def _parse(path: Path, field: str) -> FileSequence:
    """The pattern's parts; it must have exactly one frame field."""
    try:
        pattern = FileSequence(str(path), pad_style=_STYLE)
    except FileSeqException:
        raise InputError(f"{field} path", f"'{path}'", _EXPECTED, "put one frame field, into the file's name") from None
    if not _FRAME_FIELD.fullmatch(pattern.padding()):
        if pattern.frameSet() is None and not pattern.padding():
            raise InputError(f"{field} path", f"'{path}', no such file and no frame field", _EXPECTED, "check the path")
        raise InputError(
            f"{field} path", f"frame field '{pattern.padding()}' in '{path}'", _EXPECTED, "use one frame field"
        )
    return pattern


def _list(folder: Path, field: str) -> list[FileSequence]:
    """Every numbered image sequence of a folder; hidden files (a Mac's `._shot.1001.png`) are none."""
    if not folder.is_dir():
        raise InputError(f"{field} path", f"no folder {folder}", "a folder with the frames", "check the path")
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES) and not name.startswith("."))
    found = FileSequence.findSequencesInList([str(folder / name) for name in names], pad_style=_STYLE)
    return [sequence for sequence in found if sequence.frameSet() is not None]


def _matching(pattern: FileSequence, path: Path, field: str) -> FileSequence:
    """The sequence on disk that the pattern of `path` means."""
    folder = Path(pattern.dirname() or ".")
    listed = _list(folder, field)
    named = [s for s in listed if s.basename() == pattern.basename() and s.extension() == pattern.extension()]
    # `####` and `%04d` mean four digits, `%d` no leading zeros; a lone `#` has no opinion.
    fitting = named if pattern.padding() == "#" else [s for s in named if s.zfill() == pattern.zfill()]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise InputError(
            f"{field} path", f"several sequences for '{path}' ({_names(fitting)})", "one sequence",
            "write one `#` for every digit",
        )  # fmt: skip
    held = f"the folder holds {_names(listed)}" if listed else "the folder holds no numbered images"
    raise InputError(f"{field} path", f"no file like '{path}' ({held})", _EXPECTED, "check the path and the digits")


def _of_file(path: Path, field: str) -> FileSequence:
    """The sequence that a file belongs to."""
    for sequence in _list(path.parent, field):
        if any(Path(sequence.frame(frame)) == path for frame in sequence.frameSet() or ()):
            return sequence
    raise InputError(f"{field} path", f"'{path}', a file without a frame number", _EXPECTED, "number the file's name")


def _in_folder(folder: Path, field: str) -> FileSequence:
    """The one sequence of a folder."""
    listed = _list(folder, field)
    if len(listed) == 1:
        return listed[0]
    found = f"several sequences in {folder} ({_names(listed)})" if listed else f"no numbered images in {folder}"
    raise InputError(f"{field} path", found, "one sequence", "give a pattern like shot.####.png")


def _names(sequences: list[FileSequence]) -> str:
    shown = ", ".join(Path(str(sequence)).name for sequence in sequences[:5])
    return shown + (f" and {len(sequences) - 5} more" if len(sequences) > 5 else "")


def _whole_range(existing: list[int], field: str, shown: str) -> tuple[int, ...]:
    """From the first to the last file at the step that all of them keep: a shot on twos has no holes."""
    first, last = existing[0], existing[-1]
    step = math.gcd(*(frame - first for frame in existing)) or 1
    count = (last - first) // step + 1
    if count - len(existing) > max(_MOST_HOLES, len(existing)):
        raise InputError(
            f"{field} frames",
            f"{len(existing)} files spread over {first}-{last} ({shown})",
            "a sequence with few holes",
            "give the frame range, or move the stray files away",
        )
    return tuple(range(first, last + 1, step))
