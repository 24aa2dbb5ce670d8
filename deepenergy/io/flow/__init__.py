"""Optical flow files."""
