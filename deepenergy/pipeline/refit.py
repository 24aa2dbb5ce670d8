"""Solving some frames of a solved shot again, without touching the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from deepenergy.flow import FlowNetwork
from deepenergy.pipeline.shot import Progress, complete
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.plates import Plates
from deepenergy.scene.rig import Rig
from deepenergy.scene.track import REFINED, Track
from deepenergy.settings.config import SolverConfig


def refit(
    track: Track,
    again: Track,
    plates: Sequence[Plates],
    rig: Rig,
    cameras: Sequence[Camera],
    config: SolverConfig,
    flow: FlowNetwork | None,
    progress: Progress,
) -> Track:
    """The track with the frames of `again` in it, infilled and refined with their neighbours; all others as they were.

    Args:
        track: the solved shot.
        again: some of its frames, solved by themselves.
        plates, cameras: of the whole shot.

    Raises:
        InputError: frames that the track does not have, or another rig's track.
    """
    track.check_rig(rig)
    absent = sorted(set(again.frames.tolist()) - set(track.frames.tolist()))
    if absent:
        span = f"{track.frames[0]}-{track.frames[-1]}"
        raise InputError("only frames", f"{absent[0]}", f"frames of the track ({span})", "solve the whole shot")
    rows = np.isin(track.frames, again.frames)
    # Before refinement on both sides, or the old frames would be smoothed twice.
    whole = _with_rows(_as_solved(track), again, rows)
    done = complete(whole, plates, rig, cameras, config, flow, progress)
    return _with_rows(track, done, rows)


def _as_solved(track: Track) -> Track:
    kept = {name: track.before.get(name, getattr(track, name)) for name in REFINED}
    return replace(track, **kept, before={})


def _with_rows(track: Track, other: Track, rows: np.ndarray) -> Track:
    """The track with some rows of another one, found by frame number."""
    at = np.searchsorted(other.frames, track.frames[rows])

    def mixed(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        out = np.array(mine, dtype=np.result_type(mine, theirs))
        out[rows] = theirs[at]
        return out

    changes: dict[str, object] = {}
    for field in fields(Track):
        mine, theirs = getattr(track, field.name), getattr(other, field.name)
        if field.name in ("frames", "weight_names", "rig_name"):
            continue
        if isinstance(mine, np.ndarray):
            changes[field.name] = mixed(mine, theirs)
        else:
            changes[field.name] = {
                name: mixed(
                    values, theirs[name] if name in theirs else np.full((len(other), *values.shape[1:]), np.nan)
                )
                for name, values in mine.items()
            }
    return replace(track, **changes)  # pyright: ignore[reportArgumentType]
