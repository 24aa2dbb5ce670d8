"""The track's curves as one figure over a common frame axis."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from deepenergy.scene.track import Track

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AXES = ("#ff6b6b", "#5fd38d", "#6ab0ff")
_CURVES = ("#7fc4ff", "#ffd65c", "#5fd38d", "#ff8fa3", "#c5a3ff", "#ffb067", "#6fe3e1", "#b8c0cc")
_STATUS = {"solved": "#40b464", "infilled": "#e2a028", "failed": "#d64040"}
_INK, _DIM, _LINE = "#eef1f5", "#9ea6b0", "#2a2f37"
# Curves in the weights' plot: more could not be told apart.
_MOST_WEIGHTS = len(_CURVES)


def track_plots(track: Track) -> str:
    """Rotation, translation, jaw, the liveliest weights, residual, confidence and status, as an SVG element."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    jaw = bool(np.nan_to_num(track.jaw).any())
    panels = ["rotation", "translation", *(["jaw"] if jaw else []), *(["weights"] if track.weight_names else [])]
    panels.append("residual")
    style: dict[Any, Any] = {
        "svg.hashsalt": "deepenergy", "text.color": _INK, "axes.labelcolor": _DIM, "xtick.color": _DIM,
        "ytick.color": _DIM, "axes.edgecolor": _LINE, "font.size": 9.0, "axes.titlesize": 10.0,
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(11.5, 1.75 * len(panels) + 0.9), layout="constrained")
        figure.patch.set_alpha(0)
        FigureCanvasSVG(figure)
        heights = [1.5 if p == "weights" else 1.0 for p in panels] + [0.22]
        axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for panel, ax in zip(panels, axes, strict=False):
            _PANELS[panel](ax, track)
            _dress(ax)
        _status_strip(axes[-1], track)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _runs(track: Track, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames and values with NaN where frame numbers jump, so that no line is drawn over a gap."""
    gaps = np.flatnonzero(np.diff(track.frames) > 1) + 1
    frames = np.insert(track.frames.astype(np.float64), gaps, np.nan)
    return frames, np.insert(values, gaps, np.nan)


def _curve(ax: Axes, track: Track, values: np.ndarray, label: str, colour: str, width: float = 1.3) -> None:
    # A marker on every frame while there are few of them: a single frame has no line.
    marker = "." if len(track) < 40 else None
    ax.plot(*_runs(track, values), color=colour, lw=width, label=label, marker=marker, ms=4)


def _rotation(ax: Axes, track: Track) -> None:
    euler = np.degrees(track.euler)
    for i, name in enumerate("XYZ"):
        _curve(ax, track, euler[:, i], name, _AXES[i])
    ax.set_title("rotation (degrees, Euler XYZ)", loc="left")


def _translation(ax: Axes, track: Track) -> None:
    middle = np.nanmedian(track.translation[track.usable], axis=0) if track.usable.any() else np.zeros(3)
    for i, name in enumerate("XYZ"):
        _curve(ax, track, (track.translation[:, i] - middle[i]) * 1000, name, _AXES[i])
    where = ", ".join(f"{v * 1000:.1f}" for v in middle)
    ax.set_title(f"translation (mm, from the median {where})", loc="left")


def _jaw(ax: Axes, track: Track) -> None:
    for i, (name, colour) in enumerate(zip(("open", "turn", "roll"), _AXES, strict=True)):
        _curve(ax, track, np.degrees(track.jaw[:, i]), name, colour)
    ax.set_title("jaw joint (degrees)", loc="left")


def _weights(ax: Axes, track: Track) -> None:
    known = track.weights[track.usable]
    lively = np.argsort(-np.ptp(known, axis=0), kind="stable") if len(known) else np.arange(len(track.weight_names))
    for colour, i in zip(_CURVES, lively[:_MOST_WEIGHTS], strict=False):
        _curve(ax, track, track.weights[:, i], track.weight_names[i], colour)
    shown = min(_MOST_WEIGHTS, len(track.weight_names))
    ax.set_title(f"weights (the {shown} that move most of {len(track.weight_names)})", loc="left")
    ax.set_ylim(bottom=min(-0.05, ax.get_ylim()[0]))


def _residual(ax: Axes, track: Track) -> None:
    _curve(ax, track, track.landmark_residual_px, "residual (px)", _CURVES[0])
    ax.set_ylim(bottom=0)
    ax.set_title("landmark residual (px, left) and confidence (right)", loc="left")
    right = ax.twinx()
    right.plot(*_runs(track, track.confidence), color=_CURVES[1], lw=1.3)
    right.set_ylim(0, 1.05)
    right.tick_params(length=0)
    for side in right.spines.values():
        side.set_visible(False)
    ax.plot([], [], color=_CURVES[1], lw=1.3, label="confidence")


_PANELS = {
    "rotation": _rotation, "translation": _translation, "jaw": _jaw, "weights": _weights, "residual": _residual,
}  # fmt: skip


def _dress(ax: Axes) -> None:
    ax.set_facecolor("none")
    ax.grid(color=_LINE, lw=0.6)
    ax.tick_params(length=0)
    for name in ("top", "right"):
        ax.spines[name].set_visible(False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.035, 1.04), frameon=False, fontsize=8, handlelength=1.4)


def _status_strip(ax: Axes, track: Track) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_facecolor("none")
    for status, colour in _STATUS.items():
        frames = track.frames[track.status == status]
        if len(frames):
            ax.bar(frames, 1, width=1.0, color=colour, label=status)
    ax.set_yticks([])
    ax.set_ylim(0, 1)
    ax.set_xlim(track.frames[0] - 0.5, track.frames[-1] + 0.5)
    ax.set_xlabel("frame")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.035, 0.5), frameon=False, fontsize=8, handlelength=1.0)
