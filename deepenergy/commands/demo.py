"""`deepenergy demo`: the built-in head performs, is filmed, solved, and compared with the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepenergy.commands.progress_bar import progress_bar
from deepenergy.runtime.errors import InputError
from deepenergy.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from deepenergy.evaluation.evaluate import Evaluation


def demo(
    output: Annotated[Path, typer.Option(help="Folder for plates, track, overlay and report.")] = Path("out/demo"),
    frames: Annotated[int, typer.Option(help="Length of the performance.")] = 48,
) -> None:
    """Render the built-in head performing, solve it, and compare with the truth."""
    from deepenergy.evaluation.evaluate import format_table

    with progress_bar() as progress:
        evaluation = run_demo(output, frames, progress=progress)
    typer.echo(format_table(evaluation))
    typer.echo(f"written to {output}")


def run_demo(output: Path, frames: int = 48, progress: Progress = silent) -> Evaluation:
    """Make the demo's shot in `output`, solve it, and evaluate the track.

    Writes plates, `rig.npz`, `cameras.json`, `shot.toml`, `ground_truth.npz`, `evaluation.txt`, and what
    `write_report` writes: track, overlay video, contact sheet, page of plots. The same every time on one machine.

    Args:
        output: the folder; made where it does not exist.
        frames: length of the performance, at least 3.
        progress: called with (stage, done, total).

    Returns:
        the track's errors against the truth.

    Raises:
        InputError: fewer than 3 frames.
    """
    from deepenergy.builtin_head.performance import performance
    from deepenergy.commands.demo_shot import demo_camera, known_track, write_plates, write_shot
    from deepenergy.evaluation.evaluate import evaluate, format_table
    from deepenergy.evaluation.ground_truth import GroundTruth
    from deepenergy.report import write_report
    from deepenergy.runtime.progress import silent
    from deepenergy.scene.rig import Rig
    from deepenergy.scene.views import Views
    from deepenergy.solver import Solver

    if frames < 3:
        raise InputError("frames", str(frames), "at least 3", "a demo needs a few frames to move in")
    output.mkdir(parents=True, exist_ok=True)
    rig = Rig.load("builtin")
    truth = performance(frames)
    camera = demo_camera(rig)
    write_plates(output / "plates", rig, truth, camera, progress)
    shot = write_shot(output, rig, camera)
    truth_track = known_track(rig, truth)
    truth_track.save(output / "ground_truth.npz")

    plates, rig, cameras = shot.open()
    track = Solver(shot.solver_config()).fit_sequence(plates, rig, cameras, progress=progress)
    evaluation = evaluate(track, GroundTruth.from_track(truth_track), rig, cameras)
    (output / "evaluation.txt").write_text(format_table(evaluation), encoding="utf-8")
    for ending in ("npz", "csv"):
        track.save(output / f"track.{ending}")
    write_report(output, track, rig, Views.match(plates, cameras), progress or silent)
    return evaluation
