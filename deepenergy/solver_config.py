"""The settings of the solver, validated."""

from __future__ import annotations

from dataclasses import dataclass, field

from deepenergy.errors import InputError
from deepenergy.stages import DEFAULT_STAGES, Stage


@dataclass(frozen=True)
class SolverConfig:
    """Settings of `Solver`.

    Attributes:
        detector: "hog" (dlib HOG), "cnn" (dlib CNN, needs its file).
        network: "compact" (inside the package) or "fan" (3D-FAN of face-alignment, needs its file).
        network_weights: the network's weights file, where it is not the usual one.
        device: torch device of renders and networks.
        l2: lambda on squared controls (section 8.2), for pixels of a 512x512 face crop.
        box_smoothing: frames over which face boxes are smoothed, odd; 1 for none.
        max_gap: frames without a detection that are searched near their neighbours' faces.
        min_confidence: a frame whose mean landmark confidence is lower failed, in [0, 1].
        max_residual: a frame whose mean landmark distance is larger failed, in crop pixels.
        supersample: samples per pixel side of the renders.
        stages: the schedule; set in Python.

    Raises:
        InputError: a value out of its range.
    """

    detector: str = "hog"
    network: str = "compact"
    network_weights: str | None = None
    device: str = "cpu"
    l2: float = 100.0
    box_smoothing: int = 5
    max_gap: int = 12
    min_confidence: float = 0.25
    max_residual: float = 12.0
    supersample: int = 2
    stages: tuple[Stage, ...] = field(default=DEFAULT_STAGES)

    def __post_init__(self) -> None:
        checks = (
            ("l2", self.l2 >= 0, "0 or more"),
            ("box_smoothing", self.box_smoothing >= 1 and self.box_smoothing % 2 == 1, "an odd number of frames"),
            ("max_gap", self.max_gap >= 0, "0 or more"),
            ("min_confidence", 0 <= self.min_confidence <= 1, "between 0 and 1"),
            ("max_residual", self.max_residual > 0, "more than 0 crop pixels"),
            ("supersample", 1 <= self.supersample <= 8, "between 1 and 8"),
        )
        for name, good, expected in checks:
            if not good:
                raise InputError(f"solver.{name}", str(getattr(self, name)), expected, "correct the setting")
