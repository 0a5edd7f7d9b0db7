"""An agent: lines from the terminal become instructions with ids, and verdicts come back in words as they change.

instructseg_agent
the red block            a new instruction; its id is printed
mug: the white mug       with an id of your own; the same id again replaces the text
cancel mug               ends one; `stop` and the like end all; the end of the input ends this program
"""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
import threading
import time
from collections.abc import Iterable, Sequence

import rclpy
from instructseg_msgs.msg import Instruction, InstructionArray, Target, TargetArray
from instructseg_msgs.srv import Cancel
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from instructseg.core import BadInput, State
from instructseg.spoken import hear

START_S, WAIT_S = 120.0, 10.0  # for the node to be there, which may be loading its model; for an answer


class Agent(Node):
    """Publishes on ``instruction``, listens to ``instructseg/targets``; remap them as for any node."""

    def __init__(self, **node_arguments) -> None:
        super().__init__("instructseg_agent", **node_arguments)
        self._numbers = itertools.count(1)
        self._mine: dict[str, str] = {}  # id -> text
        self._listed: set[str] | None = None  # ids that the node works on, whoever asked
        self._verdicts: dict[tuple[str, str, int], str] = {}  # (id, camera, instance) -> what was said last
        self._publisher = self.create_publisher(Instruction, "instruction", 10)
        self._cancel = self.create_client(Cancel, "instructseg/cancel")
        self.create_subscription(TargetArray, "instructseg/targets", self._on_targets, 5)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(InstructionArray, "instructseg/instructions", self._on_instructions, latched)

    def say(self, line: str) -> str:
        """Do what one line asks for; the answer in words."""
        one = re.fullmatch(r"\s*(?:cancel|stop)\s+(\S+)\s*", line)
        if one and one.group(1) in self._mine:
            return self._end(one.group(1))
        named = re.match(r"\s*([\w-]+)\s*:\s*(.+)", line)
        try:
            said = hear(named.group(2) if named else line)
        except BadInput as error:
            return str(error)
        answer = self._end("") if said.cancels else ""
        if said.text:
            identity = named.group(1) if named else self._fresh_id()
            verb = "replaced" if identity in self._mine else "asked"
            self._publisher.publish(Instruction(id=identity, text=said.text, mode=Instruction.TRACK))
            self._mine[identity] = said.text
            answer = f"{answer}; {verb} {identity}: {said.text}".lstrip("; ")
        return answer

    def connected(self) -> bool:
        """Whether the node is there to hear us and to be heard."""
        heard = self._publisher.get_subscription_count() and self.count_publishers(
            self.resolve_topic_name("instructseg/targets")
        )
        return bool(heard and self._listed is not None and self._cancel.service_is_ready())

    def _fresh_id(self) -> str:
        """One that neither we nor another agent uses: a known id would replace that one's instruction."""
        used = self._mine.keys() | (self._listed or set())
        return next(name for number in self._numbers if (name := f"agent-{number}") not in used)

    def _end(self, identity: str) -> str:
        """Cancel one instruction, or all with an empty id, and wait for the node's answer."""
        response = self._cancel.call(Cancel.Request(instruction_id=identity), timeout_sec=WAIT_S)
        if response is None:
            return f"the node did not answer within {WAIT_S:g} s: is it running?"
        for ended in response.cancelled:
            self._mine.pop(ended, None)
        return f"ended: {', '.join(response.cancelled) or 'nothing'}" if response.success else response.message

    def _on_instructions(self, message: InstructionArray) -> None:
        self._listed = {status.instruction.id for status in message.instructions}

    def _on_targets(self, message: TargetArray) -> None:
        """Print what has changed. A verdict belongs to the text that it names, not to one that was replaced since."""
        for target in message.targets:
            key = (target.instruction_id, message.camera, target.instance_id)
            if self._mine.get(target.instruction_id) != target.instruction_text:
                continue
            words = verdict(target)
            if self._verdicts.get(key) != words:
                self._verdicts[key] = words
                print(f"{target.instruction_id} on {message.camera}: {words}", flush=True)


def verdict(target: Target) -> str:
    """One target's state in words that change only when something has happened."""
    what = target.phrase or target.instruction_text
    if target.state == Target.PRESENT:
        return f"{what}: PRESENT, instance {target.instance_id}"
    # Figures in a reason change with every frame.
    reason = re.sub(r"[(,;]?[a-z ]*\b\d+(\.\d+)?( s)?[),;:]?", "", target.reason).strip(" ,;:")
    return f"{what}: {State(target.state).name}" + (f", {reason}" if reason else "")


def converse(agent: Agent, lines: Iterable[str]) -> None:
    """Every line to its end."""
    for line in lines:
        if line.strip():
            print(agent.say(line), flush=True)


def wait_for_node(agent: Agent) -> bool:
    """Whether an active node is there within START_S."""
    for tenths in range(int(START_S * 10)):
        if agent.connected():
            return True
        if tenths == 50:
            print("waiting for an active node", file=sys.stderr, flush=True)
        time.sleep(0.1)
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Read standard input to its end. Exit code 0, or 1 where no node is there."""
    rclpy.init(args=arguments)
    agent = Agent()
    executor = SingleThreadedExecutor()
    executor.add_node(agent)
    spinner = threading.Thread(target=_spin, args=(executor,), daemon=True)
    spinner.start()
    try:
        if not wait_for_node(agent):
            print(f"no active node within {START_S:g} s: is instructseg up, in this namespace?", file=sys.stderr)
            return 1
        converse(agent, sys.stdin)
    except KeyboardInterrupt:
        pass
    finally:
        executor.shutdown()
        spinner.join(5.0)
        agent.destroy_node()
        rclpy.try_shutdown()
    return 0


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


if __name__ == "__main__":
    sys.exit(main())
