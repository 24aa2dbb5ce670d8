"""Video: exact frames by number in any order of access, damaged and cut-off files, colour."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from refusals import refused

from deepenergy.io.plates.video import Video
from deepenergy.runtime.errors import InputError
from deepenergy.scene.plates import PlateError, Plates

SIZE = 64
CODECS = {
    "b_frames.mp4": ("libx264", "yuv420p", {"g": "12", "bf": "3", "qp": "8"}),
    "open_gop.mkv": ("libx265", "yuv420p", {"x265-params": "keyint=12:min-keyint=12:open-gop=1:log-level=none"}),
    "open_gop.mov": ("libx264", "yuv420p", {"g": "10", "bf": "2", "x264-params": "open-gop=1"}),
    "intra.avi": ("mjpeg", "yuvj420p", {"q": "2"}),
    "b_frames.avi": ("mpeg4", "yuv420p", {"g": "12", "bf": "2", "qscale": "2"}),
    "hidden_frames.mkv": ("libvpx", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "25", "crf": "10"}),
    "superframes.mkv": ("libvpx-vp9", "yuv420p", {"lag-in-frames": "16", "g": "25", "cpu-used": "8"}),
    "prores.mov": ("prores_ks", "yuv422p10le", {}),
}


def moving_picture(index: int) -> np.ndarray:
    """A picture that tells its number: `number_of` reads it back after lossy compression."""
    rows = np.linspace(0, 40, SIZE).astype(np.uint8)
    picture = np.broadcast_to(rows[:, None, None], (SIZE, SIZE, 3)).copy()
    for bit in range(8):
        if index >> bit & 1:
            picture[8 * bit : 8 * bit + 8, 16:48] = 230
    return picture


def number_of(image: torch.Tensor) -> int:
    rows = image[:, :, 24:40].mean((0, 2)).reshape(8, 8)[:, 2:6].mean(1)
    return sum(1 << bit for bit in range(8) if rows[bit] > 0.5)


def write_video(
    path: Path,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    count: int = 60,
    times: Sequence[int] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=dict(options or {}))
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = SIZE
        stream.pix_fmt = pixel_format
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(moving_picture(index))
            if times is not None:
                frame.pts, frame.time_base = times[index], stream.codec_context.time_base
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def decode_in_order(path: Path) -> list[np.ndarray]:
    """Every frame as FFmpeg presents it, start to end: the reference for random access."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


@pytest.fixture(scope="module", params=CODECS)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    codec, pixel_format, options = CODECS[request.param]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    return write_video(tmp_path_factory.mktemp("clips") / request.param, codec, pixel_format, options)


def test_every_frame_in_order(clip: Path) -> None:
    plates = Plates.open(clip)
    assert plates.frames == tuple(range(1, 61))
    assert (plates.width, plates.height) == (SIZE, SIZE)
    assert plates.problems() == {}
    assert [number_of(plates.read(index)) for index in range(60)] == list(range(60))


def test_access_in_any_order_is_exact(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_order = [Plates.open(clip).read(0)]
    straight = Plates.open(clip, first_frame=1001)
    in_order = [straight.read(index) for index in range(60)]
    assert straight.frames == tuple(range(1001, 1061))
    # With next to no cache every read back has to seek.
    monkeypatch.setattr("deepenergy.io.plates.video._CACHE_BYTES", 3 * SIZE * SIZE * 3)
    plates = Plates.open(clip)
    order = [59, 0, 30, 29, 28, 12, 11, 13, 47, 3, 59, 36, 35, *np.random.default_rng(3).integers(0, 60, 20).tolist()]
    for index in [*order, *range(59, 30, -1)]:
        assert torch.equal(plates.read(index), in_order[index]), index
    assert torch.equal(Plates.open(clip, frames="41").read(0), in_order[40])


def test_a_sequential_pass_decodes_each_frame_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", options={"g": "12", "bf": "3", "sc_threshold": "0"})
    plates = Plates.open(path)
    kept: list[int] = []
    keep = Video._keep
    monkeypatch.setattr(
        Video, "_keep", lambda self, ordinal, picture: (kept.append(ordinal), keep(self, ordinal, picture))
    )
    for index in range(60):
        plates.read(index)
    assert kept == list(range(60))
    # A jump ahead skips what lies between its keyframe and here.
    kept.clear()
    plates = Plates.open(path)
    plates.read(50)
    assert kept == [48, 49, 50]


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepenergy.io.plates.video._CACHE_BYTES", 50_000)
    video = Video(write_video(tmp_path / "a.mp4"), "plates", 1, None)
    for frame in range(1, 61):
        video.read(frame)
    assert 1 <= len(video._cache) < 10
    assert video._cached_bytes <= 50_000


def test_variable_frame_rate(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(5).integers(5, 300, 40)).tolist()
    for name in ("a.mp4", "a.mov", "a.mkv"):
        path = write_video(tmp_path / name, options={"g": "12"}, count=40, times=times)
        plates = Plates.open(path)
        assert plates.problems() == {}
        assert len(plates) == 40
        assert [number_of(plates.read(index)) for index in (39, 0, 20, 19, 5, 38)] == [39, 0, 20, 19, 5, 38]


def test_an_edit_list_hides_its_frames(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", options={"g": "30", "bf": "2"})
    trimmed = tmp_path / "trimmed.mp4"
    with (
        av.open(str(source)) as reader,
        av.open(str(trimmed), "w", options={"avoid_negative_ts": "disabled"}) as writer,
    ):
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for packet in reader.demux(stream):
            if packet.dts is not None and packet.pts is not None:
                shift = round(10 / 25 / stream.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                writer.mux(packet)
    assert len(decode_in_order(trimmed)) == 50
    plates = Plates.open(trimmed)
    assert len(plates) == 50
    assert [number_of(plates.read(index)) for index in (0, 49, 25, 1)] == [10, 59, 35, 11]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
def test_a_cut_off_video_keeps_what_came_before(tmp_path: Path, name: str, share: float) -> None:
    codec, options = ("mpeg4", {"g": "12", "qscale": "2"}) if name == "a.avi" else ("libx264", {"g": "12", "bf": "3"})
    path = write_video(
        tmp_path / name, codec, options=options, container_options={"movflags": "faststart"} if name == "a.mp4" else {}
    )
    whole = Plates.open(path)
    expected = [whole.read(index) for index in range(60)]
    start = path.read_bytes().find(b"mdat" if name == "a.mp4" else b"\x1f\x43\xb6\x75" if name == "a.mkv" else b"movi")
    data = path.read_bytes()
    path.write_bytes(data[: start + int((len(data) - start) * share)])
    with av.open(str(path)) as container:
        survivors = sum(packet.size > 0 and not packet.is_corrupt for packet in container.demux(video=0))
    plates = Plates.open(path)
    assert plates.frames == tuple(range(1, 61))
    lost = plates.problems()
    # A frame that survived out of order, after one that did not, goes with it.
    assert 60 - survivors <= len(lost) <= 60 - survivors + 3
    assert sorted(lost) == list(range(61 - len(lost), 61))
    for index in range(60):
        frame = index + 1
        if frame in lost:
            with refused(f"frame {frame}", found="cut off", kind=PlateError):
                plates.read(index)
        else:
            assert torch.equal(plates.read(index), expected[index]), index


def test_a_video_without_its_index_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")  # the index comes last
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="no video or has lost its index"):
        Plates.open(path)


def test_damage_is_told_by_frame_and_ends_at_the_next_keyframe(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", options={"g": "12", "bf": "0", "sc_threshold": "0"})
    expected = [Plates.open(path).read(index) for index in range(60)]
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    victim = packets[26]
    data = bytearray(path.read_bytes())
    assert victim.pos is not None
    for position in range(victim.pos + 8, victim.pos + victim.size):
        data[position] ^= 0xFF
    path.write_bytes(data)
    for order in (range(60), range(59, -1, -1), [30, 26, 27, 35, 36, 25, 24, 59]):
        plates = Plates.open(path)
        for index in order:
            if 26 <= index < 36:
                with pytest.raises(PlateError, match=f"frame {index + 1}: found damaged data"):
                    plates.read(index)
            else:
                assert torch.equal(plates.read(index), expected[index])
    with pytest.raises(PlateError, match="builds on frame 27, which is damaged"):
        Plates.open(path).read(30)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi", ".mkv"])
def test_what_is_no_video(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(InputError, match="plates 'left': found no file"):
        Plates.open(path, name="left")
    playlist = f"#EXTM3U\n#EXTINF:1,\nfile://{tmp_path}/b.mp4\n".encode()
    for content in (b"", b"hello, this is text\n" * 50, bytes(5000), playlist):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no video or has lost its index"):
            Plates.open(path, name="left")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(InputError, match="without a picture stream"):
        Plates.open(path)


def test_frame_ranges(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", count=20)
    plates = Plates.open(path, frames="18-23", name="left")
    assert plates.frames == (18, 19, 20, 21, 22, 23)
    assert sorted(plates.problems()) == [21, 22, 23]
    with refused("'left' frame 21", expected="1-20", kind=PlateError):
        plates.read(3)
    assert number_of(plates.read(2)) == 19
    with pytest.raises(InputError, match="expected frames within 1-20"):
        Plates.open(path, frames="1001-1010")
    with pytest.raises(InputError, match="plates 'left' frames: found 'x'"):
        Plates.open(path, frames="x", name="left")
    shifted = Plates.open(path, frames="1001-1020x5", first_frame=1001)
    assert [number_of(shifted.read(index)) for index in range(4)] == [0, 5, 10, 15]
    assert number_of(Plates.open(path, first_frame=0).read(0)) == 0


def test_threads_share_one_video(tmp_path: Path) -> None:
    plates = Plates.open(write_video(tmp_path / "a.mp4", options={"g": "12"}))
    wrong: list[int] = []

    def read(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 60, 25).tolist():
            if number_of(plates.read(index)) != index:
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.slow
def test_the_captured_clips(test_data: Path) -> None:
    for name, count, size in (("d18", 216, (480, 480)), ("d3", 354, (512, 512)), ("s32", 180, (1280, 720))):
        path = test_data / "clips" / f"{name}.mp4"
        plates = Plates.open(path)
        assert len(plates) == count
        assert (plates.width, plates.height) == size
        assert plates.problems() == {}
        wanted = sorted(np.random.default_rng(1).choice(count, 5, replace=False).tolist())
        reference = {}
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index in wanted:
                    matrix = 1 if size[1] >= 720 else 5
                    reference[index] = frame.to_ndarray(format="rgb24", src_colorspace=matrix)
        for index in (wanted[4], wanted[0], wanted[2], wanted[1], wanted[3]):
            image = (plates.read(index) * 255).round().byte().permute(1, 2, 0).numpy()
            assert np.array_equal(image, reference[index])


def test_a_change_of_size_on_the_way_fails_those_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        for index, side in enumerate((64, 64, 96, 64)):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width = encoder.height = side
            encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 25)
            frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), 90, np.uint8)).reformat(format="yuvj420p")
            frame.pts = index
            for packet in [*encoder.encode(frame), *encoder.encode(None)]:
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                container.mux(packet)
    plates = Plates.open(path)
    assert len(plates) == 4
    with refused("frame 3", found="96x96", expected="64x64", kind=PlateError):
        plates.read(2)
    assert plates.read(3).shape == (3, 64, 64)
