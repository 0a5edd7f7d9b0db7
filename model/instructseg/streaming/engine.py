"""The two-rate streaming engine: frames and instructions in, masks and states out, whatever the recipe."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ..core import Frame, Instruction, InstructSegError, Segmenter
from ..tracking.ids import InstanceIds
from .book import check_instruction
from .box import FrameBox
from .config import EngineConfig, check_change
from .ground_step import GroundStep
from .mask_step import MaskStep
from .state import Callbacks, Log, StreamState
from .statistics import EngineStatistics
from .threads import Workers, WorkersFactory
from .types import Ending, FrameRefused, FrameResult, GroundingResult, InstructionStatus, RejectionEvent

STOP_TIMEOUT_S = 5.0
_PUBLICATION_S = 1.0  # what a callback with a result may reasonably take


class StreamingEngine:
    """Owns the frames, the instructions and the segmenter's time.

    With threads: :meth:`start`, then :meth:`submit_frame` from any thread; masks come by ``on_result`` for every frame
    that was taken, groundings run beside them. Without: :meth:`process` one frame after the other, deterministic. Under
    the policy "every" the threads give what ``process`` gives: groundings take their time before the masks of the frame
    that is due, and instructions count from the next frame that is submitted.

    clock_ns: the owner's clock, in the time base of the frames' stamps where there is one (ages are clock minus stamp).
    log: called with (level of the logging module, message); the logger "instructseg.streaming" without it. Callbacks
    run outside every lock; one that raises is logged and counted. workers: what runs the two halves between start and
    stop; a simulation brings its own (``evaluation.simulated_stream``). instance_ids: where targets get theirs.
    The text of an instruction is taken as it is: clean it first (``language.clean_instruction``).
    """

    def __init__(
        self,
        segmenter: Segmenter,
        config: EngineConfig | None = None,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        on_result: Callable[[FrameResult], None] | None = None,
        on_rejection: Callable[[RejectionEvent], None] | None = None,
        on_grounding: Callable[[GroundingResult], None] | None = None,
        on_instructions: Callable[[tuple[InstructionStatus, ...]], None] | None = None,
        log: Log | None = None,
        workers: WorkersFactory = Workers,
        instance_ids: InstanceIds | None = None,
    ) -> None:
        config = config or EngineConfig()
        callbacks = Callbacks(on_result, on_rejection, on_grounding, on_instructions)
        self._state = StreamState(segmenter, config, clock_ns, callbacks, log, instance_ids)
        self._grounding = GroundStep(self._state)
        self._inline = MaskStep(self._state, before_segmenting=self._ground_due)
        self._box = FrameBox(keep_every=config.frame_policy == "every")
        self._make_workers = workers
        self._workers: Workers | None = None
        self._started_ns = clock_ns()
        self._life = threading.Lock()  # start, stop and process exclude each other
        self._publishing = threading.RLock()  # held while a result goes out
        if segmenter.sampling.horizon_s > config.buffer_s:
            self._state.say(
                logging.WARNING,
                "horizon",
                f"buffer_s {config.buffer_s:g} is shorter than the {segmenter.sampling.horizon_s:g} s that the "
                "recipe looks back: its clips will be shorter",
            )

    def __enter__(self) -> StreamingEngine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def config(self) -> EngineConfig:
        """The configuration in force."""
        return self._state.config

    @property
    def running(self) -> bool:
        """Whether the threads have been started and not stopped."""
        return self._workers is not None

    # Life

    def start(self) -> None:
        """Start both threads; instructions given before are grounded on the frames that come now. Idempotent."""
        with self._life:
            if self._workers is not None:
                return
            self._started_ns = self._state.clock_ns()
            self._forget("started")
            with self._state.guard:
                self._state.restore()
            if self.config.frame_policy == "every":  # what is computed must not depend on how fast it is computed
                masking, grounding = MaskStep(self._state, self._ground_while_running), None
            else:
                masking, grounding = MaskStep(self._state), self._grounding
            self._workers = self._make_workers(self._state, self._box, masking, grounding, self._publish)
            self._workers.start()
        self._state.outbox.deliver()

    def stop(self) -> bool:
        """Stop both threads, within five seconds even when the segmenter is still busy; whether both have ended.

        No result is published afterwards, the buffered frames are given up and every target becomes STALE. Idempotent,
        callable from a callback.
        """
        with self._life:
            workers, self._workers = self._workers, None
        if workers is None:
            return True
        ended = workers.stop(STOP_TIMEOUT_S)
        with self._state.guard:
            self._state.mark_stale(0, self._started_ns, "the engine was stopped")
            self._state.abandon()
            self._state.restore()
            self._state.post_events()
        self._state.outbox.deliver()
        return ended

    def reset(self) -> None:
        """Forget frames, targets and tokens; the instructions stay and are grounded anew on the frames to come."""
        self._catch_up()
        for _ in range(self._box.clear()):
            self._state.recorder.count("drops", "reset")
        self._forget("reset")
        self._state.outbox.deliver()
        self._wait_for_publication()

    def pause(self, why: str) -> None:
        """Look at no frame until :meth:`resume`: every target becomes STALE at once, for this reason; frames that wait
        are dropped. Nothing is forgotten. No result that is published after this shows anything."""
        self._catch_up()
        state = self._state
        for _ in range(self._box.clear()):
            state.recorder.count("drops", "paused")
        with state.guard:
            state.paused = why
            state.mark_stale(0, self._started_ns, why)
            state.post_events()
        state.outbox.deliver()
        self._wait_for_publication()

    def resume(self) -> None:
        """Look at frames again."""
        with self._state.guard:
            self._state.paused = ""

    def reconfigure(self, config: EngineConfig) -> None:
        """Go by another configuration from the next step on; nothing is forgotten. A lower ``max_instructions`` ends
        none that is there. Raises BadInput, and changes nothing, for a field that holds for the engine's life
        (``config.FIXED``)."""
        check_change(self.config, config)
        self._catch_up()
        with self._state.guard:
            self._state.reconfigure(config)
        self._state.outbox.deliver()

    # Frames

    def submit_frame(self, frame: Frame) -> None:
        """Hand a frame over. Its image must not be written to afterwards.

        Policy "latest" never blocks: a frame that still waits is replaced. Policy "every" waits for a place in the
        queue. A frame that is refused or dropped is counted by cause and logged. Raises BadInput for what is no Frame.
        """
        state = self._state
        try:
            self._admit(frame, limit_rate=True)
        except FrameRefused as refused:
            level = logging.DEBUG if refused.cause == "rate_limit" else logging.WARNING
            state.say(level, f"drop:{refused.cause}", f"frame dropped: {refused}")
            return
        with state.guard:
            skipped = state.degradation.skips(frame.camera)
        if skipped:
            state.recorder.count("drops", "degraded")
            return
        cause = self._box.put(frame)
        if cause is not None:
            state.recorder.count("drops", cause)

    def process(self, frame: Frame) -> FrameResult:
        """The result on this frame, computed here and now; instructions that are due are grounded on it first.

        The same frames and instructions give the same results. ``on_result`` is called too. Raises FrameRefused (a
        BadInput with its cause) for a frame that cannot be taken, InstructSegError while the threads run.
        """
        if not self._life.acquire(blocking=False):
            raise InstructSegError("process() runs one frame at a time; another call has not returned yet")
        try:
            if self._workers is not None:
                raise InstructSegError("process() is for an engine without threads; stop() it or use submit_frame()")
            self._admit(frame, limit_rate=False)
            result = self._inline.run(frame)
        finally:
            self._life.release()
        self._state.outbox.deliver()
        self._publish(result)
        return result

    # Instructions

    def set_instruction(self, instruction: Instruction) -> Instruction:
        """Work on this instruction alone; all others end. Returns what is worked on: it, or the equal one that was
        there. Raises BadInput and changes nothing when it is unusable."""
        check_instruction(instruction, self.config.cameras)
        self._catch_up()
        with self._state.guard:
            for entry in list(self._state.book):
                if entry.instruction.id != instruction.id:
                    self._state.book.end(entry.instruction.id, "replaced", Ending.REPLACED)
            at_work = self._add(instruction)
        self._state.outbox.deliver()
        self._wait_for_publication()
        return at_work

    def add_instruction(self, instruction: Instruction, anew: bool = False) -> Instruction:
        """Work on this instruction too, or replace the one with its id. The very same one again only begins its
        time-out anew; with ``anew`` it replaces as another one would. Returns what is worked on, as above. Raises
        BadInput when it is unusable or one too many."""
        check_instruction(instruction, self.config.cameras)
        self._catch_up()
        with self._state.guard:
            at_work = self._add(instruction, anew)
        self._state.outbox.deliver()
        self._wait_for_publication()
        return at_work

    def cancel(self, instruction_id: str | None = None) -> list[str]:
        """End one instruction, or all with None; the ids of those that ended (none for an id that is not there). No
        result that is published after this shows them."""
        self._catch_up()
        with self._state.guard:
            known = [entry.instruction.id for entry in self._state.book]
            ended = [i for i in known if instruction_id in (None, i) and self._state.book.end(i, "cancelled")]
            self._state.post_events()
        self._state.outbox.deliver()
        self._wait_for_publication()
        return ended

    # Supervision

    def check_stale(self) -> None:
        """For a timer of the owner, about ten times a second: STALE without frames, time-outs without frames."""
        with self._state.guard:
            now_ns = self._state.clock_ns()
            self._started_ns = min(self._started_ns, now_ns)
            self._state.book.expire(now_ns)
            stale_after_ns = round(self.config.stale_after * 1e9)
            self._state.mark_stale(stale_after_ns, self._started_ns, self._state.paused or None)
            self._state.post_events()
        self._state.outbox.deliver()

    def count_bad_input(self, cause: str) -> None:
        """Count something the owner refused before it became a Frame or an Instruction, among the drops."""
        self._state.recorder.count("drops", cause)

    def statistics(self) -> EngineStatistics:
        """A snapshot of counters, rates, ages, queues, instructions and memory."""
        state = self._state
        with state.guard:
            statuses = state.book.statuses()
            depths = {f"buffer:{name}": len(stream.buffer) for name, stream in state.streams.items()}
            image_bytes = sum(stream.buffer.image_bytes for stream in state.streams.values())
            steps = state.degradation.steps
        return state.recorder.snapshot(
            time.monotonic_ns(), {"waiting": len(self._box), **depths}, statuses, image_bytes, steps
        )

    # Inside

    def _admit(self, frame: Frame, limit_rate: bool) -> None:
        state = self._state
        with state.guard:
            try:
                state.admission.admit(frame, limit_rate)
            except FrameRefused as refused:
                state.recorder.count("drops", refused.cause)
                raise
            finally:
                if isinstance(frame, Frame):
                    state.recorder.frame_in(time.monotonic_ns())
            stream = state.streams.get(frame.camera)
            if stream is not None:
                stream.arrived_ns = state.clock_ns()

    def _add(self, instruction: Instruction, anew: bool = False) -> Instruction:
        state = self._state
        stamps, now_ns = state.newest_stamps(), state.clock_ns()
        at_work = state.book.add(instruction, state.admission.cameras, stamps, now_ns, anew)
        state.post_events()
        state.guard.notify_all()
        return at_work

    def _forget(self, cause: str) -> None:
        state = self._state
        with state.guard:
            state.admission.forget()
            for stream in state.streams.values():
                stream.alive_ns = state.clock_ns()
                state.flush(stream, cause, f"the engine was {cause}")
            state.post_events()

    def _catch_up(self) -> None:
        """Under "every": wait for the frames that were submitted before, which the change to come is not about."""
        workers = self._workers
        if self.config.frame_policy == "every" and workers is not None and not workers.are_current():
            self._box.wait_until_idle()

    def _ground_while_running(self, camera: str) -> None:
        self._ground_due(camera, lambda: self._workers is not None)

    def _ground_due(self, camera: str, go_on: Callable[[], bool] = lambda: True) -> None:
        """Ground everything that is due on this camera, each instruction once."""
        while go_on():
            with self._state.guard:
                job = self._grounding.next_job(camera)
            if job is None:
                return
            self._grounding.run(job)

    def _publish(self, result: FrameResult) -> None:
        if self._state.callbacks.on_result is None:
            return
        with self._publishing:
            with self._state.guard:
                result = self._state.as_of_now(result)
            try:
                self._state.callbacks.on_result(result)
            except Exception as error:  # the owner's fault must not end a thread of ours
                self._state.fault("callback on_result", error)

    def _wait_for_publication(self) -> None:
        """Let a result that is going out be out; one that comes later knows of what has changed. A callback that takes
        for ever must not hold up whoever ends an instruction."""
        if self._publishing.acquire(timeout=_PUBLICATION_S):
            self._publishing.release()
