"""The settings of the solver, validated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

import torch

from deepenergy.flow import NETWORKS
from deepenergy.render.operations import Backend
from deepenergy.runtime.errors import InputError
from deepenergy.scene.view_windows import MOST_READINGS
from deepenergy.settings.schedule import DEFAULT_STAGES, Stage
from deepenergy.solve import Cauchy, GemanMcClure, Huber, Kernel, Welsch

INFILL = ("flow", "interpolation", "none")
REFINE = ("averaging", "hybrid", "plate_flow", "self_flow", "spline", "none")
REFINE_ORDERS = ("joint", "gauss_seidel", "jacobi")
FILTERS = ("none", "one_euro")
JACOBIANS = ("auto", "geometric", "deep")
KERNELS: dict[str, type[Kernel] | None] = {
    "none": None, "huber": Huber, "cauchy": Cauchy, "geman_mcclure": GemanMcClure, "welsch": Welsch,
}  # fmt: skip


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
        landmark_filter: "one_euro" filters boxes and landmarks of the plates over time before anything is solved
            (section 7; landmarks/one_euro.py), "none" leaves them as they are read.
        frame_rate: frames a second, for the filter.
        max_gap: frames without a detection that are searched near their neighbours' faces.
        min_confidence: a frame whose mean landmark confidence is lower failed, in [0, 1].
        max_residual: a frame whose mean landmark distance is larger failed, in crop pixels.
        readings: how often the network reads each plate, through slightly different windows; the stages say it for
            renders.
        jacobian: "geometric" (the rig's own landmark points, DESIGN's default where it converges to the same solution),
            "deep" (the paper's chain through render and network, 20 to 50 times as slow), or "auto": geometric, which
            predicts the network's answer better from one crop pixel upwards (docs/decisions/0006).
        kernel: robust kernel on landmark residuals: "none", "huber", "cauchy", "geman_mcclure" or "welsch".
        kernel_scale: the residual from which a landmark counts less, in standard deviations of its noise.
        bias: whether a constant offset of each landmark between plates and renders is measured on the near-neutral
            frames and taken out.
        renderer: what decides visibility in the renders: "numba" (CPU), "torch", "pytorch3d" (that package, where it is
            installed; docs/pytorch3d.md), or "auto": ours, the faster one on the device.
        supersample: samples per pixel side of the renders.
        infill: how failed frames get a state from solved ones: "flow", "interpolation" or "none" (temporal/infill.py).
        refine: how the track is made consistent in time: "averaging", "hybrid", "plate_flow", "self_flow", "spline"
            or "none" (temporal/refine.py).
        refine_order: how frames that depend on each other are solved: "joint" (all at once), or by the paper's sweeps
            over single frames, "gauss_seidel" or "jacobi".
        refine_sweeps: how many sweeps.
        refine_prior: factor on the prior on deviating from where refinement starts (section 7).
        reestimate: rounds of solving the expression again on the refined pose (temporal/reestimate.py).
        flow_network: what finds the flow between plates: "dis", "compact", "raft" or "raft_small" (flow/).
        flow_weights: its weights file, instead of its own.
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
    landmark_filter: str = "none"
    frame_rate: float = 24.0
    max_gap: int = 12
    min_confidence: float = 0.25
    max_residual: float = 12.0
    readings: int = 4
    jacobian: str = "auto"
    kernel: str = "huber"
    kernel_scale: float = 3.0
    bias: bool = False
    renderer: Backend = "auto"
    supersample: int = 1
    infill: str = "flow"
    refine: str = "averaging"
    refine_order: str = "joint"
    refine_sweeps: int = 4
    refine_prior: float = 1.0
    reestimate: int = 0
    flow_network: str = "dis"
    flow_weights: str | None = None
    stages: tuple[Stage, ...] = field(default=DEFAULT_STAGES)

    def __post_init__(self) -> None:
        checks = (
            ("l2", self.l2 >= 0, "0 or more"),
            ("box_smoothing", self.box_smoothing >= 1 and self.box_smoothing % 2 == 1, "an odd number of frames"),
            ("max_gap", self.max_gap >= 0, "0 or more"),
            ("min_confidence", 0 <= self.min_confidence <= 1, "between 0 and 1"),
            ("max_residual", self.max_residual > 0, "more than 0 crop pixels"),
            ("jacobian", self.jacobian in JACOBIANS, f"one of {', '.join(JACOBIANS)}"),
            ("kernel", self.kernel in KERNELS, f"one of {', '.join(KERNELS)}"),
            ("kernel_scale", 0 < self.kernel_scale < float("inf"), "more than 0 standard deviations"),
            ("readings", 1 <= self.readings <= MOST_READINGS, f"between 1 and {MOST_READINGS}"),
            ("renderer", self.renderer in get_args(Backend), "one of " + ", ".join(get_args(Backend))),
            ("renderer", self.renderer != "numba" or self.device == "cpu", f"'torch' on device '{self.device}'"),
            ("infill", self.infill in INFILL, "one of " + ", ".join(INFILL)),
            ("refine", self.refine in REFINE, "one of " + ", ".join(REFINE)),
            ("refine_order", self.refine_order in REFINE_ORDERS, "one of " + ", ".join(REFINE_ORDERS)),
            ("refine_sweeps", self.refine_sweeps >= 1, "1 or more"),
            ("refine_prior", 0 <= self.refine_prior < float("inf"), "0 or more"),
            ("landmark_filter", self.landmark_filter in FILTERS, "one of " + ", ".join(FILTERS)),
            ("frame_rate", 0 < self.frame_rate < float("inf"), "more than 0 frames a second"),
            ("reestimate", self.reestimate >= 0, "0 or more"),
            ("flow_network", self.flow_network in NETWORKS, "one of " + ", ".join(NETWORKS)),
            ("supersample", 1 <= self.supersample <= 8, "between 1 and 8"),
        )
        for name, good, expected in checks:
            if not good:
                raise InputError(f"solver.{name}", str(getattr(self, name)), expected, "correct the setting")
        _check_device(self.device)


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError("solver.device", f"'{name}'", "'cpu', 'cuda' or 'cuda:N'", "correct the setting")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        have = f"{torch.cuda.device_count()} CUDA devices"
        raise InputError(
            "solver.device",
            f"'{name}', and {have} in PyTorch {torch.__version__}",
            "a device that there is",
            "use 'cpu', or install a CUDA build of PyTorch with its driver",
        )
