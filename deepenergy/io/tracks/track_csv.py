"""Tracks as a CSV table, for eyes, spreadsheets and scripts: one row a frame."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from deepenergy.runtime.atomic import atomic_path
from deepenergy.scene.state import JAW_NAMES
from deepenergy.scene.track import Track

# Units stand in the column's name, so that a spreadsheet says what it shows.
_UNITS = {"r": "deg", "t": "m"}
COLUMNS = (
    "frame", "status", "reason", "confidence", "landmark_residual_px",
    "rx_deg", "ry_deg", "rz_deg", "tx_m", "ty_m", "tz_m",
    *(f"{name}_{_UNITS[name.split('.')[1][0]]}" for name in JAW_NAMES),
)  # fmt: skip


def write_track(path: Path, track: Track) -> None:
    """Write the table: `COLUMNS`, then one column for every weight under its name.

    The head's rotation is extrinsic XYZ Euler angles in degrees, the jaw's the axis-angle vector in degrees,
    translations are metres. A cell is empty where there is no value (failed frames).
    """
    numbers = np.concatenate(
        [
            track.confidence[:, None],
            track.landmark_residual_px[:, None],
            np.degrees(track.euler),
            track.translation,
            np.degrees(track.jaw[:, :3]),
            track.jaw[:, 3:],
            track.weights,
        ],
        axis=1,
    )
    with atomic_path(path, "track output") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *track.weight_names])
        for frame, status, reason, row in zip(track.frames, track.status, track.reason, numbers, strict=True):
            # Nine significant digits: below a micrometre and a microdegree, and still readable.
            cells = ["" if np.isnan(v) else f"{v:.9g}" for v in row]
            writer.writerow([int(frame), str(status), str(reason), *cells])
