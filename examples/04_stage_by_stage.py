"""One frame, stage by stage: what the schedule of stages does to the rig, as figures 3 to 6 of the paper.

    python examples/04_stage_by_stage.py [FOLDER] [--frame 1012] [--camera left] [--stages FILE.toml] [--output PNG]

FOLDER holds `actor.glb` with `landmarks.json` (or `rig.npz`), `cameras.json` and the plates of the camera in
`plates/CAMERA/`. Without a folder the built-in head is filmed. `deepenergy stages` prints a schedule to change.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from deepenergy import Camera, Plates, Rig, Solver, SolverConfig
from deepenergy.builtin_head.performance import performance
from deepenergy.commands.demo_shot import demo_camera, write_plates
from deepenergy.fit.stage_result import StageResult
from deepenergy.io.cameras.camera_json import write_cameras
from deepenergy.report.overlay import to_image
from deepenergy.report.stage_figure import stage_figure
from deepenergy.settings.schedule import DEFAULT_STAGES
from deepenergy.settings.schedule_toml import read_stages

DEMO_FRAMES = 12


def film_the_built_in_head(folder: Path) -> None:
    """A shot of the demo's performance, as far as a wide-open mouth; its camera is called "demo"."""
    rig = Rig.load("builtin")
    camera = demo_camera(rig)
    write_plates(folder / "plates" / camera.name, rig, performance(48)[:DEMO_FRAMES], camera)
    rig.save(folder / "rig.npz")
    write_cameras(folder / "cameras.json", {camera.name: camera})


def main(folder: Path | None, frame: int, name: str, stages: Path | None, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    if folder is None:
        folder, name = output.parent / "shot", "demo"
        film_the_built_in_head(folder)
    own = folder / "rig.npz"
    rig = Rig.load(own) if own.is_file() else Rig.load(folder / "actor.glb", landmarks=folder / "landmarks.json")
    camera = Camera.load(folder / "cameras.json", name=name)
    plates = Plates.open(folder / "plates" / name, frames=str(frame), name=name)

    # `on_stage` is called with the state of all frames after every stage; for whole shots see `report.StageRecorder`
    results: list[StageResult] = []
    schedule = DEFAULT_STAGES if stages is None else read_stages(stages)
    track = Solver(SolverConfig(stages=schedule)).fit_sequence(plates, rig, camera, on_stage=results.append)

    for result in results:
        apart = float(result.residual_px[0, 0])
        print(f"{result.index + 1:2d}  {result.stage.name:24s} landmarks {apart:6.2f} px apart")
    print(f"{frame}: {track.status[0]} {track.reason[0]}")
    stage_figure(results, frame, to_image(plates.read(0).numpy()), rig, camera).save(output)
    print(f"written {output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="the shot; the built-in head is filmed when left out")
    parser.add_argument("--frame", type=int, default=1012, help="the frame's number")
    parser.add_argument("--camera", default="left", help="which camera of FOLDER")
    parser.add_argument("--stages", type=Path, help="a schedule (TOML) instead of the default")
    parser.add_argument("--output", type=Path, default=Path("out/stages/stage_by_stage.png"))
    given = parser.parse_args()
    if given.output.suffix.lower() != ".png":
        parser.error(f"--output: found {given.output}, expected a picture's name that ends in .png")
    main(given.folder, given.frame, given.camera, given.stages, given.output)
