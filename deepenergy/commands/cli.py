"""The command line's root: it names the commands, and turns every error that a user can cause into one line.

Wrong input is reported on stderr in one line, with exit code 2 and without a traceback; an interrupted run exits with
130. Each command has its own file here. None of them imports torch or numpy before it runs: help and usage errors are
immediate.
"""

from __future__ import annotations

import errno
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from deepenergy.commands.appearance import appearance
from deepenergy.commands.demo import demo
from deepenergy.commands.doctor import doctor
from deepenergy.commands.eval import evaluate_track
from deepenergy.commands.flow import flow
from deepenergy.commands.rig_info import rig_app
from deepenergy.commands.solve import WRONG_INPUT, solve
from deepenergy.commands.stages import print_stages
from deepenergy.runtime.errors import InputError

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
# In the order in which `--help` lists them.
app.command()(demo)
app.command()(solve)
app.command("stages")(print_stages)
app.command("eval")(evaluate_track)
app.command()(appearance)
app.command()(flow)
app.command()(doctor)
app.add_typer(rig_app, name="rig")


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


def main() -> None:
    """The console script `deepenergy`."""
    app(prog_name="deepenergy")


if __name__ == "__main__":
    main()
