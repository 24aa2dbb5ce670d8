"""The figure of the `smoothing` benchmark: how much each way of refinement trembles, and how far from the answer it is.

As figures 14 to 17 of the paper, with the answer drawn in: what a method takes away below the truth's own line is
performance, not noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

_WHAT = ("rotation (degrees)", "translation (mm)", "vertices (mm)")
_COLOURS = ("#c0c4ca", "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")


def draw_smoothing(
    path: Path,
    frames: np.ndarray,
    accelerations: Mapping[str, tuple[Tensor, ...]],
    errors: Mapping[str, tuple[Tensor, ...]],
) -> None:
    """Write a PNG: rows for rotation, translation, vertices; second differences on the left, errors on the right.

    Args:
        path: where to.
        frames: `[T]` frame numbers.
        accelerations: by name, for each of the three, `[T - 2]` sizes of the second differences; "truth" among them.
        errors: by name, for each of the three, `[T]`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), dpi=75, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(_WHAT), 2, sharex=True)
    names = [name for name in accelerations if name != "truth"]
    colours = {"truth": "black"} | dict(zip(names, _COLOURS, strict=False))
    for row, what in enumerate(_WHAT):
        for ax, series, at in ((axes[row, 0], accelerations, frames[1:-1]), (axes[row, 1], errors, frames)):
            for name, values in series.items():
                # The frames by themselves go behind, wide and pale; the truth is what the others should lie on.
                width = 3.0 if name == names[0] else 1.1
                label = f"{name}, median {np.median(values[row].numpy()):.2f}"
                ax.plot(at, values[row].numpy(), color=colours[name], linewidth=width, label=label)
            ax.grid(color="#e4e6ea", linewidth=0.6)
            ax.spines[["top", "right"]].set_visible(False)
            ax.legend(fontsize=8, frameon=False, ncols=2)
            ax.set_ylim(bottom=0)
        axes[row, 0].set_ylabel(what)
    axes[0, 0].set_title("second difference from frame to frame")
    axes[0, 1].set_title("distance from the truth")
    for ax in axes[-1]:
        ax.set_xlabel("frame")
    figure.savefig(path)
