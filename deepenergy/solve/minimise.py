"""Batched bounded nonlinear least squares by trust regions.

    minimise  1/2 |r(x)|^2   subject to  lower <= x <= upper

for S independent problems of the same size at once. The search here knows points, radii and bounds; how a step comes
about within the radius is the descent's (dogleg.py, levenberg_marquardt.py). One iteration, for every problem alike:

1. Where the last step was accepted: hold the parameters that their bound keeps (bounds.py), and factorise.
2. The path within the radius, cut at the bounds, gives the step.
3. Evaluate there. Accept where the cost falls by more than a trace of what the model promised; a cost or Jacobian that
   is not finite is refused. A refused step changes nothing but the radius.
4. Set the radius by the gain ratio (trust_region.py).

Steps and radii are measured by `|D s|`, D the largest column lengths of the Jacobian met so far, which makes the method
indifferent to the units of the parameters (More 1978). Problems that are finished keep their point bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepenergy.solve.bounds import active_set, bound_damping, cut, project_to_bounds
from deepenergy.solve.descent import Descent, Model
from deepenergy.solve.dogleg import DogLeg
from deepenergy.solve.jacobians import DivisibleProblem, Problem
from deepenergy.solve.kernels import Block, weighting
from deepenergy.solve.levenberg_marquardt import LevenbergMarquardt
from deepenergy.solve.point import Point, Weigher, evaluate
from deepenergy.solve.solution import History, Solution
from deepenergy.solve.status import Status
from deepenergy.solve.trust_region import LEAST_GAIN, first_radius, next_radius

MapParts = Callable[[Callable[[Tensor], Any], Iterable[Tensor]], Iterable[Any]]
Method = Literal["dogleg", "lm"]
Approach = Literal["damped", "direct"]
_DESCENTS: dict[str, type[Descent]] = {"dogleg": DogLeg, "lm": LevenbergMarquardt}
# Of Jacobians: what a processor's own cache holds beside its other work.
_PART_BYTES = 6_000_000
# Share of finished problems at which they are left out of the evaluation.
_FINISHED_FRACTION = 0.25


# more than six: a problem, its bounds, and tolerances that each have a default
def minimise(
    problem: Problem,
    start: Float[Tensor, "s p"],
    lower: Float[Tensor, "*s p"] | None = None,
    upper: Float[Tensor, "*s p"] | None = None,
    free: Bool[Tensor, "*s p"] | None = None,
    *,
    method: Method = "dogleg",
    max_iterations: int = 100,
    gradient_tolerance: float = 1e-10,
    step_tolerance: float = 1e-10,
    cost_tolerance: float = 1e-15,
    radius: float | Float[Tensor, " s"] | None = None,
    approach: Approach = "damped",
    kernels: Sequence[Block] | None = None,
    history: bool = False,
    map_parts: MapParts = map,
) -> Solution:
    """Minimise S problems from `start`.

    Args:
        problem: `x [S, P]` to (residuals `[S, R]`, Jacobian `[S, R, P]`); rows of different problems are independent.
            See jacobians.py for the Jacobian of a residual. With a method `take(rows)` (`DivisibleProblem`) large
            batches are solved in parts, and finished problems are no longer evaluated.
        start: `[S, P]`, best in float64; free parameters outside of their bounds are moved onto them.
        lower, upper: bounds `[P]` or `[S, P]`; infinite, or None, where there is none; equal to fix a parameter.
        free: `[P]` or `[S, P]`, parameters that may move; all when None. The others stay even outside of the bounds.
        method: "dogleg" or "lm" (Levenberg-Marquardt).
        max_iterations: steps tried, accepted or not.
        gradient_tolerance: ends a problem at which the cosine of the angle between the residual and every column of the
            Jacobian, bar those of parameters fixed by a bound, is no larger.
        step_tolerance: ends a problem whose full step changes the parameters by a smaller fraction, in scaled units.
        cost_tolerance: ends a problem whose step lowers the cost by a smaller fraction, as does the model's.
        radius: first length that a step may have, in scaled units; chosen by the start when None.
        approach: how parameters come to their bounds (bounds.py). "damped": by and by, which commits itself later;
            "direct": at once, which takes fewer iterations where the linear model holds all the way there.
        kernels: robust kernels by blocks of residuals (kernels.py).
        history: whether to keep cost and radius of each iteration.
        map_parts: how the parts of a large batch are gone through: `map`, or one that runs them side by side.

    Raises:
        ValueError: shapes that disagree, bounds that cross or are NaN, an unknown method.
    """
    if method not in _DESCENTS:
        raise ValueError(f"method: {method!r}: expected one of {sorted(_DESCENTS)}")
    if approach not in get_args(Approach):
        raise ValueError(f"approach: {approach!r}: expected one of {sorted(get_args(Approach))}")
    options = _Options(
        _DESCENTS[method](), approach == "damped", max_iterations, gradient_tolerance, step_tolerance, cost_tolerance,
        history,
        cache(lambda count, device: weighting(kernels, count, device)),
    )  # fmt: skip
    x, low, high, fixed = _place(start, lower, upper, free)
    radii = None
    if radius is not None:
        radii = torch.as_tensor(radius, dtype=x.dtype, device=x.device).expand(len(x)).clone()
        if not bool((radii > 0).all()):
            raise ValueError("radius: expected positive lengths")
    if not isinstance(problem, DivisibleProblem) or history or len(x) < 2:
        return _solution(*_search(problem, _begin(problem, x, low, high, fixed, radii, options), options))
    # The Jacobians of a part stay in the processor's cache, and no part waits for the slowest problem of another.
    rows = torch.arange(len(x), device=x.device)

    def search(part: Tensor) -> _Search:
        some = problem.take(part)
        its_radii = None if radii is None else radii[part]
        begun = _begin(some, x[part], low[part], high[part], fixed[part], its_radii, options)
        return _search_dividing(some, begun, options)

    return _solution(_Search.join(list(map_parts(search, rows.split(_part_size(problem, x))))), [])


@dataclass
class _Options:
    """The arguments of a search that are the same for every problem."""

    descent: Descent
    damped: bool
    max_iterations: int
    gradient_tolerance: float
    step_tolerance: float
    cost_tolerance: float
    history: bool
    weigher: Weigher


@dataclass
class _Search:
    """Where the problems are; one row each.

    Attributes:
        point: residual, Jacobian and what follows from them.
        low, high: bounds.
        fixed: parameters that may not move at all.
        active: parameters that do not move in this iteration: fixed, or pushed across a bound by steepest descent.
        seen: largest norm of every column of the Jacobian so far.
        radii: of the trust regions, in scaled units.
        status: `Status`, as integers.
        iterations, evaluations: how many.
        accepted: whether the last step was accepted.
        model: what the next step is taken in.
    """

    point: Point
    low: Tensor
    high: Tensor
    fixed: Tensor
    active: Tensor
    seen: Tensor
    radii: Tensor
    status: Tensor
    iterations: Tensor
    evaluations: Tensor
    accepted: Tensor
    model: Model | None = None

    @property
    def done(self) -> Bool[Tensor, " s"]:
        """Problems that have ended."""
        return self.status != int(Status.ITERATION_LIMIT)

    @property
    def scale(self) -> Float[Tensor, "s p"]:
        """What lengths are measured in."""
        return torch.where(self.seen > 0, self.seen, torch.ones_like(self.seen))

    def rows(self, rows: Int[Tensor, " n"]) -> _Search:
        """Some of the problems."""
        whole = ("point", "model")
        kept: dict[str, Any] = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name not in whole}
        return _Search(self.point.rows(rows), **kept, model=None if self.model is None else self.model.rows(rows))

    @staticmethod
    def join(parts: Sequence[_Search]) -> _Search:
        """Several searches as one, without their models."""
        if len(parts) == 1:
            return parts[0]
        names = [f.name for f in fields(_Search) if f.name not in ("point", "model")]
        joined: dict[str, Any] = {name: torch.cat([getattr(p, name) for p in parts]) for name in names}
        point = Point(**{f.name: torch.cat([getattr(p.point, f.name) for p in parts]) for f in fields(Point)})
        return _Search(point, **joined)


def _part_size(problem: DivisibleProblem, x: Tensor) -> int:
    """How many problems make a part."""
    one = torch.zeros(1, dtype=torch.int64, device=x.device)
    residuals = problem.take(one)(x[:1])[0].shape[1]
    return max(1, _PART_BYTES // max(1, residuals * x.shape[1] * x.element_size()))


# more than six: what the search's rows are made of
def _begin(
    problem: Problem, x: Tensor, low: Tensor, high: Tensor, fixed: Tensor, radii: Tensor | None, options: _Options
) -> _Search:
    """The search at its start."""
    point = evaluate(problem, x, options.weigher)
    status = torch.full((len(x),), int(Status.ITERATION_LIMIT), dtype=torch.int64, device=x.device)
    status = torch.where(point.finite, status, int(Status.NOT_FINITE_START))
    none = torch.zeros_like(status)
    search = _Search(point, low, high, fixed, fixed, point.norms, none, status, none, none + 1, point.finite)
    if radii is None:
        radii = first_radius(torch.nan_to_num(x, 0, 0, 0), search.scale, point.residual)
    return replace(search, radii=radii)


def _search(problem: Problem, search: _Search, options: _Options) -> tuple[_Search, list[tuple[Tensor, ...]]]:
    """All problems to their end, and what was tried if asked for."""
    record: list[tuple[Tensor, ...]] = [(search.point.cost, search.radii)] if options.history else []
    for _ in range(options.max_iterations):
        search, tried = _iterate(problem, search, options)
        if tried is None:
            break
        if options.history:
            record.append(tried)
    return search, record


def _search_dividing(problem: DivisibleProblem, search: _Search, options: _Options) -> _Search:
    """All problems to their end, leaving out those that have got there."""
    parked: list[_Search] = []
    where: list[Tensor] = []
    rows = torch.arange(len(search.status), device=search.status.device)
    part = problem
    for _ in range(options.max_iterations):
        done = search.done
        if int(done.sum()) > _FINISHED_FRACTION * len(done) and not bool(done.all()):
            parked.append(replace(search.rows(torch.nonzero(done).squeeze(1)), model=None))
            where.append(rows[done])
            going = torch.nonzero(~done).squeeze(1)
            search, rows = search.rows(going), rows[going]
            part = problem.take(rows)
        search, tried = _iterate(part, search, options)
        if tried is None:
            break
    whole = _Search.join([*parked, replace(search, model=None)])
    return whole.rows(torch.cat([*where, rows]).argsort()) if parked else whole


def _iterate(problem: Problem, search: _Search, options: _Options) -> tuple[_Search, tuple[Tensor, ...] | None]:
    """One iteration, and its cost, radius, acceptance and gain; None where every problem has ended."""
    point, low, high, radii, scale = search.point, search.low, search.high, search.radii, search.scale
    fixed, status, done = search.fixed, search.status, search.done
    # Problems whose last step was accepted, and whose model is therefore out of date.
    advanced = search.accepted & ~done
    active = torch.where(advanced[:, None], fixed | active_set(point.x, point.gradient, low, high), search.active)
    flat = ~done & (_cosine(point, active) <= options.gradient_tolerance)
    status, done = torch.where(flat, int(Status.GRADIENT), status), done | flat
    if bool(done.all()):
        return replace(search, active=active, status=status), None
    bounded = bool((torch.isfinite(low) | torch.isfinite(high)).any())
    # Lengths in which the way to a bound counts as much as the model damps it (Coleman and Li 1996).
    metric = scale
    if bounded and options.damped:
        point = replace(point, damping=bound_damping(point.x, point.gradient, point.norms, low, high))
        metric = (scale.square() + point.damping).sqrt()
    model = _update(search.model, options.descent, point, metric, active, advanced & ~done)
    path = options.descent.path(model, radii)
    stay = done[:, None] | active
    first, last = torch.where(stay, 0.0, path.first), torch.where(stay, 0.0, path.last)
    if bounded:
        step, slope, bend = _within(first, last, point, model.well_conditioned, low, high)
    else:
        terms = _model_terms(point, last[:, :, None], model.well_conditioned)
        step, (slope, bend) = last, (term.squeeze(1) for term in terms)
    full = path.full & (step == last).all(1)
    trial_x = point.x + step
    if bounded:
        trial_x = project_to_bounds(trial_x, point.x, low, high)
    trial_x = torch.where(step == 0, point.x, trial_x)
    # A step that was stopped by a bound says nothing about how near the solution is.
    met = (((trial_x == low) | (trial_x == high)) != ((point.x == low) | (point.x == high))).any(1)
    trial = evaluate(problem, trial_x, options.weigher)
    predicted = -(slope + bend).clamp_max(0)
    epsilon = torch.finfo(point.x.dtype).eps
    floor = epsilon * point.cost
    decrease = point.cost - trial.cost
    gain = torch.where(predicted > 0, decrease / torch.where(predicted > 0, predicted, 1.0), -torch.inf)
    lower_cost = (decrease > 0) & (gain > LEAST_GAIN)
    # Where the cost can no longer tell, the gradient can.
    better = met | (_cosine(trial, active) < _cosine(point, active))
    level = (decrease >= 0) & (predicted <= 64 * floor) & better
    accepted = ~done & trial.finite & (lower_cost | level)
    length = torch.linalg.vector_norm(step * scale, dim=1)
    size = torch.linalg.vector_norm(scale * trial_x, dim=1) + torch.linalg.vector_norm(point.residual, dim=1)
    short = length <= options.step_tolerance * size
    ended = status
    ended = torch.where(~accepted & (length <= 4 * epsilon * size), int(Status.STALLED), ended)
    little = torch.maximum(decrease, predicted) <= options.cost_tolerance * point.cost
    ended = torch.where(accepted & ~met & little & (gain <= 2), int(Status.COST), ended)
    ended = torch.where(full & short, int(Status.STEP), ended)
    ended = torch.where(~accepted & ~met & (predicted <= floor), int(Status.ROUNDING), ended)
    moved = next_radius(radii, torch.linalg.vector_norm(step * metric, dim=1), gain, slope, decrease, path.full)
    radii = torch.where(done, radii, moved)
    point = point.accept(trial, accepted)
    search = _Search(
        point, low, high, fixed, active,
        torch.where(accepted[:, None], torch.maximum(search.seen, trial.norms), search.seen),
        radii, torch.where(done, status, ended),
        search.iterations + (~done).long(), search.evaluations + (~done).long(), accepted, model,
    )  # fmt: skip
    return search, (point.cost, radii, accepted, gain)


def _solution(search: _Search, record: list[tuple[Tensor, ...]]) -> Solution:
    point, status = search.point, search.status
    converged = torch.zeros_like(search.done)
    for value in Status:
        converged |= (status == int(value)) & value.converged
    kept = _history((record[0][0], record[0][1]), record[1:]) if record else None
    free_now = ~search.fixed & (search.low < search.high)
    return Solution(
        point.x, point.cost, status, converged, search.iterations, search.evaluations, point.raw, point.jacobian,
        free_now, kept,
    )  # fmt: skip


def _place(
    start: Tensor, lower: Tensor | None, upper: Tensor | None, free: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Start, bounds and mask of fixed parameters, all `[S, P]`."""
    if start.dim() != 2 or not start.is_floating_point():
        raise ValueError(f"start: {tuple(start.shape)} {start.dtype}: expected floating point [S, P]")
    sides = []
    for name, bound, none in (("lower", lower, -torch.inf), ("upper", upper, torch.inf)):
        side = start.new_full((start.shape[1],), none) if bound is None else bound.to(start)
        if side.shape not in (start.shape, start.shape[1:]):
            raise ValueError(f"{name}: {tuple(side.shape)}: expected [P] or [S, P] of start, {tuple(start.shape)}")
        sides.append(side.expand_as(start))
    low, high = sides
    if not bool((low <= high).all()):
        raise ValueError("bounds: a lower bound above its upper bound, or NaN")
    fixed = torch.zeros_like(start, dtype=torch.bool)
    if free is not None:
        if free.shape not in (start.shape, start.shape[1:]) or free.dtype != torch.bool:
            raise ValueError(f"free: {tuple(free.shape)} {free.dtype}: expected bool [P] or [S, P]")
        fixed = ~free.to(start.device).expand_as(start)
    inside = torch.minimum(torch.maximum(start.detach(), low), high)
    return torch.where(fixed, start.detach(), inside), low, high, fixed


def _update(
    model: Model | None, descent: Descent, point: Point, scale: Tensor, active: Tensor, advanced: Tensor
) -> Model:
    """The models of the problems that moved, made anew; the others as they are."""
    if model is None or bool(advanced.all()):
        return descent.model(point, scale, active)
    if not bool(advanced.any()):
        return model
    rows = torch.nonzero(advanced).squeeze(1)
    made = descent.model(point.rows(rows), scale[rows], active[rows])
    return model.replace_rows(rows, made)


def _within(
    first: Tensor, last: Tensor, point: Point, well_conditioned: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The path cut at the bounds, or one of its ends put back onto them: the lowest in the model, and its terms."""
    # Rounding, or a fixed parameter outside of its bounds, must not make the box exclude 0.
    below, above = (low - point.x).clamp_max(0), (high - point.x).clamp_min(0)
    clamped = (torch.minimum(torch.maximum(end, below), above) for end in (last, first))
    steps = torch.stack([cut(first, last, below, above), *clamped], 2)
    slope, bend = _model_terms(point, steps, well_conditioned)
    best = (slope + bend).argmin(1, keepdim=True)
    step = steps.take_along_dim(best[:, None, :], 2).squeeze(2)
    return step, slope.take_along_dim(best, 1).squeeze(1), bend.take_along_dim(best, 1).squeeze(1)


def _model_terms(point: Point, steps: Tensor, well_conditioned: Tensor) -> tuple[Tensor, Tensor]:
    """Linear and quadratic term of the model's change, `g s` and `|J s|^2 / 2`, `[S, K]` for steps `[S, P, K]`."""
    return (point.gradient[:, :, None] * steps).sum(1), 0.5 * point.stretch(steps, well_conditioned)


def _cosine(point: Point, active: Tensor) -> Tensor:
    """The largest cosine between the residual and a column that is not active."""
    below = point.norms * torch.linalg.vector_norm(point.residual, dim=1)[:, None]
    cosine = point.gradient.abs() / torch.where(below > 0, below, torch.ones_like(below))
    return torch.where(active | (below <= 0), torch.zeros_like(cosine), cosine).amax(1)


def _history(initial: tuple[Tensor, Tensor], record: list[tuple[Tensor, ...]]) -> History:
    cost = torch.stack([initial[0], *(entry[0] for entry in record)], 1)
    radius = torch.stack([initial[1], *(entry[1] for entry in record)], 1)
    if not record:
        nothing = cost[:, :0]
        return History(cost, radius, nothing.bool(), nothing)
    return History(cost, radius, torch.stack([e[2] for e in record], 1), torch.stack([e[3] for e in record], 1))
