"""Batched, bounded nonlinear least squares. Knows nothing about faces."""

from deepenergy.solve.trust_region import Solution, minimise

__all__ = ["Solution", "minimise"]
