"""Which frames a video has, from its packets: listed once, without decoding.

The presentation times of the packets, sorted, are the frames in order. That holds for variable rates, for reordered
(B) frames, and for edit lists, whose dropped pictures the demuxer marks.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import av

# One packet holds one picture in the other codecs; VP8 has packets that show nothing.
_HIDDEN_PICTURES = {"vp8"}


@dataclass(frozen=True)
class PacketIndex:
    """The frames of a video stream.

    Attributes:
        ordinals: presentation time -> place in the order of presentation; empty where frames can only be counted.
        present: how many frames can be read by number.
        total: how many the file says that it holds; more than `present` where it is cut off.
        keys: places of the frames that decoding can start at, ascending, the first frame always.
        seek_times: place of a key -> the time to seek to; none for a key that only a fresh start reaches.
        decode_order: presentation time -> place in the file.
    """

    ordinals: dict[int, int]
    present: int
    total: int
    keys: list[int]
    seek_times: dict[int, int]
    decode_order: dict[int, int]

    def key_before(self, ordinal: int) -> int:
        """The last key at or before a frame."""
        return self.keys[max(bisect_right(self.keys, ordinal) - 1, 0)]

    def next_key(self, ordinal: int) -> int:
        """The first key after a frame, or the end of the file."""
        after = bisect_right(self.keys, ordinal)
        return self.keys[after] if after < len(self.keys) else self.present


@dataclass(frozen=True)
class _Packet:
    time: int | None
    decode_time: int | None
    duration: int
    is_key: bool
    is_shown: bool
    is_whole: bool


def list_packets(container: Any, stream: Any) -> PacketIndex | None:
    """The index of a stream, read from its first packet to its last.

    Args:
        container: a PyAV input container at its start; it ends up at its end.
        stream: its video stream.

    Returns:
        The index, or None where packets and frames do not match one to one, so that frames have to be counted by
        decoding (`counted`).
    """
    packets: list[_Packet] = []
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed, None)
        except av.FFmpegError:
            break  # The data end here; what the header speaks of beyond is missing.
        if packet is None:
            break
        if packet.size:
            packets.append(
                _Packet(
                    packet.pts, packet.dts, packet.duration or 0,
                    packet.is_keyframe, not packet.is_discard, not packet.is_corrupt,
                )
            )  # fmt: skip
    shown = [packet for packet in packets if packet.is_shown]
    times = sorted(packet.time for packet in shown if packet.time is not None)
    if len(times) < len(shown) or len(set(times)) < len(times) or stream.codec_context.name in _HIDDEN_PICTURES:
        return None
    missing, kept = _count_missing(container, stream, shown, times), times
    if times and (missing or not packets[-1].is_whole):
        # Frames are shown in another order than they are decoded in, but none before it is decoded: after the first,
        # numbers are certain up to the decode time of the last whole packet.
        whole = [packet for packet in packets if packet.is_whole]
        limit = max([times[0], *(packet.decode_time for packet in whole if packet.decode_time is not None)])
        kept = sorted({packet.time for packet in whole if packet.time is not None and packet.time <= limit} & {*times})
    ordinals = {time: ordinal for ordinal, time in enumerate(kept)}
    # AVI stores no presentation times: they are worked out from the packets before, which a seek leaves out.
    seekable = container.format.name != "avi" or all(p.time == p.decode_time for p in packets)
    seek_times = {}
    for packet in shown if seekable else ():
        if packet.is_key and packet.time in ordinals:
            time = packet.time if packet.decode_time is None else packet.decode_time
            seek_times[ordinals[packet.time]] = time
    return PacketIndex(
        ordinals=ordinals,
        present=len(kept),
        total=len(times) + missing,
        keys=sorted({0, *seek_times}),
        seek_times=seek_times,
        decode_order={packet.time: place for place, packet in enumerate(packets) if packet.time is not None},
    )


def counted(frames: int) -> PacketIndex:
    """The index of a video whose frames were counted by decoding it: it can only be read from its start."""
    return PacketIndex(ordinals={}, present=frames, total=frames, keys=[0], seek_times={}, decode_order={})


def _count_missing(container: Any, stream: Any, shown: list[_Packet], times: list[int]) -> int:
    """How many frames the header speaks of beyond those in the packets; 0 where nothing is cut off, or it says nothing.

    The header has the stream's length; what it says of single frames is no help where an edit list hides some.
    """
    rate = float((stream.average_rate or 0) * stream.time_base)
    if container.format.name == "avi":
        # Its duration is worked out from the size of the file as it is; its time base is the frame.
        length = stream.frames
    elif stream.duration is not None:
        length = stream.duration
    else:
        # Matroska's tag, 00:00:11.800000000, is the time of the end.
        ends = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
        seconds = int(ends[1]) * 3600 + int(ends[2]) * 60 + float(ends[3]) if ends else 0.0
        length = seconds / float(stream.time_base) - times[0] if times else 0.0
    if not times or not rate:
        return 0
    here = max((packet.time or 0) + (packet.duration or 1 / rate) for packet in shown) - times[0]
    complete = (length - here) * rate < 0.75 and all(packet.is_whole for packet in shown)
    return 0 if complete else max(round(length * rate) - len(shown), 0)
