"""`deepenergy solve`: a shot file in; track, overlay video, contact sheet and report out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from deepenergy.commands.progress_bar import progress_bar

WRONG_INPUT = 2


# more than six: these are the options of the command line
def solve(
    shot: Annotated[Path, typer.Argument(help="Shot file (TOML).")],
    output: Annotated[Path | None, typer.Option(help="Folder for the results, instead of the shot file's.")] = None,
    frames: Annotated[str | None, typer.Option(help='Frame range ("1001-1010"), instead of the shot file\'s.')] = None,
    only_frames: Annotated[
        str | None, typer.Option(help='Solve this range of OUTPUT/track.npz again ("1010-1020"); the rest stays.')
    ] = None,
    renderer: Annotated[str | None, typer.Option(help="auto, numba, torch or pytorch3d.")] = None,
    stages: Annotated[Path | None, typer.Option(help="Schedule (TOML), see `deepenergy stages`.")] = None,
    save_stages: Annotated[
        bool, typer.Option("--save-stages", help="Write what every stage did to OUTPUT/stages.")
    ] = False,
) -> None:
    """Solve a shot: plates, rig and cameras in; track, overlay video and contact sheet out."""
    from deepenergy.report import StageRecorder, write_report
    from deepenergy.report.terminal import summary, unread_frames
    from deepenergy.scene.rig import Rig
    from deepenergy.scene.track import Track
    from deepenergy.scene.views import Views
    from deepenergy.settings.schedule_toml import read_stages
    from deepenergy.shot_file import Shot
    from deepenergy.solver import Solver

    described = Shot.load(shot)
    config = described.solver_config()
    if renderer is not None:
        config = replace(config, renderer=renderer)
    if stages is not None:
        config = replace(config, stages=read_stages(stages, described.rig_groups))
    plates, rig, cameras = described.open(frames)
    folder = described.output_folder if output is None else output
    folder.mkdir(parents=True, exist_ok=True)
    solved = None if only_frames is None else Track.load(folder / "track.npz")
    if solved is not None and rig.identity_basis is not None:
        rig = Rig.load(folder / "rig.npz")
    with progress_bar() as progress:
        solver = Solver(config)
        if rig.identity_basis is not None:
            # The rig of anybody becomes the actor's first, and is kept: the track belongs to it.
            rig = solver.fit_identity(plates, rig, cameras, progress=progress)
            rig.save(folder / "rig.npz")
        recorder, kept = None, folder / "resume"
        if save_stages:
            # Parts that were solved without a recorder have no stages to go on from.
            kept = folder / "resume_stages"
            go_on = kept.is_dir() or solved is not None
            recorder = StageRecorder(folder / "stages", Views.match(plates, cameras), rig, go_on=go_on)
        if solved is not None and only_frames is not None:
            track = solver.refit_frames(solved, only_frames, plates, rig, cameras, progress, recorder)
        else:
            track = solver.fit_sequence(plates, rig, cameras, progress=progress, resume=kept, on_stage=recorder)
        for ending in ("npz", "csv"):
            track.save(folder / f"track.{ending}")
        write_report(folder, track, rig, Views.match(plates, cameras), progress)
    typer.echo(summary(track))
    typer.echo(f"written to {folder}")
    if not track.usable.any():
        typer.echo(f"error: no frame of {len(track)} could be solved; the reasons are above", err=True)
        raise typer.Exit(1)
    unread = unread_frames(track)
    if unread:
        from fileseq import framesToFrameRange

        typer.echo(
            f"error: plates: found frames {framesToFrameRange(unread)} missing or unreadable; expected every frame of "
            "the range; the others were solved and written, so export these again and solve them with --frames",
            err=True,
        )
        raise typer.Exit(WRONG_INPUT)
