"""Video files as plates: exact by frame number, in the order of presentation.

At opening the packets are listed, without decoding: their presentation times, sorted, are the frames, so variable
rates, reordered (B) frames and edit lists need nothing special. Reading decodes on from where it stands, or from the
keyframe before the wanted frame, and identifies what comes out by its time. Pixels are taken as stored (pixel
aspect ignored, fields not separated, a rotation by right angles applied); the picture's own matrix and range are
honoured, and an untagged picture is BT.709 from 720 lines up, else BT.601. BT.709 video counts as display-referred.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import av
from jaxtyping import Float
from torch import Tensor

from deepenergy.io.plates.frame_range import parse_frames
from deepenergy.io.plates.packet_index import PacketIndex, counted, list_packets
from deepenergy.io.plates.video_picture import picture_to_tensor
from deepenergy.runtime.errors import InputError
from deepenergy.scene.plates import PlateError

# Neighbours of a decoded frame are kept, so that a backward pass decodes each group of pictures a few times only.
_CACHE_BYTES = 64 * 2**20
# The containers that are read; anything else, playlists above all, would let a file name other files.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
_AGAIN = "copy or export the video again"
# Transfer functions that are no display's: linear, the two logarithmic ones, PQ, HLG.
_SCENE_TRANSFERS = {8: "linear", 9: "log", 10: "log", 16: "PQ (HDR)", 18: "HLG (HDR)"}


class Video:
    """The frames of one video. One lock guards the decoder, so any thread may read.

    Args:
        path: the file.
        name: what the plates are called.
        first_frame: the number of the first frame.
        frames: a frame range, or None for all.

    Raises:
        InputError: not a video, no frame that decodes, a transfer function that is no display's, a rotation that
            is no right angle, a frame range without any of its frames.
    """

    def __init__(self, path: Path, name: str, first_frame: int, frames: str | None) -> None:
        self._path, self._name, self._first = path, name, first_frame
        self._field = f"plates '{name}'"
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, Any] = OrderedDict()
        self._cached_bytes = 0
        self._container: Any = None
        self._damage: dict[int, int] = {}
        self._index = counted(0)
        self._index = self._make_index()
        self._size = self._probe()
        last = first_frame + self._index.total - 1
        self.frames = tuple(range(first_frame, last + 1))
        if frames is not None:
            self.frames = parse_frames(frames, f"{self._field} frames")
            if self.frames[0] > last or self.frames[-1] < first_frame:
                raise InputError(
                    f"{self._field} frames",
                    f"'{frames}', none of which is in {path}",
                    f"frames within {first_frame}-{last}",
                    "correct the frame range, or set first_frame",
                )

    def size(self, frame: int) -> tuple[int, int]:
        """(width, height) of the video as shown; raises `PlateError` for a frame that it lacks."""
        self._ordinal(frame)
        return self._size

    def problems(self, frames: Sequence[int]) -> dict[int, str]:
        """The frames beyond the video's ends, and those that its packets lack."""
        found: dict[int, str] = {}
        for frame in frames:
            try:
                self._ordinal(frame)
            except PlateError as error:
                found[frame] = error.found
        return found

    def read(self, frame: int) -> Float[Tensor, "3 height width"]:
        """The frame, float32 in [0, 1]; raises `PlateError`."""
        ordinal = self._ordinal(frame)
        with self._lock:
            picture = self._decode(ordinal)
            source = self._damage.get(ordinal)
            # Within the lock as well: a picture carries its converter, which two threads must not share.
            image = picture_to_tensor(picture) if picture is not None and source is None else None
        if source is not None:
            found = f"damaged data in {self._path}"
            if source != ordinal:
                found += f" (it builds on frame {self._first + source}, which is damaged)"
            raise self._error(frame, found, "a whole frame")
        if image is None:
            raise self._error(frame, f"no picture for it in {self._path}", "a whole frame")
        return image

    def _error(self, frame: int, found: str, expected: str, remedy: str = _AGAIN) -> PlateError:
        return PlateError(frame, f"{self._field} frame {frame}", found, expected, remedy)

    def _ordinal(self, frame: int) -> int:
        """The place of a frame in the order of presentation."""
        ordinal = frame - self._first
        if not 0 <= ordinal < self._index.total:
            last = self._first + self._index.total - 1
            raise self._error(
                frame, f"{self._path}, which has no such frame", f"frames {self._first}-{last}",
                "correct the frame range, or set first_frame",
            )  # fmt: skip
        if ordinal >= self._index.present:
            raise self._error(frame, f"{self._path} cut off before this frame", "a whole video")
        return ordinal

    def _refuse(self, found: str, remedy: str = _AGAIN) -> InputError:
        return InputError(self._field, found, "a video (mp4, mov, avi, mkv)", remedy)

    def _open(self) -> None:
        """A fresh decoder at the first packet."""
        if self._container is not None:
            self._container.close()
        try:
            self._container = av.open(str(self._path.resolve()), options=_OPTIONS)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._refuse(
                f"{self._path}, which is no video or has lost its index ({type(error).__name__})"
            ) from None
        if not self._container.streams.video:
            raise self._refuse(f"{self._path} without a picture stream", "export the video with its picture")
        self._stream = self._container.streams.video[0]
        # Frame threads would report damage late, on another packet than its own.
        self._stream.thread_type = "SLICE"
        self._start(self._container.demux(self._stream), 0)

    def _start(self, packets: Iterator[Any], key: int) -> None:
        self._pictures, self._position, self._from = self._decode_packets(packets), key - 1, key

    def _make_index(self) -> PacketIndex:
        if not self._path.is_file():
            raise self._refuse(f"no file {self._path}", "check the path")
        self._open()
        index = list_packets(self._container, self._stream)
        self._open()
        if index is not None and index.present:
            return index
        if index is None:
            self._index = counted(0)
            index = counted(sum(1 for _ in self._pictures))
            self._open()
        if not index.present:
            raise self._refuse(f"{self._path} without a whole frame")
        return index

    def _probe(self) -> tuple[int, int]:
        """The size by the first frame that decodes; the checks that only a decoded frame allows."""
        _, picture = next(self._pictures, (0, None))
        transfer = _SCENE_TRANSFERS.get(int(self._stream.codec_context.color_trc))
        self._open()
        if picture is None:
            raise self._refuse(f"{self._path}, of which no frame decodes")
        if picture.rotation % 90:
            raise self._refuse(f"{self._path}, turned by {picture.rotation} degrees", "export it upright")
        if transfer is not None:
            raise InputError(
                self._field,
                f"{transfer} transfer function in {self._path}",
                "display-referred video (BT.709, sRGB)",
                "convert it to BT.709, or export an EXR sequence",
            )
        turned = picture.rotation % 180 != 0
        return (picture.height, picture.width) if turned else (picture.width, picture.height)

    def _decode_packets(self, packets: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        """(place in the order of presentation, picture); damage is noted on the way."""
        codec = self._stream.codec_context
        ordinals, count = self._index.ordinals, 0
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                packet = None  # The data end here, as the index knows.
            last = packet is None or packet.size == 0
            if packet is not None and packet.is_corrupt:
                self._note_damage(ordinals.get(packet.pts))
                continue
            try:
                pictures = codec.decode(None if last else packet)
            except av.FFmpegError:
                pictures = []
                if packet is not None:
                    self._note_damage(ordinals.get(packet.pts))
            for picture in pictures:
                ordinal = ordinals.get(picture.pts) if ordinals else count
                count += 1
                if ordinal is not None:
                    if picture.is_corrupt:
                        self._note_damage(ordinal)
                    yield ordinal, picture
            if last:
                return

    def _note_damage(self, ordinal: int | None) -> None:
        """A damaged frame spoils those after it up to the next key, which are predicted from it."""
        if ordinal is not None:
            for spoilt in range(ordinal, self._index.next_key(ordinal)):
                self._damage[spoilt] = min(self._damage.get(spoilt, ordinal), ordinal)

    def _seek(self, key: int) -> None:
        """Stand before a key, by a seek or, where the seek does not land at or before it, by a fresh start."""
        time = self._index.seek_times.get(key)
        if key and time is not None:
            self._container.seek(time, stream=self._stream, backward=True, any_frame=False)
            packets = self._container.demux(self._stream)
            landed = next(packets, None)
            order = self._index.decode_order
            wanted = next(t for t, ordinal in self._index.ordinals.items() if ordinal == key)
            if landed is not None and landed.is_keyframe and order.get(landed.pts, len(order)) <= order[wanted]:
                self._start(chain([landed], packets), key)
                return
        self._open()

    def _decode(self, ordinal: int) -> Any | None:
        """The picture, from the cache or by decoding up to it; None where the decoder gives none."""
        if ordinal in self._cache:
            self._cache.move_to_end(ordinal)
            return self._cache[ordinal]
        key = self._index.key_before(ordinal)
        if ordinal <= self._position or self._position + 1 < key:
            self._seek(key)
        for found, picture in self._pictures:
            # Pictures shown before the key that decoding began at may be predicted from what was not decoded.
            if found < self._from:
                continue
            self._position = found
            self._keep(found, picture)
            if found >= ordinal:
                break
        return self._cache.get(ordinal)

    def _keep(self, ordinal: int, picture: Any) -> None:
        """Cache a picture; the oldest go when there are too many bytes."""
        self._cache[ordinal] = picture
        self._cached_bytes += _bytes(picture)
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= _bytes(self._cache.popitem(last=False)[1])


def _bytes(picture: Any) -> int:
    return sum(plane.buffer_size for plane in picture.planes)


def open_video(path: Path, frames: str | None, name: str, first_frame: int | None) -> Video:
    """Open a video; see `Plates.open`.

    Raises:
        InputError: as `Plates.open`.
    """
    return Video(path, name, 1 if first_frame is None else first_frame, frames)
