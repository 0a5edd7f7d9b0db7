"""What is played when: by the clock, as it was recorded, or one frame after the other, each when the last is answered.

The second way is deterministic: the node gets the same messages in the same order, its clock stands at each frame's
recorded time until the masks of that frame are out, and nothing depends on how fast this computer is.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

from .node_link import NodeLink
from .pace import Pace
from .processes import RunFailed
from .records import Given, InstructionLog, PlayedFrame
from .source import Sample, Source

CLOCK_HZ = 100.0  # a node's clock stands still between two ticks: its own ages come out up to 10 ms too low
LEAD_S = 0.5  # /clock runs this long before the first message: the nodes' clocks are set by then
TAIL_S = 1.5  # /clock and the node go on for so long after the last frame: a last diagnostic report is among it
REPORT_S = 3.0  # diagnostics come once a second
JUMP_NS = 1_000_000_000  # a stamp further back than this is a new beginning for the node, not a late frame
# Drops that say nothing of the image that is waited for: of something else, known here beforehand, or of real time.
OTHER_DROPS = (
    "command", "instruction", "goal", "depth", "camera_info", "stamp_repeated", "stamp_backwards", "camera_silent"
)  # fmt: skip


class BagTime:
    """The bag time that recorded messages get: that of a running pace, else what it was set to last."""

    def __init__(self) -> None:
        self.fixed_ns = 0
        self.pace: Pace | None = None

    def now_ns(self) -> int:
        return self.pace.now_ns() if self.pace else self.fixed_ns


class Conductor:
    """Plays one source to one node. show: called with seconds played and the number of frames. frames: what was sent,
    in order. instructions: what became of the commands."""

    def __init__(
        self,
        source: Source,
        link: NodeLink,
        time: BagTime,
        given: Sequence[Given],
        frame_timeout: float,
        show: Callable[[float, int], None],
    ) -> None:
        self.frames: list[PlayedFrame] = []
        self.instructions = InstructionLog(given)
        self._source, self._link, self._time = source, link, time
        self._given, self._frame_timeout, self._show = given, frame_timeout, show
        self._newest: dict[str, int] = {}
        self._drops_known = 0
        link.on_working = lambda: self.instructions.working_on(link.working)

    def play(self, rate: float) -> None:
        """At ``rate`` bag seconds a second."""
        start = self._source.log_time(self._source.start)
        pace = self._time.pace = Pace(start, rate, CLOCK_HZ, self._link.tick, self._link.spin)
        pace.start(LEAD_S)
        for time_ns, event in self._events():
            pace.run_until(time_ns)
            if isinstance(event, Sample):
                self._send(event)
            else:
                self._command(event)
        pace.run_until(self._source.log_time(self._source.end) + round(TAIL_S * rate * 1e9))
        self._time.fixed_ns, self._time.pace = pace.now_ns(), None

    def play_every_frame(self) -> None:
        """Each frame when the one before has been answered, or is known to be refused."""
        self._set_time(self._source.log_time(self._source.start))
        for time_ns, event in self._events():
            self._set_time(time_ns)
            if not isinstance(event, Sample):
                self._command(event)
                self._link.barrier(self._frame_timeout)
            elif event.topic.role == "image":
                self._link.barrier(self._frame_timeout)
                self._send(event)
                self._await(event)
            else:
                self._send(event)
        self._link.barrier(self._frame_timeout)
        reports = self._link.reports
        self._link.wait(lambda: self._link.reports > reports, REPORT_S)

    def _events(self) -> Iterator[tuple[int, Sample | int]]:
        """Messages and (as their numbers) commands, in order of time; a command comes before the image of its time."""
        commands = ((self._source.log_time(given.start), 0, number) for number, given in enumerate(self._given))
        samples = ((sample.time_ns, 1, sample) for sample in self._source.samples())
        for time_ns, _, event in heapq.merge(commands, samples, key=lambda entry: entry[:2]):
            yield time_ns, event

    def _set_time(self, bag_ns: int) -> None:
        """The node's clock never goes back."""
        self._time.fixed_ns = max(self._time.fixed_ns, bag_ns)
        self._link.tick(self._time.fixed_ns)

    def _command(self, number: int) -> None:
        self.instructions.sent(number)
        self._link.say(self._given[number].command)

    def _send(self, sample: Sample) -> None:
        self._link.play(sample)
        if sample.topic.role == "image":
            seconds = self._source.seconds(sample.time_ns)
            self.frames.append(PlayedFrame(sample.topic.camera, sample.stamp_ns, sample.frame_id, seconds))
            self._show(seconds, len(self.frames))

    def _await(self, sample: Sample) -> None:
        """Wait for the node's word on this frame."""
        camera, stamp = sample.topic.camera, sample.stamp_ns
        newest = self._newest.get(camera)
        if newest is not None and 0 <= newest - stamp <= JUMP_NS:
            self._link.barrier(self._frame_timeout)  # no new frame for the node: it counts and drops it
            return
        self._newest[camera] = stamp
        link = self._link
        if not link.wait(
            lambda: (camera, stamp) in link.answered or self._drops() > self._drops_known, self._frame_timeout
        ):
            at = self._source.seconds(sample.time_ns)
            raise RunFailed(
                f"published nothing on the frame of {camera} at {at:.3f} s within {self._frame_timeout:g} s "
                "(--frame-timeout)"
            )
        self._drops_known = self._drops()
        link.answered.clear()

    def _drops(self) -> int:
        drops = self._link.dropped
        return sum(count for cause, count in drops.items() if not cause.startswith(OTHER_DROPS))
