"""A shot from plates to a track: observe, solve, judge, infill, refine."""
