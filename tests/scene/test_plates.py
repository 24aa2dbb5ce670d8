"""Plates: frame numbers, bad frames that stop nothing, sequences on disk and in memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused

from deepenergy.runtime.errors import InputError
from deepenergy.scene.plates import PlateError, Plates

RNG = np.random.default_rng(7)


def picture(height: int = 6, width: int = 8) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)


def write_sequence(folder: Path, frames: list[int], name: str = "shot.{:04d}.png") -> dict[int, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    written = {frame: picture() for frame in frames}
    for frame, pixels in written.items():
        Image.fromarray(pixels).save(folder / name.format(frame))
    return written


def as_bytes(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    "pattern",
    ["shot.####.png", "shot.%04d.png", "shot.$F4.png", "shot.@@@@.png", "shot.#.png", "shot.1001-1004#.png",
     "shot.1001-1004####.png", "shot.1003.png", ""],
)  # fmt: skip
def test_every_spelling_of_a_sequence(tmp_path: Path, pattern: str) -> None:
    written = write_sequence(tmp_path / "v[2]", [1001, 1002, 1003, 1004])
    plates = Plates.open(tmp_path / "v[2]" / pattern)
    assert plates.frames == (1001, 1002, 1003, 1004)
    assert (len(plates), plates.width, plates.height) == (4, 8, 6)
    for index, frame in enumerate(plates.frames):
        image = plates.read(index)
        assert image.dtype == torch.float32
        assert image.shape == (3, 6, 8)
        assert np.array_equal(as_bytes(image), written[frame])


@pytest.mark.parametrize(
    ("name", "pattern", "frames"),
    [
        ("a{}.png", "a%d.png", (8, 9, 10, 11)),
        ("a{}.png", "a#.png", (8, 9, 10, 11)),
        ("a_{:03d}.png", "a_###.png", (998, 999, 1000)),
        ("{:06d}.png", "######.png", (1, 2, 3)),
        ("{:06d}.PNG", "######.PNG", (1, 2, 3)),
        ("take2.cam1.{:04d}.jpg", "take2.cam1.####.jpg", (1, 2, 3)),
    ],
)
def test_file_names(tmp_path: Path, name: str, pattern: str, frames: tuple[int, ...]) -> None:
    write_sequence(tmp_path, list(frames), name)
    assert Plates.open(tmp_path / pattern).frames == frames
    assert Plates.open(tmp_path).frames == frames
    assert Plates.open(tmp_path / name.format(frames[1])).frames == frames


@pytest.mark.parametrize(
    ("asked", "frames"),
    [
        ("1001-1004", (1001, 1002, 1003, 1004)),
        ("1001-1009x4", (1001, 1005, 1009)),
        ("1009,1001,1005-1006", (1001, 1005, 1006, 1009)),
        ("1003-1001", (1001, 1002, 1003)),
        ("1004", (1004,)),
        ("1002-1003,1002", (1002, 1003)),
    ],
)
def test_frame_ranges(tmp_path: Path, asked: str, frames: tuple[int, ...]) -> None:
    write_sequence(tmp_path, list(range(1001, 1011)))
    opened = Plates.open(tmp_path / "shot.####.png", frames=asked)
    assert opened.frames == frames
    # `frames` overrides the pattern's own range, and `select` says the same afterwards.
    assert Plates.open(tmp_path / "shot.1001-1002#.png", frames=asked).frames == frames
    chosen = Plates.open(tmp_path).select(asked)
    assert chosen.frames == frames
    assert torch.equal(chosen.read(0), opened.read(0))


def test_a_hole_is_a_frame_that_fails_when_read(tmp_path: Path) -> None:
    write_sequence(tmp_path, [1001, 1002, 1004, 1005])
    for plates in (Plates.open(tmp_path), Plates.open(tmp_path / "shot.####.png", frames="1001-1005", name="left")):
        assert plates.frames == (1001, 1002, 1003, 1004, 1005)
        assert list(plates.problems()) == [1003]
        assert "shot.1003.png" in plates.problems()[1003]
        with pytest.raises(PlateError, match=rf"plates '{plates.name}' frame 1003: found no file .*shot\.1003\.png"):
            plates.read(2)
        assert plates.read(3).shape == (3, 6, 8)


def test_a_range_longer_than_the_files(tmp_path: Path) -> None:
    write_sequence(tmp_path, [1001, 1002])
    plates = Plates.open(tmp_path / "shot.####.png", frames="1000-1003")
    assert sorted(plates.problems()) == [1000, 1003]


def test_a_shot_on_twos_has_no_holes(tmp_path: Path) -> None:
    write_sequence(tmp_path, [1001, 1003, 1007])
    plates = Plates.open(tmp_path)
    assert plates.frames == (1001, 1003, 1005, 1007)
    assert list(plates.problems()) == [1005]


def test_a_truncated_png_is_told_by_number_and_the_others_read(tmp_path: Path) -> None:
    written = write_sequence(tmp_path, [1001, 1002, 1003])
    broken = tmp_path / "shot.1002.png"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    plates = Plates.open(tmp_path)
    assert plates.problems() == {}
    assert np.array_equal(as_bytes(plates.read(0)), written[1001])
    with pytest.raises(PlateError, match=r"shot\.1002\.png damaged or truncated") as caught:
        plates.read(1)
    assert caught.value.frame == 1002
    assert np.array_equal(as_bytes(plates.read(2)), written[1003])


def test_an_odd_sized_frame_fails_and_does_not_set_the_size(tmp_path: Path) -> None:
    write_sequence(tmp_path, [1001, 1002, 1003, 1004])
    Image.fromarray(picture(20, 30)).save(tmp_path / "shot.1001.png")
    plates = Plates.open(tmp_path)
    assert (plates.width, plates.height) == (8, 6)
    with refused("frame 1001", found="30x20", expected="8x6", kind=PlateError):
        plates.read(0)
    # Chosen alone, the odd frame is still odd.
    with pytest.raises(PlateError, match="30x20"):
        plates.select("1001").read(0)


def test_the_size_comes_from_a_readable_frame(tmp_path: Path) -> None:
    write_sequence(tmp_path, list(range(1001, 1031)))
    for frame in range(1001, 1030):
        (tmp_path / f"shot.{frame}.png").write_bytes(b"")
    plates = Plates.open(tmp_path)
    assert (plates.width, plates.height) == (8, 6)
    with pytest.raises(PlateError, match="an empty file"):
        plates.read(0)


def test_files_that_appear_later_are_read(tmp_path: Path) -> None:
    write_sequence(tmp_path, [1001, 1003])
    plates = Plates.open(tmp_path, frames="1001-1003")
    assert list(plates.problems()) == [1002]
    write_sequence(tmp_path, [1002])
    assert plates.problems() == {}
    assert plates.read(1).shape == (3, 6, 8)


@pytest.mark.parametrize(
    ("pattern", "frames", "told"),
    [
        ("other.####.png", None, r"plates 'left' path: found no file like .*the folder holds shot\.1001-1003####\.png"),
        ("shot.##.png", None, "no file like"),
        ("nowhere/shot.####.png", None, "no folder"),
        ("nowhere/photo.png", None, "no frame field"),
        ("photo.png", None, "a file without a frame number"),
        ("a####/shot.####.png", None, "one frame field"),
        ("shot.####.####.png", None, "one frame field"),
        ("shot.<UDIM>.png", None, "frame field '<UDIM>'"),
        ("shot.####.gif", None, r"ending '\.gif'"),
        ("shot.####", None, "a folder; convert"),
        ("nowhere", None, "no file or folder"),
        ("shot.####.png", "", "plates 'left' frames: found an empty range"),
        ("shot.####.png", "abc", "plates 'left' frames: found 'abc'; expected a frame range like 1001-1096"),
        ("shot.####.png", "1001-", "found '1001-'"),
        ("shot.####.png", "1001-1003x0", "found '1001-1003x0'"),
        ("shot.####.png", "1001-1003x0.5", "fractions of frames"),
        ("shot.####.png", "1-10", "none of which is in .*; expected frames within 1001-1003"),
        ("shot.####.png", "1-100000000000", "found '1-100000000000'"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, pattern: str, frames: str | None, told: str) -> None:
    write_sequence(tmp_path, [1001, 1002, 1003])
    Image.fromarray(picture()).save(tmp_path / "photo.png")
    with pytest.raises(InputError, match=told) as raised:
        Plates.open(tmp_path / pattern, frames=frames, name="left")
    assert not isinstance(raised.value, PlateError)
    assert "\n" not in str(raised.value)


def test_folders_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no numbered images"):
        Plates.open(tmp_path)
    write_sequence(tmp_path, [1, 2])
    write_sequence(tmp_path, [1, 2], "matte.{:04d}.png")
    with pytest.raises(InputError, match=r"several sequences .*matte\.1-2####\.png, shot"):
        Plates.open(tmp_path)
    write_sequence(tmp_path, [1, 2], "shot.{:03d}.png")
    with pytest.raises(InputError, match="several sequences for"):
        Plates.open(tmp_path / "shot.#.png")
    assert Plates.open(tmp_path / "shot.###.png").frames == (1, 2)


def test_hidden_files_and_other_kinds_do_not_count(tmp_path: Path) -> None:
    write_sequence(tmp_path, [1, 2])
    (tmp_path / "._shot.0001.png").write_bytes(b"a Mac was here")
    (tmp_path / "shot.0001.txt").write_text("notes")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    assert Plates.open(tmp_path).frames == (1, 2)


def test_no_readable_frame_at_all(tmp_path: Path) -> None:
    for frame in (1, 2):
        (tmp_path / f"shot.{frame}.png").write_bytes(b"no image at all")
    with pytest.raises(InputError, match="none of 2 frames readable .*which is no image"):
        Plates.open(tmp_path)


def test_a_stray_number_is_no_shot(tmp_path: Path) -> None:
    write_sequence(tmp_path, [1, 2, 99999999], "shot.{:08d}.png")
    with pytest.raises(InputError, match="3 files spread over 1-99999999"):
        Plates.open(tmp_path)
    assert Plates.open(tmp_path, frames="1-2").frames == (1, 2)


def test_first_frame_is_for_videos(tmp_path: Path) -> None:
    write_sequence(tmp_path, [1, 2])
    with pytest.raises(InputError, match="first_frame=7 for an image sequence"):
        Plates.open(tmp_path, first_frame=7)


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sequence(tmp_path, [1, 2])
    monkeypatch.chdir(tmp_path)
    assert Plates.open("shot.####.png").frames == (1, 2)
    assert Plates.open("shot.0001.png").problems() == {}
    assert Plates.open(os.curdir).read(1).shape == (3, 6, 8)


@pytest.mark.parametrize("layout", ["hwc", "chw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.float16])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_from_array(layout: str, dtype: type, library: str) -> None:
    values = RNG.random((2, 5, 7, 3))
    full = np.iinfo(dtype).max if issubclass(dtype, np.integer) else 1
    images = (values * full).astype(dtype)
    expected = torch.from_numpy((images.astype(np.float64) / full).transpose(0, 3, 1, 2)).float()
    given_images = images if layout == "hwc" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    plates = Plates.from_array(given_images if library == "numpy" else torch.from_numpy(given_images), first_frame=10)
    assert plates.frames == (10, 11)
    assert (plates.width, plates.height) == (7, 5)
    assert torch.allclose(plates.read(1), expected[1], atol=1e-7)
    assert plates.read(1).is_contiguous()


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (np.zeros((4, 5, 3), np.uint8), "shape"),
        (np.zeros((1, 4, 5, 4), np.uint8), "shape"),
        (np.zeros((0, 4, 5, 3), np.uint8), "not empty"),
        (np.zeros((2, 3, 5, 3), np.uint8), "unambiguous"),
        (np.zeros((1, 4, 5, 3), np.int64), "dtype int64"),
        (np.zeros((1, 4, 5, 3), bool), "dtype bool"),
        (np.full((2, 4, 5, 3), 255.0), "image 0: found values from 255 to 255"),
        (np.array([0.0, np.nan] * 30).reshape(1, 4, 5, 3), "image 0: found NaN"),
        (np.array([0.0, np.inf] * 30).reshape(1, 4, 5, 3), "values from 0 to inf"),
        (np.full((1, 4, 5, 3), -0.1), "values from -0.1"),
    ],
)
def test_from_array_refuses(images: np.ndarray, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Plates.from_array(images)


def test_select_beyond_an_array() -> None:
    plates = Plates.from_array(np.zeros((3, 4, 5, 3), np.uint8), first_frame=1)
    chosen = plates.select("2-5")
    assert sorted(chosen.problems()) == [4, 5]
    with pytest.raises(PlateError, match="frame 4"):
        chosen.read(2)
    with pytest.raises(InputError, match="frames within 1-3"):
        plates.select("7-9")
    with pytest.raises(InputError, match="empty"):
        plates.select("")
    with pytest.raises(IndexError):
        plates.read(3)
    with pytest.raises(IndexError):
        plates.read(-1)
