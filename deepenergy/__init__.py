"""deepenergy: offline facial performance solver by differentiable analysis-by-synthesis."""

from deepenergy import io as _io  # registers the readers and writers  # noqa: F401
from deepenergy.camera import Camera
from deepenergy.errors import InputError
from deepenergy.params import Parameters
from deepenergy.rig import Jaw, Rig

__all__ = ["Camera", "InputError", "Jaw", "Parameters", "Rig"]
__version__ = "0.1.0"
