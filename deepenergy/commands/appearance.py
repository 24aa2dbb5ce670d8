"""`deepenergy appearance`: the actor's albedo and the light from a solved shot, written as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepenergy.commands.progress_bar import progress_bar
from deepenergy.runtime.errors import InputError
from deepenergy.runtime.progress import Progress

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from deepenergy.appearance.shot import ShotAppearance


def appearance(
    shot: Annotated[Path, typer.Argument(help="Shot file (TOML), solved before.")],
    track: Annotated[Path | None, typer.Option(help="The track, instead of track.npz in the output folder.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the results, instead of the shot file's.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="How many frames to learn from.")] = 5,
    size: Annotated[int, typer.Option(min=0, help="Side of the texture; 0 for vertex albedo.")] = 1024,
) -> None:
    """Estimate the actor's albedo and the light from a solved shot; write rig, light and a comparison picture."""
    with progress_bar() as progress:
        lines = run_shot(shot, track, output, frames, size, progress)
    typer.echo("\n".join(lines))


def run_shot(
    path: Path, track: Path | None, output: Path | None, frames: int, texture_size: int, progress: Progress
) -> list[str]:
    """Read a shot and its track, write the results, say what was done.

    Args:
        path: the shot file.
        track: the track, or None for the one that `deepenergy solve` wrote.
        output: folder for the results, or None for the shot's own.
        frames, texture_size, progress: see `appearance_of_shot`.

    Returns:
        lines of text for the terminal.

    Raises:
        InputError: anything that is missing or does not belong together.
    """
    from deepenergy.appearance.shot import appearance_of_shot
    from deepenergy.scene.rig import Rig
    from deepenergy.scene.track import Track
    from deepenergy.scene.views import Views
    from deepenergy.shot_file import Shot

    shot = Shot.load(path)
    folder = shot.output_folder if output is None else output
    solved = shot.output_folder / "track.npz" if track is None else track
    if not solved.is_file():
        raise InputError(
            "appearance track", f"no file {solved}", "a solved track", "run `deepenergy solve` first, or give --track"
        )
    plates, rig, cameras = shot.open()
    if rig.identity_basis is not None:
        # The solve made the rig of anybody the actor's, and kept it beside the track.
        rig = Rig.load(solved.parent / "rig.npz")
    if texture_size and rig.uvs is None:
        texture_size = 0
    result = appearance_of_shot(Views.match(plates, cameras), rig, Track.load(solved), frames, texture_size, progress)
    folder.mkdir(parents=True, exist_ok=True)
    written = write_appearance(folder, result)
    kind = f"a {texture_size}x{texture_size} texture" if texture_size else "vertex albedo"
    quality = ", ".join(f"{name} {value:.1f} dB" for name, value in result.psnr.items())
    numbers = ", ".join(str(number) for number in result.frames)
    return [
        f"{kind} and nine light coefficients from frames {numbers}",
        f"frame {result.frames[0]} against its plate, on the face's visible skin: {quality}",
        *(f"written {path}" for path in written),
    ]


def write_appearance(folder: Path, result: ShotAppearance) -> list[Path]:
    """Write `appearance.rig.npz`, `appearance.light.npz` and `appearance.png` (plate, render, difference).

    Raises:
        InputError: a folder that cannot be written.
    """
    import torch
    from PIL import Image

    from deepenergy.runtime.atomic import atomic_path

    paths = [folder / f"appearance.{ending}" for ending in ("rig.npz", "light.npz", "png")]
    result.appearance.rig.save(paths[0])
    save_light(paths[1], result.appearance.light)
    pixels = (result.picture * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    with atomic_path(paths[2], "appearance picture") as temporary:
        Image.fromarray(pixels).save(temporary)
    return paths


def save_light(path: Path, light: Float[Tensor, "9 3"]) -> None:
    """Write SH coefficients (world axes, order (l, m) = 00, 1-1, 10, 11, 2-2 .. 22) as `.npz`, array `light`."""
    import numpy as np

    from deepenergy.runtime.atomic import atomic_path

    with atomic_path(path, "light output") as temporary, temporary.open("wb") as file:
        np.savez(file, light=light.detach().cpu().numpy())
