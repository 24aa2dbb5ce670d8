"""A solve that is killed goes on, in another process, to the track that it would have made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepenergy import Track
from deepenergy.scene.track import REFINED

FRAMES, LOST = 5, 1003
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "killable_solve.py"


def copy_shot(demo: Path, folder: Path) -> None:
    """The first frames of the demo, one of them without a face."""
    (folder / "plates").mkdir(parents=True)
    for name in ("shot.toml", "rig.npz", "cameras.json"):
        shutil.copy(demo / name, folder)
    for number in range(1001, 1001 + FRAMES):
        shutil.copy(demo / "plates" / f"demo.{number}.jpg", folder / "plates")
    with Image.open(folder / "plates" / f"demo.{LOST}.jpg") as plate:
        Image.new("RGB", plate.size, (90, 95, 99)).save(folder / "plates" / f"demo.{LOST}.jpg")


def steps(folder: Path, output: Path, stop_at: str | None = None, delay: float = 0.0) -> list[str]:
    """What a solve tells until it ends, or is killed `delay` seconds after a step. Its own process, SIGKILL."""
    command = [sys.executable, str(SCRIPT), str(folder), str(output)]
    told: list[str] = []
    # This tree's package, whatever is installed.
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=where) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line.strip())
            if told[-1] == stop_at:
                time.sleep(delay)
                process.kill()
                break
    assert process.returncode in (0, -9)
    return told


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_change_nothing(demo_folder: Path, tmp_path: Path, kills: int) -> None:
    copy_shot(demo_folder, tmp_path / "shot")
    every = steps(tmp_path / "shot", tmp_path / "whole.npz")
    whole = Track.load(tmp_path / "whole.npz")
    assert whole.status[LOST - 1001] == "infilled" and whole.solved.sum() == FRAMES - 1
    draw, killed, rounds = np.random.default_rng(6), [], 0
    # Anywhere, and twice at least in what follows the frames' own solves; one kill alone comes there.
    late = [step for step in every if step.startswith(("infill", "refine"))] + [
        step for step in every if step.startswith("solve: check")
    ][-1:]
    moments = [*draw.choice(every, max(kills - 3, 0)), *draw.choice(late, min(kills, 3))]
    draw.shuffle(moments)
    while len(killed) < kills:
        folder = tmp_path / f"shot{rounds}"
        shutil.copytree(tmp_path / "shot", folder)
        output = folder / "track.npz"
        while not output.exists():
            moment = str(moments[len(killed)]) if len(killed) < kills else None
            told = steps(folder, output, moment, float(draw.uniform(0, 0.4)))
            if output.exists():
                break
            killed.append(told[-1])
        assert not (folder / "resume").exists()
        again, rounds = Track.load(output), rounds + 1
        for name in (*REFINED, "confidence", "landmark_residual_px"):
            np.testing.assert_array_equal(getattr(again, name), getattr(whole, name), err_msg=f"killed at {killed}")
        for name in REFINED:
            np.testing.assert_array_equal(again.before[name], whole.before[name])
            np.testing.assert_array_equal(again.sigma[name], whole.sigma[name])
        assert again.provenance.tolist() == whole.provenance.tolist()
        assert again.reason.tolist() == whole.reason.tolist()
    if kills > 1:
        assert any(step.startswith(("infill", "refine")) for step in killed)
        assert any(step.startswith("solve") for step in killed)
