"""The procedural head inside the package: `builtin_head()`, `randomised_head(generator)`, a scripted `performance`."""

from deepenergy.builtin_head.head import builtin_head, randomised_head
from deepenergy.builtin_head.performance import performance

__all__ = ["builtin_head", "performance", "randomised_head"]
