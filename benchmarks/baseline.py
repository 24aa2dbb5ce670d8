"""The committed baseline: what each metric was, and how much worse it may become."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from benchmarks.metrics import Metric, Outcome, format_value
from deepenergy.runtime.atomic import atomic_path
from deepenergy.runtime.errors import InputError

BASELINE = Path(__file__).with_name("baseline.json")
# Share of the baseline's value that a metric may be worse by. Times and memory depend on the machine: they are
# recorded and not held; ratios of times are held loosely.
_TOLERANCE_OF_UNIT: dict[str, float | None] = {"s": None, "ms": None, "MB": None, "x": 0.5}
_TOLERANCE = 0.05
_TOLERANCE_OF_SHARE_SOLVED = 0.02


@dataclass(frozen=True)
class Entry:
    """One metric of the baseline.

    Attributes:
        value, unit, better: as measured when the baseline was taken.
        tolerance: share of |value| that it may be worse by; None: recorded, not held.
    """

    value: float
    unit: str
    better: Literal["lower", "higher"]
    tolerance: float | None

    @property
    def limit(self) -> float:
        """The worst value that passes."""
        slack = math.inf if self.tolerance is None else self.tolerance * abs(self.value)
        return self.value + slack if self.better == "lower" else self.value - slack


@dataclass(frozen=True)
class Finding:
    """A metric that does not hold."""

    name: str
    baseline: Entry
    value: float | None
    reason: str


def load_baseline(path: Path = BASELINE) -> dict[str, Entry]:
    """Read a baseline.

    Raises:
        InputError: no such file, or not a baseline.
    """
    try:
        entries: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        return {n: Entry(float(e["value"]), e["unit"], e["better"], e["tolerance"]) for n, e in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("baseline", f"{path} ({error!r})", "a baseline", "make one with --update") from error


def save_baseline(entries: dict[str, Entry], path: Path = BASELINE) -> None:
    """Write a baseline, sorted by name, so that a change reads as one line."""
    rows = [
        f'  "{n}": ' + json.dumps({"value": e.value, "unit": e.unit, "better": e.better, "tolerance": e.tolerance})
        for n, e in sorted(entries.items())
    ]
    text = '{"version": 1, "metrics": {\n' + ",\n".join(rows) + "\n}}\n"
    with atomic_path(path, "baseline") as temporary:
        temporary.write_text(text, encoding="utf-8")


def updated(baseline: dict[str, Entry], metrics: list[Metric]) -> dict[str, Entry]:
    """The baseline with the values of `metrics`; tolerances that were set stay, new metrics get their unit's.

    Raises:
        InputError: a metric that was not measured (NaN).
    """
    result = dict(baseline)
    for m in metrics:
        if not math.isfinite(m.value):
            raise InputError(m.name, "not measured", "a number", "find out why before it becomes the baseline")
        known = baseline.get(m.name)
        tolerance = known.tolerance if known is not None else default_tolerance(m)
        # Four digits: the noise beyond them would make a new diff of every run.
        result[m.name] = Entry(float(f"{m.value:.4g}"), m.unit, m.better, tolerance)
    return result


def default_tolerance(metric: Metric) -> float | None:
    """What a metric may be worse by, from its unit."""
    if metric.name.endswith(".solved"):
        return _TOLERANCE_OF_SHARE_SOLVED
    return _TOLERANCE_OF_UNIT.get(metric.unit, _TOLERANCE)


def compare(baseline: dict[str, Entry], outcome: Outcome, benchmarks: list[str]) -> list[Finding]:
    """What of the baseline does not hold in a run of `benchmarks`; empty when all is well.

    A metric that is in the baseline and was not measured fails, unless the benchmark said why it was left out.
    """
    measured = {m.name: m for m in outcome.metrics}
    findings = []
    for name, entry in sorted(baseline.items()):
        if name.split(".")[0] not in benchmarks or _skipped(name, outcome):
            continue
        metric = measured.get(name)
        if metric is None:
            refused = [r for prefix, r in outcome.refused.items() if _covers(prefix, name)]
            findings.append(Finding(name, entry, None, f"refused: {refused[0]}" if refused else "absent from the run"))
        elif metric.unit != entry.unit or metric.better != entry.better:
            findings.append(Finding(name, entry, metric.value, "another unit or direction than the baseline's"))
        elif not math.isfinite(metric.value):
            findings.append(Finding(name, entry, metric.value, "not measured"))
        elif metric.value > entry.limit if entry.better == "lower" else metric.value < entry.limit:
            findings.append(Finding(name, entry, metric.value, "worse"))
    return findings


def print_findings(findings: list[Finding], console: Console | None = None) -> None:
    """Print what got worse."""
    table = Table(title="worse than the baseline", title_justify="left")
    columns = (("metric", "left"), ("baseline", "right"), ("limit", "right"), ("now", "right"), ("", "left"))
    for title, justify in columns:
        table.add_column(title, justify=justify)  # pyright: ignore[reportArgumentType]
    for f in findings:
        now = "" if f.value is None else f"{format_value(f.value)} {f.baseline.unit}"
        limit = "none" if f.baseline.tolerance is None else format_value(f.baseline.limit)
        table.add_row(f.name, format_value(f.baseline.value), limit, now, f.reason)
    (console or Console()).print(table)


def _skipped(name: str, outcome: Outcome) -> bool:
    return any(_covers(prefix, name) for prefix in outcome.skipped)


def _covers(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
