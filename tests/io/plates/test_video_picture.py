"""Video pictures as RGB: matrix, range, bit depth, rotation, and transfer functions that are refused."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from deepenergy.runtime.errors import InputError
from deepenergy.scene.plates import Plates


def write_planes(path: Path, planes: tuple[int, int, int], height: int, pixel_format: str, full_range: bool) -> None:
    """One lossless picture of one YCbCr colour, given for 8 bits."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, height, pixel_format
        frame = av.VideoFrame(64, height, pixel_format)
        stream.codec_context.color_range = frame.color_range = 2 if full_range else 1
        bits = frame.format.components[0].bits
        for index, (plane, value) in enumerate(zip(frame.planes, planes, strict=True)):
            # Full range stretches luma; neutral chroma is the middle either way.
            luma_of_full_range = full_range and index == 0
            stretched = round(value * ((1 << bits) - 1) / 255) if luma_of_full_range else value << (bits - 8)
            dtype = np.uint8 if bits == 8 else np.uint16
            plane.update(np.full(plane.buffer_size // np.dtype(dtype).itemsize, stretched, dtype).tobytes())
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


# The primaries by the standards' integer tables: BT.601 and BT.709, limited range, 8 bits.
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "yuv444p12le"])
@pytest.mark.parametrize(
    ("height", "planes", "rgb"),
    [
        (64, (16, 128, 128), (0, 0, 0)),
        (64, (235, 128, 128), (1, 1, 1)),
        (64, (126, 128, 128), (0.502, 0.502, 0.502)),
        (64, (81, 90, 240), (1, 0, 0)),
        (64, (145, 54, 34), (0, 1, 0)),
        (720, (63, 102, 240), (1, 0, 0)),
        (720, (173, 42, 26), (0, 1, 0)),
        (720, (32, 240, 118), (0, 0, 1)),
    ],
)
def test_colour_of_limited_range(
    tmp_path: Path, pixel_format: str, height: int, planes: tuple[int, int, int], rgb: tuple[float, float, float]
) -> None:
    write_planes(tmp_path / "a.mkv", planes, height, pixel_format, full_range=False)
    image = Plates.open(tmp_path / "a.mkv").read(0)
    assert torch.allclose(image[:, 20, 20], torch.tensor(rgb).float(), atol=0.012)
    if planes[1:] == (128, 128):
        assert torch.allclose(image[:, 20, 20], torch.tensor(rgb).float(), atol=0.001)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("level", [0, 100, 255])
def test_full_range_is_not_stretched(tmp_path: Path, pixel_format: str, level: int) -> None:
    write_planes(tmp_path / "a.mkv", (level, 128, 128), 64, pixel_format, full_range=True)
    image = Plates.open(tmp_path / "a.mkv").read(0)
    assert torch.allclose(image[:, 20, 20], torch.full((3,), level / 255), atol=0.003)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_is_applied(tmp_path: Path, turns: int) -> None:
    path = tmp_path / "a.mp4"
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16, :16] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if turns:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV writes no rotation")
            stream.set_display_rotation(90 * turns)
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(picture)), *stream.encode(None)]:
            container.mux(packet)
    with av.open(str(path)) as container:
        degrees = next(container.decode(video=0)).rotation
    plates = Plates.open(path)
    image = plates.read(0)
    assert image.shape == (3, plates.height, plates.width) == ((3, 64, 48) if turns % 2 else (3, 48, 64))
    corner = np.rot90(picture, round(degrees / 90) % 4)
    assert np.abs(image.permute(1, 2, 0).numpy() - corner / 255).mean() < 0.03


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG"), (8, "linear")])
def test_a_transfer_function_that_is_no_display_s(tmp_path: Path, transfer: int, name: str) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.color_trc = transfer
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8)).reformat(format="yuv420p")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(InputError, match=f"{name}.* transfer function"):
        Plates.open(tmp_path / "a.mp4")
