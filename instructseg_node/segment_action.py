"""Action ``~/segment``: an instruction with somebody waiting for how it ends.

A goal is an instruction like any other; its id, its label and its place among ``max_instructions`` are the same. It
succeeds where it did what was asked: ONE_SHOT with its first answer (NO_TARGET is one), TRACK when its time is up. It
is aborted by whatever else ends the instruction: a stop command, ``~/cancel``, another instruction or goal with its id,
``~/reset`` and deactivate. Fail closed: the result has a mask only where the final state is PRESENT.

The engine's threads bring results; goals begin and end on the executor's thread, which waits for nothing here.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from instructseg_msgs.action import Segment
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from instructseg.core import BadInput, Instruction, Mode, State
from instructseg.streaming import BEST_FIRST, Ending, FrameResult, InstructionStatus, StreamingEngine
from instructseg.tracking import TargetState, instance_map

from .complaints import Complaints
from .conversions import fill_image
from .deferred import Deferred
from .inputs import Inputs
from .interface import ACTIONS
from .outputs import header_of, target_array

FEEDBACK_PERIOD_S = 0.1  # the fastest; slower where frames are processed more slowly
RESULT_KEPT_S = 60  # a result holds an image, and somebody who has not fetched it by then will not
_ROW = next(row for row in ACTIONS if row.name == "~/segment")


@dataclasses.dataclass(frozen=True)
class End:
    """How a goal ended."""

    succeeded: bool
    state: State
    reason: str


@dataclasses.dataclass(eq=False)
class Goal:
    """One accepted goal. frames: by camera, the newest result with targets of this instruction, and only those."""

    instruction: Instruction
    done: Deferred
    handle: ServerGoalHandle | None = None
    frames: dict[str, FrameResult] = dataclasses.field(default_factory=dict)
    next_feedback: float = 0.0


class SegmentAction:
    """The action server exists as long as the node; it takes goals between :meth:`open` and :meth:`close`."""

    def __init__(self, node: LifecycleNode, phase: Callable[[], str], complaints: Complaints) -> None:
        self.last_refusal = ""  # why a goal was last rejected: a client is not told
        self._node = node
        self._phase = phase
        self._complaints = complaints
        self._inputs: Inputs | None = None
        self._engine: StreamingEngine | None = None
        self._lock = threading.Lock()
        self._goals: list[Goal] = []  # being worked on
        self._accepted: dict[int, Goal] = {}  # by the id() of the request, until there is a handle
        self._handled: dict[bytes, Goal] = {}  # by goal id, until the result has been given
        self._server = ActionServer(
            node,
            Segment,
            _ROW.name,
            self._execute,
            goal_callback=self._on_goal,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
            callback_group=ReentrantCallbackGroup(),
            result_timeout=RESULT_KEPT_S,
        )

    def __len__(self) -> int:
        """Goals being worked on."""
        return len(self._goals)

    # Life

    def open(self, inputs: Inputs, engine: StreamingEngine) -> None:
        self._inputs, self._engine = inputs, engine

    def close(self) -> None:
        """The stream has ended, and with it all goals."""
        self._inputs = self._engine = None
        for goal in list(self._goals):
            self._finish(goal, End(False, State.STALE, "the node was deactivated"))

    def reset(self) -> None:
        """Everything is being forgotten: all goals end, and so do their instructions."""
        for goal in list(self._goals):
            self._finish(goal, End(False, State.GROUNDING, "~/reset was called"))
            self._engine.cancel(goal.instruction.id)

    def destroy(self) -> None:
        self._server.destroy()

    # From the engine, on its threads

    def take_result(self, result: FrameResult) -> None:
        """Feedback of every goal with targets on this frame, and the end of those that it answered."""
        for goal in list(self._goals):
            targets = tuple(target for target in result.targets if target.instruction is goal.instruction)
            if not targets:
                continue
            goal.frames[result.frame.camera] = dataclasses.replace(result, targets=targets)
            answered = [status for status in result.answered if status.instruction is goal.instruction]
            score = max(target.score for target in targets)
            area = sum(int(np.count_nonzero(target.mask)) for target in targets if target.mask is not None)
            if answered or time.monotonic() >= goal.next_feedback:
                self._tell(goal, best_state(targets), score, area)
            for status in answered:
                self._finish(goal, End(True, status.state, status.reason))

    def take_statuses(self, statuses: Sequence[InstructionStatus]) -> None:
        """The end of every goal whose instruction has ended, and STALE, which comes without a frame. What was answered
        ends with the frame that answered it (:meth:`take_result`), which may come before or after this."""
        for status in statuses:
            for goal in [goal for goal in list(self._goals) if goal.instruction is status.instruction]:
                if status.ending is None and status.state is State.STALE:
                    self._tell(goal, State.STALE, status.score, 0)
                elif status.ending not in (None, Ending.ANSWERED):
                    over = status.ending is Ending.TIMED_OUT and goal.instruction.mode is Mode.TRACK
                    self._finish(goal, End(over, status.state, status.reason))

    # Goals, on the executor's thread

    def _on_goal(self, request: Segment.Goal) -> GoalResponse:
        try:
            if self._inputs is None:
                raise BadInput(f"the node is {self._phase()}: activate it")
            self._inputs.begin(request.instruction, lambda instruction: self._begin(request, instruction))
        except BadInput as error:
            self._forget(self._accepted.pop(id(request), None))
            if self._engine is not None:
                self._engine.count_bad_input("goal")
            self.last_refusal = str(error)
            self._complaints.add("goal", f"goal refused: {error}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _begin(self, request: Segment.Goal, instruction: Instruction) -> None:
        """Before the engine has the instruction, so that nothing that becomes of it is missed."""
        goal = self._accepted[id(request)] = Goal(instruction, Deferred(self._node))
        with self._lock:
            self._goals.append(goal)

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        goal = self._accepted.pop(id(handle.request))
        goal.handle = handle
        self._handled[bytes(handle.goal_id.uuid)] = goal
        handle.execute()

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        goal = self._handled.get(bytes(handle.goal_id.uuid))
        if goal in self._goals and self._engine is not None:
            self._engine.cancel(goal.instruction.id)
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> Segment.Result:
        goal = self._handled[bytes(handle.goal_id.uuid)]
        end: End = await goal.done
        del self._handled[bytes(handle.goal_id.uuid)]
        if handle.is_cancel_requested:
            handle.canceled()
        elif end.succeeded:
            handle.succeed()
        else:
            handle.abort()
        return result_message(end, list(goal.frames.values()))

    # From anywhere

    def _tell(self, goal: Goal, state: State, score: float, area: int) -> None:
        if goal.handle is None:
            return
        goal.next_feedback = max(goal.next_feedback, time.monotonic() - FEEDBACK_PERIOD_S) + FEEDBACK_PERIOD_S
        newest_ns = max((result.frame.stamp_ns for result in goal.frames.values()), default=None)
        now_ns = self._node.get_clock().now().nanoseconds
        age_s = 0.0 if newest_ns is None else (now_ns - newest_ns) / 1e9
        goal.handle.publish_feedback(Segment.Feedback(state=state.value, score=float(score), area=area, age=age_s))

    def _finish(self, goal: Goal, end: End) -> None:
        self._forget(goal)
        goal.done.bring(end)

    def _forget(self, goal: Goal | None) -> None:
        with self._lock:
            if goal in self._goals:
                self._goals.remove(goal)


def best_state(targets: Sequence[TargetState]) -> State:
    """The state that stands for all of them."""
    return min((target.state for target in targets), key=BEST_FIRST.index)


def result_message(end: End, frames: Sequence[FrameResult]) -> Segment.Result:
    """The result of a goal. frames: the last one of each camera, with the goal's targets; the one that shows the final
    state is told of, the newest of several."""
    message = Segment.Result(state=end.state.value, reason=end.reason)
    if not frames:
        return message
    told = max(frames, key=lambda result: (best_state(result.targets) is end.state, result.frame.stamp_ns))
    if end.state is not State.PRESENT:
        told = dataclasses.replace(told, targets=tuple(_hidden(target, end) for target in told.targets))
    header: Header = header_of(told.frame.stamp_ns, told.frame.frame_id)
    message.targets = target_array(told, header)
    fill_image(message.instance_mask, instance_map(told.targets, told.frame.size), "16UC1", header)
    return message


def _hidden(target: TargetState, end: End) -> TargetState:
    """What was PRESENT on the last frame is not so any more."""
    if target.state is not State.PRESENT:
        return target
    return dataclasses.replace(target, state=end.state, reason=end.reason, mask=None, confidence=None)
