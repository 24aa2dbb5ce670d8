"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Two OpenMP threads on a busy two-core machine are an order of magnitude slower than one.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of test data, which is not part of the project; skips where it is absent."""
    path = Path(os.environ.get("DEEPENERGY_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"test data absent: no folder {path} (set DEEPENERGY_TEST_DATA)")
    return path
