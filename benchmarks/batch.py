"""`batch`: many nonlinear problems at once against a Python loop of scipy over them, in one run.

Two kinds of random problems within `-1 <= x <= 1` (problems/random_maps.py): saturating shapes, whose Jacobian is cheap
as that of a rig is, and two-layer maps, whose Jacobian costs a product as large as the solver's own work, on both
sides. The truth behind y lies outside of the bounds in about a fifth of its parameters, and noise keeps the residual
from vanishing. Both sides get the same closed form of the Jacobian, the same tolerances and the same start.

scipy is called as its users call it, with its default for bounds (trf), and once more with dogbox. It runs in a process
of its own with one BLAS thread, which is its fastest: matrices of this size gain nothing from a second one, and two
pools of threads in one process stand in each other's way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.metrics import Metric, Outcome
from benchmarks.problems.random_maps import KINDS, solve, solve_by_scipy

COUNT, RESIDUALS, PARAMETERS = 512, 400, 60
# Of residuals, where the sizes vary.
GROWTH_COUNTS, GROWTH_PARAMETERS = (1, 8, 64, 512), (6, 20, 60, 120)
THREADS = 2
# Costs that differ by a smaller share count as the same.
SAME_COST = 1e-6
_REPEATS = 3


def run(count: int = COUNT) -> Outcome:
    """Both ways over `count` problems of both kinds; print how an iteration's time grows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        metrics = [
            Metric(f"batch.{name}", speedup, "x", "higher", context)
            for kind, name in (("shapes", "speedup_vs_scipy_loop"), ("two_layer", "two_layer.speedup_vs_scipy_loop"))
            for speedup, context in [compare(kind, count, RESIDUALS, PARAMETERS)]
        ]
        Console(width=120).print(growth())
    finally:
        torch.set_num_threads(threads)
    return Outcome(metrics)


def compare(kind: str, count: int, residuals: int, parameters: int) -> tuple[float, dict[str, Any]]:
    """Time of scipy's loop over that of the batch (the least of three), and the circumstances."""
    problems = KINDS[kind].random(count, residuals, parameters)
    solution = solve(problems)
    seconds = float("inf")
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        solution = solve(problems)
        seconds = min(seconds, time.perf_counter() - begin)
    loop, quick = (_loop_elsewhere(kind, count, residuals, parameters, method) for method in ("trf", "dogbox"))
    theirs = torch.tensor(loop["costs"], dtype=torch.float64)
    difference = (solution.cost - theirs) / theirs
    return loop["seconds"] / seconds, {
        "problems": count,
        "parameters": parameters,
        "residuals": residuals,
        "seconds": round(seconds, 3),
        "scipy": "trf",
        "scipy_seconds": round(loop["seconds"], 2),
        "vs_dogbox": round(quick["seconds"] / seconds, 2),
        "threads": THREADS,
        "same_cost": float((difference.abs() <= SAME_COST).double().mean()),
        "lower": float((difference < -SAME_COST).double().mean()),
        "higher": float((difference > SAME_COST).double().mean()),
        "iterations": float(solution.iterations.double().mean()),
        "scipy_evaluations": float(np.mean(loop["evaluations"])),
        "at_bounds": round(float((solution.x.abs() == 1).double().mean()), 3),
    }


def loop_over_scipy(kind: str, count: int, residuals: int, parameters: int, method: str) -> dict[str, Any]:
    """Costs, evaluations and seconds of scipy, one problem after the other."""
    problems = KINDS[kind].random(count, residuals, parameters)
    solve_by_scipy(problems, 0, method)
    begin = time.perf_counter()
    found = [solve_by_scipy(problems, index, method) for index in range(count)]
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "costs": [cost for cost, _ in found], "evaluations": [count for _, count in found]}


def _loop_elsewhere(kind: str, count: int, residuals: int, parameters: int, method: str) -> dict[str, Any]:
    single = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-m", "benchmarks.batch", kind, str(count), str(residuals), str(parameters), method]
    root = Path(__file__).resolve().parents[1]
    ran = subprocess.run(command, env={**os.environ, **single}, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def growth() -> Table:
    """Milliseconds for an iteration of the whole batch, by batch size and parameters; the least of three."""
    table = Table(title=f"milliseconds per iteration of the whole batch, {RESIDUALS} residuals, {THREADS} threads")
    table.add_column("problems", justify="right")
    for parameters in GROWTH_PARAMETERS:
        table.add_column(f"{parameters} parameters", justify="right")
    for count in GROWTH_COUNTS:
        cells = []
        for parameters in GROWTH_PARAMETERS:
            problems = KINDS["two_layer"].random(count, RESIDUALS, parameters)
            times = []
            for _ in range(_REPEATS):
                begin = time.perf_counter()
                solution = solve(problems, max_iterations=5)
                times.append((time.perf_counter() - begin) / max(1, int(solution.iterations.max())))
            cells.append(f"{1000 * min(times):.2f}")
        table.add_row(str(count), *cells)
    return table


if __name__ == "__main__":
    print(json.dumps(loop_over_scipy(sys.argv[1], *(int(n) for n in sys.argv[2:5]), sys.argv[5])))  # pyright: ignore
