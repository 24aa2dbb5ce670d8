"""A solve with several calibrated cameras, and how far it is from the truth where the shot has one.

    python examples/03_stereo_solve.py [FOLDER] [--frames 1001-1012] [--cameras left,right] [--output out/stereo_solve]

FOLDER holds `actor.glb` with `landmarks.json` (or `rig.npz`), `cameras.json`, the plates of each camera in
`plates/CAMERA/` and, where the answer is known, `ground_truth.npz`. Without a folder the built-in head is filmed by two
cameras. Views are matched by frame number; a frame that one camera lacks is solved from the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from deepenergy import Camera, Plates, Rig, Solver
from deepenergy.builtin_head.performance import performance
from deepenergy.commands.demo_shot import HEIGHT, WIDTH, known_track, write_plates
from deepenergy.evaluation.evaluate import evaluate, format_table
from deepenergy.evaluation.ground_truth import GroundTruth
from deepenergy.io.cameras.camera_json import read_cameras, write_cameras

FOCAL = 1050.0
DEMO_FRAMES = 8


def film_the_built_in_head(folder: Path) -> None:
    """A shot in `folder`, laid out as a user's own would be: two cameras 25 degrees apart."""
    rig = Rig.load("builtin")
    truth = performance(48)[:DEMO_FRAMES]
    face = rig.landmarks(rig.neutral[None])[0].mean(0).tolist()
    target = (face[0], face[1], face[2])
    cameras = {}
    for name, aside in (("left", -0.2), ("right", 0.2)):
        eye = (face[0] + aside, face[1] + 0.05, face[2] + 0.9)
        cameras[name] = Camera.look_at(WIDTH, HEIGHT, FOCAL, eye, target, name=name)
        write_plates(folder / "plates" / name, rig, truth, cameras[name])
    folder.mkdir(parents=True, exist_ok=True)
    rig.save(folder / "rig.npz")
    write_cameras(folder / "cameras.json", cameras)
    known_track(rig, truth).save(folder / "ground_truth.npz")


def load(folder: Path, frames: str | None, names: list[str] | None) -> tuple[list[Plates], Rig, list[Camera]]:
    """Plates, rig and cameras of a shot; every camera of its file when no names are given."""
    own = folder / "rig.npz"
    rig = Rig.load(own) if own.is_file() else Rig.load(folder / "actor.glb", landmarks=folder / "landmarks.json")
    names = names or list(read_cameras(folder / "cameras.json"))
    cameras = [Camera.load(folder / "cameras.json", name=name) for name in names]
    plates = [Plates.open(folder / "plates" / name, frames=frames, name=name) for name in names]
    return plates, rig, cameras


def main(folder: Path | None, frames: str | None, names: list[str] | None, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if folder is None:
        folder = output / "shot"
        film_the_built_in_head(folder)
    plates, rig, cameras = load(folder, frames, names)

    # the solve: as with one camera, with lists
    track = Solver().fit_sequence(plates, rig, cameras)
    track.save(output / "stereo.track.npz")

    print(f"{len(track)} frames from {', '.join(camera.name for camera in cameras)}")
    for i, frame in enumerate(track.frames):
        x, y, z = track.translation[i] * 1000
        print(f"{frame}: {track.status[i]:8s} at ({x:+.1f}, {y:+.1f}, {z:+.1f}) mm {track.reason[i]}")
    truth = folder / "ground_truth.npz"
    if truth.is_file():
        print(format_table(evaluate(track, GroundTruth.load(truth), rig, cameras)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="the shot; the built-in head is filmed when left out")
    parser.add_argument("--frames", help='a frame range, such as "1001-1012"')
    parser.add_argument("--cameras", help="names of cameras, separated by commas; all of the file when left out")
    parser.add_argument("--output", type=Path, default=Path("out/stereo_solve"))
    given = parser.parse_args()
    main(given.folder, given.frames, given.cameras.split(",") if given.cameras else None, given.output)
