"""One measured number, its JSON form, and how a list of them is printed."""

from __future__ import annotations

import json
import math
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from deepenergy.runtime.atomic import atomic_path
from deepenergy.runtime.errors import InputError


@dataclass(frozen=True)
class Metric:
    """A measured number.

    Attributes:
        name: `benchmark.variant.what`, with the unit as its ending where it has one.
        value: the number; NaN where it could not be measured.
        unit: "deg", "mm", "px", "s", "ms", "MB", "x" (a ratio of times), "share" or "".
        better: which way is better.
        context: what else there is to know (data, frames, machine), JSON values.
    """

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"]
    context: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The metric's JSON object; NaN becomes null, which JSON has and NaN it has not."""
        value = self.value if math.isfinite(self.value) else None
        return {
            "name": self.name,
            "value": value,
            "unit": self.unit,
            "better": self.better,
            "context": dict(self.context),
        }


@dataclass
class Outcome:
    """What a benchmark measured, and what it left out.

    Attributes:
        metrics: the numbers.
        skipped: prefix of metric names -> why none of them was measured (data absent, not asked for).
        refused: prefix of metric names -> what deepenergy said when it would not do it. No excuse before a baseline.
        compared: prefixes of metric names that are printed beside each other, a row for each.
    """

    metrics: list[Metric] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    compared: list[str] = field(default_factory=list)

    def extend(self, other: Outcome) -> None:
        """Add what another benchmark measured."""
        self.metrics += other.metrics
        self.skipped |= other.skipped
        self.refused |= other.refused
        self.compared += other.compared


def write_json(path: str | Path, metrics: Sequence[Metric]) -> None:
    """Write the list of metrics, whole or not at all."""
    text = json.dumps([metric.to_json() for metric in metrics], indent=1, allow_nan=False)
    with atomic_path(path, "--json") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> list[Metric]:
    """Read a list written by `write_json`.

    Raises:
        InputError: not such a list.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        return [
            Metric(
                e["name"],
                math.nan if e["value"] is None else float(e["value"]),
                e["unit"],
                e["better"],
                e["context"],
            )
            for e in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("metrics", f"{path} ({error!r})", "a list of metrics", "write it with --json") from error


def print_outcome(outcome: Outcome, console: Console | None = None) -> None:
    """Print the metrics as a table, those to be compared side by side, then what was skipped and why."""
    console = console or Console()
    if outcome.metrics:
        table = Table()
        for title, justify in (("metric", "left"), ("value", "right"), ("unit", "left"), ("better", "left")):
            table.add_column(title, justify=justify, no_wrap=True)  # pyright: ignore[reportArgumentType]
        table.add_column("context", overflow="fold")
        for m in outcome.metrics:
            context = ", ".join(f"{k} {_short(v)}" for k, v in m.context.items())
            table.add_row(m.name, format_value(m.value), m.unit, m.better, context)
        console.print(table)
    if outcome.compared:
        console.print(comparison(outcome))
    for word, reasons in (("skipped", outcome.skipped), ("refused", outcome.refused)):
        for prefix, reason in reasons.items():
            console.print(f"{word} {prefix}: {reason}", soft_wrap=True, markup=False)


def comparison(outcome: Outcome) -> Table:
    """What was compared: a column for each prefix, a row for each measure."""
    columns = {
        prefix: {m.name.removeprefix(f"{prefix}."): m for m in outcome.metrics if m.name.startswith(f"{prefix}.")}
        for prefix in outcome.compared
    }
    table = Table(box=box.SIMPLE)
    table.add_column("", no_wrap=True)
    for prefix in columns:
        table.add_column(prefix.replace(".", "\n"), justify="right", no_wrap=True)
    for name in dict.fromkeys(name for column in columns.values() for name in column):
        cells = (format_value(column[name].value) if name in column else "" for column in columns.values())
        table.add_row(name, *cells)
    return table


def format_value(value: float) -> str:
    """Four significant digits, whole numbers whole."""
    if not math.isfinite(value):
        return "not measured"
    return f"{value:.0f}" if value == round(value) and abs(value) >= 1000 else f"{value:.4g}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return format_value(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} {_short(v)}" for k, v in value.items()) + "}"
    return str(value)


class PeakMemory:
    """Peak resident memory of this process, from here on where Linux allows the mark to be reset."""

    def __init__(self) -> None:
        self._reset = False
        if sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:
                # Not allowed in some containers; the mark then stands since the process began, and `scope` says so.
                return
            # Some kernels take the write and leave the mark where it was.
            mark, now = _status_mb("VmHWM"), _status_mb("VmRSS")
            self._reset = mark is not None and now is not None and mark < 1.02 * now + 1

    @property
    def scope(self) -> str:
        """What the number covers."""
        return "this variant" if self._reset else "the process so far"

    def mb(self) -> float:
        """The mark, in MB (10^6 bytes)."""
        if (mark := _status_mb("VmHWM")) is not None:
            return mark
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Kilobytes on Linux, bytes on macOS.
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _status_mb(name: str) -> float | None:
    """A line of Linux's own account of this process; None where there is none."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:")), None)
