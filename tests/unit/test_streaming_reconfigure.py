"""Another configuration while the engine runs: what changes at once, what is refused, and nothing is forgotten."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from unit.fakes import Owner, colour_frame, eventually, states

from instructseg.core import BadInput, Frame, Instruction, State
from instructseg.streaming import EngineConfig
from instructseg.streaming.config import FIXED
from instructseg.tracking.timetable import Schedule, Timetable


def change(owner: Owner, **fields) -> None:
    owner.engine.reconfigure(dataclasses.replace(owner.engine.config, **fields))


def colour(tenth: int) -> Frame:
    return colour_frame(tenth / 10, "red")


def followed(text: str = "red", *colours: str, **config) -> Owner:
    """An engine that has followed ``text`` from 0.0 s to 1.0 s."""
    owner = Owner(**config)
    owner.engine.set_instruction(Instruction("a", text))
    owner.play(0.0, 1.0, *(colours or ("red",)))
    return owner


OTHERS = {"buffer_s": 9.0, "buffer_frames": 9, "frame_policy": "every", "cameras": ("left",)}


@pytest.mark.parametrize("name", FIXED)
def test_what_holds_for_the_engines_life_is_refused_and_nothing_changes(name):
    owner = followed()
    before = owner.engine.config
    with pytest.raises(BadInput, match=f"EngineConfig.{name} holds for the engine's life: it is .*; got "):
        change(owner, present_threshold=0.95, **{name: OTHERS[name]})
    assert owner.engine.config == before
    assert states(owner.show(1.1, "red")) == [State.PRESENT]


def test_only_a_configuration_is_taken():
    with pytest.raises(BadInput, match="an EngineConfig is needed; got dict"):
        Owner().engine.reconfigure({"max_rate": 3.0})


def test_a_threshold_counts_from_the_next_frame_and_the_target_keeps_its_id():
    owner = followed()
    change(owner, present_threshold=1.0)
    assert states(owner.show(1.1, "red")) == [State.PRESENT]  # 0.9, within the hysteresis of a target in view
    owner.segmenter.aims["red"] = ["red"]
    change(owner, present_threshold=0.5, reject_threshold=0.0)
    assert states(owner.show(1.2, "red")) == [State.PRESENT]  # an answer that was taken stays taken
    owner.engine.reset()
    assert states(owner.show(1.3, "red")) == [State.NO_TARGET]
    change(owner, reject_threshold=0.5)
    target = owner.play(1.4, 2.4, "red").targets[0]
    assert (target.state, target.instance_id) == (State.PRESENT, 1)


def test_lost_after_counts_for_a_target_that_is_out_of_sight_already():
    owner = followed(lost_after=100.0, ground_period=3600.0)
    assert states(owner.play(1.1, 4.0)) == [State.OCCLUDED]
    change(owner, lost_after=2.0)
    assert states(owner.show(4.1)) == [State.LOST]


def test_stale_after_counts_from_the_next_look():
    owner = followed(stale_after=100.0)
    owner.clock.advance(3.0)
    owner.engine.check_stale()
    assert [s.state for s in owner.engine.statistics().instructions] == [State.PRESENT]
    change(owner, stale_after=1.0)
    owner.engine.check_stale()
    assert [s.state for s in owner.engine.statistics().instructions] == [State.STALE]


def test_a_shorter_ground_period_is_counted_from_the_last_question():
    owner = followed("green", ground_period=100.0)
    asked = len(owner.segmenter.clips)
    change(owner, ground_period=1.5)
    owner.play(1.1, 1.4, "red")
    assert len(owner.segmenter.clips) == asked == 1
    owner.play(1.5, 1.9, "red")
    assert len(owner.segmenter.clips) == 2


def test_refresh_can_be_switched_on_and_asking_again_off():
    owner = followed(ground_period=0.2)
    change(owner, refresh_period=0.5)
    owner.play(1.1, 2.0, "red")
    assert len(owner.segmenter.clips) >= 3
    change(owner, refresh_period=0.0, ground_on_loss=False)
    asked = len(owner.segmenter.clips)
    assert states(owner.play(2.1, 5.0)) == [State.LOST]
    assert len(owner.segmenter.clips) == asked
    assert states(owner.play(5.1, 5.3, "red")) == [State.PRESENT]  # by its old token


def test_fewer_targets_end_those_beyond_and_more_are_asked_for():
    owner = followed("red and green", "red", "green")
    change(owner, max_targets=1)
    assert [s.live for s in owner.engine.statistics().instructions] == [1]
    assert [(e.before, e.after) for e in owner.rejections] == [(State.PRESENT, State.NO_TARGET)]
    assert "max_targets is 1" in owner.rejections[0].reason
    assert states(owner.play(1.1, 3.0, "red", "green")) == [State.PRESENT]
    change(owner, max_targets=2)
    targets = owner.show(3.1, "red", "green").targets
    assert [t.state for t in targets] == [State.PRESENT] * 2
    assert [t.instance_id for t in targets] == [1, 3]  # a new thing as far as anybody knows


def test_fewer_instructions_end_none_but_take_no_more():
    owner = followed()
    owner.engine.add_instruction(Instruction("b", "green"))
    change(owner, max_instructions=1)
    assert len(owner.engine.statistics().instructions) == 2
    with pytest.raises(BadInput, match="at most 1 instructions"):
        owner.engine.add_instruction(Instruction("c", "blue"))
    change(owner, max_instructions=3)
    owner.engine.add_instruction(Instruction("c", "blue"))


def test_the_rate_can_be_limited_and_freed_again():
    with Owner() as owner:
        owner.send(0.0, "red")
        change(owner, max_rate=1.0)
        for tenth in range(1, 20):
            owner.clock.ns = tenth * 100_000_000
            owner.engine.submit_frame(colour(tenth))
        assert owner.engine.statistics().drops["rate_limit"] == 17  # all but those of 0.9 and 1.9 s, in time
        change(owner, max_rate=0.0)
        owner.send(2.0, "red")
        assert owner.engine.statistics().drops["rate_limit"] == 17


def test_degradation_ends_where_max_age_is_switched_off():
    owner = Owner(max_age=0.1)
    state = owner.engine._state
    for tenth in range(60):
        owner.clock.ns = tenth * 100_000_000
        state.observe_age(1.0)
    assert owner.engine.statistics().degradation
    change(owner, max_age=0.0)
    assert owner.engine.statistics().degradation == ()
    state.observe_age(1.0)
    assert owner.engine.statistics().degradation == ()


def test_a_change_while_both_threads_are_inside_the_segmenter_counts_for_what_they_bring():
    owner = Owner()
    owner.segmenter.gates["ground"] = threading.Event()
    with owner:
        owner.send(0.0, "red")
        owner.engine.set_instruction(Instruction("a", "red"))
        assert owner.segmenter.entered["ground"].wait(20.0)
        change(owner, reject_threshold=0.0)
        owner.segmenter.gates["ground"].set()
        assert eventually(lambda: owner.groundings)
        owner.send(0.1, "red")
        assert owner.states() == [State.NO_TARGET]


def test_fewer_targets_while_an_answer_is_compared_with_what_was_followed():
    owner = followed("red and blue", "red", "blue", refresh_period=0.1)
    segment = owner.segmenter.segment

    def compared(encoded, tokens):
        if len(tokens) == 4:  # the answer's two, and the two followed
            change(owner, max_targets=1)
        return segment(encoded, tokens)

    owner.segmenter.segment = compared
    assert states(owner.play(1.1, 2.0, "red", "blue")) == [State.PRESENT]
    assert owner.engine.config.max_targets == 1
    assert owner.engine.statistics().faults == {}


def test_under_every_a_change_counts_after_the_frames_that_were_handed_over_before():
    with Owner(frame_policy="every") as owner:
        owner.engine.set_instruction(Instruction("a", "red"))
        for tenth in range(5):
            owner.engine.submit_frame(colour(tenth))
        change(owner, reject_threshold=0.0)
        owner.engine.submit_frame(colour(30))
        assert eventually(lambda: len(owner.results) == 6)
    assert [r.targets[0].state for r in owner.results[:5]] == [State.PRESENT] * 5


def test_a_back_off_after_failures_runs_out_first():
    timetable = Timetable(Schedule(period_ns=10))
    timetable.begin(0, True, 1)
    timetable.failed(0)
    timetable.failed(0)  # next at 20
    timetable.reschedule(Schedule(period_ns=1))
    assert timetable.about(19, True, False) is None and timetable.about(20, True, False) == "missing"
    timetable.succeeded()
    timetable.begin(20, True, 2)
    assert timetable.about(21, True, False) == "missing"


def test_every_other_field_can_change():
    owner = Owner()
    values = {"ground_on_loss": False, "max_targets": 3, "max_instructions": 3, "reacquire": "looks"}
    values["ground_on_motion"] = True
    for field in dataclasses.fields(EngineConfig):
        if field.name not in FIXED:
            change(owner, **{field.name: values.get(field.name, 0.75)})
            assert getattr(owner.engine.config, field.name) == values.get(field.name, 0.75)
