"""Timetables, windows and judgements on made recordings, where every figure is known; the report in its three forms."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from replay.made_bags import COMPRESSED, IMAGE, SECOND, ZERO, camera, compressed, picture, raw, write
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from instructseg.core import BadInput, State
from instructseg_node.replay import pictures
from instructseg_node.replay.arguments import Options
from instructseg_node.replay.bag_types import typestore
from instructseg_node.replay.commands import Command, Request
from instructseg_node.replay.expectations import Expectation, Reference
from instructseg_node.replay.judge import Judgement, judge
from instructseg_node.replay.outcome import Outcome
from instructseg_node.replay.records import Given, InstructionLog, PlayedFrame, Run, timetable
from instructseg_node.replay.report import Report, as_json, as_junit, as_table
from instructseg_node.replay.report import write as write_report
from instructseg_node.replay.source import Source
from instructseg_node.replay.windows import Window, place

NODE, TRUTH = "/instructseg", "/truth"
STORE = typestore()
T = STORE.types
PRESENT, LOST, NO_TARGET, GROUNDING = State.PRESENT, State.LOST, State.NO_TARGET, State.GROUNDING
RED = Given(Command(at=0.0, text="the red square"), 0.0, 2.0, ("command-1",))


def stamp(index: int) -> int:
    return ZERO + index * SECOND // 10


def target(state: State, instance: int = 1, instruction: str = "command-1") -> object:
    zero = T["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
    box = T["instructseg_msgs/msg/Box"](x=0, y=0, width=0, height=0)
    fields = {name: 0 for name, _ in STORE.fielddefs["instructseg_msgs/msg/Target"][1]}
    texts = {"instruction_text": "the red square", "phrase": "", "reason": "", "instruction_id": instruction}
    rest = {"box": box, "since": zero, "grounded_stamp": zero, "state": state.value, "instance_id": instance}
    return T["instructseg_msgs/msg/Target"](**fields | texts | rest)


def square(value: int, left: int = 30, dtype: type = np.uint16) -> np.ndarray:
    """``(96, 128)``: 40 x 40 pixels of the value."""
    mask = np.zeros((96, 128), dtype)
    mask[20:60, left : left + 40] = value
    return mask


def answer(index: int, targets: Sequence[object], mask: np.ndarray, age: float = 0.1) -> list[tuple]:
    """What the node publishes on the frame of this number: mask, then targets."""
    header = raw(mask, "16UC1", stamp(index)).header
    message = T["instructseg_msgs/msg/TargetArray"](
        header=header, camera="camera", width=128, height=96, targets=list(targets)
    )
    at = stamp(index) + round(age * SECOND)
    return [
        (
            at,
            f"{NODE}/instance_mask/compressed",
            COMPRESSED,
            compressed(mask, stamp(index), "16UC1; png"),
        ),
        (at, f"{NODE}/targets", "instructseg_msgs/msg/TargetArray", message),
    ]


@pytest.fixture
def made(tmp_path: Path):
    """Makes a run: answers by frame number (none: nothing was published), reference masks by frame number."""

    def make(answers: dict[int, tuple], truths: dict[int, np.ndarray], frames: int = 20, given: Given = RED) -> Run:
        shown = camera("/cam", frames)
        shown += [(stamp(i), TRUTH, IMAGE, raw(mask, "mono8", stamp(i))) for i, mask in truths.items()]
        entries = [entry for index, (targets, mask) in answers.items() for entry in answer(index, targets, mask)]
        with Writer(tmp_path / "results", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            kinds = {topic: kind for _, topic, kind, _ in entries}
            topics = {topic: writer.add_connection(topic, kind, typestore=STORE) for topic, kind in kinds.items()}
            for time, topic, kind, message in sorted(entries, key=lambda entry: entry[0]):
                writer.write(topics[topic], time, STORE.serialize_cdr(message, kind))
        played = tuple(PlayedFrame("camera", stamp(i), "optical", i / 10) for i in range(frames))
        bag = write(tmp_path / "played", shown)
        return Run(bag, tmp_path / "results", NODE, ZERO, 0.0, frames / 10, 1.0, played, (given,), {"replaced": 2})

    return make


def judged(run: Run, **expected) -> Judgement:
    return judge(run, windows(run, Expectation("the red square", **expected)))[0]


def rewritten(bag: Path, change: Callable[[str, object], object | None]) -> Path:
    """A copy of a recording with its messages changed, or left out (None)."""
    copy = bag.with_name("rewritten")
    with Reader(bag) as reader, Writer(copy, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=STORE) for c in reader.connections}
        for connection, time, data in reader.messages():
            message = change(connection.topic, STORE.deserialize_cdr(data, connection.msgtype))
            if message is not None:
                writer.write(topics[connection.topic], time, STORE.serialize_cdr(message, connection.msgtype))
    return copy


def without_masks(bag: Path) -> Path:
    return rewritten(bag, lambda topic, message: message if topic.endswith("/targets") else None)


def later_stamps(bag: Path) -> Path:
    def later(_: str, message: object) -> object:
        message.header.stamp.sec += 1
        return message

    return rewritten(bag, later)


def windows(run: Run, *expectations: Expectation) -> tuple[Window, ...]:
    return place(expectations, run.given, run.start, run.end, ("camera",), run.bag, run.rate is None)


def failed(judgement: Judgement) -> dict[str, str]:
    return {check.key: check.got for check in judgement.checks if not check.passed}


def test_every_figure_of_a_good_run(made) -> None:
    """Nothing before frame 2, nothing published on frame 5; half of the square is covered from frame 10 on."""
    answers = {i: ((target(PRESENT),), square(1)) for i in range(2, 10) if i != 5}
    answers |= {i: ((target(PRESENT),), square(1, 50)) for i in range(10, 20)}
    answers |= {i: ((target(GROUNDING, 0),), square(0)) for i in range(2)}
    run = made(answers, {i: square(7, dtype=np.uint8) for i in range(2, 20)})
    wanted = {
        "verdict": ("PRESENT",), "reference": Reference(TRUTH), "ids": (7,), "min_iou": 0.6, "min_held": 0.89,
        "max_age": 0.11, "max_false_masks": 0, "max_drops": 1, "stable_id": True, "max_first_mask": 0.21,
    }  # fmt: skip
    found = judged(run, **wanted)
    assert (found.state, found.states) == ("PRESENT", ("GROUNDING", "PRESENT"))
    assert (found.frames, found.drops, found.false_masks, found.ids) == (20, 1, 0, (1,))
    assert found.held == pytest.approx(17 / 19)
    assert found.iou == pytest.approx((7 + 10 / 3) / 17), "20 of 60 columns where the mask is beside"
    assert found.age_p95 == pytest.approx(0.1)
    assert found.first_mask == pytest.approx(0.2)
    assert found.passed
    stricter = {
        "min_iou": 0.61, "min_held": 0.9, "max_age": 0.09, "max_drops": 0, "max_first_mask": 0.19, "verdict": ("LOST",)
    }  # fmt: skip
    found = judged(run, **wanted | stricter)
    assert set(failed(found)) == set(stricter)
    assert failed(found)["verdict"] == "PRESENT"
    settled = judged(run, **wanted | {"settle": 1.0})
    assert (settled.frames, settled.drops, settled.first_mask) == (10, 0, pytest.approx(0.2))


def test_a_frame_without_a_mask_counts_zero_and_a_mask_of_nothing_is_false(made) -> None:
    answers = {i: ((target(PRESENT),), square(1)) if i % 2 else ((target(LOST),), square(0)) for i in range(20)}
    run = made(answers, {i: square(7 if i < 10 else 3, dtype=np.uint8) for i in range(20)})
    found = judged(run, reference=Reference(TRUTH), ids=(7,), min_iou=0.5, max_false_masks=4)
    assert found.iou == pytest.approx(0.5)
    assert found.false_masks == 5
    assert failed(found) == {"max_false_masks": "5"}
    assert judged(run, max_false_masks=9).false_masks == 10, "without a reference any mask is one"
    absent = judged(run, reference=Reference(TRUTH), verdict=("NO_TARGET",))
    assert (absent.false_masks, absent.iou) == (10, None), "things of other commands do not excuse a mask"
    assert judged(run, reference=Reference(TRUTH), ids=(), max_drops=0).false_masks == 10
    assert judged(run, reference=Reference(TRUTH), max_drops=0).false_masks == 0, "all but 0"


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        (("PRESENT", "LOST", "PRESENT"), True),
        (("NO_TARGET", "PRESENT"), True),
        (("NO_TARGET", "GONE", "PRESENT"), True),
        (("PRESENT", "LOST"), False),  # does not end so
        (("LOST", "NO_TARGET", "PRESENT"), False),
        (("PRESENT", "PRESENT", "PRESENT"), False),  # twice only
    ],
)
def test_verdicts_in_order(made, wanted: tuple[str, ...], passes: bool) -> None:
    states = [NO_TARGET] * 4 + [PRESENT] * 5 + [LOST] * 5 + [PRESENT] * 6
    run = made({i: ((target(state),), square(state is PRESENT)) for i, state in enumerate(states)}, {})
    found = judged(run, verdict=wanted)
    assert found.passed is passes
    assert found.checks[0].got == "NO_TARGET > PRESENT > LOST > PRESENT"


def test_identity_that_changes_is_seen(made) -> None:
    two = {i: ((target(PRESENT), target(PRESENT, 2)), square(1)) for i in range(10)}
    assert judged(made(two, {}, 10), end=1.0, stable_id=True).passed, "two at a time are two things"


def test_identity_given_up_for_another(made) -> None:
    run = made({i: ((target(PRESENT, 1 if i < 5 else 4),), square(1 if i < 5 else 4)) for i in range(10)}, {}, 10)
    assert failed(judged(run, end=1.0, stable_id=True)) == {"stable_id": "ids 1, 4"}


def test_targets_of_other_commands_do_not_count(made) -> None:
    run = made({i: ((target(PRESENT, instruction="command-9"),), square(1)) for i in range(20)}, {})
    found = judged(run, verdict=("PRESENT",), max_false_masks=0, max_age=1.0, max_first_mask=1.0)
    assert failed(found) == {"verdict": "NO ANSWER", "max_age": "no answer", "max_first_mask": "no mask"}
    assert not judged(run, verdict=("GONE",)).passed, "no answer is no absence"


def test_nothing_published_at_all(made) -> None:
    run = made({0: ((target(PRESENT),), square(1))}, {0: square(0, dtype=np.uint8)})
    found = judged(run, start=1.0, verdict=("PRESENT",), min_iou=0.1, min_held=0.1, reference=Reference(TRUTH))
    assert failed(found) == {
        "verdict": "NO FRAMES",
        "min_iou": "no frame with a reference",
        "min_held": "nothing published",
    }


EVERYTHING = {
    "verdict": ("GONE",), "min_iou": 0.0, "min_held": 0.0, "max_age": 9.0, "max_false_masks": 9, "max_drops": 9,
    "stable_id": True, "max_first_mask": 9.0, "reference": Reference(TRUTH), "ids": (7,),
}  # fmt: skip


def test_a_window_without_a_frame_meets_nothing(made) -> None:
    """Between two frames: a camera that paused, say."""
    run = made({i: ((target(LOST),), square(0)) for i in range(20)}, {i: square(7, dtype=np.uint8) for i in range(20)})
    found = judged(run, start=0.51, end=0.59, **EVERYTHING)
    assert found.frames == 0
    assert set(failed(found)) == set(EVERYTHING) - {"reference", "ids"}


def test_frames_on_which_nothing_was_published_meet_nothing(made) -> None:
    run = made({0: ((target(LOST),), square(0))}, {i: square(7, dtype=np.uint8) for i in range(20)})
    found = judged(run, start=1.0, **EVERYTHING | {"max_drops": 10})
    assert set(failed(found)) == set(EVERYTHING) - {"reference", "ids", "max_drops"}


def test_a_reference_that_says_nothing_of_a_frame_judges_nothing(made) -> None:
    """Of every fourth frame there is a true mask, as where people draw them; in the second half of none."""
    truths = {i: square(7, dtype=np.uint8) for i in range(0, 10, 4)}
    run = made({i: ((target(PRESENT),), square(1)) for i in range(20)}, truths)
    some = judged(run, reference=Reference(TRUTH), ids=(7,), min_iou=0.99, max_false_masks=0)
    assert some.passed
    assert {check.key: check.got for check in some.checks}["min_iou"] == "1.000 (3 of 20 frames)"
    none = judged(run, start=1.0, reference=Reference(TRUTH), ids=(7,), min_iou=0.0, max_false_masks=20)
    assert failed(none) == {"min_iou": "no frame with a reference", "max_false_masks": "no frame with a reference"}
    absent = judged(run, start=1.0, reference=Reference(TRUTH), ids=(), max_false_masks=9)
    assert failed(absent) == {"max_false_masks": "10"}, "where nothing is right, no reference is needed"


def test_a_mask_that_is_claimed_but_not_there_is_false(made) -> None:
    """PRESENT with the mask image switched off."""
    run = made({i: ((target(PRESENT),), square(1)) for i in range(20)}, {})
    kept = judged(run, max_false_masks=0)
    assert failed(kept) == {"max_false_masks": "20"}
    unseen = judged(dataclasses.replace(run, results=without_masks(run.results)), max_false_masks=0)
    assert failed(unseen) == {"max_false_masks": "20"}


def test_where_nobody_says_what_is_right_no_mask_is_called_false(made) -> None:
    run = made({i: ((target(PRESENT),), square(1)) for i in range(20)}, {})
    found = judged(run, verdict=("PRESENT",))
    assert found.false_masks is None
    row = next(line for line in as_table(Report(run, (found,))).splitlines() if "[0-2 s]" in line)
    assert row.split()[-4:] == ["-", "0", "of", "20"]


def test_without_a_mask_no_identity_is_stable(made) -> None:
    run = made({i: ((target(NO_TARGET),), square(0)) for i in range(20)}, {})
    assert failed(judged(run, stable_id=True)) == {"stable_id": "ids none"}


def test_an_age_below_zero_is_none(made) -> None:
    """The camera's clock is ahead of the recorder's: what is measured is no age."""
    run = made({i: ((target(PRESENT),), square(1)) for i in range(20)}, {})
    ahead = dataclasses.replace(run, results=later_stamps(run.results))
    frames = tuple(dataclasses.replace(frame, stamp_ns=frame.stamp_ns + SECOND) for frame in run.frames)
    found = judged(dataclasses.replace(ahead, frames=frames), max_age=1.0)
    assert failed(found) == {"max_age": "-0.900: the stamps are ahead of the recording"}


def test_a_stamp_played_twice_is_answered_in_turn(made) -> None:
    run = made({0: ((target(PRESENT),), square(1)), 1: ((target(LOST),), square(0))}, {}, 2)
    twice = dataclasses.replace(run, frames=(run.frames[0], run.frames[0], run.frames[1]), end=0.2)
    assert judged(twice, end=0.2, max_drops=0).drops == 1


def test_a_reference_of_another_size_is_refused(made) -> None:
    run = made({0: ((target(PRESENT),), square(1))}, {0: np.ones((48, 64), np.uint8)})
    with pytest.raises(BadInput, match=r"the reference is 64 x 48 pixels, the masks are 128 x 96"):
        judged(run, min_iou=0.5, reference=Reference(TRUTH))


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"command": "the blue square"}, "'the blue square' is not asked in what is played; asked: 'the red square'"),
        ({"command": "", "id": "cup"}, "'cup' is not asked"),
        ({"end": 2.5}, "the window from 0 to 2.5 s is outside of what is played, 0 to 2 s"),
        ({"start": 3.0, "end": 4.0}, "outside of what is played"),
        ({"settle": 2.0}, "nothing is left to be judged"),
        ({"camera": "left"}, "there is no camera 'left'; there are: camera"),
        ({"reference": Reference("/none")}, r"has no images on /none; image topics: /cam, /truth"),
        ({"reference": Reference("/cam")}, "reference: a mask on /cam is 'rgb8'; allowed: mono8"),
        ({"reference": Reference(TRUTH, Path("/no/such/bag"))}, "reference: cannot read the bag /no/such/bag"),
    ],
)
def test_windows_that_cannot_be_judged(made, expected: dict, words: str) -> None:
    run = made({0: ((), square(0))}, {0: square(1, dtype=np.uint8)})
    with pytest.raises(BadInput, match=f"^expectation: .*{words}"):
        windows(run, Expectation(**{"command": "the red square", "max_drops": 0} | expected))


def test_windows_that_depend_on_the_run(made) -> None:
    run = made({0: ((), square(0))}, {0: square(1, dtype=np.uint8)})
    with pytest.raises(BadInput, match="max_age cannot be judged with --every-frame"):
        windows(dataclasses.replace(run, rate=None), Expectation("the red square", max_age=1.0))
    aged = Expectation("the red square", reference=Reference(TRUTH), min_iou=0.1)
    with pytest.raises(BadInput, match=r"say which camera the reference is about \(camera: a or b\)"):
        place((aged,), run.given, 0.0, 2.0, ("a", "b"), run.bag, False)
    late = (dataclasses.replace(RED, start=0.5, end=1.0), dataclasses.replace(RED, start=1.5))
    early = Expectation("the red square", start=0.2, max_drops=0)
    with pytest.raises(BadInput, match=r"before 'the red square' is asked \(0.5 s\)"):
        place((early,), late, 0.0, 2.0, ("camera",), run.bag, False)
    with pytest.raises(BadInput, match=r"is asked 2 times \(at 0.5, 1.5 s\); give from"):
        place((dataclasses.replace(early, start=None),), late, 0.0, 2.0, ("camera",), run.bag, False)
    (second,) = place((dataclasses.replace(early, start=1.6),), late, 0.0, 2.0, ("camera",), run.bag, False)
    assert (second.number, second.given, second.start, second.end) == (1, 1.5, 1.6, 2.0)


def test_timetable() -> None:
    cup = Command(at=1.0, request=Request("cup", "the cup"))
    asked = [
        Command(at=3.0, text="b"), Command(at=0.5, text="a"), cup, Command(at=4.0, cancel="all"),
        Command(at=2.0, cancel="cup"), Command(at=9.0, text="late"), Command(stamp_ns=ZERO - SECOND, text="early"),
    ]  # fmt: skip
    given, notes = timetable(asked, ZERO, 0.0, 5.0, "replace")
    spans = [(entry.command.words, entry.start, entry.end) for entry in given if entry.command.asks]
    assert spans == [("a", 0.5, 3.0), ("the cup", 1.0, 2.0), ("b", 3.0, 4.0)]
    assert ["early" in note or "before the start" in note for note in notes] == [True, False]
    assert "after the end at 5 s: 1 commands (at 9 s)" in notes[1]
    added, _ = timetable(asked, ZERO, 0.0, 5.0, "add")
    assert [(entry.command.words, entry.end) for entry in added if entry.command.text] == [("a", 4.0), ("b", 4.0)]


def test_words_that_cancel_end_what_was_asked() -> None:
    asked = [
        Command(at=0.0, text="the ball"), Command(at=0.5, request=Request("cup", "the cup")),
        Command(at=1.0, text="stop, please"), Command(at=2.0, text="the ball"),
        Command(at=3.0, text="never mind, find the mug"),
    ]  # fmt: skip
    given, _ = timetable(asked, ZERO, 0.0, 5.0, "add")
    spans = [(entry.command.words, entry.end) for entry in given if entry.command.asks]
    assert spans == [("the ball", 1.0), ("the cup", 1.0), ("the ball", 3.0), ("never mind, find the mug", 5.0)]


def test_which_instruction_came_of_which_command() -> None:
    commands = [
        Command(at=0, text="please find the mug"), Command(at=1, text="the ball"),
        Command(at=2, request=Request("cup", "x")), Command(at=3, text="the ball"), Command(at=4, text="never mind"),
    ]  # fmt: skip
    log = InstructionLog([Given(command, command.at, 9.0) for command in commands])
    log.sent(0)
    log.sent(1)
    log.working_on([("command-1", "find the mug"), ("command-2", "the ball")])
    for index in (2, 3, 4):
        log.sent(index)
        log.working_on([("command-2", "the ball"), ("cup", "x")])
    ids = [given.ids for given in log.result()]
    assert ids[1:] == [("command-2",), ("cup",), ("command-2",), ()]
    assert ids[0] == ("command-1",)


def test_the_report_in_its_three_forms(made, tmp_path: Path) -> None:
    run = made({i: ((target(PRESENT),), square(1)) for i in range(20)}, {i: square(7, 60, np.uint8) for i in range(20)})
    run = dataclasses.replace(run, notes=("a note",))
    expectations = (
        Expectation("the red square", verdict=("PRESENT",)),
        Expectation(
            "the red square", start=1.0, reference=Reference(TRUTH), ids=(7,), min_iou=0.5, verdict=("NO_TARGET",)
        ),
    )
    report = Report(run, judge(run, windows(run, *expectations)))
    assert not report.passed
    table = as_table(report)
    assert "the red square [0-2 s]  ok " in table
    assert "the red square [1-2 s]: min_iou: expected at least 0.5, got 0.143" in table
    assert "dropped by the node: replaced 2" in table
    assert "note: a note" in table
    assert table.endswith("1 of 2 expectations met")

    write_report(report, tmp_path / "new" / "r.json", tmp_path / "new" / "r.xml")
    figures = json.loads((tmp_path / "new" / "r.json").read_text())
    assert figures == json.loads(json.dumps(as_json(report)))
    assert [e["passed"] for e in figures["expectations"]] == [True, False]
    assert figures["expectations"][1]["checks"][1] == {
        "key": "min_iou", "wanted": "0.5", "got": "0.143", "passed": False
    }  # fmt: skip
    suites = ElementTree.fromstring(as_junit(report).encode())
    assert (suites.get("tests"), suites.get("failures")) == ("2", "1")
    good, bad = suites.iter("testcase")
    assert good.find("failure") is None
    assert "verdict: expected NO_TARGET, got PRESENT" in bad.find("failure").get("message")

    with Source(Options(run.bag, tmp_path / "out")) as source:
        (sheet,) = pictures.write_sheets(run, report.judgements, source, tmp_path / "sheets")
    shown = cv2.imread(str(sheet))[..., ::-1]
    assert shown.shape[1] == 4 * 320
    assert (shown == pictures.REFERENCE).all(axis=-1).any(), "the reference's line"
    assert sheet.name == "failed_2_the_red_square.png"


def test_only_earlier_sheets_are_taken_away(made, tmp_path: Path) -> None:
    run = made({}, {})
    for name in ("failed_experiment.png", "failed_1_the_blue_square.png"):
        (tmp_path / name).touch()
    with Source(Options(run.bag, tmp_path / "out")) as source:
        pictures.write_sheets(run, (), source, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {"failed_experiment.png"}


def test_cases_of_several_cameras_have_names_of_their_own(made) -> None:
    run = made({}, {})
    windows = [Window(Expectation("the red square", camera=name, max_drops=0), 0, 0.0, 0.0, 2.0) for name in "ab"]
    names = [
        case.get("name")
        for case in ElementTree.fromstring(as_junit(Report(run, judge(run, windows))).encode()).iter("testcase")
    ]
    assert names == ["the red square, camera a [0-2 s]", "the red square, camera b [0-2 s]"]


def test_what_a_test_asks(made) -> None:
    truths = {i: square(7, dtype=np.uint8) for i in range(20)}
    run = made({i: ((target(PRESENT),), square(1)) for i in range(20)}, truths)
    outcome = Outcome(Report(run))
    assert outcome.passed
    assert outcome.bag == run.results
    assert outcome.verdict("the red square", start=0.5, end=1.0).frames == 5
    assert outcome.mean_iou("the red square", TRUTH, [7]) == pytest.approx(1.0)
    with pytest.raises(BadInput, match="shows none of it"):
        outcome.mean_iou("the red square", TRUTH, [8])
    with pytest.raises(BadInput, match="is not asked"):
        outcome.verdict("the blue square")
    assert "20 frames, 1 command" in str(outcome)


def test_times_are_shown_as_people_read_them(made) -> None:
    run = dataclasses.replace(made({}, {}, 1), end=1e-9)  # a bag of one image
    window = Window(Expectation("the red square", max_drops=0), 0, 0.0, 0.0, 1e-9)
    table = as_table(Report(run, judge(run, (window,))))
    assert "the red square [0-0 s]" in table
    assert "played 0 to 0 s of" in table


def test_pictures_of_frames_that_cannot_be_shown(made, tmp_path: Path) -> None:
    run = made({}, {})
    judgement = judged(run, verdict=("PRESENT",))
    assert pictures.moments(judgement)[0][0] == "nothing published"
    with Source(Options(run.bag, tmp_path / "out")) as source:
        shown = pictures.sheet(run, judgement, source)
    tile = shown[-240:, :320]  # its middle shows the image alone
    assert (tile[60:200].reshape(-1, 3) == picture()[30, 40]).all(axis=-1).any()
