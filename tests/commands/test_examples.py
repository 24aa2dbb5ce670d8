"""The examples run as they are, and write what they say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from deepenergy.scene.track import Track

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.slow
def test_first_solve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(monkeypatch, "01_first_solve.py", tmp_path)
    assert Track.load(tmp_path / "first.track.npz").solved.all()


@pytest.mark.slow
def test_stereo_solve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "03_stereo_solve.py", "--output", tmp_path)
    track = Track.load(tmp_path / "stereo.track.npz")
    assert set(track.landmarks_px) == {"left", "right"} and track.solved.all()
    assert "8 frames from left, right" in (told := capsys.readouterr().out) and "translation" in told
    # What it filmed is laid out as a shot of one's own is.
    run(monkeypatch, "03_stereo_solve.py", tmp_path / "shot", "--frames", "1002", "--cameras", "right",
        "--output", tmp_path / "mono")  # fmt: skip
    assert set(Track.load(tmp_path / "mono" / "stereo.track.npz").landmarks_px) == {"right"}


@pytest.mark.slow
def test_stage_by_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, test_data: Path) -> None:
    shot = test_data / "shots" / "ict_stereo"
    if not shot.is_dir():
        pytest.skip(f"test data absent: no folder {shot}")
    schedule = tmp_path / "stages.toml"
    schedule.write_text(
        '[[stage]]\nname = "rigid"\ntranslation = true\nrotation = true\ngroups = []\nlandmark_weights = { nose = 1 }\n'
    )
    picture = tmp_path / "out" / "figure.png"
    run(monkeypatch, "04_stage_by_stage.py", shot, "--frame", "1040", "--stages", schedule, "--output", picture)
    run(monkeypatch, "04_stage_by_stage.py", "--output", tmp_path / "demo.png")
    # The plate and one stage beside each other; three rows of the default schedule.
    with Image.open(picture) as one, Image.open(tmp_path / "demo.png") as whole:
        assert whole.height > 2 * one.height


@pytest.mark.slow
def test_infill_strip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "out" / "infill.png"
    run(monkeypatch, "05_infill.py", "--frames", "1001-1006", "--out", "1003-1004", "--output", picture)
    with Image.open(picture) as image:
        assert image.size == (220 * 4, 220 * 4)
    told = capsys.readouterr().out
    assert "1003: interpolation" in told and "1002: interpolation 0.00 mm, flow 0.00 mm" in told


@pytest.mark.slow
def test_before_and_after(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "06_before_after.py", "--output", tmp_path)
    tracks = [Track.load(tmp_path / f"{name}.track.npz") for name in ("before", "after")]
    assert all(track.solved.all() for track in tracks) and (tracks[1].provenance == "refined by averaging").all()
    told = capsys.readouterr().out
    values = [line for line in told.splitlines() if line.startswith("jitter of ")]
    assert len(values) == 3 and "before: 10 solved, 0 infilled, 0 failed" in told
    with Image.open(tmp_path / "before_after.png") as image:
        assert image.size == (2 * 480, 6 * 480)
    assert (tmp_path / "before_after.mp4").stat().st_size > 10_000
