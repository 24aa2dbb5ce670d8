"""Batched, bounded, robust nonlinear least squares. Knows nothing about faces, imports nothing but torch."""

from deepenergy.solve.covariance import Covariance, covariance
from deepenergy.solve.jacobians import (
    DivisibleProblem,
    Problem,
    difference_jacobian,
    forward_jacobian,
    reverse_jacobian,
)
from deepenergy.solve.kernels import Block, Cauchy, GemanMcClure, Huber, Kernel, Welsch
from deepenergy.solve.minimise import minimise
from deepenergy.solve.solution import History, Solution
from deepenergy.solve.status import Status

__all__ = [
    "Block",
    "Cauchy",
    "Covariance",
    "DivisibleProblem",
    "GemanMcClure",
    "History",
    "Huber",
    "Kernel",
    "Problem",
    "Solution",
    "Status",
    "Welsch",
    "covariance",
    "difference_jacobian",
    "forward_jacobian",
    "minimise",
    "reverse_jacobian",
]
