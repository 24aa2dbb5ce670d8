"""Optical flow between images: networks, consistency of both directions, colours."""

from __future__ import annotations

from deepenergy.flow.network import Flow, FlowNetwork
from deepenergy.runtime.errors import InputError

NETWORKS = ("compact", "raft", "raft_small", "dis")
__all__ = ["NETWORKS", "Flow", "FlowNetwork", "flow_network_from_name"]


def flow_network_from_name(name: str, weights: str | None = None, device: str = "cpu") -> FlowNetwork:
    """The network of a name.

    Args:
        name: "compact" (built in), "raft" or "raft_small" (published weights), or "dis" (OpenCV; no gradient).
        weights: a file of weights, instead of the network's own.
        device: where it runs; "dis" always runs on the CPU.

    Raises:
        InputError: an unknown name, weights for "dis", or a weights file that is missing or wrong.
    """
    if name == "compact":
        from deepenergy.flow.compact import CompactFlow

        return CompactFlow(weights, device)
    if name in ("raft", "raft_small"):
        from deepenergy.flow.raft import Raft

        return Raft(weights, "small" if name == "raft_small" else "large", device)
    if name == "dis":
        from deepenergy.flow.dis import Dis

        if weights is not None:
            raise InputError("flow weights", f"{weights} for 'dis'", "none: DIS has nothing learned", "leave it out")
        # Half the size is what is kept of the flow between plates (plate_flows.py).
        return Dis(finest_scale=1)
    raise InputError("flow network", f"'{name}'", "one of " + ", ".join(NETWORKS), "correct the setting")
