"""Scene-linear RGB of an OpenEXR file, over its display window.

Read by the OpenEXR package itself: other readers convert, or return wrong values without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from deepenergy.runtime.errors import InputError

# Which layer is the picture, where a file has several with R, G and B; "" is no layer at all.
_PICTURE_LAYERS = ("", "rgba", "rgb", "beauty", "combined")


def exr_size(path: Path) -> tuple[int, int]:
    """(width, height) of the display window, from the header."""
    import OpenEXR

    with OpenEXR.File(str(path), header_only=True) as file:
        low, high = file.parts[0].header["displayWindow"]
        return int(high[0] - low[0]) + 1, int(high[1] - low[1]) + 1


def read_exr(path: Path) -> Float32[ndarray, "height width 3"]:
    """Scene-linear R, G, B of the display window; black where the data window leaves it empty.

    R, G and B may carry a layer's name (`beauty.R`); of several layers one must be called rgba, rgb, beauty or
    combined. A file with only Y is grey.

    Raises:
        InputError: no such channels, or more than one layer that could be the picture.
        Exception: whatever the OpenEXR library raises on a damaged file.
    """
    import OpenEXR

    with OpenEXR.File(str(path), separate_channels=True) as file:
        for part in file.parts:
            names = _find_rgb(list(part.channels), path)
            if names is not None:
                return _display_window(part, [part.channels[name].pixels for name in names], path)
        found = sorted({name for part in file.parts for name in part.channels})
    raise InputError("EXR channels", f"{', '.join(found)} in {path}", "R, G, B", "export the picture's colour channels")


def _find_rgb(channels: list[str], path: Path) -> list[str] | None:
    """The names of the channels red, green and blue, or three times Y; None where there are none."""
    layers = [name[:-1].rstrip(".") for name in channels if name == "R" or name.endswith(".R")]
    layers = [layer for layer in layers if {_join(layer, "G"), _join(layer, "B")} <= set(channels)]
    if not layers:
        return ["Y"] * 3 if "Y" in channels and "RY" not in channels else None
    if len(layers) > 1:
        # "ViewLayer.Combined" is the layer Combined of a view.
        ranked = [
            [layer for layer in layers if layer.rpartition(".")[2].lower() == picture] for picture in _PICTURE_LAYERS
        ]
        layers_of_first = next((found for found in ranked if found), layers)
        if len(layers_of_first) > 1:
            raise InputError(
                "EXR layers",
                f"R, G, B in several layers ({', '.join(layers)}) of {path}",
                "one picture",
                "export the picture as plain R, G, B, or name its layer 'beauty'",
            )
        layers = layers_of_first
    return [_join(layers[0], channel) for channel in "RGB"]


def _join(layer: str, channel: str) -> str:
    return f"{layer}.{channel}" if layer else channel


def _display_window(part: Any, planes: list[ndarray], path: Path) -> ndarray:
    """The planes, which cover the data window, cut or padded with black to the display window."""
    if any(plane.dtype.kind != "f" for plane in planes):
        raise InputError("EXR channels", f"whole numbers in {path}", "half or float", "export colour as half or float")
    if len({plane.shape for plane in planes}) > 1:
        raise InputError(
            "EXR channels", f"subsampled channels in {path}", "R, G, B of one size", "export without subsampling"
        )
    (left, top), (right, bottom) = part.header["displayWindow"]
    (x, y), _ = part.header["dataWindow"]
    height, width = planes[0].shape
    image = np.zeros((bottom - top + 1, right - left + 1, 3), np.float32)
    x0, x1 = max(x, left), min(x + width, right + 1)
    y0, y1 = max(y, top), min(y + height, bottom + 1)
    if x0 < x1 and y0 < y1:
        data = np.stack([plane[y0 - y : y1 - y, x0 - x : x1 - x] for plane in planes], axis=2)
        image[y0 - top : y1 - top, x0 - left : x1 - left] = data
    return image
