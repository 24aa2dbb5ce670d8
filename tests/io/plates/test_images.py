"""Still images: bit depths, channel layouts, scene-linear files, and every kind of broken file."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import OpenEXR
import pytest
import tifffile
import torch
from PIL import Image, ImageFile
from refusals import refused

from deepenergy.io.plates.images import SUFFIXES, read_still, still_size
from deepenergy.runtime.errors import InputError
from deepenergy.scene.colour import linear_to_srgb

RNG = np.random.default_rng(11)
HEIGHT, WIDTH = 5, 7


def samples(dtype: type, channels: int) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max + 1, (HEIGHT, WIDTH, channels)).astype(dtype)


def expected_rgb(stored: np.ndarray) -> torch.Tensor:
    """What the reader promises for integer samples [H, W, 1..4]."""
    rgb = np.repeat(stored[..., :1], 3, 2) if stored.shape[2] < 3 else stored[..., :3]
    return torch.from_numpy((rgb / np.iinfo(stored.dtype).max).transpose(2, 0, 1)).float()


def write_libav(path: Path, stored: np.ndarray, pixel_format: str, options: dict[str, str] | None = None) -> None:
    """One image by FFmpeg's encoders, which know 16-bit PNG and LZW TIFF."""
    context = av.CodecContext.create("png" if path.suffix == ".png" else "tiff", "w")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, pixel_format
    context.time_base = Fraction(1, 25)
    context.options = options or {}
    frame = av.VideoFrame(WIDTH, HEIGHT, pixel_format)
    frame.pts = 0
    (plane,) = frame.planes
    sample = stored.dtype.newbyteorder(">" if pixel_format.endswith("be") else "<")
    rows = np.zeros((HEIGHT, plane.line_size // sample.itemsize), sample)
    rows[:, : WIDTH * stored.shape[2]] = stored.reshape(HEIGHT, -1)
    plane.update(rows.tobytes())
    path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_png_8_bit(tmp_path: Path, mode: str, channels: int) -> None:
    stored = samples(np.uint8, channels)
    Image.fromarray(stored.squeeze(2) if channels == 1 else stored, mode=None).convert(mode).save(tmp_path / "a.png")
    assert torch.equal(read_still(tmp_path / "a.png", "plate"), expected_rgb(stored))
    assert still_size(tmp_path / "a.png", "plate") == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("pixel_format", "channels"), [("gray16be", 1), ("ya16be", 2), ("rgb48be", 3), ("rgba64be", 4)]
)
def test_png_16_bit_keeps_its_16_bits(tmp_path: Path, pixel_format: str, channels: int) -> None:
    stored = samples(np.uint16, channels)
    write_libav(tmp_path / "a.png", stored, pixel_format)
    image = read_still(tmp_path / "a.png", "plate")
    assert torch.equal((image * 65535).round(), (expected_rgb(stored) * 65535).round())
    assert still_size(tmp_path / "a.png", "plate") == (WIDTH, HEIGHT)


def test_png_palette_and_bilevel(tmp_path: Path) -> None:
    rgb = Image.fromarray(samples(np.uint8, 3))
    indexed = rgb.quantize(16)
    indexed.save(tmp_path / "p.png", transparency=bytes(range(16)))
    assert torch.equal(read_still(tmp_path / "p.png", "plate"), expected_rgb(np.asarray(indexed.convert("RGBA"))))
    bilevel = rgb.convert("1")
    bilevel.save(tmp_path / "b.png")
    assert torch.equal(
        read_still(tmp_path / "b.png", "plate"), expected_rgb(np.asarray(bilevel.convert("L"))[..., None])
    )


def test_jpeg_ignores_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture = Image.fromarray(samples(np.uint8, 3))
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    picture.save(tmp_path / "plain.jpeg", quality=95)
    assert still_size(tmp_path / "turned.jpg", "plate") == (WIDTH, HEIGHT)
    assert torch.equal(read_still(tmp_path / "turned.jpg", "plate"), read_still(tmp_path / "plain.jpeg", "plate"))


def test_jpeg_grey_and_cmyk(tmp_path: Path) -> None:
    grey = Image.fromarray(samples(np.uint8, 1)[..., 0])
    grey.save(tmp_path / "grey.jpg")
    image = read_still(tmp_path / "grey.jpg", "plate")
    assert torch.equal(image[0], image[1])
    assert torch.equal(image[0], image[2])
    grey.convert("CMYK").save(tmp_path / "cmyk.jpg")
    with pytest.raises(InputError, match="plate: found CMYK pixels"):
        read_still(tmp_path / "cmyk.jpg", "plate")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"planarconfig": "separate"}])
def test_tiff_integers(tmp_path: Path, dtype: type, channels: int, options: dict[str, Any]) -> None:
    stored = samples(dtype, channels)
    layout = stored.squeeze(2) if channels == 1 else stored
    if "planarconfig" in options:
        if channels == 1:
            pytest.skip("one plane has no planar layout")
        layout = np.ascontiguousarray(stored.transpose(2, 0, 1))
    extra: dict[str, Any] = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    tifffile.imwrite(
        tmp_path / "a.tif", layout, photometric="minisblack" if channels == 1 else "rgb", **options, **extra
    )
    assert torch.allclose(read_still(tmp_path / "a.tif", "plate"), expected_rgb(stored), atol=1e-7)
    assert still_size(tmp_path / "a.tif", "plate") == (WIDTH, HEIGHT)


@pytest.mark.parametrize(("dtype", "pixel_format"), [(np.uint8, "rgb24"), (np.uint16, "rgb48le"), (np.uint8, "gray")])
@pytest.mark.parametrize("compression", ["lzw", "packbits"])
def test_tiff_compressions_of_compositing_packages(
    tmp_path: Path, dtype: type, pixel_format: str, compression: str
) -> None:
    stored = samples(dtype, 1 if pixel_format == "gray" else 3)
    write_libav(tmp_path / "a.tiff", stored, pixel_format, {"compression_algo": compression})
    assert torch.allclose(read_still(tmp_path / "a.tiff", "plate"), expected_rgb(stored), atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_float_tiff_is_scene_linear(tmp_path: Path, dtype: type) -> None:
    linear = RNG.uniform(-0.5, 2.5, (HEIGHT, WIDTH, 3)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", linear, photometric="rgb")
    assert torch.equal(read_still(tmp_path / "a.tif", "plate"), displayed(linear))


def test_tiff_with_several_pages_gives_the_first(tmp_path: Path) -> None:
    stored = [samples(np.uint8, 3) for _ in range(2)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in stored:
            writer.write(page, photometric="rgb")
    assert torch.equal(read_still(tmp_path / "a.tif", "plate"), expected_rgb(stored[0]))


@pytest.mark.parametrize(
    ("array", "photometric", "told"),
    [
        (np.zeros((4, 4), np.uint32), "minisblack", "uint32 samples"),
        (np.zeros((4, 4), np.uint8), "miniswhite", "MINISWHITE pixels"),
        (np.zeros((4, 4, 4), np.uint8), "separated", "SEPARATED pixels"),
    ],
)
def test_tiff_that_cannot_serve(tmp_path: Path, array: np.ndarray, photometric: str, told: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", array, photometric=photometric)
    with pytest.raises(InputError, match=told):
        read_still(tmp_path / "a.tif", "plate")


def write_exr(path: Path, channels: dict[str, np.ndarray], **header) -> None:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}
    OpenEXR.File(header, {name: np.ascontiguousarray(value) for name, value in channels.items()}).write(str(path))


def linear_pixels(dtype: type = np.float32) -> np.ndarray:
    return RNG.uniform(-0.2, 1.6, (HEIGHT, WIDTH, 3)).astype(dtype)


def rgb_channels(pixels: np.ndarray, prefix: str = "") -> dict[str, np.ndarray]:
    return {f"{prefix}{name}": pixels[..., i] for i, name in enumerate("RGB")}


def displayed(pixels: np.ndarray) -> torch.Tensor:
    # In the reader's own layout: torch's power differs in the last bit between its vector and scalar loops.
    return linear_to_srgb(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1).contiguous()).clamp(0, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("prefix", ["", "beauty.", "ViewLayer.Combined."])
def test_exr_is_scene_linear_and_clipped(tmp_path: Path, dtype: type, prefix: str) -> None:
    pixels = linear_pixels(dtype)
    extra = {f"{prefix}A": pixels[..., 0], "Z": pixels[..., 1]}
    write_exr(tmp_path / "a.exr", {**rgb_channels(pixels, prefix), **extra})
    image = read_still(tmp_path / "a.exr", "plate")
    assert torch.equal(image, displayed(pixels))
    assert float(image.min()) == 0
    assert float(image.max()) == 1
    assert still_size(tmp_path / "a.exr", "plate") == (WIDTH, HEIGHT)


def test_exr_prefers_the_picture_among_layers(tmp_path: Path) -> None:
    pixels, other = linear_pixels(), linear_pixels()
    write_exr(tmp_path / "a.exr", {**rgb_channels(pixels), **rgb_channels(other, "diffuse.")})
    assert torch.equal(read_still(tmp_path / "a.exr", "plate"), displayed(pixels))
    write_exr(tmp_path / "b.exr", {**rgb_channels(pixels, "beauty."), **rgb_channels(other, "diffuse.")})
    assert torch.equal(read_still(tmp_path / "b.exr", "plate"), displayed(pixels))
    write_exr(tmp_path / "c.exr", {**rgb_channels(pixels, "left."), **rgb_channels(other, "right.")})
    with pytest.raises(InputError, match=r"several layers \(left, right\)"):
        read_still(tmp_path / "c.exr", "plate")


def test_exr_grey_and_without_colour(tmp_path: Path) -> None:
    pixels = linear_pixels()
    write_exr(tmp_path / "y.exr", {"Y": pixels[..., 0]})
    assert torch.equal(read_still(tmp_path / "y.exr", "plate"), displayed(np.repeat(pixels[..., :1], 3, 2)))
    write_exr(tmp_path / "z.exr", {"Z": pixels[..., 0]})
    with pytest.raises(InputError, match="plate: found Z in"):
        read_still(tmp_path / "z.exr", "plate")


def test_exr_of_several_parts(tmp_path: Path) -> None:
    pixels = linear_pixels()
    kind = {"type": OpenEXR.scanlineimage}
    depth = OpenEXR.Part(dict(kind), {"Z": np.ascontiguousarray(pixels[..., 0])}, "depth")
    channels = {name: np.ascontiguousarray(value) for name, value in rgb_channels(pixels).items()}
    OpenEXR.File([depth, OpenEXR.Part(dict(kind), channels, "picture")]).write(str(tmp_path / "a.exr"))
    assert torch.equal(read_still(tmp_path / "a.exr", "plate"), displayed(pixels))


@pytest.mark.parametrize(
    ("data", "display"),
    [
        ((0, 0), (0, 0, 6, 4)),
        ((-2, 1), (0, 0, 9, 9)),  # overscan on one side, short on the others
        ((3, -3), (0, 0, 6, 4)),
        ((10, 10), (8, 9, 20, 12)),  # a display window off the origin
        ((-20, 0), (0, 0, 3, 3)),  # nothing in sight
    ],
)
def test_exr_windows(tmp_path: Path, data: tuple[int, int], display: tuple[int, int, int, int]) -> None:
    pixels = RNG.uniform(0.2, 1, (HEIGHT, WIDTH, 3)).astype(np.float32)
    x, y = data
    left, top, right, bottom = display
    box = lambda *v: (np.array(v[:2], np.int32), np.array(v[2:], np.int32))  # noqa: E731
    write_exr(
        tmp_path / "a.exr",
        rgb_channels(pixels),
        dataWindow=box(x, y, x + WIDTH - 1, y + HEIGHT - 1),
        displayWindow=box(*display),
    )
    expected = np.zeros((bottom - top + 1, right - left + 1, 3), np.float32)
    for row in range(expected.shape[0]):
        for column in range(expected.shape[1]):
            if 0 <= row + top - y < HEIGHT and 0 <= column + left - x < WIDTH:
                expected[row, column] = pixels[row + top - y, column + left - x]
    assert torch.equal(read_still(tmp_path / "a.exr", "plate"), displayed(expected))
    assert still_size(tmp_path / "a.exr", "plate") == (expected.shape[1], expected.shape[0])


def test_scene_linear_extremes(tmp_path: Path) -> None:
    pixels = linear_pixels()
    pixels[0, 0, 0] = np.inf
    write_exr(tmp_path / "a.exr", rgb_channels(pixels))
    assert float(read_still(tmp_path / "a.exr", "plate")[0, 0, 0]) == 1
    pixels[1, 1] = np.nan
    write_exr(tmp_path / "b.exr", rgb_channels(pixels))
    with pytest.raises(InputError, match=r"NaN in 1 pixels of .*b\.exr"):
        read_still(tmp_path / "b.exr", "plate")


def write_any(path: Path) -> None:
    if path.suffix == ".exr":
        write_exr(path, rgb_channels(linear_pixels()))
    elif path.suffix == ".tif":
        tifffile.imwrite(path, samples(np.uint16, 3), photometric="rgb", compression="zlib")
    elif path.stem == "deep":
        write_libav(path, samples(np.uint16, 3), "rgb48be")
    else:
        Image.fromarray(samples(np.uint8, 3).repeat(6, 0).repeat(6, 1)).save(path)


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.jpg", "a.tif", "a.exr"])
def test_a_cut_file_raises_or_has_every_pixel(tmp_path: Path, name: str) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    path = tmp_path / name
    write_any(path)
    whole, image = path.read_bytes(), read_still(path, "plate")
    cuts = sorted({0, 1, 7, 8, 9, len(whole) - 1, *range(0, len(whole), max(len(whole) // 60, 1))})
    for cut in cuts:
        path.write_bytes(whole[:cut])
        try:
            partial = read_still(path, "plate")
        except InputError as error:
            assert str(path) in error.found  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:
            # Some formats end in bytes that no pixel needs.
            assert cut > 0.9 * len(whole)
            assert torch.equal(partial, image)


@pytest.mark.parametrize("name", ["a.png", "deep.png"])
def test_checksums_find_flipped_bits(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_any(path)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.find(b"IDAT") + 20] ^= 0x55
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="damaged or truncated"):
        read_still(path, "plate")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for reader in (read_still, still_size):
        with pytest.raises(InputError, match="plate: found no file"):
            reader(path, "plate")
    path.mkdir()
    with pytest.raises(InputError, match="plate: found a folder"):
        read_still(path, "plate")
    path.rmdir()
    path.write_bytes(b"")
    with pytest.raises(InputError, match="plate: found an empty file"):
        read_still(path, "plate")
    path.write_bytes(b"hello, this is text\n" * 20)
    for reader in (read_still, still_size):
        with pytest.raises(InputError, match="which is no image"):
            reader(path, "plate")


def test_a_wrong_ending_is_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(samples(np.uint8, 3)).save(buffer, "JPEG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    with refused("plate", found="JPEG", expected="PNG", remedy="ending"):
        read_still(tmp_path / "a.png", "plate")
