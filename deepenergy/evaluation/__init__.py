"""Tracks held against known answers."""
