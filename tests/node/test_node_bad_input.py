"""Bad input: named in the log, counted by cause, nothing published as if it were good, the node alive."""

from __future__ import annotations

import array
import itertools
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Duration, Time
from instructseg_msgs.msg import Instruction, Target
from instructseg_msgs.srv import Cancel
from node.node_harness import NODE, Harness, now
from ros_runner import RosRunner
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, Int32, String
from unit.fakes import colour_frame

from instructseg_node.complaints import Complaints
from instructseg_node.conversions import fill_image
from instructseg_node.watch import CameraWatch


def image(**fields: object) -> Image:
    message = fill_image(Image(), colour_frame(0.0, "red").image, "rgb8", Header(stamp=now(), frame_id="optical"))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


BAD_IMAGES = {
    "zero size": ({"height": 0, "width": 0, "step": 0, "data": array.array("B")}, "image_empty", "0 x 0"),
    "step too small": ({"step": 10}, "image_step", "image.step is 10"),
    "step too large": ({"step": 500}, "image_data", "9216 bytes"),
    "short data": ({"data": array.array("B", bytes(100))}, "image_data", "100 bytes"),
    "unknown encoding": ({"encoding": "hsv8"}, "image_encoding", "'hsv8'"),
    "empty encoding": ({"encoding": ""}, "image_encoding", "allowed"),
    "tiny": ({"height": 8, "data": array.array("B", bytes(8 * 192))}, "image_size", "64 x 8"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images(ros, capfd, name) -> None:
    fields, cause, words = BAD_IMAGES[name]
    harness = Harness(ros, stale_after=5.0).up("targets", "instance_mask")
    harness.say("the red block")
    harness.show_until_state(Target.PRESENT, "red")
    before = harness.settle()
    for number in (1, 2, 3):
        harness.publish("image", image(**fields))
        harness.wait(lambda number=number: harness.dropped(cause) == number, f"{number} counted as {cause}")
    assert harness.settle() == before
    assert harness.diagnostics()[f"dropped {cause}"] == "3"
    log = capfd.readouterr().err
    assert log.count(f"{cause}: camera 'camera'") == 1  # three faults, one line
    assert words in log
    harness.show_until_state(Target.PRESENT, "red")


def test_bad_compressed_images(ros, capfd) -> None:
    harness = Harness(ros, image_transport="compressed").up("targets")
    header = Header(stamp=now())
    for data, cause in [(b"", "image_empty"), (b"rubbish", "image_compressed")]:
        harness.publish("image/compressed", CompressedImage(header=header, format="jpeg", data=array.array("B", data)))
        harness.wait(lambda cause=cause: harness.dropped(cause) == 1, f"one counted as {cause}")
    assert "cannot be decoded" in capfd.readouterr().err
    assert not harness.heard["targets"]


BAD_COMMANDS = {
    "empty": "",
    "blank": " \t\n",
    "10,000 characters": "x" * 10_000,
    "control characters": "the red\x07 block",
    "escape sequence": "the red\x1b[31m block",
    "tracking token": "the red <TRK> block",
    "rejection token": "[REJ]",
    "image token": "<image> the red block",
    "segment token": "the [SEG] block",
    "look-alike brackets": "the \uff1cTRK\uff1e block",
}


@pytest.mark.parametrize("name", BAD_COMMANDS)
def test_bad_commands_leave_the_instruction_alone(ros, capfd, name) -> None:
    harness = Harness(ros).up("targets")
    harness.say("the red block")
    first = harness.show_until_state(Target.PRESENT, "red").targets[0]
    harness.publish("command", String(data=BAD_COMMANDS[name]))
    harness.publish("instruction", Instruction(id=first.instruction_id, text=BAD_COMMANDS[name]))
    wanted = ("dropped command", "dropped instruction")
    harness.wait(lambda: all(harness.diagnostics().get(key) == "1" for key in wanted), "both counted")
    log = capfd.readouterr().err
    assert "command: command " in log
    assert "instruction: instruction.text " in log
    assert "\x1b[31m" not in log
    assert len(max(log.splitlines(), key=len)) < 400
    again = harness.show_until_state(Target.PRESENT, "red").targets
    assert [(t.instruction_id, t.instruction_text, t.instance_id) for t in again] == [
        (first.instruction_id, "the red block", first.instance_id)
    ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": 7}, "instruction.mode is 7"),
        ({"timeout": Duration(sec=-3)}, "instruction.timeout is -3 s"),
        ({"id": "a\nb"}, "instruction.id is 'a\\nb'"),
        ({"id": "x" * 300}, "at most 256"),
        ({"cameras": ["nose"]}, "nose"),
    ],
)
def test_bad_instruction_fields(ros, capfd, fields, words) -> None:
    harness = Harness(ros).up()
    harness.publish("instruction", Instruction(**({"id": "a", "text": "red"} | fields)))
    harness.wait(lambda: harness.diagnostics().get("dropped instruction") == "1", "one counted")
    assert words in capfd.readouterr().err
    assert harness.diagnostics()["instructions"] == "0"


def test_one_instruction_too_many_is_refused_and_its_label_value_is_free_again(ros, capfd) -> None:
    harness = Harness(ros, max_instructions=2).up()
    statuses = harness.listen("instructions", latched=True)
    for name in "abc":
        harness.publish("instruction", Instruction(id=name, text="red"))
    harness.wait(lambda: harness.diagnostics().get("dropped instruction") == "1", "one refused")
    assert "max_instructions" in capfd.readouterr().err
    harness.publish("instruction", Instruction(id="b", text="green"))  # replacing is not adding
    harness.wait(lambda: statuses[-1].instructions[-1].instruction.text == "green", "the replacement")
    assert [(s.instruction.id, s.class_id) for s in statuses[-1].instructions] == [("a", 1), ("b", 2)]


def moved(stamp: Time, seconds: float) -> Time:
    total = stamp.sec * 10**9 + stamp.nanosec + round(seconds * 1e9)
    return Time(sec=total // 10**9, nanosec=total % 10**9)


def test_stamps_going_backwards_are_dropped_named_and_counted(ros, capfd) -> None:
    harness = Harness(ros, stale_after=5.0).up("targets")
    newest = harness.show("red").stamp
    harness.wait(lambda: harness.heard["targets"], "the first frame")
    for number, back in enumerate((0.05, 0.1, 0.0), start=1):
        harness.show("red", stamp=moved(newest, -back))
        harness.wait(lambda number=number: harness.dropped() == number, f"{number} counted")
    report = harness.diagnostics()
    assert (report["dropped stamp_backwards"], report["dropped stamp_repeated"]) == ("2", "1")
    harness.settle()
    assert "stamp is 0.050 s before the last one" in capfd.readouterr().err
    assert [m.header.stamp for m in harness.heard["targets"]] == [newest]


def test_one_stamp_from_the_far_future_is_an_outage_and_not_the_end(ros) -> None:
    harness = Harness(ros, stale_after=60.0).up("targets")
    harness.say("the red block")
    harness.show_until_state(Target.PRESENT, "red")
    harness.show("red", stamp=Time(sec=2**31 - 1))
    harness.wait(lambda: harness.heard["targets"][-1].header.stamp.sec == 2**31 - 1, "that frame")
    again = harness.show_until_state(Target.PRESENT, "red")
    assert again.header.stamp.sec < 2**31 - 1
    assert harness.diagnostics()["reset time_jump"] == "1"


def test_another_type_on_a_topic_of_the_node_reaches_nobody(ros) -> None:
    harness = Harness(ros).up("targets")
    elsewhere = RosRunner()  # one process's participant refuses two types of one topic by itself
    try:
        stranger = elsewhere.node("stranger")
        for topic in ("command", "instruction", "image"):
            harness.wait(lambda topic=topic: stranger.count_subscribers(topic), topic)
            stranger.create_publisher(Int32, topic, 10).publish(Int32(data=1))
        harness.say("the red block")
        harness.show_until_state(Target.PRESENT, "red")
    finally:
        elsewhere.close()
    assert harness.dropped() == harness.dropped("replaced")


def test_a_cancel_of_anything_is_answered_in_a_few_words(ros) -> None:
    harness = Harness(ros).up()
    client = harness.peer.create_client(Cancel, f"{NODE}/cancel")
    assert client.wait_for_service(5.0)
    for identity in ("unknown", "x" * 100_000, "a\x1b[31m\n", "\u202e"):
        response = client.call(Cancel.Request(instruction_id=identity), timeout_sec=5.0)
        assert (response.success, response.cancelled) == (False, [])
        assert "~/instructions lists them" in response.message
        assert len(response.message) < 400 and response.message.isprintable()


def test_a_clock_that_starts_anew_is_followed_after_a_warning(ros, capfd) -> None:
    harness = Harness(ros, stale_after=60.0).up("targets")
    harness.say("the red block")
    harness.show_until_state(Target.PRESENT, "red")
    start = moved(now(), -3600.0)
    counter = itertools.count(1)
    targets, deadline = harness.heard["targets"], time.monotonic() + 10.0
    del targets[:]
    while not any(m.targets[0].state == Target.PRESENT and m.header.stamp.sec < now().sec - 9 for m in targets):
        assert time.monotonic() < deadline
        harness.show("red", stamp=moved(start, 0.03 * next(counter)))
        time.sleep(0.015)
    assert "time jumped back" in capfd.readouterr().err
    assert harness.diagnostics()["reset time_jump"] == "1"


def test_a_resolution_change_is_named_counted_and_no_old_mask_is_shown(ros, capfd) -> None:
    harness = Harness(ros).up("targets", "instance_mask")
    harness.say("the red block")
    harness.show_until_state(Target.PRESENT, "red")
    small = colour_frame(0.0, "red", size=(32, 48)).image
    deadline = time.monotonic() + 10.0
    targets = harness.heard["targets"]
    del targets[:]
    while not (targets and targets[-1].width == 48 and targets[-1].targets[0].state == Target.PRESENT):
        assert time.monotonic() < deadline
        harness.publish("image", fill_image(Image(), small, "rgb8", Header(stamp=now())))
        time.sleep(0.015)
    first = next(message for message in targets if message.width == 48)
    assert first.targets[0].state == Target.GROUNDING  # asked again, not carried over
    assert "image size changed from 64x48 to 48x32" in capfd.readouterr().err
    assert harness.diagnostics()["reset resolution_change"] == "1"
    last = harness.heard["instance_mask"][-1]
    assert (last.width, last.height) == (48, 32)


def test_a_camera_that_never_comes_is_named_and_counted_once_an_outage(ros, capfd) -> None:
    harness = Harness(ros, camera_timeout=0.1, cameras=["head"]).up("targets")
    time.sleep(0.15)
    for _ in range(3):
        report = harness.diagnostics()
    assert report["level"] == b"\x03"
    assert report["message"].startswith("no image from head for ")
    assert report["dropped camera_silent:head"] == "1"
    log = capfd.readouterr().err
    assert log.count("camera_silent:head: no image on /head/image for") == 1
    where = {"topic": "head/image"}
    harness.show_until(lambda: harness.diagnostics()["level"] == b"\x00", "a report without complaint", "red", **where)
    harness.wait(lambda: harness.heard["targets"], "targets")


def test_complaints_repeat_rarely_and_say_how_many_there_were() -> None:
    said, clock = [], [0.0]
    complaints = Complaints(said.append, period=5.0, clock=lambda: clock[0])
    for _ in range(10):
        complaints.add("step", "wrong")
    complaints.add("data", "short")
    clock[0] = 6.0
    complaints.add("step", "wrong")
    assert said == ["step: wrong", "data: short", "step: wrong (10 times since the last such warning)"]
    assert complaints.counts() == {"step": 11, "data": 1}


def test_camera_watch_counts_an_outage_once_and_hears_the_return() -> None:
    watch = CameraWatch(["a", "b"], now=0.0)
    watch.heard("a", 4.0)
    assert watch.silent(3.0, 5.0) == {"b": 5.0}
    assert watch.newly_silent(3.0, 5.0) == ["b"]
    assert watch.newly_silent(3.0, 6.0) == []
    watch.heard("b", 6.5)
    assert watch.silent(3.0, 6.6) == {}
    assert watch.newly_silent(3.0, 10.0) == ["a", "b"]


def test_image_messages_are_read_in_every_encoding_over_the_wire(ros) -> None:
    harness = Harness(ros, frame_policy="every").up("targets")
    grey = colour_frame(0.0, "red").image[..., 0]
    for encoding, pixels in [
        ("bgr8", colour_frame(0.0, "red").image[..., ::-1]),
        ("mono8", grey),
        ("16UC1", grey.astype(np.uint16) << 8),
        ("bayer_rggb8", grey),
    ]:
        harness.publish("image", fill_image(Image(), pixels, encoding, Header(stamp=now())))
        time.sleep(0.01)
    harness.wait(lambda: len(harness.heard["targets"]) == 4, "four frames")
