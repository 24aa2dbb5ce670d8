"""A track against a known answer: pose, shape, landmark and jitter errors.

Frames are matched by number. Errors are measured on every frame that has parameters; the medians are over the frames
with status "solved", so that an infilled frame neither helps nor hurts them.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from deepenergy.camera import Camera
from deepenergy.errors import InputError
from deepenergy.params import Parameters
from deepenergy.rig import Rig
from deepenergy.rotation import rotation_angle, so3_log
from deepenergy.track import Track

JAW_LANDMARKS = slice(0, 17)
_BLOCK = 16


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Known poses and controls of T frames.

    Attributes:
        frames: `[T]` int64 frame numbers.
        rotation: `[T, 3, 3]` object to world; `translation`: `[T, 3]` metres. NaN where unknown.
        weights: `[T, K]` or None; `weight_names`: K names.
        jaw: `[T, 6]`, as `Track.jaw`, or None (a rig whose jaw is blendshapes only).
        landmarks_px: camera name -> `[T, 68, 2]` exact landmarks in plate pixels; may be empty.
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
                [K], `landmarks_<camera>` [T,68,2]; or a track's `.npz`.

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
                shapes[name] = (count, 68, 2)
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


@dataclass(frozen=True, eq=False)
class FrameErrors:
    """Errors `[T]` of every frame; NaN where the track failed, or where the truth does not say.

    Attributes:
        rotation_deg: geodesic distance of the rotations.
        translation_mm: distance of the translations; `inplane_mm` and `depth_mm`: its parts across and along the
            first camera's +Z, both positive.
        vertex_mm: mean distance of the face's vertices in world space.
        landmark_px: mean distance, in the first camera, of the rig's 68 projected landmarks; `jaw_landmark_px`: of
            landmarks 0-16 alone.
    """

    rotation_deg: np.ndarray
    translation_mm: np.ndarray
    inplane_mm: np.ndarray
    depth_mm: np.ndarray
    vertex_mm: np.ndarray
    landmark_px: np.ndarray
    jaw_landmark_px: np.ndarray


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
        rotation_deg ... jaw_landmark_px: medians of `per_frame`, see `FrameErrors`.
        translation_jitter_mm, rotation_jitter_deg: jitter per frame interval squared.
        per_frame: the errors of every frame.
    """

    frames: np.ndarray
    status: np.ndarray
    solved: float
    infilled: float
    failed: float
    rotation_deg: float
    translation_mm: float
    inplane_mm: float
    depth_mm: float
    vertex_mm: float
    landmark_px: float
    jaw_landmark_px: float
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
        InputError: no camera, no common frame, or a rig that is not the track's.
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
    status = track.status[ours]
    rotation = track.rotation[ours], truth.rotation[theirs]
    translation = track.translation[ours], truth.translation[theirs]
    offset = (translation[0] - translation[1]) @ camera.world_to_camera[:3, :3].cpu().numpy().T * 1000
    vertex, landmark, jaw_landmark = _shape_errors(track, truth, rig, camera, ours, theirs)
    per_frame = FrameErrors(
        rotation_deg=np.degrees(_angles(*rotation)),
        translation_mm=np.linalg.norm(offset, axis=1),
        inplane_mm=np.linalg.norm(offset[:, :2], axis=1),
        depth_mm=np.abs(offset[:, 2]),
        vertex_mm=vertex,
        landmark_px=landmark,
        jaw_landmark_px=jaw_landmark,
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
        points = camera.project(rig.landmarks(mesh))
        if true_mesh is not None:
            true_points = camera.project(rig.landmarks(true_mesh))
        elif exact_px is not None:
            true_points = torch.from_numpy(exact_px[theirs[block]])
        else:
            continue
        distance = (points - true_points).norm(dim=-1)
        landmark[block] = distance.mean(-1).numpy()
        jaw_landmark[block] = distance[:, JAW_LANDMARKS].mean(-1).numpy()
    return vertex, landmark, jaw_landmark


def _states(truth: GroundTruth, rows: np.ndarray, order: tuple[str, ...]) -> Parameters:
    assert truth.weights is not None
    columns = [truth.weight_names.index(name) for name in order]
    jaw = np.zeros((len(rows), 6)) if truth.jaw is None else truth.jaw[rows]
    arrays = (truth.rotation[rows], truth.translation[rows], jaw, truth.weights[rows][:, columns])
    return Parameters(*(torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in arrays))


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    valid = np.isfinite(a).all((1, 2)) & np.isfinite(b).all((1, 2))
    result = np.full(len(a), np.nan)
    result[valid] = rotation_angle(*(torch.from_numpy(np.asarray(m[valid], np.float64)) for m in (a, b))).numpy()
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
    return buffer.getvalue()
