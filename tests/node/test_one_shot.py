"""ONE_SHOT on the topic ``instruction``: one verdict on the wire, then nothing is left of it."""

from __future__ import annotations

import pytest
from builtin_interfaces.msg import Duration
from instructseg_msgs.msg import Instruction, Target
from node.node_harness import Harness, pixels


def ask(harness: Harness, text: str, name: str = "once", **fields) -> None:
    harness.publish("instruction", Instruction(id=name, text=text, mode=Instruction.ONE_SHOT, **fields))


def at_work(harness: Harness) -> dict[str, int]:
    """Class ids by instruction id, as a late subscriber hears them."""
    return {s.instruction.id: s.class_id for s in harness.heard["instructions"][-1].instructions}


def wait_for(harness: Harness, *names: str) -> None:
    heard = harness.heard["instructions"]
    harness.wait(lambda: heard and set(at_work(harness)) == set(names), f"instructions {names}")


def about(harness: Harness, name: str) -> list[tuple]:
    """Header and target of every message in which the instruction has an entry."""
    return [(m.header, t) for m in harness.heard["targets"] for t in m.targets if t.instruction_id == name]


@pytest.fixture
def harness(ros) -> Harness:
    harness = Harness(ros).up("targets", "instance_mask", "label_mask")
    harness.listen("instructions", latched=True)
    return harness


@pytest.mark.parametrize(("text", "verdict"), [("the red block", Target.PRESENT), ("the blue block", Target.NO_TARGET)])
def test_the_verdict_is_published_once_and_the_label_value_is_free_again(harness, text, verdict) -> None:
    ask(harness, text)
    wait_for(harness, "once")
    assert at_work(harness) == {"once": 1}
    harness.show_until(lambda: at_work(harness) == {}, "the end", "red")
    harness.settle()
    count = len(harness.heard["targets"])
    harness.show_until(lambda: len(harness.heard["targets"]) > count + 5, "frames after it", "red")
    harness.settle()

    verdicts = [(header, t) for header, t in about(harness, "once") if t.state != Target.GROUNDING]
    assert [t.state for _, t in verdicts] == [verdict]
    header, target = verdicts[0]
    for name in ("instance_mask", "label_mask"):
        with_pixels = [m.header for m in harness.heard[name] if pixels(m).any()]
        assert with_pixels == ([header] if verdict == Target.PRESENT else [])
    if verdict == Target.PRESENT:
        (mask,) = [m for m in harness.heard["instance_mask"] if m.header == header]
        assert (pixels(mask) == target.instance_id).sum() == target.area == 64
    ask(harness, "green", "next")
    wait_for(harness, "next")
    assert at_work(harness) == {"next": 1}


def test_it_leaves_what_is_tracked_alone(harness) -> None:
    harness.publish("instruction", Instruction(id="track", text="red"))
    tracked = harness.show_until_state(Target.PRESENT, "red", "green").targets[0]
    del harness.heard["targets"][:]
    ask(harness, "the green block")
    wait_for(harness, "track", "once")
    harness.show_until(lambda: set(at_work(harness)) == {"track"}, "the answer", "red", "green")
    harness.settle()
    answered = [t for _, t in about(harness, "once") if t.state == Target.PRESENT]
    assert len(answered) == 1 and answered[0].class_id == 2
    assert answered[0].instance_id != tracked.instance_id
    states = {(t.state, t.instance_id, t.since.sec, t.since.nanosec) for _, t in about(harness, "track")}
    assert states == {(Target.PRESENT, tracked.instance_id, tracked.since.sec, tracked.since.nanosec)}


def test_no_verdict_ends_with_the_time_out_with_frames_and_without(harness) -> None:
    brief = Duration(nanosec=300_000_000)
    harness.segmenter.rejection["red"] = 0.5  # neither here nor there
    ask(harness, "red", timeout=brief)
    wait_for(harness, "once")
    harness.show_until(lambda: at_work(harness) == {}, "the time-out", "red")
    harness.settle()
    assert {t.state for _, t in about(harness, "once")} <= {Target.GROUNDING, Target.UNCERTAIN}
    ask(harness, "red", timeout=brief)  # and now no frame comes
    wait_for(harness, "once")
    wait_for(harness)


def test_a_model_error_is_no_verdict(harness) -> None:
    harness.segmenter.raising.add("ground")
    ask(harness, "red")
    harness.show_until_state(Target.ERROR, "red")
    assert set(at_work(harness)) == {"once"}
    harness.segmenter.raising.clear()
    harness.show_until(lambda: at_work(harness) == {}, "the answer", "red")
    harness.wait(lambda: about(harness, "once")[-1][1].state == Target.PRESENT, "the verdict")


def test_every_camera_answers(ros) -> None:
    harness = Harness(ros, cameras=["head", "wrist"]).up("targets")
    harness.listen("instructions", latched=True)
    for camera in ("head", "wrist"):  # a camera that has sent a frame is one that has to answer
        harness.show_until(
            lambda camera=camera: any(m.camera == camera for m in harness.heard["targets"]), "a frame", "red",
            topic=f"{camera}/image",
        )  # fmt: skip
    ask(harness, "red")
    wait_for(harness, "once")

    def answered(camera: str) -> bool:
        mine = [t for m in harness.heard["targets"] if m.camera == camera for t in m.targets]
        return any(t.state == Target.PRESENT for t in mine)

    harness.show_until(lambda: answered("head"), "one camera's verdict", "red", topic="head/image")
    harness.settle()
    assert set(at_work(harness)) == {"once"}
    harness.show_until(lambda: at_work(harness) == {}, "the other's", "red", topic="wrist/image")
    harness.wait(lambda: answered("wrist"), "its verdict")
