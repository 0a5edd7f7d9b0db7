"""The demo's verdicts on hand-made records: what passes, and every way in which a node may fail."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from instructseg.core import BadInput, State
from instructseg_node.demo import report as demo_report
from instructseg_node.demo.records import Expectation, FrameRecord, Slot, TargetRecord, Window, expectation
from instructseg_node.demo.verdicts import CommandVerdict, FrameCount, assign, cut, judge

TRUE_AREA = 1000
PRESENT, GONE, ABSENT, LOST = State.PRESENT, State.OCCLUDED, State.NO_TARGET, State.LOST


def slot(*windows: tuple[float, float, str], ids: tuple[int, ...] = (7,)) -> Slot:
    return Slot(("thing",), ids, tuple(Window(*window) for window in windows))


def command(*slots: Slot, end: float = 4.0) -> Expectation:
    return Expectation("the thing", "test", 0.0, end, slots)


def target(instance: int, state: State) -> TargetRecord:
    return TargetRecord("the thing", instance, state, 0.9, 0.1)


def frame(
    time: float,
    *targets: tuple[int, State],
    hits: Sequence[tuple[int, int, int]] = (),
    truth: tuple[int, ...] = (1000,),
) -> FrameCount:
    """hits: (instance, slot, pixels of the mask on that slot); a mask has TRUE_AREA pixels."""
    return FrameCount(
        time=time,
        age=0.1,
        targets=tuple(target(*t) for t in targets),
        areas={i: TRUE_AREA if state is PRESENT else 0 for i, state in targets if i},
        truth=truth,
        overlaps={(i, s): pixels for i, s, pixels in hits},
    )


def seen(time: float, overlap: int = 900, instance: int = 1) -> FrameCount:
    return frame(time, (instance, PRESENT), hits=[(instance, 0, overlap)])


def hidden(time: float, state: State = GONE, truth: int = 1000, instance: int = 1) -> FrameCount:
    return frame(time, (instance, state), truth=(truth,))


def times(start: float, end: float) -> list[float]:
    return [round(float(t), 3) for t in np.arange(start, end - 1e-6, 0.1)]


ALWAYS = command(slot((0.0, 4.0, "present")))
NEVER = command(slot((0.0, 4.0, "absent"), ids=()))
RETURNS = command(
    slot(
        (0.0, 1.8, "present"), (1.8, 2.0, "either"), (2.0, 4.0, "absent"), (4.0, 4.2, "either"), (4.2, 6.0, "present")
    ),
    end=6.0,
)


def outcome(verdict: CommandVerdict) -> tuple[str, bool]:
    return verdict.given, verdict.passed


class TestPresent:
    def test_held_to_the_end(self) -> None:
        frames = [hidden(t, State.GROUNDING) for t in times(0, 0.5)] + [seen(t) for t in times(0.5, 4)]
        verdict = judge(ALWAYS, frames)
        assert outcome(verdict) == ("PRESENT", True)
        assert verdict.iou == pytest.approx(900 / 1100)
        assert verdict.first_mask_s == pytest.approx(0.5 + 0.1), "until it arrived"

    def test_found_late_but_held_in_the_second_half(self) -> None:
        frames = [hidden(t, ABSENT) for t in times(0, 2)] + [seen(t) for t in times(2, 4)]
        assert outcome(judge(ALWAYS, frames)) == ("PRESENT", True)

    def test_frames_without_a_mask_count_zero_after_the_first_one(self) -> None:
        frames = [seen(t) if i % 2 == 0 or t >= 2 else hidden(t) for i, t in enumerate(times(0, 4))]
        verdict = judge(ALWAYS, frames)
        assert verdict.iou == pytest.approx(0.75 * 900 / 1100)

    def test_mask_on_something_else(self) -> None:
        verdict = judge(ALWAYS, [seen(t, overlap=100) for t in times(0, 4)])
        assert outcome(verdict) == ("WRONG MASK", False)
        assert verdict.slots[0][0].share == 1.0

    def test_exactly_half_is_not_enough(self) -> None:
        half = [frame(t, (1, PRESENT), hits=[(1, 0, 500)], truth=(500,)) for t in times(0, 4)]
        verdict = judge(ALWAYS, half)
        assert verdict.iou == 0.5
        assert outcome(verdict) == ("WRONG MASK", False)

    def test_present_in_less_than_the_share(self) -> None:
        frames = [seen(t) if i % 2 else hidden(t, LOST) for i, t in enumerate(times(0, 4))]
        verdict = judge(ALWAYS, frames)
        assert not verdict.passed
        assert verdict.given in ("LOST", "UNSTEADY")

    def test_rejected_although_there(self) -> None:
        verdict = judge(ALWAYS, [frame(t, (0, ABSENT)) for t in times(0, 4)])
        assert outcome(verdict) == ("NO_TARGET", False)
        assert verdict.first_mask_s is None
        assert verdict.iou is None

    def test_nothing_was_said(self) -> None:
        assert outcome(judge(ALWAYS, [])) == ("NO ANSWER", False)
        assert outcome(judge(ALWAYS, [frame(t) for t in times(0, 4)])) == ("NO ANSWER", False)

    def test_slivers_are_no_evidence(self) -> None:
        wanted = command(slot((0.0, 2.0, "present"), (2.0, 4.0, "either")))
        frames = [seen(t) for t in times(0, 2)] + [hidden(t) for t in times(2, 4)]
        assert outcome(judge(wanted, frames)) == ("PRESENT", True)


class TestAbsent:
    def test_rejected(self) -> None:
        frames = [frame(t, (0, State.GROUNDING if t < 1 else ABSENT), truth=(0,)) for t in times(0, 4)]
        verdict = judge(NEVER, frames)
        assert outcome(verdict) == ("NO_TARGET", True)
        assert verdict.first_mask_s is None

    def test_one_mask_is_one_too_many(self) -> None:
        frames = [frame(t, (1, PRESENT if t == 1.0 else ABSENT), truth=(0,)) for t in times(0, 4)]
        verdict = judge(NEVER, frames)
        assert outcome(verdict) == ("FALSE MASK", False)
        assert verdict.false_masks == 1

    @pytest.mark.parametrize("state", [State.GROUNDING, State.UNCERTAIN, LOST, State.ERROR, State.STALE])
    def test_any_other_state_at_the_end(self, state: State) -> None:
        frames = [frame(t, (0, ABSENT if t < 3 else state), truth=(0,)) for t in times(0, 4)]
        assert outcome(judge(NEVER, frames)) == (state.name, False)

    def test_nothing_was_said(self) -> None:
        assert outcome(judge(NEVER, [])) == ("NO ANSWER", False)


class TestReturns:
    def frames(self, gap: State = LOST, back: int = 1, gap_instance: int = 1) -> list[FrameCount]:
        away = [hidden(t, gap, truth=0, instance=gap_instance) for t in times(2, 4)]
        return [seen(t) for t in times(0, 2)] + away + [seen(t, instance=back) for t in times(4.2, 6)]

    def test_there_gone_and_back(self) -> None:
        verdict = judge(RETURNS, self.frames())
        assert verdict.expected == "PRESENT, GONE, PRESENT"
        assert outcome(verdict) == ("PRESENT, GONE, PRESENT", True)
        assert [segment.instance_ids for segment in verdict.slots[0]] == [(1,), (), (1,)]

    def test_back_as_another(self) -> None:
        assert outcome(judge(RETURNS, self.frames(back=2))) == ("PRESENT, GONE, PRESENT AS ANOTHER", False)

    def test_old_mask_while_away(self) -> None:
        verdict = judge(RETURNS, self.frames(gap=PRESENT))
        assert outcome(verdict) == ("PRESENT, FALSE MASK, PRESENT", False)
        assert verdict.false_masks == 20

    def test_never_found_again(self) -> None:
        frames = [f if f.time < 4 else hidden(f.time, LOST) for f in self.frames()]
        assert outcome(judge(RETURNS, frames)) == ("PRESENT, GONE, LOST", False)

    def test_nothing_heard_while_away(self) -> None:
        frames = [f for f in self.frames() if not 2 <= f.time < 4]
        assert not judge(RETURNS, frames).passed, "silence is no proof of absence"


class TestTwoTargets:
    wanted = command(slot((0.0, 4.0, "present"), ids=(7,)), slot((0.0, 4.0, "present"), ids=(8,)))

    def both(self, second: State = PRESENT, on: int = 1) -> list[FrameCount]:
        hits = [(4, 0, 900), (9, on, 900)] if second is PRESENT else [(4, 0, 900)]
        return [frame(t, (4, PRESENT), (9, second), hits=hits, truth=(1000, 1000)) for t in times(0, 4)]

    def test_each_has_its_mask(self) -> None:
        assert outcome(judge(self.wanted, self.both())) == ("PRESENT + PRESENT", True)

    def test_one_is_missing(self) -> None:
        assert outcome(judge(self.wanted, self.both(second=ABSENT))) == ("PRESENT + NO_TARGET", False)

    def test_both_on_the_same_thing(self) -> None:
        verdict = judge(self.wanted, self.both(on=0))
        assert not verdict.passed
        assert verdict.first_mask_s is None, "the second one never had a mask"

    def test_one_there_and_one_rightly_absent(self) -> None:
        mixed = command(slot((0.0, 4.0, "present")), slot((0.0, 4.0, "absent"), ids=()))
        frames = [frame(t, (4, PRESENT), (0, ABSENT), hits=[(4, 0, 900)], truth=(1000, 0)) for t in times(0, 4)]
        assert outcome(judge(mixed, frames)) == ("PRESENT + NO_TARGET", True)

    def test_assignment_goes_by_pixels(self) -> None:
        frames = [frame(0.0, (4, PRESENT), (9, PRESENT), hits=[(4, 1, 10), (9, 0, 500), (9, 1, 20)], truth=(9, 9))]
        assert assign(frames, 2) == {4: 1, 9: 0}

    def test_a_mask_on_nothing_counts_against_the_slot_without_one(self) -> None:
        frames = [frame(0.0, (4, PRESENT), (9, PRESENT), hits=[(4, 0, 500)], truth=(9, 9))]
        assert assign(frames, 2) == {4: 0, 9: 1}

    def test_one_slot_takes_all(self) -> None:
        double = [frame(t, (1, PRESENT), (2, PRESENT), hits=[(1, 0, 900), (2, 0, 0)]) for t in times(0, 4)]
        verdict = judge(ALWAYS, double)
        assert verdict.iou == pytest.approx(900 / 2100)
        assert outcome(verdict) == ("WRONG MASK", False), "a second, wrong target spoils the answer"


def test_short_windows_are_not_judged() -> None:
    flicker = slot((0.0, 2.0, "present"), (2.0, 2.3, "absent"), (2.3, 4.0, "present"))
    assert [(s.present, s.start, s.end) for s in cut(flicker)] == [(True, 0.0, 4.0)]
    assert [(s.present, s.end) for s in cut(slot((0.0, 0.4, "present")))] == [(True, 0.4)], "unless it is all there is"
    assert cut(slot((0.0, 4.0, "either"))) == []
    assert outcome(judge(command(slot((0.0, 4.0, "either"))), [])) == ("EITHER", True)


@pytest.mark.parametrize(
    "change",
    [
        {"slots": []},
        {"end": 0.0},
        {"start": "soon"},
        {"slots": [{"objects": [], "instance_ids": []}]},
        {"slots": [{"objects": [], "instance_ids": [], "windows": [{"start": 0, "end": 1, "verdict": "maybe"}]}]},
    ],
)
def test_broken_expectations_are_named(change: dict) -> None:
    window = {"start": 0.0, "end": 4.0, "verdict": "present"}
    good = {"text": "t", "kind": "k", "start": 0.0, "end": 4.0}
    good["slots"] = [{"objects": ["thing"], "instance_ids": [7], "windows": [window]}]
    assert expectation(json.dumps(good), "bag").slots[0].instance_ids == (7,)
    with pytest.raises(BadInput, match="bag"):
        expectation(json.dumps(good | change), "bag")


def test_text_that_is_no_json() -> None:
    with pytest.raises(BadInput, match="which is no expectation"):
        expectation("{", "bag")


class Recording:
    """Stands in for both bags: four frames, one of which was never published, with a mask image for those it names."""

    stamps = (0, 1_000_000_000, 2_000_000_000, 3_000_000_000)
    repeated = 0

    def __init__(self) -> None:
        self.expectations = [ALWAYS]
        self.groundings = [("the thing", 0.25)]
        self.diagnostics = {"frames in": "4", "frames out": "3", "dropped replaced": "1", "dropped image_data": "0"}
        there = (target(1, PRESENT),)
        self.frames = {s: FrameRecord(s, there, 0.05 * (i + 1), 0.1 * (i + 1)) for i, s in enumerate(self.stamps[:3])}
        self.mask = np.zeros((20, 20), np.uint16)
        self.mask[5:15, 5:15] = 1

    def seconds(self, stamp: int) -> float:
        return stamp / 1e9

    def truth(self, stamp: int) -> np.ndarray:
        return np.where(self.mask > 0, 7, 0).astype(np.uint8)

    def has_mask(self, stamp: int) -> bool:
        return stamp != self.stamps[2]

    def instances(self, stamp: int) -> np.ndarray | None:
        return self.mask if self.has_mask(stamp) else None


def test_report_accounts_for_frames_and_ages() -> None:
    recording = Recording()
    report = demo_report.make_report(recording, recording)
    assert report.frames == {
        "in_recording": 4,
        "received_by_node": 4,
        "published": 3,
        "dropped": 1,
        "not_delivered_to_node": 0,
        "not_delivered_to_recorder": 0,
        "published_twice": 0,
        "masks_not_recorded": 1,
        "unknown_stamp": 0,
    }
    assert report.ages_ms["node"] == {"p50": 100.0, "p95": 150.0, "p99": 150.0}
    assert report.ages_ms["received"]["p50"] == 200.0
    assert report.commands[0].iou == pytest.approx(2 / 3), "a frame whose mask is missing counts 0"
    assert report.passed
    written = json.loads(json.dumps(demo_report.as_json(report)))
    assert written["passed"] is True
    table = demo_report.as_table(report)
    assert "the thing" in table
    assert "dropped 1 (image_data 0, replaced 1)" in table
    assert "1 of 1 verdicts as expected" in table


def test_report_says_when_a_verdict_is_wrong() -> None:
    recording = Recording()
    recording.expectations = [NEVER]
    report = demo_report.make_report(recording, recording)
    assert not report.passed
    assert "WRONG" in demo_report.as_table(report)


def test_frames_that_answer_the_next_command_belong_to_it() -> None:
    recording = Recording()
    late = TargetRecord("the next", 2, State.GROUNDING, 0.0, 0.0)
    recording.frames[recording.stamps[2]] = FrameRecord(recording.stamps[2], (late,), 0.1, 0.1)
    following = Expectation("the next", "", 4.0, 5.0, ())
    assert len(demo_report.count_frames(recording, recording, ALWAYS, following)) == 2
    assert len(demo_report.count_frames(recording, recording, ALWAYS, None)) == 3, "an answer that vanished counts"


def test_a_node_that_published_nothing() -> None:
    recording = Recording()
    recording.frames = {}
    with pytest.raises(BadInput, match="published nothing"):
        demo_report.make_report(recording, recording)
