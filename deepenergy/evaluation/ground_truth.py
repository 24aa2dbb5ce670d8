"""The known answer of a shot, to evaluate a track against."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deepenergy.runtime.errors import InputError
from deepenergy.scene.landmark_layout import expected_count
from deepenergy.scene.track import Track


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Known poses and controls of T frames.

    Attributes:
        frames: `[T]` int64 frame numbers.
        rotation: `[T, 3, 3]` object to world; `translation`: `[T, 3]` metres. NaN where unknown.
        weights: `[T, K]` or None; `weight_names`: K names.
        jaw: `[T, 6]`, as `Track.jaw`, or None (a rig whose jaw is blendshapes only).
        landmarks_px: camera name -> `[T, L, 2]` exact landmarks in plate pixels; may be empty.
    """

    frames: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    weights: np.ndarray | None = None
    weight_names: tuple[str, ...] = ()
    jaw: np.ndarray | None = None
    landmarks_px: dict[str, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def load(path: str | Path) -> GroundTruth:
        """Read a ground truth, or a track that serves as one.

        Args:
            path: `.npz` with `frame` [T], `R` [T,3,3], `t` [T,3], and optionally `weights` [T,K] with `target_names`
                [K], `landmarks_<camera>` [T,L,2]; or a track's `.npz`.

        Raises:
            InputError: no such file, neither layout, or shapes that disagree.
        """
        path = Path(path).expanduser()
        expected = "a .npz with frame, R and t, or a track"
        if not path.is_file():
            raise InputError("ground truth", f"no file {path}", expected, "check the path")
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                content = {name: file[name] for name in file.files}
        except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise InputError("ground truth", f"{path}, which cannot be read ({error})", expected, "check it") from error
        if "format" in content:
            return GroundTruth.from_track(Track.load(path))
        absent = [name for name in ("frame", "R", "t") if name not in content]
        if absent:
            raise InputError("ground truth", f"{path} without {', '.join(absent)}", expected, "add the arrays")
        count = len(content["frame"])
        shapes = {"R": (count, 3, 3), "t": (count, 3)}
        names = tuple(str(n) for n in content.get("target_names", ()))
        if "weights" in content:
            shapes["weights"] = (count, len(names))
        landmarks = {}
        for name, array in content.items():
            # 3D landmarks are named alike (`landmarks_world`); the pixels of a camera have two columns.
            if name.startswith("landmarks_") and array.shape[-1:] == (2,):
                shapes[name] = (count, expected_count(array.shape[1] if array.ndim == 3 else 0), 2)
                landmarks[name.removeprefix("landmarks_")] = array
        for name, shape in shapes.items():
            if content[name].shape != shape:
                raise InputError(f"ground truth {name}", f"shape {content[name].shape}", f"{shape}", "check the layout")
        return GroundTruth(
            frames=content["frame"].astype(np.int64),
            rotation=content["R"],
            translation=content["t"],
            weights=content.get("weights"),
            weight_names=names,
            landmarks_px=landmarks,
        )

    @staticmethod
    def from_track(track: Track) -> GroundTruth:
        """A track taken as the truth; its failed frames are unknown."""
        return GroundTruth(
            track.frames, track.rotation, track.translation, track.weights, track.weight_names, track.jaw
        )
