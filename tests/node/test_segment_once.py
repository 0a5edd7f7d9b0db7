"""``~/segment_once``: an answer beside the stream, which goes on and is not touched."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import numpy as np
import pytest
from instructseg_msgs.msg import Instruction, Target
from instructseg_msgs.srv import SegmentOnce
from node.node_harness import NODE, Harness, now, pixels
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from unit.fakes import ColourSegmenter, colour_frame
from unit.tiny_sam2 import tiny_sam, transformers_checkpoint

from instructseg.tracking.ids import APART, TRACKED
from instructseg_node.conversions import fill_image
from instructseg_node.segment_once import MOST_WAITING

RED = (colour_frame(0.0, "red").image == (255, 0, 0)).all(axis=-1)


def picture(*colours: str, shift: int = 0) -> Image:
    header = Header(stamp=now(), frame_id="hand")
    return fill_image(Image(), colour_frame(0.0, *colours, shift=shift).image, "rgb8", header)


def question(text: str, *colours: str, **fields) -> SegmentOnce.Request:
    return SegmentOnce.Request(image=picture(*colours), instruction=Instruction(text=text, **fields))


class Client:
    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._client = harness.peer.create_client(SegmentOnce, f"{NODE}/segment_once")
        assert self._client.wait_for_service(10.0)

    def start(self, request: SegmentOnce.Request):
        return self._client.call_async(request)

    def answer(self, future) -> SegmentOnce.Response:
        self._harness.wait(future.done, "an answer")
        return future.result()

    def ask(self, text: str, *colours: str, **fields) -> SegmentOnce.Response:
        return self.answer(self.start(question(text, *colours, **fields)))


def test_masks_states_and_header_of_the_image_in_question(ros) -> None:
    client = Client(Harness(ros).up())
    request = question("the red block and the blue block", "red", id="mine")
    response = client.answer(client.start(request))
    assert (response.success, response.message) == (True, "")
    assert response.answer == "the red block and the blue block"
    assert response.targets.header == response.instance_mask.header == request.image.header
    assert (response.targets.camera, response.targets.width, response.targets.height) == ("", 64, 48)
    red, blue = response.targets.targets
    assert (red.instruction_id, red.state, red.phrase, red.area) == ("mine", Target.PRESENT, "red", 64)
    assert (blue.state, blue.instance_id, blue.area) == (Target.NO_TARGET, 0, 0)
    np.testing.assert_array_equal(pixels(response.instance_mask), np.where(RED, red.instance_id, 0))
    np.testing.assert_array_equal(pixels(response.confidence_mask), np.where(RED, 255, 0))


def test_an_absent_target_is_an_answer_without_pixels(ros) -> None:
    response = Client(Harness(ros).up()).ask("the blue block", "red")
    assert response.success
    assert [t.state for t in response.targets.targets] == [Target.NO_TARGET]
    assert "rejection score" in response.targets.targets[0].reason
    assert not pixels(response.instance_mask).any()
    assert response.confidence_mask.height == 0


def test_the_stream_goes_on_meanwhile_and_keeps_its_targets_and_ids(ros) -> None:
    harness = Harness(ros).up("targets", "instance_mask")
    client = Client(harness)
    harness.say("the red block")
    before = harness.show_until_state(Target.PRESENT, "red").targets[0]
    harness.segmenter.gates["ground"] = threading.Event()
    waiting = client.start(question("the green block", "green", "red", id="command-1"))
    assert harness.segmenter.entered["ground"].wait(10.0)
    harness.wait(lambda: len(harness.segmenter.asked) >= 2, "the question")  # inside the model now
    seen = len(harness.heard["targets"])
    harness.show_until(lambda: len(harness.heard["targets"]) > seen + 10, "ten more frames", "red")
    assert not waiting.done()
    harness.segmenter.gates["ground"].set()
    response = client.answer(waiting)
    assert [t.state for t in response.targets.targets] == [Target.PRESENT]
    assert APART[0] <= response.targets.targets[0].instance_id <= APART[1]
    assert TRACKED[0] <= before.instance_id <= TRACKED[1]
    after = harness.show_until_state(Target.PRESENT, "red").targets
    assert [(t.instruction_id, t.instance_id, t.since) for t in after] == [
        ("command-1", before.instance_id, before.since)
    ]
    assert {t.instance_id for m in harness.heard["targets"] for t in m.targets} <= {0, before.instance_id}
    assert len(harness.node.engine.statistics().instructions) == 1
    assert harness.node.engine.statistics().groundings == {"done": 1}


def test_ids_of_two_answers_differ(ros) -> None:
    client = Client(Harness(ros).up())
    ids = [client.ask("red", "red").targets.targets[0].instance_id for _ in range(2)]
    assert len(set(ids)) == 2


def test_a_tracker_that_carries_masks_follows_its_target_on(ros, tmp_path) -> None:
    checkpoint = str(transformers_checkpoint(tmp_path / "sam2", tiny_sam(presence=6.0)))
    small = {"warm_up_width": 64, "warm_up_height": 48, "present_threshold": 0.2}
    harness = Harness(ros, tracker="memory", tracker_checkpoint=checkpoint, **small).up("targets")
    client = Client(harness)
    harness.say("red")
    before = harness.show_until_state(Target.PRESENT, "red").targets[0]
    assert [t.state for t in client.ask("green", "green").targets.targets] == [Target.PRESENT]
    after = harness.show_until_state(Target.PRESENT, "red").targets[0]
    assert (after.instance_id, after.since) == (before.instance_id, before.since)


def test_the_same_parameters_judge_the_stream_and_the_question(ros) -> None:
    harness = Harness(ros, present_threshold=0.95).up()
    client = Client(harness)
    assert [t.state for t in client.ask("red", "red").targets.targets] == [Target.OCCLUDED]
    changed = harness.call(lambda: harness.node.set_parameters([Parameter("present_threshold", value=0.5)]))
    assert changed[0].successful
    assert [t.state for t in client.ask("red", "red").targets.targets] == [Target.PRESENT]


def bad_image(**fields) -> SegmentOnce.Request:
    request = question("red", "red")
    for name, value in fields.items():
        setattr(request.image, name, value)
    return request


def with_text(text: str, **fields) -> SegmentOnce.Request:
    return question(text, "red", **fields)


BAD = [
    (SegmentOnce.Request(instruction=Instruction(text="red")), "0 x 0 pixels"),
    (bad_image(encoding="32FC1"), "image.encoding is '32FC1'"),
    (bad_image(height=47), "image.data has"),
    (bad_image(step=3), "image.step is 3"),
    (with_text(""), "instruction.text '' refused"),
    (with_text(" \t "), "instruction.text"),
    (with_text("red\x07"), "instruction.text"),
    (with_text("x" * 100_000), "instruction.text"),
    (with_text("red", id="a\nb"), "instruction.id"),
    (with_text("red", id="i" * 257), "at most 256"),
]


def test_what_cannot_be_used_is_refused_with_the_reason_and_the_next_question_answered(ros) -> None:
    harness = Harness(ros).up()
    client = Client(harness)
    for request, words in BAD:
        response = client.answer(client.start(request))
        assert not response.success and words in response.message, (words, response.message)
        assert len(response.message) < 500
        assert response.targets.targets == [] and response.instance_mask.height == 0
    assert client.ask("red", "red").success
    assert len(harness.segmenter.clips) == 2  # the warm-up's and this one: nothing bad came near the model


@pytest.mark.parametrize("step", ["encode", "ground", "segment"])
def test_a_model_error_is_state_error_and_the_node_goes_on(ros, step) -> None:
    harness = Harness(ros).up("targets")
    client = Client(harness)
    harness.segmenter.raising.add(step)
    response = client.ask("red", "red")
    assert not response.success and f"{step} broke on purpose" in response.message
    assert [t.state for t in response.targets.targets] == [Target.ERROR]
    assert not pixels(response.instance_mask).any()
    harness.segmenter.raising.clear()
    assert client.ask("red", "red").success
    harness.say("red")
    harness.show_until_state(Target.PRESENT, "red")


@pytest.mark.parametrize("phase", ["unconfigured", "inactive"])
def test_a_node_that_is_not_active_says_so(ros, phase) -> None:
    harness = Harness(ros)
    if phase == "inactive":
        harness.configure()
    response = Client(harness).ask("red", "red")
    assert (response.success, response.message) == (False, f"the node is {phase}: activate it")


def test_too_many_questions_are_refused_and_deactivate_refuses_what_waits(ros) -> None:
    harness = Harness(ros).up()
    client = Client(harness)
    harness.segmenter.gates["ground"] = threading.Event()
    first = client.start(question("red", "red"))
    harness.wait(lambda: len(harness.segmenter.asked) == 2, "the question inside the model")
    waiting = [client.start(question("red", "red")) for _ in range(MOST_WAITING + 1)]
    harness.wait(lambda: any(future.done() for future in waiting), "a refusal")
    (refused,) = [future for future in waiting if future.done()]
    assert f"{MOST_WAITING} questions are waiting" in refused.result().message
    threading.Timer(0.3, harness.segmenter.gates["ground"].set).start()
    started = time.monotonic()
    harness.deactivate()
    assert time.monotonic() - started < 5.0
    for future in [first, *waiting]:
        if future is not refused:
            assert "was deactivated before" in client.answer(future).message
    assert not [t.name for t in threading.enumerate() if t.name.startswith("instructseg-")]
    harness.activate()
    assert client.ask("red", "red").success


def test_a_client_that_does_not_wait_harms_nobody(ros) -> None:
    harness = Harness(ros).up()
    harness.segmenter.gates["ground"] = threading.Event()
    leaving = ros.node("leaving")
    client = leaving.create_client(SegmentOnce, f"{NODE}/segment_once")
    assert client.wait_for_service(10.0)
    client.call_async(question("red", "red"))
    harness.wait(lambda: len(harness.segmenter.asked) == 2, "the question inside the model")
    harness.call(lambda: leaving.destroy_client(client))
    harness.segmenter.gates["ground"].set()
    assert Client(harness).ask("red", "red").success


def test_stamps_of_any_kind_pass_through(ros) -> None:
    client = Client(Harness(ros).up())
    for sec in (0, 2**31 - 1, 5, -3):
        request = question("red", "red")
        request.image.header.stamp.sec, request.image.header.stamp.nanosec = sec, 7
        response = client.answer(client.start(request))
        assert response.success and response.targets.header == request.image.header


def test_a_question_keeps_no_model_alive(ros) -> None:
    made = []

    def factory(settings):
        segmenter = ColourSegmenter()
        made.append(weakref.ref(segmenter))
        return segmenter

    harness = Harness(ros, factory=factory).up()
    assert Client(harness).ask("red", "red").success
    harness.deactivate()
    harness.cleanup()
    gc.collect()
    assert made[0]() is None
