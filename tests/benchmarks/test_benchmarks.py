"""The benchmarks' scaffold: metrics, baseline, command line, and the measures that it computes itself."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import benchmarks.__main__ as command_line
from benchmarks import network, truth
from benchmarks.baseline import BASELINE, Entry, compare, default_tolerance, load_baseline, save_baseline, updated
from benchmarks.facemesh import FACEMESH_TO_68, read_labels
from benchmarks.metrics import Metric, Outcome, format_value, print_outcome, read_json, write_json
from benchmarks.shares import Shares
from deepenergy.runtime.errors import InputError
from deepenergy.scene.landmark_layout import IBUG_68
from deepenergy.scene.plates import Plates

ERROR = Metric("truth.mono_left.rotation_deg", 1.0, "deg", "lower", {"frames": 96})
SOLVED = Metric("truth.mono_left.solved", 0.98, "share", "higher")
TIME = Metric("truth.mono_left.seconds_per_frame", 1.0, "s", "lower")


def entries(*metrics: Metric) -> dict[str, Entry]:
    return updated({}, list(metrics))


# -- metrics ------------------------------------------------------------------------------------------------------


def test_json_has_exactly_the_five_keys(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_json(path, [ERROR, Metric("network.compact.nme_clips", math.nan, "share", "lower")])
    content = json.loads(path.read_text())
    assert isinstance(content, list)
    assert all(list(entry) == ["name", "value", "unit", "better", "context"] for entry in content)
    expected = {"name": ERROR.name, "value": 1.0, "unit": "deg", "better": "lower", "context": {"frames": 96}}
    assert content[0] == expected
    assert content[1]["value"] is None
    assert read_json(path)[0] == ERROR
    assert math.isnan(read_json(path)[1].value)


def test_json_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="a list of metrics"):
        read_json(tmp_path / "m.json")


def test_values_print_in_four_digits() -> None:
    assert [format_value(v) for v in (0.123456, 1925000.0, 12.0, math.nan)] == [
        "0.1235", "1925000", "12", "not measured",
    ]  # fmt: skip


def test_table_names_metrics_and_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_outcome(Outcome([ERROR], {"truth.stereo": "not asked for"}, {"network": "no weights [at all]"}))
    text = capsys.readouterr().out
    assert "truth.mono_left.rotation_deg" in text
    assert "skipped truth.stereo: not asked for" in text
    assert "refused network: no weights [at all]" in text


def test_what_is_compared_stands_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    right = Metric("truth.mono_right.rotation_deg", 2.0, "deg", "lower")
    outcome = Outcome([ERROR, SOLVED, right], compared=["truth.mono_left"])
    outcome.extend(Outcome(compared=["truth.mono_right"]))
    print_outcome(outcome)
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert ["mono_left", "mono_right"] in rows
    assert ["rotation_deg", "1", "2"] in rows
    # What was not measured is left empty.
    assert ["solved", "0.98"] in rows


def test_peak_memory_sees_an_allocation() -> None:
    # In a process of its own: here the allocation could come out of memory that another test has freed.
    code = (
        "import numpy as np; from benchmarks.metrics import PeakMemory; memory = PeakMemory(); before = memory.mb(); "
        "block = np.ones(200_000_000 // 8); print(before, memory.mb(), memory.scope)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after, *scope = ran.stdout.split()
    assert 150 < float(after) - float(before) < 400
    assert " ".join(scope) in {"this variant", "the process so far"}


# -- baseline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "value", "holds"),
    [
        (ERROR, 1.04, True),
        (ERROR, 1.06, False),
        (ERROR, 0.2, True),
        (ERROR, math.nan, False),
        (SOLVED, 0.97, True),
        (SOLVED, 0.95, False),
        (SOLVED, 1.0, True),
        (TIME, 500.0, True),
    ],
)
def test_worse_is_found(metric: Metric, value: float, holds: bool) -> None:
    run = Outcome([Metric(metric.name, value, metric.unit, metric.better)])
    assert (compare(entries(metric), run, ["truth"]) == []) == holds


def test_absent_metrics_fail_unless_skipped() -> None:
    baseline = entries(ERROR, TIME)
    assert [f.reason for f in compare(baseline, Outcome([ERROR]), ["truth"])] == ["absent from the run"]
    assert compare(baseline, Outcome([], {"truth": "no data"}), ["truth"]) == []
    assert compare(baseline, Outcome([], {"truth.mono_left": "no data"}), ["truth"]) == []
    # A prefix is whole words: `truth.mono` is not `truth.mono_left`.
    assert len(compare(baseline, Outcome([], {"truth.mono": "no data"}), ["truth"])) == 2
    assert compare(baseline, Outcome(), ["network"]) == []
    refused = compare(baseline, Outcome(refused={"truth.mono_left": "rig without landmarks"}), ["truth"])
    assert [f.reason for f in refused] == ["refused: rig without landmarks"] * 2


def test_another_unit_fails() -> None:
    run = Outcome([Metric(ERROR.name, 0.01, "rad", "lower")])
    assert "unit" in compare(entries(ERROR), run, ["truth"])[0].reason


def test_tolerances_survive_an_update(tmp_path: Path) -> None:
    baseline = entries(ERROR) | {SOLVED.name: Entry(0.9, "share", "higher", 0.001)}
    path = tmp_path / "b.json"
    save_baseline(updated(baseline, [SOLVED, TIME]), path)
    loaded = load_baseline(path)
    assert loaded[SOLVED.name] == Entry(0.98, "share", "higher", 0.001)
    assert loaded[ERROR.name] == baseline[ERROR.name]
    assert loaded[TIME.name].tolerance is None
    assert list(loaded) == sorted(loaded)
    with pytest.raises(InputError, match="not measured"):
        updated(baseline, [Metric("truth.stereo.depth_mm", math.nan, "mm", "lower")])


def test_default_tolerances() -> None:
    assert default_tolerance(ERROR) == 0.05
    assert default_tolerance(SOLVED) == 0.02
    assert default_tolerance(TIME) is None
    assert default_tolerance(Metric("raster.speedup", 10, "x", "higher")) == 0.5


def test_baselines_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--update"):
        load_baseline(tmp_path / "absent.json")
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(InputError, match="baseline"):
        load_baseline(tmp_path / "b.json")


def test_committed_baseline_reads() -> None:
    for name, entry in load_baseline(BASELINE).items():
        assert name.split(".")[0] in command_line.NAMES
        assert math.isfinite(entry.value)


# -- command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Metric]:
    metrics = [ERROR, SOLVED, TIME]
    monkeypatch.setattr(command_line, "run_benchmark", lambda name, options: Outcome(list(metrics)))
    return metrics


def test_update_then_check(tmp_path: Path, measured: list[Metric], capsys: pytest.CaptureFixture[str]) -> None:
    baseline, out = tmp_path / "b.json", tmp_path / "m.json"
    arguments = ["truth", "--baseline", str(baseline)]
    assert command_line.main([*arguments, "--check"]) == 2
    assert "--update" in capsys.readouterr().err
    save_baseline({}, baseline)
    assert command_line.main([*arguments, "--check"]) == 2
    assert "nothing of truth" in capsys.readouterr().err
    assert command_line.main([*arguments, "--update", "--json", str(out)]) == 0
    assert [m.name for m in read_json(out)] == [m.name for m in measured]
    assert command_line.main([*arguments, "--check"]) == 0
    assert "2 metrics compared" in capsys.readouterr().out
    measured[0] = Metric(ERROR.name, 1.2, "deg", "lower")
    assert command_line.main([*arguments, "--check"]) == 1
    assert "worse than the baseline" in capsys.readouterr().out
    measured.pop(0)
    assert command_line.main([*arguments, "--check"]) == 1
    assert "absent" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["network", "--frames", "1001-1004"],
        ["network", "--figure", "curves.png"],
        ["truth", "--check", "--frames", "1001-1004"],
        ["truth", "--update", "--shot", "folder"],
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], measured: list[Metric], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command_line.main(["speeds"])
    assert stop.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


# -- truth --------------------------------------------------------------------------------------------------------


def test_truth_without_data_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEEPENERGY_TEST_DATA", str(tmp_path / "absent"))
    outcome = truth.run()
    assert outcome.metrics == []
    assert "DEEPENERGY_TEST_DATA" in outcome.skipped["truth"]
    with pytest.raises(InputError, match="--shot"):
        truth.run(tmp_path / "absent")


def test_truth_knows_its_variants(test_data: Path) -> None:
    with pytest.raises(InputError, match="mono_left, mono_right, stereo"):
        truth.run(test_data / "shots" / "ict_stereo", ["sideways"])


def test_truth_reads_the_developer_shot(test_data: Path) -> None:
    shot = truth.TruthShot.load(test_data / "shots" / "ict_stereo")
    plates = shot.plates("right", "1001-1003")
    assert plates.frames == (1001, 1002, 1003)
    shot.camera("right").check_plate_size(plates.width, plates.height)
    assert shot.plates("left", None).frames == tuple(shot.truth.frames)


# -- network ------------------------------------------------------------------------------------------------------


class Dot:
    """Heatmaps that point to the same place of every crop, whatever is in it."""

    name = "dot"
    layout = IBUG_68

    def __init__(self, x: int, y: int) -> None:
        self.place = x, y
        self.layer = torch.nn.Linear(3, 4)

    def __call__(self, crops: Tensor) -> Tensor:
        heatmaps = torch.zeros(len(crops), 68, 64, 64)
        heatmaps[:, :, self.place[1], self.place[0]] = 100.0
        return heatmaps

    def crop_boxes(self, face_boxes: Tensor) -> Tensor:
        return face_boxes

    def confidence(self, heatmaps: Tensor) -> Tensor:
        return torch.ones(heatmaps.shape[:2])


def test_nme_is_a_share_of_the_outer_eye_corners() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(4, 68, 2, generator=generator, dtype=torch.float64) * 100
    offset = torch.tensor([3.0, 4.0], dtype=torch.float64)
    interocular = (points[:, 36] - points[:, 45]).norm(dim=-1)
    found = points + offset
    found[:, :17] += 1000
    torch.testing.assert_close(network.normalised_mean_error(found, points), 5 / interocular)
    # Neither place nor scale of the picture matter.
    torch.testing.assert_close(
        network.normalised_mean_error(found * 7 + 3, points * 7 + 3), 5 / interocular, rtol=1e-9, atol=0
    )


def test_clip_errors_skip_frames_without_a_face() -> None:
    rng = np.random.default_rng(0)
    truth_points = rng.uniform(20, 60, size=(20, 68, 2))
    truth_points[6] = np.nan
    plates = Plates.from_array(np.zeros((20, 80, 96, 3), dtype=np.uint8))
    errors = network.clip_errors(Dot(10, 20), plates, truth_points)
    rows = [0, 12, 18]
    assert errors.shape == (3,)
    for error, row in zip(errors, rows, strict=True):
        points = truth_points[row]
        low, high = points.min(0), points.max(0)
        # The centre of heatmap cell (10, 20), carried to the box.
        guess = low + (np.array([10.5, 20.5]) / 64) * (high - low)
        expected = np.linalg.norm(points[17:] - guess, axis=1).mean() / np.linalg.norm(points[36] - points[45])
        assert error == pytest.approx(expected, rel=1e-6)


def test_size_and_speed_of_a_network() -> None:
    assert network.parameters(Dot(0, 0)) == 16
    assert network.parameters(torch.nn.Linear(3, 4)) == 16  # pyright: ignore[reportArgumentType]
    threads = torch.get_num_threads()
    (metric,) = network.speed(Dot(0, 0), "dot")
    assert metric.name == "network.dot.ms_per_crop"
    assert metric.value > 0
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_held_out_renders_measure_the_distance_from_the_truth(test_data: Path) -> None:
    actor = network.ict_actor(test_data / "ict-facekit.tar.xz")
    metric = network.nme_renders(Dot(32, 32), "dot", actor, count=2)
    # Everything at the centre of the box: as far off as half a face is large.
    assert 0.2 < metric.value < 2
    assert metric.context["renders"] == 2


def test_facemesh_mapping_is_a_face(test_data: Path) -> None:
    assert len(FACEMESH_TO_68) == 68
    assert len(set(FACEMESH_TO_68)) == 68
    points = read_labels(test_data / "labels" / "s32_facemesh478.npz")
    assert points.shape[1:] == (68, 2)
    face = points[np.isfinite(points).all((1, 2))]
    middle = face.mean(0)
    # The subject's right eye is left in the picture; brows, eyes, nose tip, mouth and chin from top to bottom.
    assert middle[36, 0] < middle[39, 0] < middle[42, 0] < middle[45, 0]
    assert middle[17:27, 1].mean() < middle[36:48, 1].mean() < middle[30, 1] < middle[48:, 1].mean() < middle[8, 1]
    assert middle[0, 0] < middle[8, 0] < middle[16, 0]


def test_labels_say_where_there_is_no_face(tmp_path: Path) -> None:
    raw = np.full((2, 478, 2), 160, dtype=np.int16)
    raw[1] = -16
    np.savez(tmp_path / "l.npz", xy_sixteenth_px=raw)
    points = read_labels(tmp_path / "l.npz")
    assert (points[0] == 10).all()
    assert np.isnan(points[1]).all()


def test_shares_count_a_part_without_what_runs_inside() -> None:
    class Clocked:
        def outer(self) -> None:
            time.sleep(0.02)
            self.inner()

        def inner(self) -> None:
            time.sleep(0.06)

    original = Clocked.inner
    shares = Shares()
    with shares.of({"outer": [(Clocked, "outer")], "inner": [(Clocked, "inner")]}), shares.part("other"):
        Clocked().outer()
    assert Clocked.inner is original
    assert shares.seconds["inner"] > shares.seconds["outer"] > shares.seconds["other"]
    assert sum(shares.percent().values()) == pytest.approx(100, abs=0.2)
    assert Shares().percent() == {}
