"""Benchmarks: `python -m benchmarks NAME`; the metric names mean the same thing for good."""
