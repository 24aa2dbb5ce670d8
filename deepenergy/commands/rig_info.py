"""`deepenergy rig info` and `rig convert`: what a rig holds, and rigs as deepenergy's own files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepenergy.runtime.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from deepenergy.scene.rig import Rig

rig_app = typer.Typer(no_args_is_help=True, help="Look at rigs and convert them.")
LandmarksOption = Annotated[
    Path | None, typer.Option("--landmarks", help="JSON with the rig's landmarks, where its file has none.")
]


@rig_app.command("info")
def rig_info(
    path: Annotated[str, typer.Argument(help='glTF/GLB, ICT-FaceKit folder, .npz, or "builtin".')],
    landmarks: LandmarksOption = None,
) -> None:
    """Say what a rig holds: sizes, control groups, jaw, landmarks, UVs, albedo, units."""
    from rich.console import Console

    from deepenergy.scene.rig import Rig

    Console().print(rig_table(Rig.load(path, landmarks=landmarks)))


@rig_app.command("convert")
def rig_convert(
    source: Annotated[str, typer.Argument(help='glTF/GLB, ICT-FaceKit folder, .npz, or "builtin".')],
    target: Annotated[Path, typer.Argument(help="The .npz to write.")],
    landmarks: LandmarksOption = None,
) -> None:
    """Convert a rig to deepenergy's own .npz, landmarks included."""
    from deepenergy.scene.rig import Rig

    Rig.load(source, landmarks=landmarks).save(target)
    typer.echo(f"written {target}")


def rig_table(rig: Rig) -> Table:
    """What a rig holds, as a table for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    from deepenergy.scene.rig_check import check_face

    table = Table(title=f"rig {rig.name}", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("vertices", str(rig.neutral.shape[0]))
    table.add_row("triangles", str(rig.faces.shape[0]))
    table.add_row("blendshapes", str(len(rig.weight_names)))
    for group, indices in rig.groups.items():
        if indices:
            names = ", ".join(rig.weight_names[i] for i in indices)
            table.add_row(f"  {group}", escape(f"{len(indices)}: {names}"))
    jaw = "none; a jaw-open blendshape is used where there is one"
    if rig.jaw is not None:
        moved = int((rig.jaw.skin_weights > 0).sum())
        jaw = f"joint at ({', '.join(f'{c:.3f}' for c in rig.jaw.pivot.tolist())}) m, moves {moved} vertices"
    table.add_row("jaw", jaw)
    has_landmarks = rig.landmark_faces is not None
    table.add_row(
        "landmarks", str(rig.layout.count) if has_landmarks else "none; give them with --landmarks FILE.json to solve"
    )
    if has_landmarks:
        try:
            check_face(rig)
            table.add_row("face", "upright, looks down +Z, in metres")
        except InputError as error:
            table.add_row("face", escape(f"cannot be solved: {error.field}: found {error.found}; {error.remedy}"))
    table.add_row("UVs", "none" if rig.uvs is None else str(rig.uvs.shape[0]))
    albedo = "none; a grey-pink skin is used"
    if rig.texture is not None:
        albedo = f"texture {rig.texture.shape[1]}x{rig.texture.shape[0]}"
    elif rig.vertex_albedo is not None:
        albedo = "per vertex"
    table.add_row("albedo", albedo)
    identities = 0 if rig.identity_basis is None else rig.identity_basis.shape[0]
    table.add_row("identity basis", f"{identities} shapes" if identities else "none")
    extent = (rig.neutral.amax(0) - rig.neutral.amin(0)).tolist()
    table.add_row("bounding box", " x ".join(f"{e:.3f}" for e in extent) + " m" + units_hint(max(extent)))
    return table


def units_hint(largest: float) -> str:
    """What the rig's largest extent, taken as metres, says about its units; "" where it can be a head."""
    if largest < 0.05:
        return "; too small for a head: check the units"
    if largest > 200:
        return "; looks like millimetres: scale by 0.001"
    if largest > 5:
        return "; looks like centimetres: scale by 0.01"
    return ""
