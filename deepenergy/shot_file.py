"""The shot file: which plates, rig and cameras belong together, as TOML.

    name = "sh010"
    rig = "actor.glb"                          # a file, an ICT-FaceKit folder, or "builtin"
    landmarks = "landmarks.json"               # optional: the rig file may hold its own
    cameras = "cameras.json"
    frames = "1001-1096"                       # optional: every frame that the plates have
    first_frame = 1001                         # optional: the number of a video's first frame, 1 by default
    output = "out/sh010"
    [plates]                                   # camera name -> pattern or video; several cameras = stereo
    left = "plates/left/sh010.left.####.jpg"
    [rig_groups]                               # optional: control group -> weight names
    [solver]                                   # optional: fields of SolverConfig
    [[stage]]                                  # optional: instead of the default schedule, see schedule_toml.py

Paths are relative to the file that names them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter, ValidationError

from deepenergy.runtime.errors import InputError, did_you_mean
from deepenergy.runtime.toml_input import read_toml, shown
from deepenergy.scene.camera import Camera
from deepenergy.scene.plates import Plates
from deepenergy.scene.rig import Rig
from deepenergy.settings.config import SolverConfig
from deepenergy.settings.schedule_toml import stages_of

Text = Annotated[str, Field(min_length=1)]


class Shot(BaseModel):
    """One shot to solve, read from TOML and validated.

    Attributes:
        name: the shot's name.
        rig: path of the rig, or "builtin".
        landmarks: path of the rig's landmarks, or None.
        cameras: path of the camera file.
        frames: frame range ("1001-1096", "1-10,20-30"), or None for every frame of the plates.
        first_frame: the number of a video's first frame, or None; files of sequences have their own.
        output: folder for the results.
        plates: camera name -> file pattern or video.
        rig_groups: control group -> weight names, see `control_groups`.
        solver: fields of `SolverConfig`.
        stage: a schedule, see `schedule_toml`; the default one when None.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Text
    rig: Text
    landmarks: Text | None = None
    cameras: Text
    frames: Text | None = None
    first_frame: int | None = None
    output: Text
    plates: Annotated[dict[str, Text], Field(min_length=1)]
    rig_groups: dict[str, list[Text]] = {}
    solver: dict[str, Any] = {}
    stage: list[Any] | dict[str, Any] | None = None
    _folder: Path = PrivateAttr(default_factory=Path)

    @staticmethod
    def load(path: str | Path) -> Shot:
        """Read a shot file.

        Raises:
            InputError: no such file, a TOML syntax error (with its line), an unknown, missing or wrong field.
        """
        data = read_toml(path, "shot", "a shot file (TOML)", "check the path; the README shows an example")
        try:
            shot = Shot.model_validate(data)
        except ValidationError as error:
            raise _input_error(error, "shot", list(Shot.model_fields)) from None
        shot._folder = Path(path).expanduser().resolve().parent
        return shot

    def resolve(self, path: str) -> Path:
        """`path` as the shot file means it: relative to the folder that the file lies in."""
        return self._folder / Path(path).expanduser()

    @property
    def output_folder(self) -> Path:
        """Where the results go."""
        return self.resolve(self.output)

    def open(self, frames: str | None = None) -> tuple[list[Plates], Rig, list[Camera]]:
        """Open everything that the shot names; `frames` overrides the file's own range.

        Raises:
            InputError: a file that is missing or wrong, a camera of another size than its plates.
        """
        rig = Rig.load(
            self.rig if self.rig == "builtin" else self.resolve(self.rig),
            landmarks=None if self.landmarks is None else self._file("landmarks", self.landmarks),
            groups=self.rig_groups or None,
        )
        rig.require_landmarks()
        cameras_file = self._file("cameras", self.cameras)
        cameras = [Camera.load(cameras_file, name=name) for name in self.plates]
        plates = [
            Plates.open(self.resolve(pattern), self.frames if frames is None else frames, name, self.first_frame)
            for name, pattern in self.plates.items()
        ]
        for camera, plate in zip(cameras, plates, strict=True):
            camera.check_plate_size(plate.width, plate.height)
        return plates, rig, cameras

    def _file(self, field: str, path: str) -> Path:
        resolved = self.resolve(path)
        if not resolved.is_file():
            raise InputError(
                f"shot.{field}",
                f"no file {resolved}",
                "a file",
                f"correct `{field}`; paths are relative to the shot file",
            )
        return resolved

    def solver_config(self) -> SolverConfig:
        """The solver's configuration, `[solver]` over the defaults.

        Raises:
            InputError: an unknown field, or a value of the wrong type or outside its range.
        """
        hints = get_type_hints(SolverConfig)
        # Structures such as the schedule of stages are for Python; a shot file sets plain values.
        plain = (str, int, float, bool, type(None))
        known = [field.name for field in dataclasses.fields(SolverConfig) if isinstance(field.default, plain)]
        values: dict[str, Any] = {}
        for name, value in self.solver.items():
            if name not in known:
                raise _unknown_key(f"shot.solver.{name}", name, known)
            try:
                values[name] = TypeAdapter(hints[name]).validate_python(value, strict=True)
            except ValidationError as error:
                raise _input_error(error, f"shot.solver.{name}", known) from None
        if self.stage is not None:
            values["stages"] = stages_of(self.stage, self.rig_groups)
        return SolverConfig(**values)


_EXPECTED = {
    "name": "text",
    "rig": 'the path of a rig, or "builtin"',
    "landmarks": "the path of a JSON file",
    "cameras": "the path of a JSON file",
    "frames": 'a frame range such as "1001-1096"',
    "first_frame": "a whole number",
    "output": "a folder",
    "plates": 'at least one camera, as in left = "plates/left/sh010.left.####.jpg"',
    "rig_groups": "lists of weight names",
    "solver": "fields of SolverConfig",
    "stage": "[[stage]] tables",
}


def _unknown_key(field: str, key: str, known: Iterable[str]) -> InputError:
    known = sorted(known)
    return InputError(field, "an unknown key", f"one of {', '.join(known)}", did_you_mean(key, known))


def _input_error(error: ValidationError, prefix: str, known: list[str]) -> InputError:
    """The first of pydantic's findings as one line; how many more there are is said at its end."""
    findings = error.errors(include_url=False)
    # An unknown key explains a missing one (`camera` for `cameras`), so it is told first.
    first = min(findings, key=lambda finding: finding["type"] != "extra_forbidden")
    path = [str(part) for part in first["loc"]]
    field = ".".join([prefix, *path])
    more = f" (and {len(findings) - 1} more in this file)" if len(findings) > 1 else ""
    if first["type"] == "extra_forbidden":
        told = _unknown_key(field, path[-1], known)
        return InputError(field, told.found, told.expected, told.remedy + more)
    if first["type"] == "missing":
        remedy = f"add `{path[-1]} = ...`" if path[-1] != "plates" else "add a [plates] table"
        return InputError(field, "nothing", _EXPECTED.get(path[-1], "a value"), remedy + more)
    expected = _EXPECTED.get(path[0], first["msg"]) if path else _as_expectation(first["msg"])
    return InputError(field, shown(first["input"]), expected, f"correct `{field}`" + more)


def _as_expectation(message: str) -> str:
    text = message.removeprefix("Input should be ").removeprefix("a valid ")
    return text[:1].lower() + text[1:]
