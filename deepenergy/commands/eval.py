"""`deepenergy eval`: a track against known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepenergy.commands.rig_info import LandmarksOption


def evaluate_track(
    track: Annotated[Path, typer.Argument(help="The solved track (.npz).")],
    ground_truth: Annotated[Path, typer.Argument(help="The known answer (.npz): frame, R, t, ...; or a track.")],
    cameras: Annotated[Path, typer.Option(help="Camera file (JSON).")],
    camera: Annotated[str | None, typer.Option(help="Which camera of the file gives axes and pixels.")] = None,
    rig: Annotated[str | None, typer.Option(help='The rig of both, or "builtin"; without it, poses only.')] = None,
    landmarks: LandmarksOption = None,
) -> None:
    """Compare a track with the truth: rotation, translation, vertices, landmarks, jitter."""
    from deepenergy.evaluation.evaluate import evaluate, format_table
    from deepenergy.evaluation.ground_truth import GroundTruth
    from deepenergy.scene.camera import Camera
    from deepenergy.scene.rig import Rig
    from deepenergy.scene.track import Track

    loaded = None if rig is None else Rig.load(rig, landmarks=landmarks)
    view = Camera.load(cameras, name=camera)
    typer.echo(format_table(evaluate(Track.load(track), GroundTruth.load(ground_truth), loaded, view)))
