"""Rendering: discrete visibility without gradient, then ordinary differentiable torch."""

from deepenergy.render.fragments import Fragments
from deepenergy.render.operations import rasterize
from deepenergy.render.renderer import Render, Renderer

__all__ = ["Fragments", "Render", "Renderer", "rasterize"]
