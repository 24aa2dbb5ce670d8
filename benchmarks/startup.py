"""How soon the command line answers: CPU time of fresh processes."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from benchmarks.metrics import Metric, Outcome

RUNS = 7
COMMANDS = {"help": ("--help",), "stages": ("stages",), "usage_error": ("solve", "--no-such-option")}


def run() -> Outcome:
    """Median CPU time (user and system) of `deepenergy` with a few arguments, each in processes of its own."""
    metrics = []
    for name, arguments in COMMANDS.items():
        # The first process writes the compiled modules, and is not counted.
        times = [cpu_seconds(arguments) for _ in range(RUNS + 1)][1:]
        context = {"arguments": " ".join(arguments), "runs": RUNS, "slowest": max(times)}
        metrics.append(Metric(f"startup.{name}_cpu_s", statistics.median(times), "s", "lower", context))
    return Outcome(metrics)


def cpu_seconds(arguments: tuple[str, ...]) -> float:
    """CPU time of one process of the command line, start of the interpreter included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "deepenergy.commands.cli", *arguments]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
