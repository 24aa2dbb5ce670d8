"""Middlebury's .flo files against OpenCV's reader and writer."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from deepenergy.io.flow.flo import read_flo, write_flo
from deepenergy.runtime.errors import InputError

FIELD = torch.linspace(-40, 40, 2 * 5 * 7).reshape(2, 5, 7) ** 3 / 100


def test_opencv_reads_what_we_write(tmp_path: Path) -> None:
    write_flo(tmp_path / "a.flo", FIELD)
    assert np.array_equal(cv2.readOpticalFlow(str(tmp_path / "a.flo")), FIELD.permute(1, 2, 0).numpy())


def test_we_read_what_opencv_writes(tmp_path: Path) -> None:
    assert cv2.writeOpticalFlow(str(tmp_path / "a.flo"), FIELD.permute(1, 2, 0).contiguous().numpy())
    pixels, validity = read_flo(tmp_path / "a.flo")
    assert torch.equal(pixels, FIELD)
    assert torch.equal(validity, torch.ones(1, 5, 7))


def test_unknown_flow_comes_back_as_unknown(tmp_path: Path) -> None:
    field, validity = FIELD.clone(), torch.ones(1, 5, 7)
    field[0, 2, 3] = torch.nan
    validity[0, 4, 6] = 0
    write_flo(tmp_path / "a.flo", field, validity)
    pixels, known = read_flo(tmp_path / "a.flo")
    expected = torch.ones(1, 5, 7)
    expected[0, 2, 3] = expected[0, 4, 6] = 0
    assert torch.equal(known, expected)
    assert torch.equal(pixels, FIELD * expected)
    # The benchmark's own threshold for unknown flow.
    assert float(np.abs(cv2.readOpticalFlow(str(tmp_path / "a.flo"))[2, 3]).min()) > 1e9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "PIEH"),
        (b"P6 7 5 255 " * 4, "PIEH"),
        (
            np.float32(202021.25).tobytes() + np.array([7, 5], np.int32).tobytes() + bytes(8),
            "20 bytes for 7 x 5 pixels",
        ),
        (np.float32(202021.25).tobytes() + np.array([-7, 5], np.int32).tobytes(), "-7 x 5 pixels"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.flo").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_flo(tmp_path / "a.flo")


def test_missing_file_and_wrong_shape(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_flo(tmp_path / "none.flo")
    with pytest.raises(InputError, match="no folder"):
        write_flo(tmp_path / "none" / "a.flo", FIELD)
    with pytest.raises(ValueError, match=r"expected \[2, H, W\]"):
        write_flo(tmp_path / "a.flo", FIELD[None])
