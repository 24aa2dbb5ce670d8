"""Flow fields in Middlebury's `.flo` format.

Little-endian: the number 202021.25 as float32, width and height as int32, then rows of float32 pairs (x, y) in pixels.
Unknown flow is written as 1.6666667e9; anything beyond 1e9 is read as unknown.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.runtime.atomic import atomic_path
from deepenergy.runtime.errors import InputError

_TAG = np.float32(202021.25)
_UNKNOWN, _KNOWN_BELOW = np.float32(1666666752.0), 1e9
_HEADER = 12


def write_flo(path: str | Path, pixels: Float[Tensor, "2 h w"], validity: Float[Tensor, "1 h w"] | None = None) -> None:
    """Write one flow field, whole or not at all; flow that is not finite or has validity 0 is unknown.

    Raises:
        InputError: the file cannot be written.
        ValueError: another shape.
    """
    if pixels.ndim != 3 or pixels.shape[0] != 2:
        raise ValueError(f"write_flo: found shape {tuple(pixels.shape)}; expected [2, H, W]")
    known = torch.isfinite(pixels).all(0)
    known = known if validity is None else known & (validity[0] > 0)
    field = pixels.detach().cpu().permute(1, 2, 0).float().numpy().astype("<f4")
    field[~known.cpu().numpy()] = _UNKNOWN
    with atomic_path(path, "flow") as temporary, temporary.open("wb") as file:
        file.write(_TAG.astype("<f4").tobytes())
        file.write(np.array(field.shape[1::-1], "<i4").tobytes())
        file.write(field.tobytes())


def read_flo(path: str | Path) -> tuple[Float[Tensor, "2 h w"], Float[Tensor, "1 h w"]]:
    """Read one flow field: (pixels, validity); unknown flow is 0 with validity 0.

    Raises:
        InputError: no such file, another format, or a truncated one.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = f"{path} ({error.strerror})"
        raise InputError("flow", reason, "a .flo file that can be read", "correct the path") from error
    if len(data) < _HEADER or np.frombuffer(data, "<f4", 1)[0] != _TAG:
        raise InputError("flow", f"{path}, which does not begin with PIEH", "a Middlebury .flo file", "convert it")
    width, height = (int(n) for n in np.frombuffer(data, "<i4", 2, 4))
    if width < 1 or height < 1 or len(data) != _HEADER + 8 * width * height:
        raise InputError(
            "flow",
            f"{path} of {len(data)} bytes for {width} x {height} pixels",
            f"{_HEADER} + 8 x width x height bytes",
            "write the file again",
        )
    field = torch.from_numpy(np.frombuffer(data, "<f4", offset=_HEADER).astype(np.float32)).view(height, width, 2)
    pixels = field.permute(2, 0, 1).contiguous()
    known = (pixels.abs() <= _KNOWN_BELOW).all(0, keepdim=True)
    return torch.where(known, pixels, torch.zeros_like(pixels)), known.to(pixels.dtype)
