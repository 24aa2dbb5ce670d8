"""Fitting the rig to observed frames, each by itself: start, stages, weights, light, identity."""
