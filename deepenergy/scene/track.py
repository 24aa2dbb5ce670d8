"""The solved shot: per frame the pose and the controls, and how far each frame can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from deepenergy.runtime import registry
from deepenergy.runtime.errors import InputError
from deepenergy.scene.landmark_layout import expected_count
from deepenergy.scene.rig import Rig
from deepenergy.scene.rotation import matrix_to_euler
from deepenergy.scene.state import State

STATUSES = ("solved", "infilled", "failed")
REFINED = ("rotation", "translation", "jaw", "weights")
# Frames are evaluated in blocks, so that a long shot of a dense rig needs no more than its own result in memory.
_BLOCK = 16


class Cause(str, Enum):
    """Why a frame is not "solved", for programs; `Track.reason` says it in words, with numbers.

    A frame that was infilled keeps the cause for which it had failed. Where several hold at once, the one that comes
    first here is given: whoever exports a missing plate again need not be told what it shows.

    Attributes:
        NONE: the frame is solved.
        PLATE_MISSING: the plates of a camera have no such frame.
        PLATE_UNREADABLE: the plate of a camera is there and cannot be used: damaged, cut off, of another size.
        NO_FACE: no camera shows a face that was found.
        NOT_FINITE: the solve did not stay finite.
        WEAK_LANDMARKS: the network was not sure of the landmarks on the plate.
        RESIDUAL: the landmarks of plate and render are too far apart.
        APPEARANCE: the plate does not look like the render (their correlation is low).
        JUMP: the head leaves the path of its neighbours and comes back.
        BESIDE_FAILED: halfway to one of the last four, and joined to a frame that failed.
        INFILLED: infilled, and the track does not say why the frame had failed.
        UNKNOWN: failed, and the track does not say why.
    """

    NONE = "none"
    PLATE_MISSING = "plate_missing"
    PLATE_UNREADABLE = "plate_unreadable"
    NO_FACE = "no_face"
    NOT_FINITE = "not_finite"
    WEAK_LANDMARKS = "weak_landmarks"
    RESIDUAL = "residual"
    APPEARANCE = "appearance"
    JUMP = "jump"
    BESIDE_FAILED = "beside_failed"
    INFILLED = "infilled"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        """The value: what numpy puts into an array of strings."""
        return self.value


@dataclass(frozen=True, eq=False)
class Track:
    """A solved shot, as numpy arrays over T frames.

    Attributes:
        frames: `[T]` int64 frame numbers, strictly increasing.
        rotation: `[T, 3, 3]` float64, object to world.
        translation: `[T, 3]` float64 metres, world.
        jaw: `[T, 6]` float64, axis-angle (radians) then translation (metres); zero for a rig without the joint.
        weights: `[T, K]` float64 blendshape weights.
        weight_names: K names, in the rig's order.
        status: `[T]` of "solved", "infilled" or "failed".
        reason: `[T]` why a frame is not "solved", in words; "" for a solved frame.
        confidence: `[T]` in [0, 1].
        landmark_residual_px: `[T]` mean distance of plate and render landmarks in plate pixels; NaN where
            none was measured.
        landmarks_px: camera name -> `[T, L, 2]` landmarks detected on the plate, plate pixels, NaN where none. May be
            empty.
        render_landmarks_px: the same, detected on the render.
        rig_name: the rig that was solved.
        provenance: `[T]` how each frame's values came about beyond its solve, in words ("infilled by optical flow from
            1010 and 1017; refined by hybrid"); "" for a frame as it was solved.
        before: name -> values before temporal refinement, any of rotation, translation, jaw and weights, shaped like
            them; empty where nothing was refined.
        cause: `[T]` values of `Cause`: why a frame is not "solved", for programs. "none", or no array at all, on a
            frame that is not solved becomes "infilled" or "unknown", by its status.
        sigma: name -> standard deviations by the solver, NaN where it could not tell: "rotation" `[T, 3]` radians about
            the world's axes, "translation" `[T, 3]` metres, "jaw" `[T, 6]`, "weights" `[T, K]`. May be empty.

    A failed frame has NaN in rotation, translation, jaw and weights.

    Raises:
        InputError: shapes that disagree, frames out of order, a matrix that is not a rotation, a frame whose values
            and status contradict each other.
    """

    frames: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    jaw: np.ndarray
    weights: np.ndarray
    weight_names: tuple[str, ...]
    status: np.ndarray
    reason: np.ndarray
    confidence: np.ndarray
    landmark_residual_px: np.ndarray
    landmarks_px: Mapping[str, np.ndarray] = field(default_factory=dict)
    render_landmarks_px: Mapping[str, np.ndarray] = field(default_factory=dict)
    rig_name: str = ""
    provenance: np.ndarray = field(default_factory=lambda: np.empty(0, np.str_))
    before: Mapping[str, np.ndarray] = field(default_factory=dict)
    sigma: Mapping[str, np.ndarray] = field(default_factory=dict)
    cause: np.ndarray = field(default_factory=lambda: np.empty(0, np.str_))

    def __post_init__(self) -> None:
        frames = np.asarray(self.frames)
        if frames.ndim != 1 or not np.issubdtype(frames.dtype, np.integer):
            raise InputError(
                "track frames", f"{frames.dtype} of shape {frames.shape}", "[T] whole numbers", "give frame numbers"
            )
        names = tuple(str(n) for n in self.weight_names)
        count = len(frames)
        shapes = {
            "rotation": (count, 3, 3),
            "translation": (count, 3),
            "jaw": (count, 6),
            "weights": (count, len(names)),
            "confidence": (count,),
            "landmark_residual_px": (count,),
        }
        for name, shape in shapes.items():
            self._set(name, self._shaped(name, getattr(self, name), shape))
        if len(self.provenance) == 0:
            self._set("provenance", np.full(count, ""))
        if len(self.cause) == 0:
            self._set("cause", np.full(count, str(Cause.NONE)))
        for name in ("status", "reason", "provenance", "cause"):
            value = np.asarray(getattr(self, name), dtype=np.str_)
            if value.shape != (count,):
                raise InputError(f"track {name}", f"shape {value.shape}", f"({count},)", "give one for every frame")
            self._set(name, value)
        for name in ("landmarks_px", "render_landmarks_px"):
            cameras = getattr(self, name)
            shape = (count, self._landmark_count(), 2)
            self._set(name, {str(c): self._shaped(f"{name} '{c}'", v, shape) for c, v in cameras.items()})
        self._set("before", {n: self._shaped(f"before {n}", v, self._shape_before(n)) for n, v in self.before.items()})
        self._set("sigma", {n: self._shaped(f"sigma {n}", v, self._shape_sigma(n)) for n, v in self.sigma.items()})
        self._set("frames", frames.astype(np.int64))
        self._set("weight_names", names)
        self._check_frames()
        self._check_status()
        self._check_cause()
        self._check_values()

    def _landmark_count(self) -> int:
        """L: the first camera's where a scheme has as many, and all cameras must have the same."""
        every = [np.shape(points) for points in (*self.landmarks_px.values(), *self.render_landmarks_px.values())]
        return expected_count(every[0][1] if every and len(every[0]) == 3 else 0)

    def _shape_before(self, name: str) -> tuple[int, ...]:
        if name not in REFINED:
            raise InputError("track before, sigma", f"'{name}'", f"any of {', '.join(REFINED)}", "leave it out")
        return getattr(self, name).shape

    def _shape_sigma(self, name: str) -> tuple[int, ...]:
        shape = self._shape_before(name)
        return (shape[0], 3) if name == "rotation" else shape

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @staticmethod
    def _shaped(name: str, value: object, shape: tuple[int, ...]) -> np.ndarray:
        array = np.asarray(value, dtype=np.float64)
        if array.shape != shape:
            raise InputError(f"track {name}", f"shape {array.shape}", f"{shape}", "give one row for every frame")
        return array

    def _check_frames(self) -> None:
        steps = np.diff(self.frames)
        if (steps <= 0).any():
            at = int(np.argmax(steps <= 0))
            raise InputError(
                "track frames",
                f"frame {self.frames[at + 1]} after {self.frames[at]}",
                "strictly increasing numbers",
                "sort the frames and drop repeats",
            )

    def _check_status(self) -> None:
        unknown = ~np.isin(self.status, STATUSES)
        if unknown.any():
            at = int(np.argmax(unknown))
            raise InputError(
                f"track status of frame {self.frames[at]}", f"'{self.status[at]}'", "one of " + ", ".join(STATUSES),
                "use these words",
            )  # fmt: skip
        solved = self.status == "solved"
        wrong = solved == (self.reason != "")
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputError(
                f"track reason of frame {self.frames[at]}",
                f"'{self.reason[at]}' on a frame with status '{self.status[at]}'",
                "'' on a solved frame and words on any other",
                "say why a frame was not solved",
            )

    def _check_cause(self) -> None:
        solved, none = self.status == "solved", self.cause == Cause.NONE
        fitting = np.where(self.status == "infilled", Cause.INFILLED.value, Cause.UNKNOWN.value)
        cause = np.where(~solved & none, fitting, self.cause)
        wrong = ~np.isin(cause, [c.value for c in Cause]) | (solved & (cause != Cause.NONE))
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputError(
                f"track cause of frame {self.frames[at]}",
                f"'{cause[at]}' on a frame with status '{self.status[at]}'",
                f"'{Cause.NONE}' on a solved frame, and one of {', '.join(c.value for c in Cause)} on any other",
                "use the values of `Cause`",
            )
        self._set("cause", cause)

    def _check_values(self) -> None:
        flat = np.concatenate([self.rotation.reshape(len(self), 9), self.translation, self.jaw, self.weights], axis=1)
        failed = self.status == "failed"
        wrong = np.where(failed, ~np.isnan(flat).all(1), ~np.isfinite(flat).all(1))
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputError(
                f"track parameters of frame {self.frames[at]}",
                "numbers on a failed frame" if failed[at] else f"NaN or infinity on a frame that is {self.status[at]}",
                "NaN on failed frames and finite numbers on all others",
                "give the frame the status that it has",
            )
        rotation = np.where(failed[:, None, None], np.eye(3), self.rotation)
        off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max((1, 2), initial=0.0)
        wrong = (off > 1e-4) | (np.linalg.det(rotation) < 0)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputError(
                f"track rotation of frame {self.frames[at]}",
                f"a matrix with |R R^T - I| = {off[at]:.2g} and determinant {np.linalg.det(rotation[at]):.3g}",
                "a rotation matrix",
                "take scale and mirroring out",
            )
        wrong = ~((self.confidence >= 0) & (self.confidence <= 1))
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputError(
                f"track confidence of frame {self.frames[at]}", f"{self.confidence[at]}", "0..1", "scale it to 0..1"
            )

    # -- reading ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def solved(self) -> np.ndarray:
        """`[T]` bool: frames with status "solved"."""
        return self.status == "solved"

    @property
    def usable(self) -> np.ndarray:
        """`[T]` bool: frames that have parameters, solved or infilled."""
        return self.status != "failed"

    @property
    def euler(self) -> np.ndarray:
        """`[T, 3]` radians, extrinsic XYZ as in the paper (see `deepenergy.scene.rotation`); NaN where failed."""
        euler = matrix_to_euler(torch.from_numpy(np.where(self.usable[:, None, None], self.rotation, np.eye(3))))
        return np.where(self.usable[:, None], euler.numpy(), np.nan)

    def parameters(self) -> State:
        """The states of all frames, float64 on the CPU; NaN where failed."""
        arrays = (self.rotation, self.translation, self.jaw, self.weights)
        return State(*(torch.from_numpy(a.copy()) for a in arrays))

    def states(self) -> State:
        """All states, failed frames at the identity: finite, for batches that will not look at them."""
        usable = self.usable
        rotation = np.where(usable[:, None, None], self.rotation, np.eye(3))
        rest = (np.where(usable[:, None], a, 0.0) for a in (self.translation, self.jaw, self.weights))
        return State(torch.from_numpy(rotation), *(torch.from_numpy(a) for a in rest))

    def with_states(self, state: State, status: np.ndarray) -> Track:
        """The track with other states; NaN where the status is "failed"."""
        failed = status == "failed"
        rotation = np.where(failed[:, None, None], np.nan, state.rotation.numpy())
        rest = (np.where(failed[:, None], np.nan, a.numpy()) for a in (state.translation, state.jaw, state.weights))
        translation, jaw, weights = rest
        return replace(self, rotation=rotation, translation=translation, jaw=jaw, weights=weights, status=status)

    def moved(self, transform: Float[torch.Tensor, "t 4 4"]) -> Track:
        """The same faces in another world: `x_new = transform @ [x, 1]`, rigid, one for all frames or one for each.

        Standard deviations are turned as if those of the three axes were independent.
        """
        here = self.parameters().moved(transform)
        before = dict(self.before)
        if "rotation" in before and "translation" in before:
            turned, shifted = (torch.from_numpy(np.asarray(before[name])) for name in ("rotation", "translation"))
            then = State(turned, shifted, here.jaw, here.weights).moved(transform)
            before |= {"rotation": then.rotation.numpy(), "translation": then.translation.numpy()}
        sigma, turn = dict(self.sigma), transform[:, :3, :3].numpy()
        for name in ("rotation", "translation"):
            if name in sigma:
                sigma[name] = np.sqrt((turn**2 @ (sigma[name] ** 2)[..., None])[..., 0])
        return replace(
            self, rotation=here.rotation.numpy(), translation=here.translation.numpy(), before=before, sigma=sigma
        )

    def check_rig(self, rig: Rig) -> None:
        """Refuse a rig that the weights do not belong to.

        Raises:
            InputError: the rig's weight names are others, or in another order.
        """
        if tuple(rig.weight_names) == self.weight_names:
            return
        ours, theirs = set(self.weight_names), set(rig.weight_names)
        if ours == theirs:
            found = f"the weights of rig '{rig.name}' in another order"
        else:
            odd = sorted(ours ^ theirs)
            found = f"rig '{rig.name}' with {len(theirs)} weights, of which differ {', '.join(odd[:4])}" + (
                ", ..." if len(odd) > 4 else ""
            )
        raise InputError(
            "track weight names",
            found,
            f"the {len(ours)} weights of rig '{self.rig_name}'",
            "load the rig that was solved",
        )

    def vertices(self, rig: Rig) -> Float[np.ndarray, "t v 3"]:
        """The rig's vertices in world space (metres), float32; NaN where failed.

        Raises:
            InputError: the rig's weights are not the track's.
        """
        self.check_rig(rig)
        states = self.parameters()
        result = np.empty((len(self), rig.neutral.shape[0], 3), dtype=np.float32)
        for start in range(0, len(self), _BLOCK):
            block = slice(start, start + _BLOCK)
            result[block] = rig.vertices(states[block]).cpu().numpy()
        return result

    def landmarks(self, rig: Rig) -> Float[np.ndarray, "t l 3"]:
        """The rig's landmarks in world space (metres), float64; NaN where failed.

        Raises:
            InputError: the rig's weights are not the track's, or the rig has no landmarks.
        """
        self.check_rig(rig)
        small = rig.landmark_rig()
        return small.landmarks(small.vertices(self.parameters())).cpu().numpy()

    # -- files -----------------------------------------------------------------------------------------------

    @staticmethod
    def load(path: str | Path) -> Track:
        """Read a track written by `save`.

        Raises:
            InputError: no such file, not a track, or a track whose content is wrong.
        """
        path = Path(path).expanduser()
        read = registry.lookup("read track", path, "track")
        if not path.is_file():
            raise InputError("track", f"no file {path}", "a track (.npz)", "check the path")
        return read(path)

    def save(self, path: str | Path) -> None:
        """Write the track, whole or not at all: `.npz` (everything, no pickle) or `.csv` (a table to read).

        Raises:
            InputError: another ending, or no such folder.
        """
        path = Path(path).expanduser()
        registry.lookup("write track", path, "track output")(path, self)
