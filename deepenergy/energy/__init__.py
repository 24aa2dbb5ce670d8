"""Residual terms: each gives residuals and Jacobian for a batch of frames."""

from deepenergy.energy.landmark import LandmarkEnergy

__all__ = ["LandmarkEnergy"]
