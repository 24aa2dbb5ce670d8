"""torchvision's models on a torch that its compiled part does not fit: a matter of test machines alone."""

from __future__ import annotations

from typing import Any

import pytest
from torch import library as operators

_kept: list[Any] = []


def import_torchvision() -> Any:
    """The package, or a skip. Its import asks for two operators that these tests never call."""
    try:
        import torchvision
    except ModuleNotFoundError:
        pytest.skip("the package torchvision is not installed")
    except RuntimeError:
        library = operators.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        import torchvision
    return torchvision
