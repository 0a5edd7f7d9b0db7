"""From the recordings to figures, and from figures to what was met: each expectation on its own window of frames."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from instructseg.core import BadInput, State
from instructseg.streaming.statistics import percentile

from .expectations import GONE, Expectation, Reference
from .records import Given, PlayedFrame, Run
from .results import FrameRecord, MaskStream, TargetRecord, frame_records
from .windows import Window

READ_AHEAD = 1024  # answers
NO_ANSWER, NO_FRAMES = "NO ANSWER", "NO FRAMES"


@dataclasses.dataclass(frozen=True)
class View:
    """One played frame as one command sees it. record: None where the node published nothing on it. targets: of this
    command. Pixels: area of its masks, truth of the reference (None: it says nothing of this frame), overlap of both.
    unseen: PRESENT is said, but no mask image was published."""

    frame: PlayedFrame
    record: FrameRecord | None
    targets: tuple[TargetRecord, ...] = ()
    area: int = 0
    truth: int | None = None
    overlap: int = 0
    unseen: bool = False

    @property
    def masked(self) -> bool:
        """Whether the node says that it has a mask."""
        return self.area > 0 or self.unseen

    @property
    def state(self) -> str:
        states = [target.state for target in self.targets]
        return (State.PRESENT if State.PRESENT in states else states[0]).name if states else NO_ANSWER

    @property
    def ids(self) -> frozenset[int]:
        return frozenset(t.instance_id for t in self.targets if t.state is State.PRESENT)

    @property
    def iou(self) -> float:
        union = (self.truth or 0) + self.area - self.overlap
        return self.overlap / union if union else 0.0


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was expected: its key, what was wanted and what came."""

    key: str
    wanted: str
    got: str
    passed: bool


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The figures of one window, and what was expected of them.

    state: in most frames of its second half. states: in order, without repetition. frames: played; drops: those nothing
    was published on. held: share of the published ones that are PRESENT. iou: mean over the compared frames: those
    published whose reference shows something (None: there is none). age_p95: seconds, to the recorder (None: no answer,
    or --every-frame). false_masks: frames (None: of none is known what is right). ids: instance ids with a mask.
    first_mask: seconds after the command (None: no mask).
    """

    window: Window
    state: str
    states: tuple[str, ...]
    frames: int
    drops: int
    held: float
    iou: float | None
    compared: int
    age_p95: float | None
    false_masks: int | None
    ids: tuple[int, ...]
    first_mask: float | None
    checks: tuple[Check, ...]
    views: tuple[View, ...] = dataclasses.field(repr=False, default=())

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def judge(run: Run, windows: Sequence[Window]) -> tuple[Judgement, ...]:
    """All windows, in their order. Reads the recordings once."""
    views = collect(run, windows)
    timed = run.rate is not None  # else time stands still while a frame is worked on: there are no ages
    return tuple(_judgement(window, seen, timed) for window, seen in zip(windows, views, strict=True))


def collect(run: Run, windows: Sequence[Window]) -> list[list[View]]:
    """For every window the frames from its command on, in order of time."""
    answers = _answers(run)
    own = MaskStream(run.results, f"{run.node}/instance_mask/compressed")
    references = {w.expectation.reference: _stream(run, w.expectation.reference) for w in windows}
    views: list[list[View]] = [[] for _ in windows]
    for frame, record in answers:
        active = [
            number
            for number, window in enumerate(windows)
            if window.given <= frame.time < window.end and window.expectation.camera in ("", frame.camera)
        ]
        if not active:
            continue
        masks = own.at(frame.stamp_ns, frame.frame_id) if record else None
        truths = {
            reference: references[reference].at(frame.stamp_ns) if references[reference] else None
            for reference in {windows[number].expectation.reference for number in active}
        }
        for number in active:
            expectation, given = windows[number].expectation, run.given[windows[number].number]
            views[number].append(_view(frame, record, masks, truths[expectation.reference], expectation, given))
    return views


def _answers(run: Run) -> Iterator[tuple[PlayedFrame, FrameRecord | None]]:
    """Every played frame with what the node published on it. A stamp that was played twice is answered in turn.

    Answers come in about the order of the frames, so that few have to be read ahead.
    """
    coming = frame_records(run.results, run.node)
    ahead: dict[tuple[str, int], deque[FrameRecord]] = defaultdict(deque)
    count = 0
    for frame in run.frames:
        for record in itertools.islice(coming, READ_AHEAD - count):
            ahead[record.camera, record.stamp_ns].append(record)
            count += 1
        key = (frame.camera, frame.stamp_ns)
        found = ahead[key].popleft() if key in ahead else None
        count -= found is not None
        if not ahead.get(key):
            ahead.pop(key, None)
        yield frame, found


def _stream(run: Run, reference: Reference | None) -> MaskStream | None:
    return reference and MaskStream(reference.bag or run.bag, reference.topic, reference.tolerance_s)


def _view(
    frame: PlayedFrame,
    record: FrameRecord | None,
    masks: np.ndarray | None,
    truth: np.ndarray | None,
    expectation: Expectation,
    given: Given,
) -> View:
    """masks, truth: ``(H, W)`` instance ids and values of the reference."""
    if record is None:
        return View(frame, None)
    targets = tuple(target for target in record.targets if target.instruction_id in given.ids)
    ids = [target.instance_id for target in targets if target.state is State.PRESENT]
    mask = np.isin(masks, ids) if masks is not None and ids else None
    wanted = None if truth is None else expectation.right(truth)
    right = 0 if expectation.nothing_right else None
    if mask is not None and wanted is not None and mask.shape != wanted.shape:
        raise BadInput(
            f"{expectation.place}: the reference is {wanted.shape[1]} x {wanted.shape[0]} pixels, the masks are "
            f"{mask.shape[1]} x {mask.shape[0]}"
        )
    return View(
        frame,
        record,
        targets,
        area=0 if mask is None else int(mask.sum()),
        truth=right if wanted is None else int(wanted.sum()),
        overlap=0 if mask is None or wanted is None else int((mask & wanted).sum()),
        unseen=bool(ids) and masks is None,
    )


def is_false(view: View, expectation: Expectation) -> bool | None:
    """Whether it has a mask where there is nothing; None: nobody says what is right on this frame."""
    any_mask = expectation.reference is None and expectation.max_false_masks is not None
    if view.record is None or (view.truth is None and not any_mask):
        return None
    return view.masked and not view.truth


def _judgement(window: Window, seen: Sequence[View], timed: bool) -> Judgement:
    """seen: the views since the command."""
    views = [view for view in seen if view.frame.time >= window.start]
    published = [view for view in views if view.record is not None]
    shown = [view for view in published if view.truth]
    ages = [view.record.received_age for view in published if view.targets and timed]
    false = [wrong for view in views if (wrong := is_false(view, window.expectation)) is not None]
    first = next((view.frame.time - window.given for view in seen if view.area), None)
    judgement = Judgement(
        window=window,
        state=_usual(views),
        states=tuple(state for state, _ in itertools.groupby(view.state for view in published)),
        frames=len(views),
        drops=len(views) - len(published),
        held=sum(view.state == State.PRESENT.name for view in published) / max(1, len(published)),
        iou=sum(view.iou for view in shown) / len(shown) if shown else None,
        compared=len(shown),
        age_p95=percentile(ages, 0.95) if ages else None,
        false_masks=sum(false) if false else None,
        ids=tuple(sorted(frozenset().union(*(view.ids for view in published)))),
        first_mask=first,
        checks=(),
        views=tuple(views),
    )
    return dataclasses.replace(judgement, checks=tuple(_checks(window.expectation, judgement)))


def _usual(views: Sequence[View]) -> str:
    """The most frequent state of the second half."""
    late = [view.state for view in views[len(views) // 2 :] if view.record is not None]
    return Counter(late).most_common(1)[0][0] if late else NO_FRAMES


def _checks(expected: Expectation, got: Judgement) -> Iterator[Check]:
    if expected.verdict is not None:
        yield _verdict(expected.verdict, got)
    if expected.stable_id:
        most = max((len(view.ids) for view in got.views), default=0)
        shown = ", ".join(map(str, got.ids)) or "none"
        yield Check("stable_id", "true", f"ids {shown}", bool(got.ids) and len(got.ids) <= most)
    at_least, at_most = (lambda value, limit: value >= limit), (lambda value, limit: value <= limit)
    published = got.frames - got.drops
    # A figure of no frame at all is none: what was never looked at meets nothing.
    figures: tuple[tuple[str, float | None, str, Callable[[float, float], bool], str], ...] = (
        ("min_iou", got.iou, ".3f", at_least, "no frame with a reference"),
        ("min_held", got.held if published else None, ".3f", at_least, "nothing published"),
        ("max_age", got.age_p95, ".3f", lambda age, limit: 0.0 <= age <= limit, "no answer"),
        ("max_false_masks", got.false_masks, "d", at_most, _unknown(expected, published)),
        ("max_drops", got.drops if got.frames else None, "d", at_most, "no frame"),
        ("max_first_mask", got.first_mask, ".3f", at_most, "no mask"),
    )
    for key, value, form, holds, missing in figures:
        limit = getattr(expected, key)
        if limit is not None:
            text = missing if value is None else format(value, form) + _remark(key, value, got)
            yield Check(key, f"{limit:g}", text, value is not None and holds(value, limit))


def _unknown(expected: Expectation, published: int) -> str:
    return "no frame with a reference" if published and expected.reference else "nothing published"


def _remark(key: str, value: float, got: Judgement) -> str:
    """What a bare figure would hide."""
    if key == "max_age" and value < 0.0:
        return ": the stamps are ahead of the recording"
    few = key == "min_iou" and got.compared < got.frames
    return f" ({got.compared} of {got.frames} frames)" if few else ""


def _verdict(wanted: Sequence[str], got: Judgement) -> Check:
    if len(wanted) == 1:
        return Check("verdict", wanted[0], got.state, _is(got.state, wanted[0]))
    left = list(wanted)
    for state in got.states:
        if left and _is(state, left[0]):
            left.pop(0)
    passed = not left and bool(got.states) and _is(got.states[-1], wanted[-1])
    shown = got.states if len(got.states) <= 8 else (*got.states[:7], "...", got.states[-1])
    return Check("verdict", " > ".join(wanted), " > ".join(shown) or NO_FRAMES, passed)


def _is(state: str, wanted: str) -> bool:
    if wanted == GONE:
        return state not in (State.PRESENT.name, NO_ANSWER, NO_FRAMES)
    return state == wanted
