"""A solve that tells every step on its standard output, for a test that kills it: `killable_solve.py FOLDER OUT.npz`.

FOLDER is a shot as the demo writes it; parts that are finished are kept in FOLDER/resume.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from deepenergy import Solver, SolverConfig, Stage
from deepenergy.pipeline import shot as sequence
from deepenergy.shot_file import Shot

_MARKS = {"brows": 1.0, "nose": 1.0, "eyes": 1.0, "mouth": 1.0}
# Landmarks, then pixels: one of everything that a part holds.
STAGES = (
    Stage("rigid", True, True, (), _MARKS, renders=2, iterations=10),
    Stage("expression", False, False, ("jaw", "mouth"), _MARKS, renders=1, iterations=10, fit_light=True),
    Stage("pixels", True, True, ("jaw", "mouth"), _MARKS, renders=1, iterations=5, photometric=1.0, blur=3.0),
)


def main(folder: Path, output: Path) -> None:
    """Solve, and write the track."""
    torch.set_num_threads(1)
    # A short shot in several parts.
    sequence._FRAMES_AT_ONCE = 2
    plates, rig, cameras = Shot.load(folder / "shot.toml").open()
    solver = Solver(SolverConfig(stages=STAGES, readings=1, reestimate=1))

    def tell(what: str, done: int, total: int) -> None:
        print(f"{what} {done} {total}", flush=True)

    solver.fit_sequence(plates, rig, cameras, tell, folder / "resume").save(output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
