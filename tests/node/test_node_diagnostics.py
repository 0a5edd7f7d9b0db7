"""``/diagnostics`` once a second in every lifecycle state, with figures that are right; ages on the node's clock."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from builtin_interfaces.msg import Time
from instructseg_msgs.msg import Instruction as InstructionMessage
from instructseg_msgs.msg import Target
from instructseg_msgs.srv import SegmentOnce
from node.node_harness import Harness
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String
from unit.fakes import colour_frame

from instructseg.core import Instruction, State
from instructseg.streaming import InstructionStatus
from instructseg.streaming.statistics import Recorder
from instructseg_node.conversions import fill_image
from instructseg_node.device import free_device_memory
from instructseg_node.diagnostics import (
    ERROR,
    OK,
    STALE,
    WARN,
    Health,
    News,
    Newsreader,
    instruction_status,
    stream_status,
)


def test_reports_come_once_a_second_from_the_start(ros) -> None:
    harness = Harness(ros)
    reports = harness.listen_to_diagnostics()
    harness.wait(lambda: len(reports) >= 2, "two reports")
    stamps = [report.header.stamp.sec + report.header.stamp.nanosec * 1e-9 for report in reports]
    assert stamps[1] - stamps[0] == pytest.approx(1.0, abs=0.5)
    assert reports[0].status[0].name == "instructseg: stream"
    assert reports[0].status[0].message == "unconfigured"


def test_figures_of_a_running_stream(ros) -> None:
    harness = Harness(ros, frame_policy="every").up("targets")
    harness.say("the red block")
    for _ in range(20):
        harness.show("red")
        time.sleep(0.02)
    harness.wait(lambda: len(harness.heard["targets"]) == 20, "all frames")
    report = harness.next_report()
    stream = report["instructseg: stream"]
    assert (stream["level"], stream["message"], stream["lifecycle"]) == (OK, "active", "active")
    assert stream["hardware"] == stream["device"] == "cpu"
    assert (stream["frames in"], stream["frames out"]) == ("20", "20")
    assert 5.0 < float(stream["rate in Hz"]) < 50.0
    assert 0.0 < float(stream["age p50 ms"]) <= float(stream["age p95 ms"]) <= float(stream["age p99 ms"]) < 5000.0
    assert 10.0 < float(stream["memory resident MB"]) < 10_000.0
    assert {"queue waiting", "median encode ms", "median segment ms", "groundings done"} <= set(stream)
    instruction = report["instructseg: instruction command-1"]
    assert (instruction["state"], instruction["text"], instruction["targets"]) == ("PRESENT", "the red block", "1")
    assert instruction["level"] == OK


@pytest.mark.parametrize(
    ("health", "level", "words"),
    [
        (Health("unconfigured"), OK, "unconfigured"),
        (Health("inactive", failure="activate failed: x"), ERROR, "activate failed: x"),
        (Health("active", silent={"head": 7.2}), STALE, "no image from head for 7 s"),
        (Health("active", enabled=False), OK, "disabled"),
        (Health("active", news=News(refused={"command": 1, "image_data": 30})), WARN, "1 command, 30 image_data"),
        (Health("active", news=News(2), silent={"head": 7.2}), ERROR, "2 model errors in the last second: segment"),
        (Health("active", silent={"head": 7.2}, news=News(refused={"command": 1})), STALE, "no image"),
        (Health("active", failure="deactivate failed: x", news=News(2)), ERROR, "deactivate failed: x"),
        (Health("inactive", news=News(2)), OK, "inactive"),
    ],
)
def test_the_worst_thing_is_the_message(health, level, words) -> None:
    recorder = Recorder()
    recorder.fault("segment", "segment failed: x")
    status = stream_status("n", health, recorder.snapshot(0, {}, (), 0))
    assert status.level == level
    assert words in status.message


def test_news_are_what_was_added_since_the_last_report_and_not_what_is_left_out_on_purpose() -> None:
    recorder, reader = Recorder(), Newsreader()

    def news() -> News:
        return reader.read(recorder.snapshot(0, {}, (), 0))

    assert reader.read(None) == news() == News()
    for cause in ("command", "image_data", "image_data", "replaced", "rate_limit", "degraded", "reset", "stopped"):
        recorder.count("drops", cause)
    recorder.fault("encode", "x")
    assert news() == News(1, {"command": 1, "image_data": 2})
    assert news() == News()
    recorder.count("drops", "stamp_backwards")
    assert news() == News(0, {"stamp_backwards": 1})


class FakeCuda:
    def __init__(self, begun: bool) -> None:
        self.begun, self.emptied = begun, 0

    def is_initialized(self) -> bool:
        return self.begun

    def get_device_name(self, device: str) -> str:
        return "NVIDIA H200"

    def mem_get_info(self, device: str) -> tuple[int, int]:
        return 1_000_000_000, 4_000_000_000

    def memory_allocated(self, device: str) -> int:
        return 1_500_000_000

    def memory_reserved(self, device: str) -> int:
        return 2_000_000_000

    def empty_cache(self) -> None:
        self.emptied += 1


def test_an_accelerator_is_named_and_its_memory_told(monkeypatch) -> None:
    cuda = FakeCuda(begun=True)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    status = stream_status("n", Health("active", device="cuda:0"), None)
    values = {pair.key: pair.value for pair in status.values}
    assert (status.hardware_id, values["device"]) == ("NVIDIA H200", "cuda:0")
    assert values["memory device allocated MB"] == "1500.0"
    assert values["memory device reserved MB"] == "2000.0"
    assert values["memory device total MB"] == "4000.0"
    free_device_memory()
    assert cuda.emptied == 1


@pytest.mark.parametrize(("begun", "device"), [(False, "cuda:0"), (True, "cpu")])
def test_an_accelerator_that_is_not_in_use_is_not_woken(monkeypatch, begun, device) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=FakeCuda(begun)))
    status = stream_status("n", Health("active", device=device), None)
    assert status.hardware_id == device
    assert not any("memory device" in pair.key for pair in status.values)


def test_bad_input_is_a_warning_until_the_next_report(ros) -> None:
    harness = Harness(ros).up()
    harness.listen_to_diagnostics()
    harness.publish("image", Image(width=7, height=7))
    harness.wait(lambda: harness.dropped("image_size"), "the refusal")
    harness.next_report()
    levels = [(r.status[0].level, r.status[0].message) for r in harness.heard["/diagnostics"]]
    assert (WARN, "active, could not be used in the last second: 1 image_size") in levels
    assert harness.diagnostics()["level"] == OK


def test_goals_and_questions_that_wait_are_counted(ros) -> None:
    harness = Harness(ros).up()
    harness.segmenter.gates["ground"] = threading.Event()
    client = harness.peer.create_client(SegmentOnce, "/instructseg/segment_once")
    assert client.wait_for_service(10.0)
    picture = fill_image(Image(), colour_frame(0.0, "red").image, "rgb8", Header())
    asked = SegmentOnce.Request(image=picture, instruction=InstructionMessage(text="red"))
    answers = [client.call_async(asked) for _ in range(2)]
    harness.wait(lambda: len(harness.segmenter.asked) == 2, "the question inside the model")
    assert harness.diagnostics()["questions"] == "2"
    harness.segmenter.gates["ground"].set()
    harness.wait(lambda: all(answer.done() for answer in answers), "the answers")
    assert (harness.diagnostics()["questions"], harness.diagnostics()["goals"]) == ("0", "0")


def test_an_overloaded_stream_says_what_it_does_without() -> None:
    steps = ("half the groundings", "half the frames")
    recorder = Recorder()
    recorder.frame_out(0, 0.62, {})
    statistics = recorder.snapshot(0, {}, (), 0, steps)
    status = stream_status("n", Health("active"), statistics)
    assert status.level == WARN and "age p95 620 ms" in status.message and ", ".join(steps) in status.message
    assert {value.key: value.value for value in status.values}["degradation"] == ", ".join(steps)
    status = stream_status("n", Health("active"), dataclasses.replace(statistics, degradation=()))
    assert status.level == OK
    assert {value.key: value.value for value in status.values}["degradation"] == "none"


def test_a_node_that_is_too_slow_for_max_age_degrades_and_reports_it(ros) -> None:
    harness = Harness(ros, max_age=0.005).up("targets")
    harness.segmenter.delays["encode"] = 0.02
    harness.say("red")
    harness.show_until(lambda: harness.node._engine.statistics().degradation, "less being done", "red")
    stream = harness.diagnostics()
    assert stream["level"] == WARN and "half the groundings" in stream["message"]
    assert stream["degradation"].startswith("half the groundings")
    harness.show_until(lambda: harness.dropped("degraded"), "frames being left out", "red")


@pytest.mark.parametrize(
    ("state", "level"), [(State.PRESENT, OK), (State.LOST, WARN), (State.NO_TARGET, WARN), (State.STALE, STALE),
                         (State.ERROR, ERROR)],
)  # fmt: skip
def test_the_state_of_an_instruction_is_its_level(state, level) -> None:
    status = instruction_status("n", InstructionStatus(Instruction("a", "red"), state, "because", 0))
    assert status.level == level
    assert status.message == f"{state.name}: because"


def test_ages_are_measured_on_simulated_time(ros) -> None:
    harness = Harness(ros, use_sim_time=True).up("targets")
    harness.publish("/clock", Clock(clock=Time(sec=100, nanosec=500_000_000)))
    harness.wait(lambda: harness.node.get_clock().now().nanoseconds == 100_500_000_000, "simulated time")
    harness.publish("command", String(data="red"))
    tenth = 100_000_000
    message = None
    for step in range(1, 200):
        harness.show("red", stamp=Time(sec=100, nanosec=step * tenth // 100))
        time.sleep(0.01)
        message = harness.heard["targets"][-1] if harness.heard["targets"] else None
        if message and message.targets and message.targets[0].state == Target.PRESENT:
            break
    target = message.targets[0]
    assert target.state == Target.PRESENT
    stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
    assert target.age == pytest.approx(100.5 - stamp, abs=1e-3)
