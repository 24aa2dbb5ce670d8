"""Frames taken out of a solved shot and filled in again, by interpolation and by flow (figures 7 and 9 of the paper).

    python examples/05_infill.py [FOLDER] [--frames 1001-1012] [--out 1005-1008] [--camera left] [--output PNG]

FOLDER holds `actor.glb` with `landmarks.json` (or `rig.npz`), `cameras.json` and the plates of the camera in
`plates/CAMERA/`. Without a folder the built-in head is filmed. One column a frame: the plate, the flow from the frame
before in Middlebury colours (saturated at FULL pixels), the rig interpolated, the rig by flow.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from deepenergy import Camera, Plates, Rig, Solver, SolverConfig, Track
from deepenergy.builtin_head.performance import performance
from deepenergy.commands.demo_shot import demo_camera, write_plates
from deepenergy.fit.fit_context import FitContext
from deepenergy.flow import flow_network_from_name
from deepenergy.flow.colours import flow_colours
from deepenergy.io.cameras.camera_json import write_cameras
from deepenergy.report.overlay import Overlay, to_image
from deepenergy.scene.views import Views
from deepenergy.scene.window import crop_and_resize
from deepenergy.temporal.infill import InfillConfig, infill

SIDE, FULL = 220, 12.0


def film_the_built_in_head(folder: Path) -> None:
    """A dozen frames of the demo's performance."""
    rig = Rig.load("builtin")
    camera = demo_camera(rig)
    write_plates(folder / "plates" / camera.name, rig, performance(48)[:12], camera)
    rig.save(folder / "rig.npz")
    write_cameras(folder / "cameras.json", {camera.name: camera})


def without(track: Track, first: int, last: int) -> Track:
    """The track with frames `first` to `last` failed."""
    gone = (track.frames >= first) & (track.frames <= last)
    cut = {n: np.where(gone.reshape(-1, *[1] * (getattr(track, n).ndim - 1)), np.nan, getattr(track, n))
           for n in ("rotation", "translation", "jaw", "weights")}  # fmt: skip
    return replace(
        track,
        **cut,
        status=np.where(gone, "failed", track.status),
        reason=np.where(gone, "taken out", track.reason),
    )


def main(folder: Path | None, frames: str, out: str, name: str, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    if folder is None:
        folder, name = output.parent / "shot", "demo"
        film_the_built_in_head(folder)
    own = folder / "rig.npz"
    rig = Rig.load(own) if own.is_file() else Rig.load(folder / "actor.glb", landmarks=folder / "landmarks.json")
    camera = Camera.load(folder / "cameras.json", name=name)
    plates = Plates.open(folder / "plates" / name, frames=frames, name=name)
    first, last = (int(number) for number in out.split("-"))

    network = flow_network_from_name("dis")
    solved = Solver(SolverConfig(refine="none")).fit_sequence(plates, rig, camera)
    holes = without(solved, first, last)
    context = FitContext(Views.match(plates, camera), rig, flow=network)
    filled = {how: infill(holes, context, InfillConfig(method=how))
              for how in ("interpolation", "flow")}  # fmt: skip

    vertices = {how: track.vertices(rig) for how, track in {**filled, "solved": solved}.items()}
    rows = [row for row in range(len(solved)) if first - 1 <= int(solved.frames[row]) <= last + 1]
    marks = np.concatenate([camera.project(torch.from_numpy(solved.landmarks(rig)))[rows].numpy().reshape(-1, 2)])
    centre, half = (marks.min(0) + marks.max(0)) / 2, float((marks.max(0) - marks.min(0)).max()) * 0.65
    box = (*(centre - half), *(centre + half))
    window = torch.tensor([box], dtype=torch.float64)
    sheet = Image.new("RGB", (SIDE * len(rows), SIDE * 4))
    for column, row in enumerate(rows):
        plate = to_image(plates.read(row).numpy())
        pair = [crop_and_resize(plates.read(i)[None], window, SIDE) for i in (max(row - 1, 0), row)]
        colours = (flow_colours(network(*pair).pixels, longest=FULL)[0] * 255).round().byte()
        tiles = [
            plate.transform((SIDE, SIDE), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC),
            Image.fromarray(colours.permute(1, 2, 0).numpy()),
            *(Overlay(track, rig, camera).draw(row, plate, box, (SIDE, SIDE)) for track in filled.values()),
        ]
        for i, tile in enumerate(tiles):
            sheet.paste(tile, (SIDE * column, SIDE * i))
        apart = [1000 * np.linalg.norm(vertices[how][row] - vertices["solved"][row], axis=1).mean() for how in filled]
        told = ", ".join(f"{how} {mm:.2f} mm" for how, mm in zip(filled, apart, strict=True))
        print(f"{solved.frames[row]}: {told} from the frame's own solve")
    sheet.save(output)
    print(f"written {output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="the shot; the built-in head is filmed when left out")
    parser.add_argument("--frames", default="1001-1012", help="the frames to solve")
    parser.add_argument("--out", default="1005-1008", help="the frames to take out")
    parser.add_argument("--camera", default="left", help="which camera of FOLDER")
    parser.add_argument("--output", type=Path, default=Path("out/infill/infill.png"))
    given = parser.parse_args()
    main(given.folder, given.frames, given.out, given.camera, given.output)
