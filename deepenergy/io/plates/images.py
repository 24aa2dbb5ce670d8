"""Still images to display-referred sRGB: PNG, JPEG, TIFF and EXR, each by a named library, never by guessing.

Integer files (8 and 16 bit) are taken as display-referred sRGB and only scaled; floating-point files (EXR, float
TIFF) as scene-linear, and go through the sRGB transfer function and a clip to [0, 1]: the display transform. These
are the defaults of compositing packages. Grey becomes RGB; alpha is dropped without unpremultiplying. EXIF
orientation is ignored, because a camera's calibration belongs to the pixels as stored; so are ICC profiles, PNG
gamma and chromaticities. Of several pages in a TIFF the first counts.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from deepenergy.runtime.errors import InputError
from deepenergy.scene.colour import linear_to_srgb

_PNG = b"\x89PNG\r\n\x1a\n"
_MAGIC = {
    _PNG: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\x76\x2f\x31\x01": "EXR",
}
_KIND = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".exr": "EXR"}
SUFFIXES = tuple(_KIND)
# FFmpeg's packed pixel formats: channels, and how a sample is stored.
_SAMPLES = {
    "gray": (1, "u1"), "ya8": (2, "u1"), "rgb24": (3, "u1"), "rgba": (4, "u1"),
    "gray16le": (1, "<u2"), "ya16le": (2, "<u2"), "rgb48le": (3, "<u2"), "rgba64le": (4, "<u2"),
    "gray16be": (1, ">u2"), "ya16be": (2, ">u2"), "rgb48be": (3, ">u2"), "rgba64be": (4, ">u2"),
}  # fmt: skip
_AGAIN = "copy or export this file again"


def read_still(path: Path, field: str) -> Float[Tensor, "3 height width"]:
    """Decode one image whole: float32 in [0, 1], display-referred sRGB.

    Args:
        path: a file that ends in one of `SUFFIXES`.
        field: what an error calls it.

    Raises:
        InputError: no such file, an empty, truncated or damaged file, one that is not what its ending says, or a
            kind of pixels that has no RGB.
    """
    pixels = _decode(path, field, _PIXELS)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    channels = pixels.shape[2]
    if channels not in (1, 2, 3, 4):
        raise InputError(field, f"{channels} channels in {path}", "grey or RGB, with or without alpha", _AGAIN)
    # One or two channels are grey, without or with alpha.
    pixels = pixels[..., :3] if channels >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    planar = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if planar.dtype in (np.uint8, np.uint16):
        return torch.from_numpy(planar.astype(np.float32) / np.float32(np.iinfo(planar.dtype).max))
    linear = torch.from_numpy(planar.astype(np.float32))
    nans = int(torch.isnan(linear).any(0).sum())
    if nans:
        raise InputError(field, f"NaN in {nans} pixels of {path}", "numbers", "render or export this frame again")
    return linear_to_srgb(linear).clamp(0.0, 1.0)


def still_size(path: Path, field: str) -> tuple[int, int]:
    """(width, height) by the file's header; raises `InputError` as `read_still` does, for what the header shows."""
    return _decode(path, field, _SIZE)


def _decode(path: Path, field: str, readers: dict[str, Callable]):
    if not path.is_file():
        found = f"a folder, {path}" if path.is_dir() else f"no file {path}"
        raise InputError(field, found, "an image file", "export or copy this frame")
    kind = _KIND[path.suffix.lower()]
    try:
        with path.open("rb") as file:
            start = file.read(8)
        actual = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
        if not start:
            raise InputError(field, f"an empty file {path}", f"a {kind} image", _AGAIN)
        if actual != kind:
            found = f"{path}, which is a {actual} file" if actual else f"{path}, which is no image"
            remedy = f"give it the ending of a {actual} file" if actual else _AGAIN
            raise InputError(field, found, f"a {kind} image", remedy)
        return readers[kind](path)
    except InputError as error:
        raise InputError(field, error.found, error.expected, error.remedy) from None
    except _UnsupportedError as error:
        raise InputError(field, f"{error.found} in {path}", error.expected, error.remedy) from None
    except Exception as error:
        # The decoders raise a zoo of types on damage (OSError, SyntaxError, struct.error, zlib.error, IndexError...).
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(field, f"{path} damaged or truncated ({reason})", f"a whole {kind} image", _AGAIN) from None


class _UnsupportedError(Exception):
    """Pixels that are whole and yet cannot serve."""

    def __init__(self, found: str, expected: str, remedy: str) -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        super().__init__(found)


def _png(path: Path) -> NDArray:
    data = path.read_bytes()
    _check_png(data)
    # Pillow cuts 16-bit colour down to 8.
    return _libav(data, "png_pipe") if data[24] == 16 else _pillow(io.BytesIO(data), "PNG")


def _check_png(data: bytes) -> None:
    """Every chunk whole by its checksum, up to the end marker: decoders let some truncations pass."""
    position = len(_PNG)
    while True:
        if position + 12 > len(data):
            raise ValueError("the end is missing")
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise ValueError("the end is missing")
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ValueError(f"wrong checksum at byte {position}")
        if data[position + 4 : position + 8] == b"IEND":
            return
        position = end + 4


def _pillow(file: Path | io.BytesIO, kind: str) -> NDArray:
    from PIL import Image

    with Image.open(file, formats=[kind]) as image:
        image.load()
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")
        elif image.mode == "1":
            image = image.convert("L")
        if image.mode not in ("L", "LA", "RGB", "RGBA"):
            raise _UnsupportedError(f"{image.mode} pixels", "grey or RGB", "convert it to RGB")
        return np.asarray(image)


def _libav(data: bytes, demuxer: str) -> NDArray:
    """8- and 16-bit grey or RGB by FFmpeg's decoder, the samples as they are stored."""
    import av

    with av.open(io.BytesIO(data), format=demuxer) as container:
        frame = next(container.decode(video=0))
        if frame.format.name not in _SAMPLES:
            raise _UnsupportedError(f"{frame.format.name} pixels", "grey or RGB", "convert it to RGB, 8 or 16 bit")
        channels, sample = _SAMPLES[frame.format.name]
        rows = np.frombuffer(bytes(frame.planes[0]), dtype=sample).reshape(frame.height, -1)
        pixels = rows[:, : frame.width * channels].reshape(frame.height, frame.width, channels)
        return pixels.astype(np.dtype(sample).newbyteorder("="))


def _tiff(path: Path) -> NDArray:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        expected = "8- or 16-bit integers or floats"
        if page.dtype is None or page.dtype.str[1:] not in ("u1", "u2", "f2", "f4", "f8"):
            raise _UnsupportedError(f"{page.dtype} samples", expected, "convert it to 8 or 16 bit, or to float")
        if page.photometric not in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK):
            kind = getattr(page.photometric, "name", page.photometric)
            raise _UnsupportedError(f"{kind} pixels", "grey or RGB", "convert it to RGB")
        try:
            pixels = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            if page.dtype.itemsize > 2 or page.dtype.kind == "f":
                raise _UnsupportedError(
                    f"float pixels with {getattr(page.compression, 'name', page.compression)} compression",
                    "a compression that tifffile reads by itself",
                    "save it with deflate or none, or `pip install imagecodecs`",
                ) from None
            return _libav(path.read_bytes(), "tiff_pipe")
        # Separate planes come out as [channels, height, width].
        separate = pixels.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        return pixels.transpose(1, 2, 0) if separate else pixels


def _exr(path: Path) -> NDArray:
    from deepenergy.io.plates.exr import read_exr

    return read_exr(path)


def _pillow_size(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path, formats=[_KIND[path.suffix.lower()]]) as image:
        return image.size


def _tiff_size(path: Path) -> tuple[int, int]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        return page.imagewidth, page.imagelength


def _exr_size(path: Path) -> tuple[int, int]:
    from deepenergy.io.plates.exr import exr_size

    return exr_size(path)


_PIXELS = {"PNG": _png, "JPEG": lambda path: _pillow(path, "JPEG"), "TIFF": _tiff, "EXR": _exr}
_SIZE = {"PNG": _pillow_size, "JPEG": _pillow_size, "TIFF": _tiff_size, "EXR": _exr_size}
