"""Transitions: what is loaded when, what runs when, and what happens when something fails on the way."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref

import pytest
from instructseg_msgs.msg import Target
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node.node_harness import FAILURE, SUCCESS, Harness
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from unit.fakes import ColourSegmenter

from instructseg.core import BadInput, Instruction, State
from instructseg.tracking import RejectionEvent


def engine_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("instructseg-")]


def test_transitions_over_the_services(ros) -> None:
    harness = Harness(ros)
    change = harness.peer.create_client(ChangeState, "/instructseg/change_state")
    get = harness.peer.create_client(GetState, "/instructseg/get_state")
    assert change.wait_for_service(5.0)
    for transition, label in [
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_CLEANUP, "unconfigured"),
        (Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, "finalized"),
    ]:
        assert change.call(ChangeState.Request(transition=Transition(id=transition)), timeout_sec=5.0).success
        assert get.call(GetState.Request(), timeout_sec=5.0).current_state.label == label == harness.node.phase


def test_the_model_is_loaded_and_warmed_in_configure_and_kept_by_deactivate(ros) -> None:
    harness = Harness(ros, warm_up_width=80, warm_up_height=50)
    assert not harness.loads
    assert harness.configure() == SUCCESS
    assert len(harness.loads) == 1
    assert [clip.key.frame.size for clip in harness.segmenter.clips] == [(50, 80)]
    assert not engine_threads()
    for _ in range(2):
        assert harness.activate() == SUCCESS
        assert sorted(engine_threads()) == ["instructseg-grounding", "instructseg-masks"]
        assert harness.deactivate() == SUCCESS
        assert not engine_threads()
    assert len(harness.loads) == 1
    assert len(harness.segmenter.clips) == 1


def test_only_an_active_node_listens_and_speaks(ros) -> None:
    harness = Harness(ros)
    assert harness.peer.count_subscribers("image") == 0
    harness.configure()
    assert harness.peer.count_subscribers("image") == 0
    harness.activate()
    targets = harness.listen("targets")
    harness.show_until(lambda: targets, "targets")
    harness.deactivate()
    harness.wait(lambda: harness.peer.count_subscribers("image") == 0, "the subscription's end")
    assert harness.peer.count_subscribers("command") == 0


def test_cleanup_frees_the_model_and_configure_reads_the_parameters_anew(ros) -> None:
    made = []

    def factory(settings):
        segmenter = ColourSegmenter()
        made.append((settings.recipe, weakref.ref(segmenter)))
        return segmenter

    harness = Harness(ros, factory=factory).up()
    harness.deactivate()
    harness.cleanup()
    gc.collect()
    assert made[0][1]() is None
    assert harness.node.set_parameters([Parameter("recipe", value="another")])[0].successful
    harness.up()
    assert [recipe for recipe, _ in made] == ["unified", "another"]


def test_a_failing_load_leaves_the_node_alive_says_error_and_can_be_repeated(ros, capfd) -> None:
    faults = [BadInput("checkpoint 'x.safetensors' does not exist"), RuntimeError("out of memory")]

    def factory(settings):
        if faults:
            raise faults.pop(0)
        return ColourSegmenter()

    harness = Harness(ros, factory=factory)
    rejections = harness.listen("rejection", latched=True)
    for words in ("checkpoint 'x.safetensors' does not exist", "out of memory"):
        assert harness.configure() == FAILURE
        assert harness.node.phase == "unconfigured"
        harness.wait(lambda words=words: rejections and words in rejections[-1].reason, "an ERROR event")
        assert rejections[-1].after == Target.ERROR
        assert rejections[-1].instruction_id == ""
        assert words in capfd.readouterr().err
    report = harness.diagnostics()
    assert (report["level"], report["message"]) == (b"\x02", "configure failed: RuntimeError('out of memory')")

    assert harness.configure() == SUCCESS
    harness.wait(lambda: rejections[-1].before == Target.ERROR, "the event out of ERROR")
    assert harness.diagnostics()["level"] == b"\x00"
    assert harness.activate() == SUCCESS


def test_a_model_that_fails_to_warm_up_is_a_failed_configure_and_is_freed(ros) -> None:
    harness = Harness(ros)
    harness.segmenter.raising.add("ground")
    assert harness.configure() == FAILURE
    assert harness.peer.count_publishers("/instructseg/targets") == 0
    harness.segmenter.raising.clear()
    assert harness.configure() == SUCCESS
    assert len(harness.loads) == 2


def test_a_failing_activate_leaves_the_node_inactive_and_silent(ros) -> None:
    harness = Harness(ros)
    harness.configure()
    real = harness.node._engine_class

    class Broken(real):
        def start(self):
            raise RuntimeError("no threads left")

    harness.node._engine_class = Broken
    assert harness.activate() == FAILURE
    assert harness.node.phase == "inactive"
    assert harness.peer.count_subscribers("image") == 0
    harness.node._engine_class = real
    assert harness.activate() == SUCCESS


def test_what_a_stopped_engine_still_says_is_not_published(ros) -> None:
    harness = Harness(ros)
    real, callbacks = harness.node._engine_class, []

    class Kept(real):
        def __init__(self, *arguments, **named):
            callbacks.append(named)
            super().__init__(*arguments, **named)

    harness.node._engine_class = Kept
    harness.up("targets", "rejection")
    event = RejectionEvent(Instruction("old", "red"), 1, State.PRESENT, State.LOST, 0.0, "late", 1)
    harness.deactivate()
    harness.activate()
    callbacks[0]["on_rejection"](event)
    callbacks[1]["on_rejection"](dataclasses.replace(event, reason="in time"))
    harness.wait(lambda: harness.heard["rejection"], "an event")
    assert [message.reason for message in harness.heard["rejection"]] == ["in time"]


def test_a_fault_in_deactivate_leads_through_error_processing_to_a_fresh_start(ros) -> None:
    harness = Harness(ros).up()
    engine = harness.node._engine

    def fail_once():
        del engine.stop  # the class's own again
        raise RuntimeError("thread stuck")

    engine.stop = fail_once
    assert harness.deactivate() == TransitionCallbackReturn.ERROR
    assert harness.node.phase == "unconfigured"
    assert not engine_threads()
    harness.up()


@pytest.mark.parametrize("step", ["encode", "segment", "ground"])
def test_a_model_error_while_active_is_an_error_state_on_the_wire_and_passes(ros, step) -> None:
    harness = Harness(ros).up("targets", "rejection", "instance_mask")
    harness.say("the red block")
    harness.show_until_state(Target.PRESENT, "red")
    harness.segmenter.raising.add(step)
    if step == "ground":
        harness.say("the green block")
    del harness.heard["instance_mask"][:]
    message = harness.show_until_state(Target.ERROR, "red", "green")
    assert f"{step} broke on purpose" in message.targets[0].reason
    assert message.targets[0].area == 0
    harness.wait(lambda: any(m.after == Target.ERROR for m in harness.heard["rejection"]), "an ERROR event")
    assert harness.diagnostics()["last error"].count("broke on purpose") == 1
    assert harness.node.phase == "active"
    harness.segmenter.raising.clear()
    harness.show_until_state(Target.PRESENT, "red", "green")


def test_autostart_configures_and_activates_or_stays_where_it_failed(ros) -> None:
    harness = Harness(ros)
    harness.segmenter.raising.add("encode")
    assert harness.call(harness.node.autostart) is False
    assert harness.node.phase == "unconfigured"
    harness.segmenter.raising.clear()
    assert harness.call(harness.node.autostart) is True
    assert harness.node.phase == "active"


def test_destroying_an_active_node_joins_its_threads(ros) -> None:
    harness = Harness(ros).up()
    assert engine_threads()
    ros.stop()
    harness.node.destroy_node()
    ros._nodes.remove(harness.node)
    assert not engine_threads()
