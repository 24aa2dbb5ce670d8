"""The cameras of a shot and what they captured, matched once, and addressed by frame number ever after."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

from jaxtyping import Float
from torch import Tensor

from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.plates import PlateError, Plates
from deepenergy.scene.window import crop_and_resize

# Bytes of decoded frames that are kept: a dozen at 720x540, and two or three at 4K would not help anybody.
CACHE_BYTES = 64 * 2**20
# Entries of a matrix (metres and none) that two products of rigid matrices may differ by.
_ROUNDING = 1e-12


@dataclass(eq=False)
class _FrameCache:
    """The last decoded frames, as many as `CACHE_BYTES` hold; used by several threads."""

    frames: OrderedDict[tuple[int, int], Tensor] = field(default_factory=OrderedDict)
    size: int = 0
    lock: Lock = field(default_factory=Lock)

    def get(self, key: tuple[int, int]) -> Tensor | None:
        with self.lock:
            image = self.frames.get(key)
            if image is not None:
                self.frames.move_to_end(key)
            return image

    def add(self, key: tuple[int, int], image: Tensor) -> None:
        with self.lock:
            if key in self.frames or image.nbytes > CACHE_BYTES:
                return
            self.frames[key] = image
            self.size += image.nbytes
            while self.size > CACHE_BYTES:
                self.size -= self.frames.popitem(last=False)[1].nbytes


@dataclass(frozen=True, eq=False)
class Views:
    """C cameras and their plates.

    Make one with `Views.match`, which checks that they belong together.

    Attributes:
        plates: C plates.
        cameras: C cameras, in the same order; one that moves has values for each of its plates' frames.
    """

    plates: tuple[Plates, ...]
    cameras: tuple[Camera, ...]
    _cache: _FrameCache = field(default_factory=_FrameCache, repr=False)

    @staticmethod
    def match(plates: Plates | Sequence[Plates], cameras: Camera | Sequence[Camera]) -> Views:
        """Plates and cameras that belong together, one or several of each, in the same order.

        Raises:
            InputError: not as many cameras as plates, none, a camera of another size than its plates, a moving camera
                without values for some of its plates' frames, or cameras that share no frame number with any other.
        """
        many = (plates,) if isinstance(plates, Plates) else tuple(plates)
        cams = (cameras,) if isinstance(cameras, Camera) else tuple(cameras)
        if len(many) != len(cams) or not many:
            raise InputError(
                "cameras",
                f"{len(cams)} for {len(many)} plates",
                "one camera for each plates",
                "pass them in the same order",
            )
        _check_shared_frames(many)
        for plate, camera in zip(many, cams, strict=True):
            camera.check_plate_size(plate.width, plate.height)
            camera.at(plate.frames)
        return Views(many, cams)

    def __len__(self) -> int:
        """Number of cameras."""
        return len(self.cameras)

    @property
    def names(self) -> tuple[str, ...]:
        """What the plates are called, which is what a track's landmarks go by."""
        return tuple(plate.name for plate in self.plates)

    @property
    def frames(self) -> tuple[int, ...]:
        """Frame numbers that any camera has, ascending."""
        return tuple(sorted({number for plate in self.plates for number in plate.frames}))

    def image(self, camera: int, frame: int) -> Float[Tensor, "3 h w"] | None:
        """The plate of a camera in a frame, display-referred sRGB in [0, 1]; None where there is none or it is damaged.

        Not to be written to: it is kept for whoever asks next.
        """
        try:
            return self.read(camera, frame)
        except PlateError:
            return None

    def read(self, camera: int, frame: int) -> Float[Tensor, "3 h w"]:
        """As `image`, but says what is wrong.

        Raises:
            PlateError: the camera has no such frame, or it is missing, damaged or of another size.
        """
        key = (camera, frame)
        image = self._cache.get(key)
        if image is None:
            image = self.plates[camera].read_frame(frame)
            self._cache.add(key, image)
        return image

    def window(self, camera: int, frame: int, box: Float[Tensor, "4"], size: int) -> Float[Tensor, "3 s s"] | None:
        """A window of a plate, resized; None where the plate cannot be read.

        Args:
            camera: which camera.
            frame: frame number.
            box: x0, y0, x1, y1 in plate pixels; what is outside of the plate is black.
            size: side of the result, pixels.
        """
        image = self.image(camera, frame)
        return None if image is None else crop_and_resize(image[None], box[None], size)[0]

    def camera(self, camera: int, frames: Sequence[int]) -> Camera:
        """A camera in some frames: a batch with a row for each, or the camera itself where it is always the same."""
        return self.cameras[camera].at(self._held(camera, frames))

    def cameras_at(self, frames: Sequence[int]) -> tuple[Camera, ...]:
        """All cameras in some frames, see `camera`."""
        return tuple(self.camera(c, frames) for c in range(len(self)))

    def _held(self, camera: int, frames: Sequence[int]) -> Sequence[int]:
        """The frames, or the nearest that a moving camera has values for: without a plate, nothing depends on it."""
        known = self.cameras[camera].frames
        if known is None:
            return frames
        there = set(known)
        return [n if n in there else min(known, key=lambda k, n=n: (abs(k - n), k)) for n in map(int, frames)]

    def select(self, frames: str) -> Views:
        """The same views, limited to a frame range.

        Raises:
            InputError: as `Plates.select`.
        """
        return Views(tuple(plate.select(frames) for plate in self.plates), self.cameras, self._cache)

    def moved(self, frames: Sequence[int], transform: Float[Tensor, "t 4 4"]) -> Views:
        """The same views in another world, `x_new = transform @ [x, 1]`.

        Args:
            frames: T frame numbers.
            transform: rigid, one for all frames, or one for each.
        """
        numbers = tuple(int(n) for n in frames)
        cameras = []
        for c in range(len(self)):
            camera = self.camera(c, numbers).moved(transform).at_rest(_ROUNDING)
            cameras.append(replace(camera, frames=numbers if camera.world_to_camera.ndim == 3 else None))
        return Views(self.plates, tuple(cameras), self._cache)


def _check_shared_frames(plates: Sequence[Plates]) -> None:
    """Every camera must share a frame with another; single frames may be missing in any of them."""
    there = [set(plate.frames) - set(plate.problems()) for plate in plates]
    for plate, own in zip(plates, there, strict=True):
        rest = set().union(*(frames for frames in there if frames is not own))
        if len(plates) > 1 and own.isdisjoint(rest):
            raise InputError(
                f"plates '{plate.name}' frames",
                f"{_ranges(own)}, none of which another camera has ({_ranges(rest)})",
                "cameras that share frame numbers: views are matched by number",
                "renumber the plates (`first_frame` for a video), or solve this camera alone",
            )


def _ranges(frames: Iterable[int]) -> str:
    """Frame numbers as text, "1001-1010,1012"."""
    numbers, parts = sorted(frames), []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1] = (parts[-1][0], number)
        else:
            parts.append((number, number))
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts) or "no frame"
