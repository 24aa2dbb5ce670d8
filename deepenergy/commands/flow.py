"""`deepenergy flow`: the plates' optical flow, as files and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepenergy.commands.progress_bar import progress_bar


def flow(
    shot: Annotated[Path, typer.Argument(help="Shot file (TOML).")],
    output: Annotated[Path | None, typer.Option(help="Folder for the results, instead of the shot file's.")] = None,
    frames: Annotated[str | None, typer.Option(help="Frame range, instead of the shot file's.")] = None,
    longest: Annotated[float, typer.Option(min=0.1, help="Flow in pixels at which a colour is full.")] = 12.0,
) -> None:
    """Write the plates' optical flow to OUTPUT/flow: Middlebury .flo files, and pictures in Middlebury's colours."""
    from deepenergy.flow import flow_network_from_name
    from deepenergy.report import write_flow_fields
    from deepenergy.shot_file import Shot

    described = Shot.load(shot)
    config = described.solver_config()
    plates, _, _ = described.open(frames)
    network = flow_network_from_name(config.flow_network, config.flow_weights, config.device)
    folder = (described.output_folder if output is None else output) / "flow"
    with progress_bar() as progress:
        written = write_flow_fields(folder, plates, network, longest, progress)
    typer.echo(f"{len(written)} flows by {network.name} written to {folder}")
