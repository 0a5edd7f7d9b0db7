"""From texts and messages to instructions: ids, label values, and what is given back when one is refused or ends."""

from __future__ import annotations

import types

import pytest

from instructseg.core import BadInput, Instruction, Mode
from instructseg_node.intake import Intake, spoken


def message(**fields: object) -> types.SimpleNamespace:
    values = {"id": "", "text": "red", "cameras": [], "mode": 0, "timeout": duration(), "priority": 0} | fields
    return types.SimpleNamespace(**values)


def duration(sec: int = 0, nanosec: int = 0) -> types.SimpleNamespace:
    return types.SimpleNamespace(sec=sec, nanosec=nanosec)


def test_commands_get_ids_and_label_values_of_their_own() -> None:
    intake = Intake()
    first, second = intake.command("the  red\tblock"), intake.command("the bowl")
    assert (first.id, first.text, first.class_id) == ("command-1", "the red block", 1)
    assert (second.id, second.class_id) == ("command-2", 2)
    assert intake.command("the red block") == first


def test_fillers_are_taken_out_of_commands_and_of_messages() -> None:
    assert Intake().command("um, please find the the bowl").text == "find the bowl"
    assert Intake().message(message(text="hey robot, the bowl please")).text == "the bowl"


def test_stop_is_a_command_and_in_a_message_a_word_like_any_other() -> None:
    assert spoken("stop\n").cancels
    assert Intake().message(message(text="stop")).text == "stop"
    with pytest.raises(BadInput, match=r"command 'um' refused: .* nothing but fillers"):
        spoken("um")


def test_messages_keep_their_fields() -> None:
    made = Intake().message(message(id="a", mode=1, cameras=["head"], timeout=duration(2, 500_000_000), priority=-4))
    assert (made.id, made.mode, made.cameras, made.timeout_s, made.priority) == ("a", Mode.ONE_SHOT, ("head",), 2.5, -4)


def test_a_made_id_never_meets_one_in_use() -> None:
    intake = Intake()
    intake.message(message(id="instruction-1"))
    assert intake.message(message(text="blue")).id == "instruction-2"


def test_label_values_are_kept_by_id_and_given_out_again_when_free() -> None:
    intake = Intake()
    first, *_ = (intake.message(message(id=name)) for name in "abc")
    assert intake.message(message(id="b", text="blue")).class_id == 2
    intake.release([first])
    assert intake.message(message(id="d")).class_id == 1
    intake.release([Instruction("unknown", "red")])
    assert intake.message(message(id="e")).class_id == 4


def test_withdrawing_gives_the_place_back_to_what_was_there() -> None:
    intake = Intake()
    old = intake.command("red")
    refused = intake.message(message(id=old.id, text="blue"))
    intake.withdraw(refused)
    assert intake.command("red") == old
    fresh = intake.message(message(id="new"))
    intake.withdraw(fresh)
    assert intake.message(message(id="other")).class_id == fresh.class_id


def test_an_ending_that_is_told_late_frees_nothing_that_came_since() -> None:
    """A ONE_SHOT that is answered while another instruction takes its id, which waits for the frames before it."""
    intake = Intake()
    old = intake.message(message(id="a"))
    intake.taken(old)
    new = intake.message(message(id="a", text="blue"))
    intake.release([old])
    intake.taken(new)
    intake.release([old])
    assert intake.message(message(id="b")).class_id == 2


def test_what_ends_while_it_is_handed_over_is_free() -> None:
    intake = Intake()
    brief = intake.message(message(id="a"))
    intake.release([brief])
    intake.taken(brief)
    assert intake.message(message(id="b")).class_id == 1


def test_the_same_again_holds_its_label_as_the_one_that_is_worked_on() -> None:
    intake = Intake()
    old = intake.message(message(id="a"))
    intake.taken(old)
    intake.message(message(id="a"))
    intake.taken(old)  # the engine went on with the one that it had
    assert intake.message(message(id="b")).class_id == 2
    intake.release([old])
    assert intake.message(message(id="c")).class_id == 1


def test_a_replacement_that_is_refused_does_not_bring_back_what_ended_meanwhile() -> None:
    intake = Intake()
    old = intake.message(message(id="a"))
    refused = intake.message(message(id="a", text="blue"))
    intake.release([old])
    intake.withdraw(refused)
    assert intake.message(message(id="b")).class_id == 1


def test_the_256th_instruction_is_refused() -> None:
    intake = Intake()
    values = {intake.message(message(id=str(number))).class_id for number in range(255)}
    assert values == set(range(1, 256))
    with pytest.raises(BadInput, match="255"):
        intake.command("one more")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": 9}, "instruction.mode is 9"),
        ({"timeout": duration(-1)}, "instruction.timeout is -1 s"),
        ({"timeout": duration(2**31 - 1, 2**32 - 1)}, "nanosec 4294967295; allowed: less than a second"),
        ({"id": "x" * 257}, "instruction.id"),
        ({"id": "bell\a"}, "instruction.id"),
        ({"text": ""}, "instruction.text ''"),
        ({"text": "the [REJ]"}, "REJ"),
        ({"text": "x" * 10_000}, "10000"),
    ],
)
def test_bad_fields_are_named_and_take_no_label_value(fields: dict, words: str) -> None:
    intake = Intake()
    with pytest.raises(BadInput) as caught:
        intake.message(message(**fields))
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400
    assert intake.command("red").class_id == 1
