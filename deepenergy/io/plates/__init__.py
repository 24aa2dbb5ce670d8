"""Plates on disk: image sequences and videos."""
