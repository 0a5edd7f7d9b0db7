"""The connection to the node under replay: publishers of what is played, a recording of what it says, and the two
questions that a deterministic replay needs: are you active, and have you handled all that I sent?

One thread: messages from the node are handled inside :meth:`NodeLink.spin` and nowhere else.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import rclpy
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray
from instructseg_msgs.msg import Instruction, InstructionArray, TargetArray
from instructseg_msgs.srv import Cancel
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from ..conversions import stamp_ns
from ..outputs import time_of
from .commands import ALL, Command
from .player import message_class
from .processes import NotDiscovered, RunFailed
from .recorder import BagFile, Recorder
from .source import Sample, Topic

NODE = "/instructseg"
NEEDED = ("targets", "instructions", "grounding", "rejection")  # without these there is nothing to be judged
NO_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)
OVERLAYS = ("overlay", "overlay/compressed")
MATCH_S = 20.0  # for everybody to find everybody, once the node is active
ASK_AGAIN_S = 2.0  # a request sent before both sides knew each other may be lost


class NodeLink:
    """file: where everything goes. now_ns: bag time, for the recording. watch: called often; raises where the node has
    ended. A context manager.

    answered: (camera, stamp) of the frames the node has published on, newest last. working: (id, text) of what it says
    it works on. dropped: frames and messages it refused or left out, by cause. reports: how often it said so.
    """

    def __init__(
        self,
        domain: int,
        topics: Sequence[Topic],
        file: BagFile,
        now_ns: Callable[[], int],
        watch: Callable[[], None],
        overlay: bool = False,
    ) -> None:
        self.answered: deque[tuple[str, int]] = deque(maxlen=64)
        self.working: tuple[tuple[str, str], ...] = ()
        self.on_working: Callable[[], None] = lambda: None
        self.dropped: dict[str, int] = {}
        self.reports = 0
        self._file, self._now_ns, self._watch = file, now_ns, watch
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context, domain_id=domain)
        try:
            self._connect(topics, file, now_ns, () if overlay else OVERLAYS)
        except BaseException:
            rclpy.shutdown(context=self._context)
            raise

    def _connect(
        self, topics: Sequence[Topic], file: BagFile, now_ns: Callable[[], int], skip: tuple[str, ...]
    ) -> None:
        """Everything that ends with the context."""
        self._node = rclpy.create_node("instructseg_replay", context=self._context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        create, deep = partial(self._node.create_publisher, event_callbacks=NO_EVENTS), QoSProfile(depth=10)
        self._samples = {topic.name: create(message_class(topic.kind), topic.name, deep) for topic in topics}
        self._images = [topic.name for topic in topics if topic.role == "image"]
        self._clock = create(Clock, "/clock", deep)
        self._command, self._instruction = create(String, "/command", deep), create(Instruction, "/instruction", deep)
        self._said = {
            kind: file.add_topic(publisher.topic_name, name)
            for kind, publisher, name in (
                (String, self._command, "std_msgs/msg/String"),
                (Instruction, self._instruction, "instructseg_msgs/msg/Instruction"),
            )
        }
        heard = {"targets": self._on_targets, "instructions": self._on_instructions, "/diagnostics": self._on_report}
        self._recorder = Recorder(self._node, file, NODE, now_ns, skip, heard)
        self._state = self._node.create_client(GetState, f"{NODE}/get_state")
        self._cancel = self._node.create_client(Cancel, f"{NODE}/cancel")

    def __enter__(self) -> NodeLink:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(timeout_sec=2.0)
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    # Beginning

    def wait_until_active(self, deadline: float, gave_up: Callable[[], bool], show: Callable[[str], None]) -> None:
        """Return when the node is active. deadline: of the monotonic clock. gave_up: whether its log says so."""
        began = time.monotonic()
        while self._ask_state(ASK_AGAIN_S) != State.PRIMARY_STATE_ACTIVE:
            if gave_up():
                raise RunFailed("could not start")
            if time.monotonic() > deadline:
                raise RunFailed(f"was not active after {time.monotonic() - began:.0f} s")
            show(f"waiting for the node to load its model, {time.monotonic() - began:.0f} s")

    def wait_until_matched(self, needed: Sequence[str]) -> None:
        """Return when the node listens to everything that is played and said, and when what it will publish comes here.
        needed: its topics (without its name) that must be there. Raises NotDiscovered naming what is missing."""
        deadline, quiet_since = time.monotonic() + MATCH_S, time.monotonic()
        while True:
            if self._recorder.discover():
                quiet_since = time.monotonic()
            missing = self._missing(needed)
            if not missing and time.monotonic() - quiet_since > 0.3:
                break
            if time.monotonic() > deadline:
                raise NotDiscovered(f"after {MATCH_S:g} s the node and the player have not found {', '.join(missing)}")
            self.spin(0.05)
        # Endpoints become known in the order they were made: once a client made now gets an answer, the node knows all
        # our subscriptions too, and publishes what is only made for listeners from the first frame on.
        self._node.destroy_client(self._state)
        self._state = self._node.create_client(GetState, f"{NODE}/get_state")
        self.barrier(MATCH_S)

    def _missing(self, needed: Sequence[str]) -> list[str]:
        missing = [topic for topic in self._images if not self._samples[topic].get_subscription_count()]
        missing += [p.topic_name for p in (self._command, self._instruction) if not p.get_subscription_count()]
        there = self._recorder.topics
        return missing + [f"{NODE}/{name}" for name in (*NEEDED, *needed) if f"{NODE}/{name}" not in there]

    # Speaking

    def play(self, sample: Sample) -> None:
        self._samples[sample.topic.name].publish(sample.data)

    def tick(self, bag_ns: int) -> None:
        """Set the node's clock."""
        self._clock.publish(Clock(clock=time_of(bag_ns)))

    def say(self, command: Command) -> None:
        """Give a command. A cancel returns when the node has answered it."""
        if command.cancel:
            identity = "" if command.cancel == ALL else command.cancel
            self._wait_for(self._cancel.call_async(Cancel.Request(instruction_id=identity)), 30.0, "~/cancel")
            return
        if command.request is None:
            publisher, message = self._command, String(data=command.text)
        else:
            publisher, message = self._instruction, instruction_message(command)
        self._file.write(self._said[type(message)], self._now_ns(), serialize_message(message))
        publisher.publish(message)

    # Listening

    def spin(self, seconds: float) -> None:
        """Handle what comes for so long, and at least what is there already. Raises what ``watch`` raises."""
        deadline = time.monotonic() + seconds
        self._watch()
        self._drain()
        while (left := deadline - time.monotonic()) > 0.0:
            self._watch()
            self._executor.spin_once(timeout_sec=min(left, 0.1))

    def wait(self, condition: Callable[[], object], seconds: float) -> bool:
        """Handle what comes until the condition holds (True), or for so long (False)."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0.0:
                return False
            self._watch()
            self._executor.spin_once(timeout_sec=min(left, 0.1))
        return True

    def barrier(self, seconds: float) -> None:
        """Return when the node has handled every message sent before, and what it said meanwhile is recorded.

        Shared memory keeps the order of what one process sends, and the node's executor takes messages before requests:
        its answer to a request comes after all that.
        """
        deadline = time.monotonic() + seconds
        while self._ask_state(min(seconds, ASK_AGAIN_S)) is None:
            if time.monotonic() > deadline:
                raise RunFailed(f"did not answer for {seconds:g} s")
        self._drain()

    def _ask_state(self, seconds: float) -> int | None:
        """The node's lifecycle state; None where it did not answer in time."""
        if not self._state.service_is_ready():
            self.spin(min(seconds, 0.1))
            return None
        future = self._state.call_async(GetState.Request())
        if self.wait(future.done, seconds):
            return future.result().current_state.id
        self._state.remove_pending_request(future)
        return None

    def _wait_for(self, future: Any, seconds: float, what: str) -> Any:
        if not self.wait(future.done, seconds):
            raise RunFailed(f"did not answer {what} within {seconds:g} s")
        return future.result()

    def _drain(self) -> None:
        """Handle what has arrived already: until two looks in a row find nothing."""
        idle = 0
        while idle < 2:
            before = self._file.messages
            self._executor.spin_once(timeout_sec=0.0)
            idle = idle + 1 if self._file.messages == before else 0

    def _on_targets(self, data: bytes) -> None:
        message = deserialize_message(data, TargetArray)
        self.answered.append((message.camera, stamp_ns(message.header.stamp)))

    def _on_instructions(self, data: bytes) -> None:
        listed = deserialize_message(data, InstructionArray).instructions
        self.working = tuple((status.instruction.id, status.instruction.text) for status in listed)
        self.on_working()

    def _on_report(self, data: bytes) -> None:
        for status in deserialize_message(data, DiagnosticArray).status:
            values = {pair.key: pair.value for pair in status.values}
            if status.name == f"{NODE[1:]}: stream" and "frames in" in values:
                self.reports += 1
                drops = {key.removeprefix("dropped "): value for key, value in values.items() if key[:8] == "dropped "}
                self.dropped = {cause: int(count) for cause, count in drops.items()}


def instruction_message(command: Command) -> Instruction:
    request = command.request
    seconds, rest = divmod(round(request.timeout_s * 1e9), 1_000_000_000)
    return Instruction(
        id=request.id,
        text=request.text,
        cameras=list(request.cameras),
        mode=request.mode.value,
        timeout=Duration(sec=seconds, nanosec=rest),
        priority=request.priority,
    )
