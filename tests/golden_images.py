"""Comparison of images with those in tests/golden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, uint8

GOLDEN = Path(__file__).parent / "golden"


def assert_golden(image: Tensor, name: str, tolerance: float = 2.5 / 255) -> None:
    """Compare `[3 or 1, H, W]` with tests/golden/NAME.png; what differs is written beside it as NAME.actual.png."""
    actual = (image.expand(3, -1, -1).clamp(0, 1) * 255).round().to(uint8).permute(1, 2, 0).numpy()
    path, wrong = GOLDEN / f"{name}.png", GOLDEN / f"{name}.actual.png"
    expected = np.asarray(Image.open(path).convert("RGB")) if path.exists() else None
    # A pixel at an edge may fall to the other side on another machine; more may not.
    off = None if expected is None or expected.shape != actual.shape else np.abs(actual / 255.0 - expected / 255.0)
    if off is None or (off.max(2) > tolerance).mean() > 0.005:
        Image.fromarray(actual).save(wrong)
        found = "no such image" if expected is None else "another image"
        raise AssertionError(f"{path.name}: {found}; see {wrong} and, if it is right, rename it")
    wrong.unlink(missing_ok=True)
