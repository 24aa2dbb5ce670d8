"""Where the benchmarks' data lies."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """`$DEEPENERGY_TEST_DATA`, or `../shared/data` beside the project; it need not exist."""
    root = Path(__file__).resolve().parents[1]
    return Path(os.environ.get("DEEPENERGY_TEST_DATA", root.parent / "shared" / "data"))
