"""Landmarks on images: detectors, crops, heatmap networks, soft-argmax."""

from __future__ import annotations

from deepenergy.landmarks.network import HeatmapNetwork
from deepenergy.runtime.errors import InputError

NETWORKS = ("compact", "fan")


def network_from_name(name: str, weights: str | None = None, device: str = "cpu") -> HeatmapNetwork:
    """The network of a name: "compact" (inside the package) or "fan" (3D-FAN).

    Raises:
        InputError: an unknown name, or a weights file that is missing or wrong.
    """
    if name == "compact":
        from deepenergy.landmarks.compact import Compact

        return Compact(weights, device)
    if name == "fan":
        from deepenergy.landmarks.fan import Fan

        network = Fan(weights, device=device)
        # Its file is read when first asked for, which is now and not after the plates.
        _ = network.module
        return network
    raise InputError("solver.network", f"'{name}'", "one of " + ", ".join(NETWORKS), "correct the setting")
