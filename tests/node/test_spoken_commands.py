"""What people say on the topic ``command``, as the running node takes it: fillers, several at once, ends."""

from __future__ import annotations

from typing import Any

import pytest
from instructseg_msgs.msg import Target
from node.node_harness import Harness


@pytest.fixture
def harness(ros: Any) -> Harness:
    return Harness(ros, command_mode="add").up("targets", "instructions")


def wait_for(harness: Harness, *texts: str) -> None:
    listed = harness.heard["instructions"]
    harness.wait(
        lambda: listed and [status.instruction.text for status in listed[-1].instructions] == list(texts), f"{texts}"
    )


def test_spoken_commands_join_and_one_sentence_ends_them_all(harness: Harness) -> None:
    harness.say("um, please could you find the the red block")
    harness.say("hey robot, the green block, thanks")
    wait_for(harness, "find the red block", "the green block")
    harness.say("Uh, the green block")  # said again: nothing new
    harness.say("find the stop sign")
    wait_for(harness, "find the red block", "the green block", "find the stop sign")
    harness.say("okay, stop it please")
    wait_for(harness)
    harness.say("the red block")
    wait_for(harness, "the red block")


def test_an_end_and_a_new_command_in_one_sentence(harness: Harness) -> None:
    harness.say("the red block and the green block")
    harness.show_until_state(Target.PRESENT, "red", "green", "blue")
    harness.say("never mind, find the blue block")
    wait_for(harness, "find the blue block")
    harness.show_until(
        lambda: [t.phrase for t in harness.heard["targets"][-1].targets] == ["blue"], "the blue one alone",
        "red", "green", "blue",
    )  # fmt: skip


def test_nothing_but_fillers_changes_nothing_and_is_counted(harness: Harness) -> None:
    harness.say("the red block")
    wait_for(harness, "the red block")
    before = harness.dropped()
    harness.say("um, please")
    harness.wait(lambda: harness.dropped() == before + 1, "the refusal")
    wait_for(harness, "the red block")
