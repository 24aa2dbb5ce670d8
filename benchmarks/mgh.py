"""`mgh`: the problems of More, Garbow and Hillstrom, with and without Gay's bounds, beside scipy in the same run.

A problem counts where scipy's trf or dogbox reaches one of its known minima, or less. It is `matched` where our dogleg
ends no higher than the lower of the two, and `reached` where it ends no higher than the higher of them: the two differ
where trf and dogbox end in different known minima.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.metrics import Metric, Outcome
from benchmarks.peers import MAX_ITERATIONS, SOLVERS, Result, solve
from benchmarks.problems.mgh import MghProblem, mgh_problems
from deepenergy.solve import forward_jacobian

# Relative; absolute where the minimum is 0.
TOLERANCE = 1e-6
ABSOLUTE_TOLERANCE = 1e-10
# The minima are published to six digits.
_PUBLISHED_TOLERANCE = 1e-5
_REFERENCES = ("scipy trf", "scipy dogbox")

Results = Mapping[str, Result | None]


def run() -> Outcome:
    """Solve every problem with every solver, free and bounded; print the tables."""
    outcome = Outcome()
    for bounded in (False, True):
        problems = [p for p in mgh_problems() if p.bounded or not bounded]
        results = [solve_all(p, bounded) for p in problems]
        Console(width=165).print(table(problems, results, bounded))
        outcome.metrics += [metric(problems, results, bounded, name) for name in ("matched", "reached")]
    return outcome


def solve_all(problem: MghProblem, bounded: bool) -> Results:
    """The results of all solvers from the standard start."""
    lower, upper = (problem.lower, problem.upper) if bounded else (None, None)
    return {s: solve(s, forward_jacobian(problem.residual), problem.start, lower, upper) for s in SOLVERS}


def references(minima: Sequence[float], results: Results) -> list[float]:
    """What trf and dogbox reach, ascending, where it is a known minimum or lower than all of them."""
    found = [result.sum_of_squares for name in _REFERENCES if (result := results[name]) is not None]
    return sorted(s for s in found if any(_near(s, m, _PUBLISHED_TOLERANCE) for m in minima) or s < min(minima))


def matched(result: Result | None, target: float, minima: Sequence[float]) -> bool:
    """Whether a result is as low as the target."""
    slack = ABSOLUTE_TOLERANCE if min(minima) == 0 else 0.0
    return result is not None and result.sum_of_squares <= target * (1 + TOLERANCE) + slack


def metric(problems: Sequence[MghProblem], results: Sequence[Results], bounded: bool, name: str) -> Metric:
    """The share of scipy's problems that are ours, too: "matched" or "reached"."""
    counts = dict.fromkeys(SOLVERS, 0)
    missed, total = [], 0
    for problem, found in zip(problems, results, strict=True):
        minima = problem.bounded_minima if bounded else problem.minima
        targets = references(minima, found)
        if not targets:
            continue
        total += 1
        target = targets[0 if name == "matched" else -1]
        for solver in SOLVERS:
            counts[solver] += matched(found[solver], target, minima)
        if not matched(found["dogleg"], target, minima):
            missed.append(problem.name)
    context: dict[str, object] = {"of": total, "problems": len(problems), "missed": ", ".join(missed) or "none"}
    context |= {s: n for s, n in counts.items() if s != "dogleg" and not (bounded and s == "scipy lm")}
    kind = "bounded" if bounded else "unbounded"
    return Metric(f"mgh.{kind}.{name}", counts["dogleg"] / max(1, total), "share", "higher", context)


def table(problems: Sequence[MghProblem], results: Sequence[Results], bounded: bool) -> Table:
    """Sum of squares and evaluations of every solver on every problem; in brackets what is not as low as scipy's."""
    title = "More, Garbow and Hillstrom" + (" with Gay's bounds" if bounded else "")
    made = Table(title=f"{title}: sum of squares, and evaluations (at most {MAX_ITERATIONS})")
    made.add_column("problem", no_wrap=True)
    made.add_column("known minima", justify="right", no_wrap=True)
    shown = [s for s in SOLVERS if not (bounded and s == "scipy lm")]
    for solver in shown:
        made.add_column(solver, justify="right", no_wrap=True)
    for problem, found in zip(problems, results, strict=True):
        minima = problem.bounded_minima if bounded else problem.minima
        targets = references(minima, found)
        cells = []
        for solver in shown:
            result = found[solver]
            if result is None:
                cells.append("")
                continue
            value = f"{result.sum_of_squares:.7g}"
            low = not targets or matched(result, targets[0], minima)
            cells.append(f"{value if low else f'({value})'} {result.evaluations:4d}")
        made.add_row(f"{problem.number:2d} {problem.name}", ", ".join(f"{m:.6g}" for m in minima), *cells)
    return made


def _near(value: float, minimum: float, tolerance: float) -> bool:
    return abs(value - minimum) <= (tolerance * minimum if minimum else ABSOLUTE_TOLERANCE)
