"""Plates: the frames of a shot as a camera captured them, read lazily under their real frame numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.runtime import registry
from deepenergy.runtime.errors import InputError

# As many frames vote on the plates' size; one slate or one botched export among them must not win.
_VOTES = 9


class PlateError(InputError):
    """One frame that cannot be used (missing, damaged, of another size); the rest of the plates can.

    Attributes:
        frame: the frame's number.
    """

    def __init__(self, frame: int, field: str, found: str, expected: str, remedy: str) -> None:
        self.frame = frame
        super().__init__(field, found, expected, remedy)

    def __reduce__(self) -> tuple[type[PlateError], tuple[object, ...]]:
        return type(self), (self.frame, self.field, self.found, self.expected, self.remedy)


class FrameSource(Protocol):
    """Where frames come from: an image sequence, a video, an array. Methods may be called from any thread."""

    @property
    def frames(self) -> tuple[int, ...]:
        """The frame numbers that were asked for, or all there are, ascending."""
        ...

    def size(self, frame: int) -> tuple[int, int]:
        """(width, height) of a frame without decoding it; raises `PlateError`."""
        ...

    def read(self, frame: int) -> Float[Tensor, "3 height width"]:
        """The frame, display-referred sRGB in [0, 1]; raises `PlateError`."""
        ...

    def problems(self, frames: Sequence[int]) -> dict[int, str]:
        """The frames known to be missing, without decoding any."""
        ...


class Plates:
    """The frames of one camera: lazy, under their real frame numbers, display-referred sRGB.

    A frame that is missing, damaged or of another size than the rest is no error of the plates: reading it raises
    `PlateError`, and the other frames read as before.

    Args:
        source: where the frames come from; `Plates.open` and `Plates.from_array` make it.
        name: what messages call the plates.

    Attributes:
        frames: the frame numbers, ascending.
        width, height: the size in pixels that most frames have. Up to nine readable frames, spread over the
            range, vote by their headers; the earliest wins a tie.
        name: what messages call the plates.
    """

    def __init__(self, source: FrameSource, name: str = "plates") -> None:
        self.name = name
        self.frames = source.frames
        self._source = source
        if not self.frames:
            raise InputError(f"plates '{name}' frames", "no frame", "at least one", "check the frame range")
        self.width, self.height = self._vote()

    @staticmethod
    def open(
        path: str | Path, frames: str | None = None, name: str = "plates", first_frame: int | None = None
    ) -> Plates:
        """Open an image sequence or a video.

        Args:
            path: a sequence pattern (`shot.####.png`, `shot.%04d.exr`, `shot.$F4.jpg`, `shot.1001-1096#.png`; one
                `#` alone stands for any number of digits), a file of a sequence, a folder that holds one sequence,
                or a video (mp4, mov, avi, mkv).
            frames: a frame range ("1001-1096", "1001-1096x2", "1001,1005,1010-1020"); it overrides a range in the
                pattern. Frames come out ascending and once. Without a range: every frame of the video; from the
                first to the last file of the sequence, at the sequence's own step, holes included (they fail when
                read).
            name: what messages call the plates.
            first_frame: the number of a video's first frame, 1 unless told; a sequence's files have numbers already.

        Raises:
            InputError: a pattern without a frame field, no file, an unknown ending, a file that is no video, a frame
                range that cannot be parsed, is empty or has none of the frames, no readable frame at all.
        """
        field = f"plates '{name}'"
        path = Path(path).expanduser()
        if not path.suffix and not path.exists():
            raise InputError(f"{field} path", f"no file or folder {path}", "plates", "check the path")
        reader = registry.lookup("read plates", path, field)
        return Plates(reader(path, frames, name, first_frame), name)

    @staticmethod
    def from_array(images: np.ndarray | Tensor, first_frame: int = 1001, name: str = "plates") -> Plates:
        """Plates from memory; the array is referred to, not copied.

        Args:
            images: `[T, H, W, 3]` or `[T, 3, H, W]`, display-referred sRGB: uint8, uint16, or floats in [0, 1].
            first_frame: the number of the first image.
            name: what messages call the plates.

        Raises:
            InputError: another shape or dtype, NaN or infinity, floats outside [0, 1].
        """
        return Plates(_ArraySource(images, first_frame, name), name)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        span = f"{self.frames[0]}-{self.frames[-1]}"
        return f"Plates('{self.name}', {len(self)} frames {span}, {self.width}x{self.height})"

    def select(self, frames: str) -> Plates:
        """The same plates, limited to a frame range; numbers that the plates lack fail when read.

        Raises:
            InputError: the range cannot be parsed, is empty, or has no frame in common with the plates.
        """
        field = f"plates '{self.name}' frames"
        chosen = registry.lookup("parse frames", Path(frames), field)(frames, field)
        if not set(chosen) & set(self.frames):
            raise InputError(
                field, f"'{frames}'", f"frames within {self.frames[0]}-{self.frames[-1]}", "correct the frame range"
            )
        # The size stays that of the whole, so that an odd-sized frame does not pass for the norm when chosen alone.
        selected = object.__new__(Plates)
        selected.__dict__.update(self.__dict__, frames=chosen)
        return selected

    def read(self, index: int) -> Float[Tensor, "3 height width"]:
        """The frame at `index` (0 to `len - 1`), float32 in [0, 1], display-referred sRGB.

        Raises:
            PlateError: the frame is missing, truncated, damaged or of another size; it names frame and file.
            IndexError: there is no such index.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of plates '{self.name}' with {len(self)} frames")
        frame = self.frames[index]
        image = self._source.read(frame)
        height, width = image.shape[1:]
        if (width, height) != (self.width, self.height):
            raise PlateError(
                frame,
                f"plates '{self.name}' frame {frame}",
                f"a size of {width}x{height}",
                f"{self.width}x{self.height} like the other frames",
                "export this frame again at the plates' size",
            )
        return image

    def problems(self) -> dict[int, str]:
        """Frame number -> what is wrong, for the frames known to be missing; decodes nothing, so it is fast.

        Damaged and odd-sized files are not among them: they come to light when they are read.
        """
        return self._source.problems(self.frames)

    def _vote(self) -> tuple[int, int]:
        """The size that most of a few frames have."""
        count = len(self.frames)
        spread = sorted({round(i * (count - 1) / (_VOTES - 1)) for i in range(_VOTES)})
        rest = [i for i in range(count) if i not in set(spread)]
        votes: Counter[tuple[int, int]] = Counter()
        first_error: PlateError | None = None
        for position, index in enumerate([*spread, *rest]):
            if position >= len(spread) and votes:
                break
            try:
                votes[self._source.size(self.frames[index])] += 1
            except PlateError as error:
                first_error = first_error or error
        if not votes:
            assert first_error is not None
            raise InputError(
                f"plates '{self.name}'",
                f"none of {count} frames readable (frame {first_error.frame}: {first_error.found})",
                "at least one readable frame",
                first_error.remedy,
            )
        # `most_common` keeps the order of arrival among equals, and votes arrive in frame order.
        return votes.most_common(1)[0][0]


class _ArraySource:
    """Frames held in memory."""

    def __init__(self, images: Any, first_frame: int, name: str) -> None:
        field = f"plates '{name}' images"
        if isinstance(images, Tensor):
            if images.dtype == torch.bfloat16:
                images = images.float()
            images = images.detach().cpu().numpy()
        images = np.asarray(images)
        shape = images.shape
        last, second = len(shape) == 4 and shape[3] == 3, len(shape) == 4 and shape[1] == 3
        if last and second:
            raise InputError(
                field, f"shape {shape}", "an unambiguous layout", "pass images of a height and width other than 3"
            )
        if not (last or second) or 0 in shape:
            raise InputError(
                field, f"shape {shape}", "[T, H, W, 3] or [T, 3, H, W], not empty", "stack RGB frames of one size"
            )
        self._images = images if second else images.transpose(0, 3, 1, 2)
        if images.dtype in (np.uint8, np.uint16):
            self._scale = float(np.iinfo(images.dtype).max)
        elif np.issubdtype(images.dtype, np.floating):
            self._scale = 1.0
            for index, image in enumerate(images):
                low, high = float(image.min()), float(image.max())
                # NaN compares false with everything.
                if not (low >= 0.0 and high <= 1.0):
                    raise InputError(
                        f"plates '{name}' image {index}",
                        "NaN" if np.isnan(low) or np.isnan(high) else f"values from {low:g} to {high:g}",
                        "floats in [0, 1]",
                        "divide by the white level and clip, or pass uint8 or uint16",
                    )
        else:
            raise InputError(
                field, f"dtype {images.dtype}", "uint8, uint16 or floats in [0, 1]", "convert the images first"
            )
        self._first, self._name = first_frame, name
        self.frames = tuple(range(first_frame, first_frame + len(images)))

    def size(self, frame: int) -> tuple[int, int]:
        return self._images.shape[3], self._images.shape[2]

    def read(self, frame: int) -> Tensor:
        if frame not in self.frames:
            raise PlateError(
                frame,
                f"plates '{self._name}' frame {frame}",
                f"no such image among {len(self.frames)}",
                f"a frame within {self.frames[0]}-{self.frames[-1]}",
                "correct the frame range",
            )
        image = self._images[frame - self._first].astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(image) / np.float32(self._scale))

    def problems(self, frames: Sequence[int]) -> dict[int, str]:
        known = set(self.frames)
        return {frame: "no such image" for frame in frames if frame not in known}
