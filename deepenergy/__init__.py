"""deepenergy: offline facial performance solver by differentiable analysis-by-synthesis."""

from deepenergy import io as _io  # noqa: F401 - its import registers the readers and writers
from deepenergy.runtime.errors import InputError
from deepenergy.scene.camera import Camera
from deepenergy.scene.plates import PlateError, Plates
from deepenergy.scene.rig import Jaw, Rig
from deepenergy.scene.state import State
from deepenergy.scene.track import Track
from deepenergy.settings.config import SolverConfig
from deepenergy.settings.schedule import Stage
from deepenergy.solver import Solver, fit_sequence

# The name that `State` had in 0.1.
Parameters = State

__all__ = [
    "Camera",
    "InputError",
    "Jaw",
    "Parameters",
    "PlateError",
    "Plates",
    "Rig",
    "Solver",
    "SolverConfig",
    "Stage",
    "State",
    "Track",
    "fit_sequence",
]
__version__ = "0.1.0"
