"""The command line: `deepenergy demo | solve | stages | eval | appearance | rig | doctor`.

Wrong input is told in one line on stderr with exit code 2 and no traceback; an interrupted run exits with 130.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from deepenergy.runtime.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from deepenergy.scene.rig import Rig

WRONG_INPUT = 2
INTERRUPTED = 130


class _Group(TyperGroup):
    """The root command; every error that a user can cause passes here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            _fail(str(error), WRONG_INPUT)
        except OSError as error:
            # A closed pipe (`deepenergy rig info ... | head`) is no error of input; typer ends quietly on it.
            if error.errno == errno.EPIPE:
                raise
            where = error.filename if error.filename is not None else "file"
            _fail(
                f"{where}: found '{error.strerror or error}'; expected a path that can be read or written; "
                "check that it exists, its permissions and the free space",
                WRONG_INPUT,
            )
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None


def _fail(message: str, code: int) -> None:
    typer.echo("error: " + " ".join(message.split()), err=True)
    raise typer.Exit(code) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Offline facial performance solver: fits a blendshape rig to captured plates.",
)
rig_app = typer.Typer(no_args_is_help=True, help="Look at rigs and convert them.")
app.add_typer(rig_app, name="rig")

LandmarksOption = Annotated[
    Path | None, typer.Option("--landmarks", help="JSON with the rig's 68 landmarks, where its file has none.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from deepenergy import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on stderr; yields the callback `(stage, done, total)`. Stages named "a: b" and "a: c" share the bar "a"."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int) -> None:
            name, _, detail = stage.partition(": ")
            if name not in tasks:
                # What came before is over, also where its last step was not told.
                for before, task in tasks.items():
                    bar.update(task, completed=bar.tasks[task].total, description=before)
                tasks[name] = bar.add_task(name, total=total)
            ended = done >= total or not detail
            bar.update(tasks[name], completed=done, total=total, description=name if ended else stage)

        yield advance


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for plates, track, overlay and report.")] = Path("out/demo"),
    frames: Annotated[int, typer.Option(help="Length of the performance.")] = 48,
) -> None:
    """Render the built-in head performing, solve it, and compare with the truth."""
    from deepenergy.commands.demo import run_demo
    from deepenergy.evaluation.evaluate import format_table

    with _progress_bar() as progress:
        evaluation = run_demo(output, frames, progress=progress)
    typer.echo(format_table(evaluation))
    typer.echo(f"written to {output}")


@app.command()
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
    with _progress_bar() as progress:
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
            recorder = StageRecorder(folder / "stages", plates, rig, cameras, go_on=go_on)
        if solved is not None and only_frames is not None:
            track = solver.refit_frames(solved, only_frames, plates, rig, cameras, progress, recorder)
        else:
            track = solver.fit_sequence(plates, rig, cameras, progress=progress, resume=kept, on_stage=recorder)
        write_report(folder, track, rig, plates, cameras, progress=progress)
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


@app.command("stages")
def print_stages() -> None:
    """Print the default schedule as TOML, to change and pass to `solve --stages`."""
    from deepenergy.settings.schedule import DEFAULT_STAGES
    from deepenergy.settings.schedule_toml import format_stages

    typer.echo(format_stages(DEFAULT_STAGES), nl=False)


@app.command("eval")
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


@app.command()
def appearance(
    shot: Annotated[Path, typer.Argument(help="Shot file (TOML), solved before.")],
    track: Annotated[Path | None, typer.Option(help="The track, instead of track.npz in the output folder.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the results, instead of the shot file's.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="How many frames to learn from.")] = 5,
    size: Annotated[int, typer.Option(min=0, help="Side of the texture; 0 for vertex albedo.")] = 1024,
) -> None:
    """Estimate the actor's albedo and the light from a solved shot; write rig, light and a comparison picture."""
    from deepenergy.commands.appearance import run_shot

    with _progress_bar() as progress:
        lines = run_shot(shot, track, output, frames, size, progress)
    typer.echo("\n".join(lines))


@app.command()
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
    with _progress_bar() as progress:
        written = write_flow_fields(folder, plates, network, longest, progress)
    typer.echo(f"{len(written)} flows by {network.name} written to {folder}")


@rig_app.command("info")
def rig_info(
    path: Annotated[str, typer.Argument(help='glTF/GLB, ICT-FaceKit folder, .npz, or "builtin".')],
    landmarks: LandmarksOption = None,
) -> None:
    """Say what a rig holds: sizes, control groups, jaw, landmarks, UVs, albedo, units."""
    from deepenergy.scene.rig import Rig

    Console().print(_rig_table(Rig.load(path, landmarks=landmarks)))


def _rig_table(rig: Rig) -> Table:
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
    table.add_row("landmarks", "68" if has_landmarks else "none; give them with --landmarks FILE.json to solve")
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


@app.command()
def doctor() -> None:
    """Say what is installed, which weights are where, and whether a solve can run."""
    from deepenergy.commands.doctor import as_table, examine, missing

    findings = examine()
    Console().print(as_table(findings))
    lacking = missing(findings)
    # Outside the table, so that a command is one line that can be copied.
    for finding in findings:
        if finding.remedy and finding not in lacking:
            typer.echo(f"{finding.what}: {finding.remedy}")
    for finding in lacking:
        typer.echo(f"error: {finding.what}: found {finding.detail}; {finding.remedy}", err=True)
    if lacking:
        raise typer.Exit(1)
    typer.echo("a solve can run")


def main() -> None:
    """The console script `deepenergy`."""
    app(prog_name="deepenergy")


if __name__ == "__main__":
    main()
