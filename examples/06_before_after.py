"""A shot before and after infill and temporal refinement: overlays beside each other, and how much each jitters.

    python examples/06_before_after.py [SHOT.toml] [--frames 1001-1048] [--output out/before_after]

Writes `before_after.mp4` (left: every frame as it was solved by itself; right: infilled and refined), some frames of it
as `before_after.png`, and the two tracks. Without a shot file the built-in head is filmed. A rig with an identity basis
is fitted to the actor first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from deepenergy import Camera, Plates, Rig, Solver, Track
from deepenergy.builtin_head.performance import performance
from deepenergy.commands.demo_shot import demo_camera, write_plates, write_shot
from deepenergy.fit.fit_context import FitContext
from deepenergy.flow import flow_network_from_name
from deepenergy.pipeline.shot import complete
from deepenergy.report.overlay import Overlay, to_image, write_overlay_video
from deepenergy.scene.rotation import so3_log
from deepenergy.scene.views import Views
from deepenergy.shot_file import Shot

SIDE, SHOWN, DEMO_FRAMES, FPS = 480, 6, 10, 24.0


def film_the_built_in_head(folder: Path) -> Path:
    """A few frames of the demo's performance; the shot file."""
    rig = Rig.load("builtin")
    camera = demo_camera(rig)
    write_plates(folder / "plates", rig, performance(48)[:DEMO_FRAMES], camera)
    write_shot(folder, rig, camera)
    return folder / "shot.toml"


def jitter(track: Track, rig: Rig, camera: Camera) -> dict[str, float]:
    """Root mean square second differences over frames whose neighbours have a state, too."""
    there = track.usable[:-2] & track.usable[1:-1] & track.usable[2:]
    there &= (np.diff(track.frames, n=2) == 0) & (np.diff(track.frames)[1:] == np.diff(track.frames).min())
    turn = torch.from_numpy(track.rotation[1:] @ track.rotation[:-1].transpose(0, 2, 1))
    degrees = np.degrees(np.diff(so3_log(torch.nan_to_num(turn)).numpy(), axis=0))
    marks = camera.project(torch.from_numpy(track.landmarks(rig))).numpy()
    series = {
        "rotation (degrees)": degrees,
        "translation (mm)": 1000 * np.diff(track.translation, n=2, axis=0),
        "the rig's landmarks (pixels)": np.diff(marks, n=2, axis=0),
    }
    return {name: float(np.sqrt((values[there] ** 2).sum(-1).mean())) for name, values in series.items()}


def face_box(tracks: list[Track], row: int, rig: Rig, camera: Camera) -> tuple[float, float, float, float] | None:
    """The square around the face in a frame, plate pixels."""
    some = [track for track in tracks if track.usable[row]]
    if not some:
        return None
    marks = np.concatenate([camera.project(torch.from_numpy(track.landmarks(rig)[row])).numpy() for track in some])
    centre = (marks.min(0) + marks.max(0)) / 2
    half = float((marks.max(0) - marks.min(0)).max()) * 0.7
    x, y = centre.tolist()
    return (x - half, y - half, x + half, y + half)


def pictures(tracks: list[Track], rig: Rig, camera: Camera, plates: Plates) -> Iterator[np.ndarray]:
    """Before and after beside each other, one image a frame, without the networks' landmarks."""
    bare = [replace(track, landmarks_px={}, render_landmarks_px={}) for track in tracks]
    overlays = [Overlay(track, rig, camera) for track in bare]
    for row in range(len(tracks[0])):
        plate = to_image(plates.read(row).numpy())
        box = face_box(tracks, row, rig, camera)
        yield np.concatenate([np.asarray(o.draw(row, plate, box, (SIDE, SIDE))) for o in overlays], axis=1)


def main(shot: Path | None, frames: str | None, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if shot is None:
        shot = film_the_built_in_head(output / "shot")
    described = Shot.load(shot)
    config = described.solver_config()
    plates, rig, cameras = described.open(frames)

    # every frame by itself
    solver = Solver(replace(config, infill="none", refine="none"))
    if rig.identity_basis is not None:
        rig = solver.fit_identity(plates, rig, cameras)
    before = solver.fit_sequence(plates, rig, cameras)

    # what the settings say on top of it: the same as one call of a solver with them
    network = flow_network_from_name(config.flow_network, config.flow_weights, config.device)
    after = complete(before, FitContext(Views.match(plates, cameras), rig, config, flow=network))

    tracks = {"before": before, "after": after}
    for name, track in tracks.items():
        track.save(output / f"{name}.track.npz")
        counts = {status: int((track.status == status).sum()) for status in ("solved", "infilled", "failed")}
        print(f"{name}: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    values = [jitter(track, rig, cameras[0]) for track in tracks.values()]
    for name, value in values[0].items():
        print(f"jitter of {name}: {value:.3f} before, {values[1][name]:.3f} after")
    every = list(pictures(list(tracks.values()), rig, cameras[0], plates[0]))
    write_overlay_video(output / "before_after.mp4", every, FPS)
    rows = np.linspace(0, len(every) - 1, min(SHOWN, len(every))).round().astype(int)
    Image.fromarray(np.concatenate([every[row] for row in rows])).save(output / "before_after.png")
    print(f"written to {output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shot", type=Path, nargs="?", help="shot file; the built-in head is filmed when left out")
    parser.add_argument("--frames", help='a frame range, such as "1001-1012"')
    parser.add_argument("--output", type=Path, default=Path("out/before_after"))
    given = parser.parse_args()
    main(given.shot, given.frames, given.output)
