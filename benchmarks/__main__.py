"""Command line: `python -m benchmarks [NAME] [--json FILE] [--check | --update] [--shot FOLDER] ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console

from benchmarks.baseline import BASELINE, compare, load_baseline, print_findings, save_baseline, updated
from benchmarks.metrics import Outcome, print_outcome, write_json
from deepenergy.runtime.errors import InputError

# Imported when asked for: a benchmark may need what another does not.
NAMES = (
    "startup",
    "network",
    "truth",
    "nist",
    "mgh",
    "batch",
    "links",
    "jacobians",
    "gradients",
    "raster",
    "appearance",
    "flow",
    "infill",
    "degraded",
    "smoothing",
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure deepenergy.")
    result.add_argument("name", nargs="?", choices=NAMES, help="the benchmark; all of them when left out")
    result.add_argument("--json", type=Path, metavar="FILE", help="write the metrics there, too")
    after = result.add_mutually_exclusive_group()
    after.add_argument("--check", action="store_true", help="compare with the baseline; exit 1 where it got worse")
    after.add_argument("--update", action="store_true", help="make these numbers the baseline")
    result.add_argument("--baseline", type=Path, default=BASELINE, metavar="FILE", help="instead of the committed one")
    truth = result.add_argument_group("truth")
    truth.add_argument("--shot", type=Path, metavar="FOLDER", help="a folder laid out like ict_stereo")
    truth.add_argument("--variant", action="append", help="mono_left, mono_right or stereo; may be repeated")
    truth.add_argument("--frames", help="a frame range, as 1001-1024")
    smoothing = result.add_argument_group("smoothing")
    smoothing.add_argument("--figure", type=Path, metavar="FILE", help="draw the curves behind the numbers, as PNG")
    return result


def run_benchmark(name: str, options: argparse.Namespace) -> Outcome:
    """Run one benchmark."""
    run: Callable[..., Outcome] = import_module(f"benchmarks.{name}").run
    if name == "truth":
        return run(options.shot, options.variant, options.frames)
    if name == "smoothing":
        return run(figure=options.figure)
    return run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, compare. Returns 0; 1 where `--check` found something worse; 2 for input that cannot be used."""
    options = parser().parse_args(arguments)
    # A log has no width of its own, and 80 columns would fold every row.
    console = Console() if sys.stdout.isatty() else Console(width=150)
    names: list[str] = [options.name] if options.name else list(NAMES)
    try:
        special = [f"--{n}" for n in ("shot", "variant", "frames") if getattr(options, n) is not None]
        if special and names != ["truth"]:
            raise InputError(", ".join(special), f"with {', '.join(names)}", "the benchmark truth", "leave it out")
        if options.figure is not None and "smoothing" not in names:
            raise InputError("--figure", f"with {names[0]}", "the benchmark smoothing", "leave it out")
        if (options.check or options.update) and (options.shot is not None or options.frames is not None):
            raise InputError(
                "--check and --update",
                f"with {', '.join(special)}",
                "the baseline's own shot, whole",
                "leave out --shot and --frames",
            )
        # Before hours of measuring, not after.
        baseline = load_baseline(options.baseline) if options.check or options.baseline.exists() else {}
        unknown = [n for n in names if not any(known.startswith(f"{n}.") for known in baseline)]
        if options.check and unknown:
            raise InputError("baseline", f"nothing of {', '.join(unknown)}", "its metrics", "take them with --update")
        outcome = Outcome()
        for name in names:
            outcome.extend(run_benchmark(name, options))
        print_outcome(outcome, console)
        if options.json is not None:
            write_json(options.json, outcome.metrics)
        if options.update:
            save_baseline(updated(baseline, outcome.metrics), options.baseline)
            console.print(f"baseline written to {options.baseline}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not options.check:
        return 0
    findings = compare(baseline, outcome, names)
    if findings:
        print_findings(findings, console)
        return 1
    held = sum(1 for m in outcome.metrics if m.name in baseline and baseline[m.name].tolerance is not None)
    console.print(f"baseline holds: {held} metrics compared")
    return 0


if __name__ == "__main__":
    sys.exit(main())
