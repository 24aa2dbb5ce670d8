"""Which frames a video has, from its packets: listed once, without decoding.

The presentation times of the packets, sorted, are the frames in order. That holds for variable rates, for reordered
(B) frames, and for edit lists, whose dropped pictures the demuxer marks.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import av

# One packet holds one picture in the other codecs; VP8 has packets that show nothing.
_HIDDEN_PICTURES = {"vp8"}


@dataclass(frozen=True)
class PacketIndex:
    """The frames of a video stream.

    Attributes:
        ordinals: presentation time -> place in the order of presentation; empty where frames can only be counted.
        present: how many frames the file holds.
        total: how many it says that it holds; more than `present` where it is cut off.
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
            break  # The data end here; what is lost shows below.
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
    missing = _count_missing(container, stream, shown, times)
    # A packet cut short is lost as well, and so is every frame whose number the loss makes uncertain.
    kept = times
    if missing or (packets and not packets[-1].is_whole):
        kept = _certain(packets, times, _step(container, stream, times))
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


def _step(container: Any, stream: Any, times: list[int]) -> float:
    """The usual time between frames."""
    gaps = [later - earlier for earlier, later in pairwise(times)]
    rate = stream.average_rate
    by_rate = float(1 / (rate * stream.time_base)) if rate else 0.0
    # MP4 and AVI have the mean rate of the whole file in their header. Matroska's is a nominal one: exact where times
    # are rounded (33, 33, 34 ms), wrong where they vary.
    nominal = container.format.name.startswith("matroska")
    if not gaps or (by_rate and (not nominal or abs(median(gaps) - by_rate) <= 1.5)):
        return by_rate or 1.0
    return sum(gaps) / len(gaps)


def _count_missing(container: Any, stream: Any, shown: list[_Packet], times: list[int]) -> int:
    """How many frames the header speaks of beyond those in the packets; 0 where nothing is cut off."""
    if not times:
        return 0
    step = _step(container, stream, times)
    declared = _declared_duration(container, stream, times[0])
    if declared is None:
        return 0
    end = max((packet.time or 0) + (packet.duration or step) for packet in shown)
    # The last of a reordered group may be here and others of the group lost, so a cut packet counts as well.
    if declared - (end - times[0]) < 0.75 * step and all(packet.is_whole for packet in shown):
        return 0
    return max(round(declared / step) - len(shown), 0)


def _declared_duration(container: Any, stream: Any, start: int) -> float | None:
    """The stream's length by its header, in its time base."""
    if container.format.name == "avi" and stream.frames:
        # Its duration is worked out from the size of the file as it is; its time base is the frame.
        return float(stream.frames)
    if stream.duration is not None:
        return float(stream.duration)
    try:
        # Matroska's tag, 00:00:11.800000000, is the time of the end.
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return (int(hours) * 3600 + int(minutes) * 60 + float(seconds)) / float(stream.time_base) - start
    except ValueError:
        return None


def _certain(packets: list[_Packet], times: list[int], step: float) -> list[int]:
    """The frames of a cut-off file whose numbers are certain.

    A lost frame is decoded after the last whole packet, and no frame is shown before it is decoded; so up to that
    packet's decode time nothing is missing. Beyond, frames are certain as long as they follow at the usual step.
    """
    whole = [packet for packet in packets if packet.is_whole]
    if not whole:
        return []
    decode_times = [packet.decode_time for packet in whole if packet.decode_time is not None]
    limit = max(decode_times) if decode_times else times[0]
    available = {packet.time for packet in whole}
    kept: list[int] = []
    for time in times:
        if time not in available or (kept and time > limit and time - kept[-1] > 1.5 * step):
            break
        kept.append(time)
    return kept
