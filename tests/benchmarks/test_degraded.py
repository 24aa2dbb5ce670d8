"""How the degraded shot is spoiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.degraded import BLURRED, COVERED, DARK, FRAMES, run, spoil
from deepenergy import Plates


def test_only_the_named_frames_are_spoiled_and_alike_every_time() -> None:
    rng = np.random.default_rng(0)
    images = np.repeat(np.repeat(rng.random((FRAMES, 6, 8, 3)).astype(np.float32), 10, 1), 10, 2)
    plates = Plates.from_array(images)
    spread = torch.tensor([[20.0, 10.0], [60.0, 50.0]], dtype=torch.float64).repeat(34, 1)
    marks = spread.expand(FRAMES, 68, 2)
    spoiled = list(spoil(plates, marks))
    assert len(spoiled) == FRAMES
    for row, image in enumerate(spoiled):
        off = float((image - plates.read(row)).abs().max())
        assert (off > 0.1) == (row in (*DARK, *BLURRED, *COVERED)), row
        assert float(image.min()) >= 0 and float(image.max()) <= 1
    assert float(spoiled[DARK[0]].mean()) < 0.1
    assert float(spoiled[BLURRED[0]].std()) < 0.5 * float(plates.read(BLURRED[0]).std())
    # What passes comes in on the left of the face and leaves on its right.
    changed = [(spoiled[row] - plates.read(row)).abs().sum((0, 1)) for row in COVERED]
    centres = [float((change * torch.arange(80)).sum() / change.sum()) for change in changed]
    assert centres == sorted(centres) and centres[0] < 30 and centres[-1] > 50
    assert all(torch.equal(a, b) for a, b in zip(spoiled, spoil(plates, marks), strict=True))


def test_absent_data_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEEPENERGY_TEST_DATA", str(tmp_path))
    assert "DEEPENERGY_TEST_DATA" in run().skipped["degraded"]
