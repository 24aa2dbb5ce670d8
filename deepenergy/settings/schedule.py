"""The schedule of stages as data (paper, sections 8.1 and 8.2; then brows and eyes, which the paper leaves out)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepenergy.runtime.errors import InputError, did_you_mean
from deepenergy.scene.control_groups import GROUPS
from deepenergy.scene.landmark_layout import IBUG_68, LAYOUTS, SETS, LandmarkLayout
from deepenergy.scene.view_windows import MOST_READINGS

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Stage:
    """One least-squares solve of the schedule.

    Attributes:
        name: shown in the progress.
        translation, rotation: whether the rigid parameters are free.
        groups: control groups whose weights are free ("jaw_open" frees the jaw joint's opening, "jaw" all of it).
        landmark_weights: landmark set, or numbers of landmarks ("30", "48-59"), -> factor on its residuals (the
            diagonal of W of section 8.1). Numbers go before sets; a landmark that is not named has 0.
        edge_weight: factor on the edge-preserving energy E2 of section 8.1.
        renders: how often the render is made and read by the network; each is one outer iteration.
        iterations: limit of least-squares steps for each render. Few, where overfitting is to be prevented.
        fit_light: whether the shot's light is estimated from the plates before the stage (section 3).
        rigid_prior: weight of the penalty on moving away from the rigid pose at the stage's start (section 5),
            in crop pixels for each 1 % of the face's size or degree.
        reweight: whether landmarks are weighted by the noise that the solved frames show (`energy.noise`), rather than
            by what their heatmaps claim.
        readings: how often the network reads each render, through slightly different windows (`read_landmarks`); 0: it
            does not, and what it said of the last render holds.
        photometric: factor on the residuals of the render's own pixels (`energy.photometric`); 0 leaves them out.
        blur: standard deviation of the smoothing under which pixels are compared, in crop pixels.
        fallback: whether the stage is for shots whose plates do not look like the renders: it is left out after
            photometric stages that could be solved.

    Raises:
        InputError: an unknown landmark set, a value out of its range, nothing to move or nothing to move it by.
    """

    name: str
    translation: bool
    rotation: bool
    groups: tuple[str, ...]
    landmark_weights: dict[str, float]
    edge_weight: float = 0.0
    renders: int = 1
    iterations: int = 20
    rigid_prior: float = 0.0
    fit_light: bool = False
    reweight: bool = False
    readings: int = 1
    photometric: float = 0.0
    blur: float = 1.0
    fallback: bool = False

    def __post_init__(self) -> None:
        # Which scheme the rig has is not known yet: one that has all of these landmarks will do.
        fitting = [layout for layout in LAYOUTS.values() if self._first_unknown(layout) is None]
        if not fitting:
            raise self._refused(IBUG_68)
        factors = self.landmark_weights.values()
        some = self.photometric > 0 or any(any(self.factors(layout)) for layout in fitting)
        checks = (
            ("name", bool(self.name.strip()), "text"),
            ("groups", self.translation or self.rotation or bool(self.groups), "something free: rigid, or a group"),
            ("landmark_weights", all(0 <= factor < float("inf") for factor in factors), "factors of 0 or more"),
            ("landmark_weights", some, "a set with a factor above 0"),
            ("edge_weight", 0 <= self.edge_weight < float("inf"), "0 or more"),
            ("renders", self.renders >= 0, "0 or more"),
            ("iterations", self.iterations >= 1, "1 or more"),
            ("rigid_prior", 0 <= self.rigid_prior < float("inf"), "0 or more"),
            ("readings", 0 <= self.readings <= MOST_READINGS, f"between 0 and {MOST_READINGS}"),
            ("photometric", 0 <= self.photometric < float("inf"), "0 or more"),
            ("blur", 0 < self.blur < float("inf"), "more than 0 crop pixels"),
        )
        for attribute, good, expected in checks:
            if not good:
                field = f"stage '{self.name}' {attribute}"
                raise InputError(field, repr(getattr(self, attribute)), expected, "correct the stage")

    def weights(self, layout: LandmarkLayout = IBUG_68) -> Float[Tensor, " l"]:
        """The factors of a scheme's landmarks, float64.

        Raises:
            InputError: a landmark that the scheme does not have.
        """
        # Here and not above: `deepenergy stages` prints schedules without torch.
        import torch

        return torch.tensor(self.factors(layout), dtype=torch.float64)

    def factors(self, layout: LandmarkLayout = IBUG_68) -> list[float]:
        """The factors of a scheme's landmarks, as plain numbers.

        Raises:
            InputError: a landmark that the scheme does not have.
        """
        if self._first_unknown(layout) is not None:
            raise self._refused(layout)
        out = [0.0] * layout.count
        for name in sorted(self.landmark_weights, key=lambda name: name not in SETS):
            part = landmarks_of(name, layout)
            assert part is not None
            for index in part:
                out[index] = float(self.landmark_weights[name])
        return out

    def _first_unknown(self, layout: LandmarkLayout) -> str | None:
        """The first name in `landmark_weights` that means nothing in a scheme."""
        return next((name for name in self.landmark_weights if landmarks_of(name, layout) is None), None)

    def _refused(self, layout: LandmarkLayout) -> InputError:
        known = (*SETS, f"numbers to {layout.count - 1} (48-59)")
        return _unknown(f"stage '{self.name}' landmark_weights", self._first_unknown(layout) or "", known)


def landmarks_of(name: str, layout: LandmarkLayout = IBUG_68) -> list[int] | None:
    """The landmarks of a set, or of numbers such as "30" or "48-59" (both ends count); None for anything else."""
    digits = f"\\d{{1,{len(str(layout.count - 1))}}}"
    numbers = re.fullmatch(f"({digits})(?:-({digits}))?", name, re.ASCII)
    if numbers is None:
        return list(layout.sets[name]) if name in layout.sets else None
    first = int(numbers[1])
    last = int(numbers[2] or first)
    return list(range(first, last + 1)) if first <= last < layout.count else None


def check_groups(stages: Sequence[Stage], known: Iterable[str]) -> None:
    """Refuse stages that free control groups which there are not.

    Raises:
        InputError: the stage, the group, and what there is.
    """
    names = tuple(known)
    for stage in stages:
        for group in stage.groups:
            if group not in names:
                raise _unknown(f"stage '{stage.name}' groups", group, names)


def check_moved(stages: Sequence[Stage], own: Iterable[str]) -> None:
    """Refuse control groups of the user's own that no stage frees: their weights would stay 0 without a word.

    Raises:
        InputError: the group, and those that are freed.
    """
    freed = tuple(dict.fromkeys(group for stage in stages for group in stage.groups))
    for group in own:
        # Left out by the default schedule on purpose, and by name.
        if group not in (*freed, *GROUPS):
            raise InputError(
                f"rig_groups '{group}'",
                "a group that no stage frees",
                f"one of {', '.join(freed)}",
                f"{did_you_mean(group, freed).removesuffix('?')}; or free it in a schedule of your own",
            )


def _unknown(field: str, name: str, known: Mapping[str, object] | tuple[str, ...]) -> InputError:
    return InputError(field, f"'{name}'", f"one of {', '.join(known)}", did_you_mean(name, known))


def _sets(jaw: float = 0.0, others: float = 0.0, mouth: float | None = None) -> dict[str, float]:
    return {"jaw": jaw, "brows": others, "nose": others, "eyes": others, "mouth": others if mouth is None else mouth}


_ALL = ("jaw_open", "jaw", "mouth", "cheeks", "nose", "brows", "eyes")


def _pixels(name: str, blur: float, renders: int = 1, fit_light: bool = False, reweight: bool = False) -> Stage:
    return Stage(
        name, True, True, _ALL, _sets(0.3, 0.3), 0.0, renders, 6, 0.0, fit_light, reweight,
        readings=0, photometric=0.5, blur=blur,
    )  # fmt: skip


DEFAULT_STAGES: tuple[Stage, ...] = (
    Stage("translation, non-jaw", True, False, (), _sets(0, 1), edge_weight=0.5, renders=1, iterations=3),
    Stage("rigid, non-jaw", True, True, (), _sets(0, 1), edge_weight=0.5, renders=1, iterations=10),
    Stage("rigid, jaw only", True, True, (), _sets(1, 0), edge_weight=0.5, renders=0, iterations=3),
    Stage("rigid, all", True, True, (), _sets(1, 1), edge_weight=0.5, renders=1, iterations=10),
    Stage("jaw open", True, True, ("jaw_open",), _sets(1, 0.5, 2), renders=1, fit_light=True),
    Stage("jaw", False, False, ("jaw_open", "jaw"), _sets(1, 0.5, 2), renders=0),
    Stage("jaw and mouth", True, True, ("jaw_open", "jaw", "mouth", "cheeks"), _sets(1, 1), renders=2),
    Stage(
        "whole face",
        True,
        True,
        _ALL,
        _sets(0.7, 1, 1.2),
        renders=2,
    ),
    # Landmarks err alike in every frame, so that they count less beside pixels. Few steps, since the plate's gradient
    # holds for about a pixel of its smoothing.
    _pixels("pixels, coarse", 3.0, fit_light=True, reweight=True),
    _pixels("pixels", 1.5),
    _pixels("pixels, fine", 0.8, renders=2),
    Stage("landmarks, weighted", True, True, _ALL, _sets(1, 1), renders=2, reweight=True, readings=4, fallback=True),
)
