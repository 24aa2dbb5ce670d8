"""`deepenergy stages`: the default schedule as TOML."""

from __future__ import annotations

import typer


def print_stages() -> None:
    """Print the default schedule as TOML, to change and pass to `solve --stages`."""
    from deepenergy.settings.schedule import DEFAULT_STAGES
    from deepenergy.settings.schedule_toml import format_stages

    typer.echo(format_stages(DEFAULT_STAGES), nl=False)
