"""Results of finished parts of a solve, on disk, so that a run that was stopped goes on where it was.

A part is a `.npz` that appears whole or not at all, marked with a key of all that it was made from: settings, rig,
cameras, the plates' numbers and sizes, and the pixels of a few of their frames. A part with another key is made anew.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from deepenergy.fit.fit_context import FitContext
from deepenergy.runtime.atomic import atomic_path
from deepenergy.scene.plates import PlateError

_LOOKED_AT = 8


@dataclass(frozen=True)
class Checkpoint:
    """A folder of finished parts.

    Attributes:
        folder: where they lie; None keeps nothing.
        key: see `key_of`.
    """

    folder: Path | None
    key: str = ""

    def load(self, part: str) -> dict[str, np.ndarray] | None:
        """The arrays of a part, or None where it was not finished for this key."""
        if self.folder is None or not (self.folder / f"{part}.npz").is_file():
            return None
        try:
            with np.load(self.folder / f"{part}.npz", allow_pickle=False) as file:
                if str(file["key"]) != self.key:
                    return None
                return {name: file[name] for name in file.files if name != "key"}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            # Not ours, or damaged: the part is made anew.
            return None

    def save(self, part: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a finished part."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.folder / f"{part}.npz", "resume folder") as temporary, temporary.open("wb") as file:
            np.savez(file, key=np.array(self.key), **arrays)  # pyright: ignore[reportArgumentType]

    def clear(self) -> None:
        """Forget everything: the shot is done."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in self.folder.glob("*.npz"):
            path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def key_of(context: FitContext) -> str:
    """What a part is made from, as a hash: settings, detector and network by name, plates, rig and cameras.

    Settings are told apart by their `repr`.
    """
    names = (context.face_detector.name, context.landmark_network.name)
    digest = hashlib.sha256(repr((context.config, *names)).encode())

    def add(values: Mapping[str, object]) -> None:
        for name, value in sorted(values.items()):
            digest.update(name.encode())
            if isinstance(value, Tensor):
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
            elif hasattr(value, "__dict__") and not isinstance(value, type):
                add(vars(value))
            else:
                digest.update(repr(value).encode())

    for plate in context.views.plates:
        add({"name": plate.name, "frames": plate.frames, "size": (plate.width, plate.height)})
        for index in sorted({round(i * (len(plate) - 1) / (_LOOKED_AT - 1)) for i in range(_LOOKED_AT)}):
            try:
                digest.update(plate.read(index).numpy().tobytes())
            except PlateError as error:
                digest.update(str(error).encode())
    add(vars(context.rig))
    for camera in context.views.cameras:
        add(vars(camera))
    return digest.hexdigest()
