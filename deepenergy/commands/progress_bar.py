"""Progress of long commands, as bars on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deepenergy.runtime.progress import Progress


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Bars on stderr.

    Yields:
        the callback `(stage, done, total)`. Stages named "a: b" and "a: c" share the bar "a".
    """
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: int, total: int) -> None:
            name, _, detail = stage.partition(": ")
            if name not in tasks:
                # What came before is over, also where its last step was not reported.
                for before, task in tasks.items():
                    bars.update(task, completed=bars.tasks[task].total, description=before)
                tasks[name] = bars.add_task(name, total=total)
            ended = done >= total or not detail
            bars.update(tasks[name], completed=done, total=total, description=name if ended else stage)

        yield advance
