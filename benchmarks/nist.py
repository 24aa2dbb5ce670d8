"""`nist`: the regressions of NIST StRD from both starts, beside scipy's solvers in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.metrics import Metric, Outcome
from benchmarks.peers import MAX_ITERATIONS, SOLVERS, Result, solve
from benchmarks.problems.nist import NistProblem, nist_problems
from deepenergy.solve import reverse_jacobian

# As many digits as NIST certifies.
MOST_DIGITS = 11.0
SOLVED_DIGITS = 4.0
_STARTS = (0, 1)


def run() -> Outcome:
    """Solve all 27 from both starts with every solver; print the tables."""
    problems = nist_problems()
    results = [[[_solve(solver, p, start) for solver in SOLVERS] for start in _STARTS] for p in problems]
    console = Console(width=120)
    for start in _STARTS:
        console.print(table(problems, [rows[start] for rows in results], start))
    metrics = []
    digits = {
        (solver, start): [correct_digits(results[i][start][k], p.certified) for i, p in enumerate(problems)]
        for k, solver in enumerate(SOLVERS)
        for start in _STARTS
    }
    for start in _STARTS:
        solved = {s: sum(d >= SOLVED_DIGITS for d in digits[s, start]) for s in SOLVERS}
        context = {"of": len(problems), "digits": SOLVED_DIGITS, **{s: n for s, n in solved.items() if s != "dogleg"}}
        metrics.append(Metric(f"nist.start{start + 1}.solved", solved["dogleg"], "", "higher", context))
    median = {s: statistics.median(digits[s, 1]) for s in SOLVERS}
    context = {"problems": len(problems), **{s: n for s, n in median.items() if s != "dogleg"}}
    metrics.append(Metric("nist.start2.median_lre", median["dogleg"], "", "higher", context))
    return Outcome(metrics)


def correct_digits(result: Result, certified: Float[Tensor, " p"]) -> float:
    """Log relative error of the worst parameter (LRE of McCullough 1998): 0 to 11."""
    error = ((result.x - certified) / certified).abs().max()
    if not bool(torch.isfinite(error)):
        return 0.0
    return float((-torch.log10(error.clamp_min(10**-MOST_DIGITS))).clamp(0, MOST_DIGITS))


def table(problems: Sequence[NistProblem], results: Sequence[Sequence[Result]], start: int) -> Table:
    """Digits and evaluations of every solver (columns) on every problem (rows) from one start."""
    made = Table(
        title=f"NIST StRD from start {start + 1}: correct digits of the worst parameter, and evaluations "
        f"(at most {MAX_ITERATIONS})"
    )
    made.add_column("problem", no_wrap=True)
    made.add_column("level", no_wrap=True)
    for solver in SOLVERS:
        made.add_column(solver, justify="right", no_wrap=True)
    for problem, row in zip(problems, results, strict=True):
        cells = [f"{correct_digits(r, problem.certified):.1f} {r.evaluations:5d}" for r in row]
        made.add_row(problem.name, problem.difficulty, *cells)
    return made


def _solve(solver: str, problem: NistProblem, start: int) -> Result:
    result = solve(solver, reverse_jacobian(problem.residual), problem.start[start])
    # Every problem has more data than parameters and no bounds, so that every solver takes it.
    assert result is not None
    return result
