"""`report.html`: one self-contained page with the shot's numbers, plots and contact sheets."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from urllib.parse import quote

import numpy as np
from PIL import Image

from deepenergy.report.plots import track_plots
from deepenergy.scene.rig import Rig
from deepenergy.scene.track import Track

_STYLE = """
:root { color-scheme: dark; --paper: #101215; --card: #181b20; --line: #2a2f37; --ink: #eef1f5; --dim: #9ea6b0;
  --solved: #40b464; --infilled: #e2a028; --failed: #d64040; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; font-weight: 600; margin: 0; }
h2 { font-size: 16px; font-weight: 600; margin: 40px 0 12px; }
p.sub { color: var(--dim); margin: 4px 0 24px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
.card b { display: block; font-size: 24px; font-weight: 600; font-variant-numeric: tabular-nums; }
.card span { color: var(--dim); font-size: 13px; }
.solved { color: var(--solved); } .infilled { color: var(--infilled); } .failed { color: var(--failed); }
.plot { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 8px; }
.plot svg, img, video { display: block; width: 100%; height: auto; }
img, video { border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 500; font-size: 13px; }
td.n, th.n { text-align: right; padding-right: 24px; white-space: nowrap; }
a { color: #7fc4ff; }
"""
_LEAST_TRUSTED = 8


def render_page(track: Track, rig: Rig, sheets: Mapping[str, Image.Image]) -> str:
    """The page, as HTML.

    Args:
        track, rig: the solved shot.
        sheets: camera name -> contact sheet; the camera's `overlay.<camera>.mp4` is linked as a neighbour.
    """
    name = escape(track.rig_name or rig.name)
    span = f"frames {track.frames[0]}-{track.frames[-1]}"
    sub = f"{span} · {len(track)} frames · {len(sheets)} camera{'s' if len(sheets) != 1 else ''}: " + ", ".join(
        escape(c) for c in sheets
    )
    parts = [
        f"<h1>{name}</h1><p class='sub'>{sub}</p>",
        _cards(track),
        "<h2>Over the shot</h2>",
        f"<div class='plot'>{track_plots(track)}</div>",
        _frames_to_look_at(track),
    ]
    for camera, sheet in sheets.items():
        video = quote(f"overlay.{camera}.mp4")
        parts.append(
            f"<h2>Camera {escape(camera)}</h2>"
            f"<img alt='contact sheet of camera {escape(camera)}' src='{_jpeg(sheet)}'>"
            f"<p><a href='{video}'>overlay.{escape(camera)}.mp4</a></p>"
        )
    parts.append(_ranges(track))
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang='en'>\n<head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{name}, {span}</title><style>{_STYLE}</style></head>\n<body><main>\n{body}\n</main></body>\n</html>\n"
    )


def frame_ranges(frames: np.ndarray) -> str:
    """Frame numbers in short: `1001-1004, 1009`."""
    if len(frames) == 0:
        return ""
    runs = np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1)
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _cards(track: Track) -> str:
    cards = [
        (f"{int((track.status == s).sum())}", s, s if (track.status == s).any() else "")
        for s in ("solved", "infilled", "failed")
    ]
    for label, values, pattern in (
        ("median confidence", track.confidence[track.usable], "{:.2f}"),
        ("median landmark residual", track.landmark_residual_px, "{:.2f} px"),
        ("jitter of translation, RMS", _jitter(track, track.translation * 1000), "{:.2f} mm"),
        ("jitter of rotation, RMS", _jitter(track, np.degrees(np.unwrap(_filled(track.euler), axis=0))), "{:.2f}°"),
    ):
        values = values[np.isfinite(values)]
        text = pattern.format(np.median(values)) if values.size else "not measured"
        cards.append((text, label, ""))
    items = "".join(f"<div class='card'><b class='{c}'>{escape(v)}</b><span>{t}</span></div>" for v, t, c in cards)
    return f"<div class='cards'>{items}</div>"


def _filled(series: np.ndarray) -> np.ndarray:
    # `unwrap` spreads a NaN over all that follows; failed frames are left out of the jitter anyway.
    return np.where(np.isfinite(series), series, 0.0)


def _jitter(track: Track, series: np.ndarray) -> np.ndarray:
    """`[1]` root mean square of second differences over consecutive usable frames; empty without any."""
    consecutive = (np.diff(track.frames)[1:] == 1) & (np.diff(track.frames)[:-1] == 1)
    usable = track.usable[2:] & track.usable[1:-1] & track.usable[:-2]
    second = np.diff(series, n=2, axis=0)[consecutive & usable]
    return np.sqrt((second**2).sum(1).mean(keepdims=True)) if len(second) else np.empty(0)


def _frames_to_look_at(track: Track) -> str:
    """Frames that were not solved, by reason, then the least trusted of the solved ones."""
    rows = []
    for status in ("failed", "infilled"):
        chosen = track.status == status
        for reason in dict.fromkeys(track.reason[chosen].tolist()):
            frames = track.frames[chosen & (track.reason == reason)]
            rows.append((frame_ranges(frames), status, reason))
    solved = np.flatnonzero(track.solved)
    for row in solved[np.argsort(track.confidence[solved], kind="stable")][:_LEAST_TRUSTED]:
        residual = track.landmark_residual_px[row]
        text = f"confidence {track.confidence[row]:.2f}"
        if np.isfinite(residual):
            text += f", residual {residual:.2f} px"
        rows.append((str(track.frames[row]), "solved", text))
    cells = "".join(f"<tr><td>{f}</td><td class='{s}'>{s}</td><td>{escape(t)}</td></tr>" for f, s, t in rows)
    return (
        "<h2>Frames to look at</h2><table><tr><th>frames</th><th>status</th><th>why</th></tr>" + cells + "</table>"
        "<p class='sub'>Frames that were not solved, then the solved ones with the least confidence.</p>"
    )


def _ranges(track: Track) -> str:
    """Lowest, median and highest value of every control."""
    if not track.usable.any():
        return ""
    angles = np.degrees(track.euler)
    columns = [
        *((f"rotation {a} (degrees)", angles[:, i]) for i, a in enumerate("XYZ")),
        *((f"translation {a} (mm)", track.translation[:, i] * 1000) for i, a in enumerate("XYZ")),
        *((name, track.weights[:, i]) for i, name in enumerate(track.weight_names)),
    ]
    cells = ""
    for name, values in columns:
        values = values[track.usable]
        if name in track.weight_names and not np.any(values):
            continue
        numbers = "".join(f"<td class='n'>{v:.3f}</td>" for v in (values.min(), np.median(values), values.max()))
        cells += f"<tr><td>{escape(name)}</td>{numbers}</tr>"
    head = "".join(f"<th class='n'>{t}</th>" for t in ("lowest", "median", "highest"))
    return (
        f"<h2>Ranges</h2><table><tr><th>control</th>{head}</tr>{cells}</table>"
        "<p class='sub'>Weights that stay at zero are left out.</p>"
    )


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
