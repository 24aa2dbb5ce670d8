"""A track against a known answer: pose, shape, landmark and jitter errors.

Frames are matched by number. Errors are measured on every frame that has parameters; the medians are over the frames
with status "solved", so that an infilled frame neither helps nor hurts them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from deepenergy.evaluation.ground_truth import GroundTruth
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.rig import Rig
from deepenergy.scene.rotation import so3_log
from deepenergy.scene.state import State
from deepenergy.scene.track import Track

_BLOCK = 16


@dataclass(frozen=True, eq=False)
class FrameErrors:
    """Errors `[T]` of every frame; NaN where the track failed, or where the truth does not say.

    Attributes:
        rotation_deg: geodesic distance of the rotations.
        translation_mm: distance of the translations; `inplane_mm` and `depth_mm`: its parts across and along the
            first camera's +Z, both positive.
        vertex_mm: mean distance of the face's vertices in world space.
        landmark_px: mean distance, in the first camera, of the rig's projected landmarks; `jaw_landmark_px`: of the
            jaw's alone.
        pitch_deg, yaw_deg, roll_deg: size of the rotation's error about the first camera's X, Y and Z axes.
        x_mm, y_mm: of the translation's along its X and Y.
        weights_mae: mean absolute error of the weights.
    """

    rotation_deg: np.ndarray
    pitch_deg: np.ndarray
    yaw_deg: np.ndarray
    roll_deg: np.ndarray
    translation_mm: np.ndarray
    inplane_mm: np.ndarray
    x_mm: np.ndarray
    y_mm: np.ndarray
    depth_mm: np.ndarray
    vertex_mm: np.ndarray
    landmark_px: np.ndarray
    jaw_landmark_px: np.ndarray
    weights_mae: np.ndarray


@dataclass(frozen=True)
class Jitter:
    """Second differences over three consecutive frames, root mean square over the shot; NaN without such frames.

    Attributes:
        track, truth: of the track and of the truth, over the same frames.
        ratio: track over truth.
    """

    track: float
    truth: float
    ratio: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a track agrees with the truth. Scalars are medians over the solved frames, NaN where not measurable.

    Attributes:
        frames: `[T]` the frames that track and truth share; `status`: `[T]` the track's status of them.
        solved, infilled, failed: shares of `frames`.
        rotation_deg ... weights_mae: medians of `per_frame`, see `FrameErrors`.
        calibration: rotation, translation or weights -> root mean square of error over the track's own standard
            deviation: 1 where that tells the truth, more where it promises too much. Empty where the track has none.
        translation_jitter_mm, rotation_jitter_deg: jitter per frame interval squared.
        per_frame: the errors of every frame.
    """

    frames: np.ndarray
    status: np.ndarray
    solved: float
    infilled: float
    failed: float
    rotation_deg: float
    pitch_deg: float
    yaw_deg: float
    roll_deg: float
    translation_mm: float
    inplane_mm: float
    x_mm: float
    y_mm: float
    depth_mm: float
    vertex_mm: float
    landmark_px: float
    jaw_landmark_px: float
    weights_mae: float
    calibration: dict[str, float]
    translation_jitter_mm: Jitter
    rotation_jitter_deg: Jitter
    per_frame: FrameErrors


def evaluate(track: Track, truth: GroundTruth, rig: Rig | None, cameras: Camera | Sequence[Camera]) -> Evaluation:
    """Compare a track with the truth on the frames that both have.

    Args:
        track: the solved shot.
        truth: the known answer.
        rig: the rig of both; None leaves out the vertex and landmark errors.
        cameras: the shot's cameras; the first gives the axes and the pixels.

    Raises:
        InputError: no camera, no common frame, a true head behind the camera, or a rig that is not the track's.
    """
    camera = cameras if isinstance(cameras, Camera) else next(iter(cameras), None)
    if camera is None:
        raise InputError("cameras", "none", "at least one camera", "pass the camera of the shot")
    frames, ours, theirs = np.intersect1d(track.frames, truth.frames, return_indices=True)
    if frames.size == 0:
        raise InputError(
            "ground truth frames",
            f"{_span(truth.frames)}, while the track has {_span(track.frames)}",
            "frames that the track has",
            "use the truth of this shot, or the frame numbers of its plates",
        )
    camera = camera.at(frames.tolist())
    placed = torch.from_numpy(truth.translation[theirs])
    finite = torch.isfinite(placed).all(1)
    camera[finite].check_in_front(placed[finite], "the true head is")
    status = track.status[ours]
    rotation = track.rotation[ours], truth.rotation[theirs]
    translation = track.translation[ours], truth.translation[theirs]
    to_camera = camera.world_to_camera[..., :3, :3].cpu().numpy()
    offset = _turned(to_camera, translation[0] - translation[1]) * 1000
    turn = _turns(*rotation)
    turn_seen = np.degrees(np.abs(_turned(to_camera, turn)))
    moved = _turned(to_camera.swapaxes(-1, -2), offset / 1000)
    change = _weight_errors(track, truth, ours, theirs)
    vertex, landmark, jaw_landmark = _shape_errors(track, truth, rig, camera, ours, theirs)
    per_frame = FrameErrors(
        rotation_deg=np.degrees(np.linalg.norm(turn, axis=1)),
        pitch_deg=turn_seen[:, 0],
        yaw_deg=turn_seen[:, 1],
        roll_deg=turn_seen[:, 2],
        translation_mm=np.linalg.norm(offset, axis=1),
        inplane_mm=np.linalg.norm(offset[:, :2], axis=1),
        x_mm=np.abs(offset[:, 0]),
        y_mm=np.abs(offset[:, 1]),
        depth_mm=np.abs(offset[:, 2]),
        vertex_mm=vertex,
        landmark_px=landmark,
        jaw_landmark_px=jaw_landmark,
        weights_mae=np.abs(change).mean(1),
    )
    solved = status == "solved"
    medians = {f.name: _median(getattr(per_frame, f.name)[solved]) for f in fields(FrameErrors)}
    moves = _second_difference(frames, *(t * 1000 for t in translation))
    turns = _second_difference(frames, *rotation)
    return Evaluation(
        frames=frames,
        status=status,
        solved=float(solved.mean()),
        infilled=float((status == "infilled").mean()),
        failed=float((status == "failed").mean()),
        **medians,
        calibration=_calibration(
            track,
            ours[solved],
            {"rotation": turn[solved], "translation": moved[solved], "weights": change[solved]},
        ),
        translation_jitter_mm=moves,
        rotation_jitter_deg=turns,
        per_frame=per_frame,
    )


def face_vertices(rig: Rig) -> np.ndarray:
    """Indices of the vertices of the skin; of all triangles where the rig names no region "skin"."""
    faces = rig.faces.cpu()
    if rig.face_regions is not None and "skin" in rig.region_names:
        skin = rig.face_regions.cpu() == rig.region_names.index("skin")
        if bool(skin.any()):
            faces = faces[skin]
    return torch.unique(faces).numpy()


def _shape_errors(
    track: Track, truth: GroundTruth, rig: Rig | None, camera: Camera, ours: np.ndarray, theirs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertex errors (mm) and landmark errors (px, all and jaw) of the matched frames."""
    vertex, landmark, jaw_landmark = (np.full(len(ours), np.nan) for _ in range(3))
    if rig is None:
        return vertex, landmark, jaw_landmark
    track.check_rig(rig)
    known = truth.weights is not None and sorted(truth.weight_names) == sorted(track.weight_names)
    exact_px = truth.landmarks_px.get(camera.name)
    states = track.parameters()[torch.from_numpy(ours)]
    true_states = _states(truth, theirs, track.weight_names) if known else None
    skin = torch.from_numpy(face_vertices(rig))
    for start in range(0, len(ours), _BLOCK):
        block = slice(start, start + _BLOCK)
        mesh = rig.vertices(states[block])
        true_mesh = rig.vertices(true_states[block]) if true_states is not None else None
        if true_mesh is not None:
            vertex[block] = ((mesh - true_mesh)[:, skin].norm(dim=-1).mean(-1) * 1000).numpy()
        if rig.landmark_faces is None:
            continue
        view = camera[block]
        points = view.project(rig.landmarks(mesh))
        if true_mesh is not None:
            true_points = view.project(rig.landmarks(true_mesh))
        elif exact_px is not None:
            true_points = torch.from_numpy(exact_px[theirs[block]])
        else:
            continue
        distance = (points - true_points).norm(dim=-1)
        landmark[block] = distance.mean(-1).numpy()
        jaw_landmark[block] = distance[:, list(rig.layout.sets["jaw"])].mean(-1).numpy()
    return vertex, landmark, jaw_landmark


def _turned(rotation: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors `[T, 3]` by one rotation, or by one for each."""
    if rotation.ndim == 2:
        return vectors @ rotation.T
    return (rotation @ vectors[..., None])[..., 0]


def _states(truth: GroundTruth, rows: np.ndarray, order: tuple[str, ...]) -> State:
    assert truth.weights is not None
    columns = [truth.weight_names.index(name) for name in order]
    jaw = np.zeros((len(rows), 6)) if truth.jaw is None else truth.jaw[rows]
    arrays = (truth.rotation[rows], truth.translation[rows], jaw, truth.weights[rows][:, columns])
    return State(*(torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in arrays))


def _turns(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`[T, 3]` rotation vectors, world axes, from b to a; NaN where either is unknown."""
    valid = np.isfinite(a).all((1, 2)) & np.isfinite(b).all((1, 2))
    result = np.full((len(a), 3), np.nan)
    first, second = (torch.from_numpy(np.asarray(m[valid], np.float64)) for m in (a, b))
    result[valid] = so3_log(first @ second.mT).numpy()
    return result


def _weight_errors(track: Track, truth: GroundTruth, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """`[T, K]`, NaN where the truth has no such weights."""
    if truth.weights is None or sorted(truth.weight_names) != sorted(track.weight_names):
        return np.full((len(ours), 1), np.nan)
    columns = [truth.weight_names.index(name) for name in track.weight_names]
    return track.weights[ours] - np.asarray(truth.weights, np.float64)[theirs][:, columns]


def _calibration(track: Track, rows: np.ndarray, errors: dict[str, np.ndarray]) -> dict[str, float]:
    result = {}
    for name, error in errors.items():
        if name not in track.sigma or track.sigma[name][rows].shape != error.shape:
            continue
        share = error / np.where(track.sigma[name][rows] > 0, track.sigma[name][rows], np.nan)
        if np.isfinite(share).any():
            result[name] = float(np.sqrt(np.nanmean(share**2)))
    return result


def _second_difference(frames: np.ndarray, track: np.ndarray, truth: np.ndarray) -> Jitter:
    """Jitter of `[T, 3]` positions or, in degrees, of `[T, 3, 3]` rotations."""
    valid = np.asarray(np.isfinite(track - truth).reshape(len(frames), -1).all(1))
    triple = (np.diff(frames)[1:] == 1) & (np.diff(frames)[:-1] == 1) & valid[2:] & valid[1:-1] & valid[:-2]
    if not triple.any():
        return Jitter(math.nan, math.nan, math.nan)
    values = []
    for series in (track, truth):
        if series.ndim == 2:
            step = np.diff(series, axis=0)
        else:
            filled = torch.from_numpy(np.where(valid[:, None, None], series, np.eye(3)))
            step = np.degrees(so3_log(filled[1:] @ filled[:-1].transpose(-1, -2)).numpy())
        second = np.diff(step, axis=0)[triple]
        values.append(float(np.sqrt((second**2).sum(-1).mean())))
    ratio = values[0] / values[1] if values[1] > 0 else math.nan
    return Jitter(values[0], values[1], ratio)


def _median(values: np.ndarray) -> float:
    measured = values[np.isfinite(values)]
    return float(np.median(measured)) if measured.size else math.nan


def _span(frames: np.ndarray) -> str:
    return f"{frames.min()}-{frames.max()}" if frames.size else "no frames"


def format_table(evaluation: Evaluation) -> str:
    """The evaluation as a plain-text table for a terminal or a log."""
    e = evaluation
    table = Table(title=f"{len(e.frames)} frames, {_span(e.frames)}", title_justify="left")
    for name, justify in (("", "left"), ("median", "right"), ("95 %", "right"), ("worst", "right"), ("at", "right")):
        table.add_column(name, justify=justify)  # pyright: ignore[reportArgumentType]
    rows = (
        ("rotation", "rotation_deg", "°"),
        ("translation", "translation_mm", "mm"),
        ("  in the image plane", "inplane_mm", "mm"),
        ("  in depth", "depth_mm", "mm"),
        ("vertices", "vertex_mm", "mm"),
        ("landmarks", "landmark_px", "px"),
        ("  of the jaw line", "jaw_landmark_px", "px"),
        ("weights", "weights_mae", ""),
    )
    solved = e.status == "solved"
    for label, name, unit in rows:
        values = np.where(solved, getattr(e.per_frame, name), np.nan)
        if not np.isfinite(values).any():
            table.add_row(label, "not measured", "", "", "")
            continue
        worst = int(np.nanargmax(values))
        numbers = (getattr(e, name), float(np.nanpercentile(values, 95)), float(values[worst]))
        table.add_row(label, *(f"{v:.3f} {unit}" for v in numbers), str(e.frames[worst]))
    buffer = io.StringIO()
    console = Console(file=buffer, width=100, no_color=True)
    console.print(table)
    shares = ", ".join(f"{getattr(e, s):.1%} {s}" for s in ("solved", "infilled", "failed"))
    console.print(f"status: {shares}; the table is over the solved frames")
    for label, jitter, unit in (
        ("translation", e.translation_jitter_mm, "mm"),
        ("rotation", e.rotation_jitter_deg, "°"),
    ):
        console.print(
            f"jitter of {label} (second difference, RMS): {jitter.track:.3f} {unit}, truth {jitter.truth:.3f} {unit}, "
            f"ratio {jitter.ratio:.2f}"
        )
    if e.calibration:
        told = ", ".join(f"{name} {value:.1f}" for name, value in e.calibration.items())
        console.print(f"errors in units of the track's own standard deviations (RMS, 1 is honest): {told}")
    return buffer.getvalue()
