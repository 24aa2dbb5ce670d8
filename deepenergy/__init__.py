"""deepenergy: offline facial performance solver by differentiable analysis-by-synthesis.

The public names are imported when they are first used, so that `import deepenergy` (and the command line's help, which
begins with it) does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from deepenergy import io as _io  # noqa: F401 - its import registers the readers and writers

if TYPE_CHECKING:
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
# The one place of the version: pyproject.toml reads it from here.
__version__ = "0.2.0"

# Public name -> (module, its name there).
_HOMES = {
    "Camera": ("deepenergy.scene.camera", "Camera"),
    "InputError": ("deepenergy.runtime.errors", "InputError"),
    "Jaw": ("deepenergy.scene.rig", "Jaw"),
    "Parameters": ("deepenergy.scene.state", "State"),
    "PlateError": ("deepenergy.scene.plates", "PlateError"),
    "Plates": ("deepenergy.scene.plates", "Plates"),
    "Rig": ("deepenergy.scene.rig", "Rig"),
    "Solver": ("deepenergy.solver", "Solver"),
    "SolverConfig": ("deepenergy.settings.config", "SolverConfig"),
    "Stage": ("deepenergy.settings.schedule", "Stage"),
    "State": ("deepenergy.scene.state", "State"),
    "Track": ("deepenergy.scene.track", "Track"),
    "fit_sequence": ("deepenergy.solver", "fit_sequence"),
}


def __getattr__(name: str) -> object:
    """A public name, imported now (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own = _HOMES[name]
    value = getattr(import_module(module), own)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names too, whether they are imported yet or not."""
    return sorted({*globals(), *__all__})
