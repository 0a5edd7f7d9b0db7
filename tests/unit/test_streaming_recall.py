"""Nothing that has ended is shown as present, however far its result had come; every ending is told."""

from __future__ import annotations

import operator
import threading

import pytest
from unit.fakes import SECOND, Owner, colour_frame, eventually

from instructseg.core import Frame, Instruction, Mode, State
from instructseg.streaming import Ending, FrameRefused

A, B = Instruction("a", "red"), Instruction("b", "green")


def cancel(owner: Owner) -> None:
    owner.engine.cancel("a")


def replace_by_id(owner: Owner) -> None:
    owner.engine.add_instruction(Instruction("a", "blue"))


def replace_all(owner: Owner) -> None:
    owner.engine.set_instruction(B)


def reset(owner: Owner) -> None:
    owner.engine.reset()


def stale(owner: Owner) -> None:
    owner.clock.ns += 10 * 1_000_000_000
    owner.engine.check_stale()


def pause(owner: Owner) -> None:
    owner.engine.pause("switched off")


@pytest.mark.parametrize("end", [cancel, replace_by_id, replace_all, reset, stale, pause])
def test_a_result_on_its_way_out_does_not_show_what_has_ended_meanwhile(end) -> None:
    owner = Owner()
    hold, held = threading.Event(), threading.Event()
    with owner:
        owner.engine.set_instruction(A)
        owner.engine.add_instruction(B)
        owner.wait_for(State.PRESENT, 0.0, "red", "green")
        count = len(owner.results)

        def told(statuses: tuple) -> None:  # on the mask thread, between a frame's masks and their publication
            if threading.current_thread().name.endswith("masks") and not held.is_set():
                held.set()
                assert hold.wait(20.0)

        state = owner.engine._state
        mask_of = owner.segmenter.segment

        def segment(*arguments):
            state.outbox.add("held", told, ())
            return mask_of(*arguments)

        owner.segmenter.segment = segment
        owner.engine.submit_frame(_frame(owner))
        assert held.wait(20.0)
        end(owner)
        hold.set()
        assert eventually(lambda: len(owner.results) > count)
        of_a = [target for target in owner.results[count].targets if target.instruction is A]
        assert State.PRESENT not in {target.state for target in of_a}
        assert all(target.mask is None and target.confidence is None for target in of_a)
        if end in (cancel, replace_by_id):  # the other one is still seen
            assert State.PRESENT in {t.state for t in owner.results[count].targets if t.instruction is B}


def test_a_frame_in_a_pause_is_refused_for_its_reason() -> None:
    owner = Owner()
    owner.engine.set_instruction(A)
    owner.show(0.0, "red")
    pause(owner)
    with pytest.raises(FrameRefused, match="switched off") as refused:
        owner.show(0.1, "red")
    assert refused.value.cause == "paused" and owner.engine.statistics().drops == {"paused": 1}
    owner.engine.resume()
    assert [target.instance_id for target in owner.show(0.2, "red").targets] == [1]


def test_an_answer_on_its_way_out_shows_nothing_after_a_pause() -> None:
    owner = Owner()
    publish = owner.engine._publish

    def paused_before(result) -> None:
        pause(owner)
        publish(result)

    owner.engine._publish = paused_before
    owner.engine.set_instruction(Instruction("a", "red", mode=Mode.ONE_SHOT))
    owner.show(0.0, "red")
    (target,), (status,) = owner.results[0].targets, owner.results[0].answered
    assert (target.state, target.mask, target.confidence, target.reason) == (State.STALE, None, None, "switched off")
    assert (status.state, status.reason, status.ending) == (State.STALE, "switched off", Ending.ANSWERED)


def test_a_pause_is_stale_at_once_and_until_it_is_over() -> None:
    owner = Owner()
    gate = owner.segmenter.gates
    with owner:
        owner.engine.set_instruction(A)
        last = owner.wait_for(State.PRESENT, 0.0, "red")
        count = len(owner.results)
        gate["segment"] = threading.Event()
        owner.segmenter.entered["segment"].clear()
        owner.engine.submit_frame(colour_frame(last + 0.1, "red"))
        assert owner.segmenter.entered["segment"].wait(20.0)  # a frame is inside the model
        owner.engine.pause("switched off")
        assert owner.rejections[-1].after is State.STALE and owner.rejections[-1].reason == "switched off"
        gate.pop("segment").set()
        assert eventually(lambda: owner.engine.statistics().drops.get("paused") == 1)
        owner.engine.submit_frame(colour_frame(last + 0.2, "red"))
        owner.clock.ns += 10 * SECOND
        owner.engine.check_stale()
        assert eventually(lambda: owner.engine.statistics().drops.get("paused") == 2)
        (status,) = owner.engine.statistics().instructions
        assert (status.state, status.reason, len(owner.results)) == (State.STALE, "switched off", count)
        owner.engine.resume()
        owner.wait_for(State.PRESENT, last + 11.0, "red")


def test_ending_an_instruction_waits_for_a_result_that_is_going_out() -> None:
    owner = Owner()
    going, go_on, order = threading.Event(), threading.Event(), []

    def slow(result) -> None:
        if any(target.state is State.PRESENT for target in result.targets):
            going.set()
            go_on.wait(20.0)
            order.append("shown")
        owner.results.append(result)

    owner.engine._state.callbacks = type(owner.engine._state.callbacks)(on_result=slow)
    with owner:
        owner.engine.set_instruction(A)
        ending = threading.Thread(target=lambda: (owner.engine.cancel("a"), order.append("cancelled")))
        for step in range(200):
            owner.clock.ns = step * 100_000_000
            owner.engine.submit_frame(_frame(owner))
            if going.wait(0.05):
                break
        ending.start()
        assert eventually(lambda: not owner.engine.statistics().instructions)
        go_on.set()
        ending.join(20.0)
    assert order[:2] == ["shown", "cancelled"]


def test_the_frame_that_answers_or_ends_by_time_still_shows_its_masks() -> None:
    owner = Owner()
    owner.engine.add_instruction(Instruction("once", "red", mode=Mode.ONE_SHOT))
    owner.engine.add_instruction(Instruction("brief", "red", timeout_s=0.5))
    owner.show(0.0, "red")
    shown = owner.results[-1]
    assert [target.instruction.id for target in shown.targets if target.mask is not None] == ["once", "brief"]
    last = owner.show(0.6, "red")
    assert [i.id for i in last.ended] == ["brief"]
    assert [t.state for t in owner.results[-1].targets] == [State.PRESENT]


def test_endings_that_look_alike_are_all_told() -> None:
    owner = Owner()
    given = [Instruction("a", "red") for _ in range(4)]
    for instruction in given:
        owner.engine.add_instruction(instruction, anew=True)
    told = [status for report in owner.instructions for status in report if status.ending is Ending.REPLACED]
    assert [status.instruction for status in told] == given[:3]
    assert all(map(operator.is_, (status.instruction for status in told), given))


def _frame(owner: Owner) -> Frame:
    return colour_frame(owner.clock.ns / SECOND + 0.05, "red", "green")
