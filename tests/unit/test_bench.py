"""The benchmark's reports: figures, verdicts, files, command line, and its arithmetic. Nothing here looks at time."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from unit.fakes import ColourSegmenter, colour_frame

from bench import __main__ as command
from bench import engine, memory, model, node
from bench.figures import Figure, Floor, Report, figure, table
from bench.machine import cpu_model, machine_facts
from bench.meter import FreeSegmenter, MeteredSegmenter
from bench.options import MeasurementFailed, Options
from bench.scenes import make_scene
from instructseg.core import Clip, Instruction


@pytest.fixture(scope="module")
def scene():
    return make_scene(rate=2.0)


def test_floors_judge_the_median() -> None:
    assert figure("rate", "frames/s", [1.0, 20.0, 30.0], Floor("at least", 15.0, "15")).verdict == "met"
    assert figure("rate", "frames/s", [1.0, 14.9, 30.0], Floor("at least", 15.0, "15")).verdict == "not met"
    assert figure("age", "ms", 100.0, Floor("at most", 100.0, "100")).verdict == "met"
    assert figure("age", "ms", 100.1, Floor("at most", 100.0, "100")).verdict == "not met"
    assert figure("age", "ms", 7).verdict == ""


def test_a_figure_without_values_and_an_unknown_kind_of_floor_are_refused() -> None:
    with pytest.raises(ValueError, match="'age' has no value"):
        figure("age", "ms", [])
    with pytest.raises(ValueError, match="'at least' or 'at most'"):
        Floor("below", 1.0, "")


def test_the_file_holds_what_the_table_shows(tmp_path: Path) -> None:
    floor = Floor("at most", 20.0, "<= 20 MB")
    figures = (figure("resident", "MB", 512.25), figure("difference", "MB", [31.0, 25.5, 11.0], floor))
    report = Report("memory", True, "recipe unified", machine_facts(), figures, {"frames": [50, 300]})
    values = json.loads(report.write(tmp_path / "new").read_text(encoding="utf-8"))
    assert values["part"] == "memory"
    assert values["quick"] is True
    assert values["details"] == {"frames": [50, 300]}
    assert values["machine"].keys() >= {"cpu", "cores", "torch_threads", "load_average"}
    assert values["figures"][0] == {"name": "resident", "unit": "MB", "value": 512.25, "repetitions": 1}
    difference = values["figures"][1]
    assert (difference["min"], difference["median"], difference["max"]) == (11.0, 25.5, 31.0)
    assert difference["floor"]["verdict"] == "not met"
    shown = table(report).splitlines()
    assert len(shown) == 4
    assert shown[2].split() == ["resident", "512.2", "MB"]
    assert shown[3].split() == ["difference", "11.0", "25.5", "31.0", "MB", "<=", "20", "MB", "not", "met"]


def test_the_processor_is_named_even_without_proc(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor: 0\nmodel name\t: Some CPU: fast\n", encoding="utf-8")
    assert cpu_model(tmp_path / "cpuinfo") == "Some CPU: fast"
    assert cpu_model(tmp_path / "nothing") != "Some CPU: fast"


def test_the_scene_goes_on_without_a_jump_and_names_things_in_it(scene) -> None:
    assert scene.images.shape == (7, 480, 640, 3)
    assert scene.images.dtype == np.uint8
    assert [scene.image(i) is scene.image(j) for i, j in ((0, 12), (5, 7), (6, 18))] == [False] * 3
    for one, other in ((0, 12), (5, 7), (6, 18), (1, 25)):
        np.testing.assert_array_equal(scene.image(one), scene.image(other))
    stamps = [frame.stamp_ns for frame in scene.frames(3, start=4)]
    assert stamps == [2_500_000_000, 3_000_000_000, 3_500_000_000]
    assert len({instruction.id for instruction in scene.instructions(9)}) == 9
    assert all(instruction.text.startswith("the ") for instruction in scene.instructions(9))


def test_the_meter_passes_results_on_and_counts_every_step() -> None:
    inner = ColourSegmenter()
    metered = MeteredSegmenter(inner)
    encoded = metered.encode([colour_frame(1.0, "red")])[0]
    token = metered.ground(Clip((encoded,)), [Instruction("i", "red")])[0].targets[0].token
    assert metered.segment(encoded, [token])[0].mask.sum() == 64
    assert all(seconds > 0 for seconds in metered.wall_s.values())
    assert metered.wall_s.keys() == metered.cpu_s.keys() == {"encode", "segment", "ground"}
    metered.sampling = sampling = type(inner.sampling)(sparse=2)
    assert inner.sampling is sampling


def test_a_failing_step_is_counted_and_still_fails() -> None:
    inner = ColourSegmenter()
    inner.raising.add("encode")
    metered = MeteredSegmenter(inner)
    with pytest.raises(RuntimeError, match="encode broke"):
        metered.encode([colour_frame(1.0)])
    assert metered.wall_s["encode"] > 0


def test_the_parts_give_their_figures_with_any_recipe(scene) -> None:
    names = [f.name for f in model.steps(FreeSegmenter(), scene, "float32 2T", 2)]
    assert names == [
        "float32 2T encode", "float32 2T segment, 1 token", "float32 2T segment, 4 tokens",
        "float32 2T segment, 16 tokens", "float32 2T ground, 1 instruction", "float32 2T ground, 4 instructions",
        "float32 2T encode + segment",
    ]  # fmt: skip
    figures, details = engine.overhead(MeteredSegmenter(FreeSegmenter(targets=2)), scene, "fake", 3, 4)
    assert [f.unit for f in figures] == ["ms", "ms", "ms", "%"]
    assert details == {"frames": 4, "targets_present_per_frame": 6.0}


@pytest.fixture
def notes() -> tuple[dict, dict]:
    """Twenty frames at 2 Hz of which the node published every second one after the start."""
    second = 1_000_000_000
    sent = [second + i * second // 2 for i in range(20)]
    rows = [
        {"stamp_ns": stamp, "age_s": 0.05, "model_s": 0.04, "engine_s": 0.001, "publish_s": 0.003,
         "process_cpu_s": 0.060 * i, "ground_cpu_s": 0.010 * i, "model_cpu_s": 0.040 * i}
        for i, stamp in enumerate(sent[::2])
    ]  # fmt: skip
    statistics = {"frames_in": 18, "frames_out": 10, "drops": {"superseded": 8}, "groundings": {}, "faults": {}}
    arrivals = [[row["stamp_ns"], 0.2] for row in rows]
    return {"torch_threads": 1, "rows": rows, "statistics": statistics}, {
        "sent_ns": sent, "arrivals": arrivals, "present": 5,
    }  # fmt: skip


def test_the_node_part_reckons_within_one_run(notes) -> None:
    figures, details = node.evaluate(node.Run(2.0), *notes)
    by_name = {f.name.removeprefix("2 Hz: "): f for f in figures}
    assert by_name["published"].median == pytest.approx(1.0)
    assert by_name["dropped"].median == 10
    assert details["drops"] == {"before the node": 2, "superseded": 8}
    assert by_name["age at publication, p50"].median == pytest.approx(50.0)
    assert by_name["age at arrival, p50"].verdict == "not met"
    assert by_name["added by the clock"].median == pytest.approx(10.0)
    assert by_name["added by the clock"].verdict == "met"
    assert by_name["added CPU"].median == pytest.approx(25.0)
    assert by_name["added CPU"].verdict == "not met"


def test_cpu_is_compared_only_where_the_model_has_one_thread(notes) -> None:
    notes[0]["torch_threads"] = 2
    assert not any("CPU" in f.name for f in node.evaluate(node.Run(2.0), *notes)[0])


def test_a_node_that_published_nothing_is_an_error_and_no_figure(notes) -> None:
    notes[0]["rows"] = []
    with pytest.raises(MeasurementFailed, match="published 0 frames"):
        node.evaluate(node.Run(2.0), *notes)


def test_memory_reports_to_its_parent_and_a_dead_process_is_named() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    memory.node_path(sender, "", 50)
    frames, megabytes = receiver.recv()
    assert frames == 50
    assert megabytes > 10
    with pytest.raises(MeasurementFailed, match="nobody: the process ended with code 3 before 60 frames"):
        memory.in_own_process(_dies, "nobody", 10, 60, Options())


def _dies(pipe, checkpoint: str, last: int) -> None:
    raise SystemExit(3)


def fake_part(name: str):
    floor = Floor("at least", 15.0, ">= 15")
    return lambda options: ([Figure(f"{name} figure", "frames/s", (14.0,), floor)], {"quick": options.quick})


def test_the_command_line_runs_the_chosen_parts_in_order(tmp_path: Path, capsys) -> None:
    assert command.main(["node", "model", "--quick", "--out", str(tmp_path)], find=fake_part) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "node.json"]
    said = capsys.readouterr().out
    assert said.index("model figure") < said.index("node figure")
    assert "not met: node: node figure" in said
    assert json.loads((tmp_path / "node.json").read_text(encoding="utf-8"))["details"] == {"quick": True}
    assert command.main(["--out", str(tmp_path)], find=fake_part) == 0
    assert {path.stem for path in tmp_path.iterdir()} == set(command.PARTS)


def test_the_command_line_refuses_what_it_does_not_know(capsys) -> None:
    with pytest.raises(SystemExit):
        command.parse(["speed"])
    assert "unknown part(s) speed; there are: model, engine, node, memory" in capsys.readouterr().err


def test_missing_weights_are_named_and_end_with_two(tmp_path: Path, capsys) -> None:
    arguments = ["engine", "--quick", "--checkpoint", str(tmp_path / "nothing"), "--out", str(tmp_path)]
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("bench: engine: ")
    assert "nothing" in said
