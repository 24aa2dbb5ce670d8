"""Tracks as `.npz`: everything, without pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deepenergy.runtime.atomic import atomic_path
from deepenergy.runtime.errors import InputError
from deepenergy.scene.track import Track

FORMAT = "deepenergy.track"
VERSION = 1
_ARRAYS = (
    "frames", "rotation", "translation", "jaw", "weights", "weight_names", "status", "reason", "confidence",
    "landmark_residual_px",
)  # fmt: skip
_BY_CAMERA = ("landmarks_px", "render_landmarks_px")
# Absent in files of before there was refinement, and of before causes had codes.
_ADDED = ("provenance", "cause")
_BEFORE, _SIGMA = "before_", "sigma_"


def write_track(path: Path, track: Track) -> None:
    """Write a track. Landmarks per camera are stacked `[C, T, L, 2]`, beside the names of the cameras."""
    content: dict[str, np.ndarray] = {"format": np.array(FORMAT), "version": np.array(VERSION)}
    content |= {name: np.asarray(getattr(track, name)) for name in _ARRAYS if name != "weight_names"}
    content["weight_names"] = np.array(track.weight_names, dtype=np.str_)
    content["rig_name"] = np.array(track.rig_name)
    for name in _BY_CAMERA:
        by_camera: Mapping[str, np.ndarray] = getattr(track, name)
        content[f"{name}_cameras"] = np.array(list(by_camera), dtype=np.str_)
        stacked = np.stack(list(by_camera.values())) if by_camera else np.empty((0, len(track), 68, 2))
        content[name] = stacked
    content |= {name: np.asarray(getattr(track, name)) for name in _ADDED}
    content |= {_BEFORE + name: values for name, values in track.before.items()}
    content |= {_SIGMA + name: values for name, values in track.sigma.items()}
    with atomic_path(path, "track output") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **content)  # pyright: ignore[reportArgumentType]


def read_track(path: Path) -> Track:
    """Read a track.

    Raises:
        InputError: not a track, of a newer format, or with missing or wrong arrays.
    """
    expected, remedy = "a track written by deepenergy", "solve the shot again, or name the track's file"
    try:
        # Opened here: numpy leaves its own handle open on a damaged file.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if str(file["format"]) != FORMAT:
                raise InputError("track", f"{path} with format '{file['format']}'", expected, remedy)
            version = int(file["version"])
            if version > VERSION:
                raise InputError(
                    "track version", f"{version} in {path}", f"at most {VERSION}", "read it with a newer deepenergy"
                )
            content = {name: file[name] for name in (*_ARRAYS, "rig_name")}
            for name in _BY_CAMERA:
                cameras = [str(c) for c in file[f"{name}_cameras"]]
                content[name] = dict(zip(cameras, file[name], strict=True))
            content |= {name: file[name] for name in _ADDED if name in file}
            before, sigma = (
                {n.removeprefix(prefix): file[n] for n in file.files if n.startswith(prefix)}
                for prefix in (_BEFORE, _SIGMA)
            )
    except InputError:
        raise
    except KeyError as error:
        # numpy says "NAME is not a file in the archive".
        name = str(error.args[0]).split(" ")[0]
        raise InputError("track", f"{path} without the array '{name}'", expected, remedy) from error
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError("track", f"{path}, which cannot be read ({error})", expected, remedy) from error
    content["weight_names"] = tuple(str(n) for n in content["weight_names"])
    content["rig_name"] = str(content["rig_name"])
    return Track(**content, before=before, sigma=sigma)
