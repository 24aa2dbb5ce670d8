"""The first solve: film the built-in head for a dozen frames, solve them, and ask the track what it knows.

    python examples/01_first_solve.py [FOLDER]

With plates of your own, the five lines below `# the solve` are all there is to it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from deepenergy import Camera, Plates, Rig, Solver
from deepenergy.builtin_head.performance import performance
from deepenergy.commands.demo_shot import demo_camera, write_plates, write_shot


def main(folder: Path) -> None:
    rig = Rig.load("builtin")
    camera = demo_camera(rig)
    write_plates(folder / "plates", rig, performance(48)[:12], camera)
    write_shot(folder, rig, camera)

    # the solve
    rig = Rig.load(folder / "rig.npz")
    camera = Camera.load(folder / "cameras.json", name="demo")
    plates = Plates.open(str(folder / "plates" / "demo.####.jpg"), frames="1001-1012")
    track = Solver().fit_sequence(plates, rig, camera)
    track.save(folder / "first.track.npz")

    for i, frame in enumerate(track.frames):
        x, y, z = track.euler[i]
        opened = dict(zip(track.weight_names, track.weights[i], strict=True)).get("mouthSmileLeft", 0.0)
        print(
            f"{frame}: {track.status[i]:8s} rotation ({x:+.3f}, {y:+.3f}, {z:+.3f}) rad, "
            f"mouthSmileLeft {opened:.2f}, residual {track.landmark_residual_px[i]:.2f} px {track.reason[i]}"
        )
    print("world vertices:", track.vertices(rig).shape)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/first_solve"))
