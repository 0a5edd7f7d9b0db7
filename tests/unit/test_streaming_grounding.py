"""Which instructions are asked about together, in what order, and what becomes of each when one of them goes wrong."""

from __future__ import annotations

import threading

from unit.fakes import SECOND, ColourSegmenter, Owner, colour_frame, eventually, states

from instructseg.core import Instruction, State


def test_instructions_that_are_due_share_one_call_and_one_clip():
    owner = Owner()
    for name in ("red", "blue", "green"):
        owner.engine.add_instruction(Instruction(name, name))
    assert states(owner.show(0.0, "red", "blue")) == [State.PRESENT, State.PRESENT, State.NO_TARGET]
    assert owner.segmenter.asked == [["red", "blue", "green"]]
    owner.play(0.1, 0.5, "red", "blue")
    assert owner.segmenter.asked[1:] == [["green"]]
    assert owner.engine.statistics().groundings == {"done": 4}
    assert [g.instruction.id for g in owner.groundings] == ["red", "blue", "green", "green"]


def test_cameras_and_priorities_are_asked_about_separately():
    owner = Owner(cameras=("left", "right"))
    owner.segmenter.gates["ground"] = threading.Event()
    with owner:
        owner.engine.add_instruction(Instruction("first", "first", cameras=("left",)))
        for camera in ("left", "right"):
            owner.send(0.0, "red", camera=camera)
        assert owner.segmenter.entered["ground"].wait(20.0)
        for name, priority in (("a", 0), ("b", 0), ("c", 3)):
            owner.engine.add_instruction(Instruction(name, name, priority=priority))
        owner.segmenter.gates["ground"].set()
        assert eventually(lambda: len(owner.groundings) == 7)
        calls = owner.segmenter.asked
        assert calls[0] == ["first"] and sorted(calls[1:3]) == [["c"], ["c"]]
        assert sorted(map(sorted, calls[3:])) == [["a", "b"], ["a", "b"]]
        cameras = [clip.key.frame.camera for clip in owner.segmenter.clips]
        assert sorted(cameras[1:3]) == sorted(cameras[3:]) == ["left", "right"]


def test_an_obsolete_answer_is_thrown_away_and_the_others_of_its_call_are_not():
    owner = Owner(ColourSegmenter(renew_tokens=True))
    owner.engine.add_instruction(Instruction("a", "red"))
    owner.engine.add_instruction(Instruction("b", "blue"))
    owner.segmenter.gates["ground"] = threading.Event()
    with owner:
        owner.send(10.0, "red", "blue")
        assert owner.segmenter.entered["ground"].wait(20.0)
        assert owner.segmenter.asked == [["red", "blue"]]
        owner.send(10.1, "red", "blue")
        owner.engine.cancel("a")
        owner.segmenter.gates["ground"].set()
        assert eventually(lambda: owner.engine.statistics().groundings == {"done": 1, "discarded": 1})
        assert [g.instruction.id for g in owner.groundings] == ["b"]
        owner.send(10.2, "red", "blue")
        (target,) = owner.results[-1].targets
        assert (target.instruction.id, target.state) == ("b", State.PRESENT)
        # The cancelled one was not carried over the frame that came meanwhile.
        assert (round(10.1 * SECOND), 1) in owner.segmenter.segmented


def test_an_instruction_that_breaks_the_reasoner_is_in_error_alone():
    owner = Owner()
    owner.segmenter.broken_texts = {"blue"}
    for name in ("red", "blue", "green"):
        owner.engine.add_instruction(Instruction(name, name))
    assert states(owner.show(0.0, "red", "blue", "green")) == [State.PRESENT, State.ERROR, State.PRESENT]
    seen = owner.engine.statistics()
    assert seen.groundings == {"done": 2, "failed": 1} and seen.faults == {"ground": 1}
    owner.segmenter.broken_texts = set()
    assert states(owner.play(0.1, 0.5, "red", "blue", "green")) == [State.PRESENT] * 3


class ShortAnswers(ColourSegmenter):
    """Answers one question fewer than it was asked, except a single one."""

    def ground(self, clip, instructions):
        return super().ground(clip, instructions)[: max(1, len(instructions) - 1)]


def test_too_few_answers_are_not_attributed_to_anybody():
    owner = Owner(ShortAnswers())
    owner.engine.add_instruction(Instruction("a", "red"))
    owner.engine.add_instruction(Instruction("b", "blue"))
    assert states(owner.show(0.0, "red", "blue")) == [State.PRESENT, State.PRESENT]
    assert owner.segmenter.asked == [["red", "blue"], ["red"], ["blue"]]


def test_a_token_that_cannot_be_carried_over_harms_its_own_instruction_only():
    class Fragile(ColourSegmenter):
        def segment(self, encoded, tokens):
            if any(token.rgb == (0, 0, 255) for token in tokens):
                raise RuntimeError("no blue here")
            return super().segment(encoded, tokens)

    owner = Owner(Fragile(renew_tokens=True))
    owner.engine.add_instruction(Instruction("a", "red"))
    owner.engine.add_instruction(Instruction("b", "blue"))
    owner.segmenter.gates["ground"] = threading.Event()
    with owner:
        owner.send(0.0, "red", "blue")
        assert owner.segmenter.entered["ground"].wait(20.0)
        owner.send(0.1, "red", "blue")
        owner.segmenter.gates["ground"].set()
        assert eventually(lambda: owner.engine.statistics().groundings == {"done": 1, "failed": 1})
        owner.send(0.2, "red", "blue")
        assert owner.states() == [State.PRESENT, State.ERROR]


def test_a_low_priority_waits_but_not_for_ever():
    owner = Owner(ground_period=0.01)
    owner.engine.add_instruction(Instruction("low", "blue", priority=-1))
    for name in ("a", "b"):
        owner.engine.add_instruction(Instruction(name, "red", priority=5 if name == "a" else 3))
    owner.segmenter.delays["ground"] = 0.004

    with owner:
        for step in range(400):  # red is never there, so it is asked about again and again
            owner.clock.ns = round(step / 50 * SECOND)
            owner.engine.submit_frame(colour_frame(step / 50, "blue"))
            assert eventually(lambda wanted=step + 1: len(owner.results) >= wanted)
            if any(g.instruction.id == "low" for g in owner.groundings):
                break
    order = [g.instruction.id for g in owner.groundings]
    assert "low" in order and order.index("low") <= 12
