"""The example nodes against the real node: an agent is answered, a planner moves only while the target is seen."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from geometry_msgs.msg import PoseStamped
from instructseg_msgs.msg import Target, TargetArray
from node.node_harness import Harness
from node.test_node_3d import Robot
from node.test_node_process import environment, running
from rclpy.parameter import Parameter

from instructseg_node.examples.agent import Agent, converse, verdict
from instructseg_node.examples.planner import Planner
from instructseg_node.examples.planner import main as planner_main
from instructseg_node.outputs import header_of


def example(ros: Any, kind: type, **parameters: Any) -> Any:
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    return ros.add(kind(context=ros.context, use_global_arguments=False, parameter_overrides=overrides))


# The agent


@pytest.fixture
def agent(ros: Any) -> Agent:
    made = example(ros, Agent)
    made.harness = Harness(ros).up("targets", "instructions")
    ros.wait(made.connected, "the agent's connections")
    return made


def working_on(agent: Agent) -> dict[str, str]:
    listed = agent.harness.heard["instructions"]
    return {i.instruction.id: i.instruction.text for i in listed[-1].instructions} if listed else {}


def wait_for(agent: Agent, expected: dict[str, str]) -> None:
    agent.harness.wait(lambda: working_on(agent) == expected, f"{expected}, not {working_on(agent)}")


def test_lines_become_instructions_with_ids(agent: Agent) -> None:
    assert agent.say("um, please find the red block") == "asked agent-1: find the red block"
    assert agent.say("mug: the green block") == "asked mug: the green block"
    wait_for(agent, {"agent-1": "find the red block", "mug": "the green block"})
    assert agent.say("mug: the blue block") == "replaced mug: the blue block"
    wait_for(agent, {"agent-1": "find the red block", "mug": "the blue block"})
    assert agent.say("cancel mug") == "ended: mug"
    wait_for(agent, {"agent-1": "find the red block"})
    assert agent.say("never mind, the green block") == "ended: agent-1; asked agent-2: the green block"
    wait_for(agent, {"agent-2": "the green block"})
    assert agent.say("stop it") == "ended: agent-2"
    wait_for(agent, {})


def test_two_agents_do_not_take_each_others_ids(ros: Any, agent: Agent) -> None:
    assert agent.say("the red block") == "asked agent-1: the red block"
    wait_for(agent, {"agent-1": "the red block"})
    other = example(ros, Agent)
    ros.wait(other.connected, "the other agent's connections")
    assert other.say("the green block") == "asked agent-2: the green block"
    wait_for(agent, {"agent-1": "the red block", "agent-2": "the green block"})


def test_lines_that_mean_nothing_are_answered_in_words(agent: Agent) -> None:
    assert "nothing but fillers" in agent.say("um")
    assert "special tokens" in agent.say("mug: the <TRK>")
    assert agent.say("stop") == "ended: nothing"


def test_verdicts_are_printed_when_they_change(agent: Agent, capsys: pytest.CaptureFixture) -> None:
    converse(agent, ["\n", "block: the red block\n"])
    agent.harness.show_until_state(Target.NO_TARGET, "green")
    agent.harness.show_until_state(Target.PRESENT, "red")
    for _ in range(5):
        agent.harness.show("red")
    agent.harness.settle()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "asked block: the red block"
    said = [line for line in lines[1:] if "PRESENT" in line or "NO_TARGET" in line]
    assert said[0].startswith("block on camera: red: NO_TARGET")
    assert sum("PRESENT" in line for line in said) == 1  # once, however many frames
    assert "block on camera: red: PRESENT, instance 1" in said


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("rejection score 0.96, limit 0.50: nothing in view is it", ", nothing in view is it"),
        ("not visible: its mask is empty", ", not visible: its mask is empty"),
        ("nothing fits (rejection score 0.95)", ", nothing fits"),
        ("not seen for 1.2 s", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_verdict_says_the_reason_without_its_figures(reason: str, words: str) -> None:
    target = Target(state=Target.NO_TARGET, instruction_text="the cone", reason=reason)
    assert verdict(target) == f"the cone: NO_TARGET{words}"


@pytest.mark.process
def test_the_agent_ends_with_its_input(ros: Any) -> None:
    Harness(ros).up()
    command = [sys.executable, "-m", "instructseg_node.examples.agent"]
    done = subprocess.run(
        command, input="block: the red block\nstop\n", capture_output=True, text=True, timeout=60, env=environment()
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "asked block: the red block"
    assert done.stdout.splitlines()[-1] == "ended: block"


# The planner


def moving(robot: Robot, planner: Planner) -> None:
    robot.show_until(lambda: planner.moving, "a planner that moves", "red")


def test_the_planner_moves_while_the_target_is_seen_and_stops_with_the_first_frame_without_it(ros: Any) -> None:
    robot = Robot(ros)
    planner = example(ros, Planner, silence=30.0)
    robot.harness.say("the red block")
    robot.show("green")
    robot.harness.show_until_state(Target.NO_TARGET, "green")
    assert not planner.moving
    moving(robot, planner)
    robot.harness.settle()
    assert planner.moving
    targets = robot.harness.heard["targets"]
    before = len(targets)
    header = robot.show("green")  # one frame
    robot.harness.wait(lambda: len(targets) > before, "its result")
    assert (targets[-1].header.stamp, targets[-1].targets[0].state) == (header.stamp, Target.OCCLUDED)
    robot.harness.wait(lambda: not planner.moving, "the stop")
    assert len(targets) == before + 1


def test_the_planner_takes_pose_and_cloud_of_what_it_sees_and_forgets_them_when_it_stops(ros: Any) -> None:
    robot = Robot(ros)
    planner = example(ros, Planner, silence=30.0, require_pose=True)
    robot.harness.say("the red block")
    robot.show_until(lambda: planner.moving and planner._cloud, "a pose and a cloud", "red")
    assert planner._pose.pose.position.z == pytest.approx(0.8, abs=0.02)
    assert planner._cloud.header.frame_id == "optical"
    robot.show_until(lambda: not planner.moving, "the stop", "green")
    assert planner._pose is None
    assert planner._cloud is None


def test_a_place_that_depth_showed_long_ago_is_none(ros: Any) -> None:
    robot = Robot(ros, "target_pose")
    planner = example(ros, Planner, silence=30.0, require_pose=True, max_age=0.5)
    robot.harness.say("red")
    moving(robot, planner)
    robot.harness.show_until(lambda: not planner.moving, "the stop", "red")  # depth has ended, the pictures go on
    assert planner._pose is None
    moving(robot, planner)


@pytest.mark.parametrize("required", [False, True])
def test_without_depth_it_moves_by_the_image_unless_a_pose_is_required(ros: Any, required: bool) -> None:
    harness = Harness(ros).up("targets")
    planner = example(ros, Planner, silence=30.0, require_pose=required)
    harness.say("the red block")
    harness.show_until(lambda: planner._seen_since, "a planner that has seen it", "red")
    harness.settle()
    assert planner.moving is not required


@pytest.mark.parametrize("ending", ["stale", "cancelled", "deactivated"])
def test_the_planner_stops_when_frames_instruction_or_node_end(ros: Any, ending: str) -> None:
    robot = Robot(ros, stale_after=0.3 if ending == "stale" else 5.0)
    planner = example(ros, Planner, silence=0.6)
    robot.harness.say("the red block")
    moving(robot, planner)
    if ending == "cancelled":
        robot.harness.say("stop")
        robot.show("red")
    elif ending == "deactivated":
        robot.harness.deactivate()
    robot.harness.wait(lambda: not planner.moving, "the stop")


def test_silence_stops_the_planner_and_an_old_answer_never_starts_it(ros: Any) -> None:
    planner = example(ros, Planner, silence=0.3, max_age=1.0)
    peer = ros.node("peer")
    publisher = peer.create_publisher(TargetArray, "/instructseg/targets", 5)
    ros.wait(publisher.get_subscription_count, "the planner's subscription")

    def say(age: float = 0.1, state: int = Target.PRESENT, identity: str = "a") -> None:
        target = Target(instruction_id=identity, instruction_text="the mug", state=state, age=age)
        publisher.publish(TargetArray(header=header_of(10**18, "optical"), targets=[target]))

    say(age=1.5)
    say(age=0.1)
    ros.wait(lambda: planner.moving, "motion")
    started = time.monotonic()
    ros.wait(lambda: not planner.moving, "the stop after silence")
    assert time.monotonic() - started < 5.0
    say()
    ros.wait(lambda: planner.moving, "motion again")
    say(age=1.5)
    ros.wait(lambda: not planner.moving, "the stop because of age")


@pytest.mark.parametrize("age", [1.5, -1.5])
def test_an_answer_of_another_time_stops(ros: Any, age: float) -> None:
    planner = example(ros, Planner, silence=30.0, max_age=1.0)
    for given, expected in ((0.1, True), (-0.1, True), (age, False)):
        planner._on_targets(TargetArray(targets=[Target(state=Target.PRESENT, age=given)]))
        assert planner.moving is expected


def test_a_parameter_that_the_planner_cannot_take_is_told(capsys: pytest.CaptureFixture) -> None:
    assert planner_main(["--ros-args", "-p", "silence:=1"]) == 2
    assert "instructseg_planner cannot start: Trying to set parameter 'silence'" in capsys.readouterr().err


@pytest.mark.parametrize("state", [s for s in range(8) if s != Target.PRESENT])
def test_every_other_state_stops(ros: Any, state: int) -> None:
    planner = example(ros, Planner, silence=30.0)
    for given, expected in ((Target.PRESENT, True), (state, False)):
        planner._on_targets(TargetArray(targets=[Target(state=given, age=0.1)]))
        assert planner.moving is expected


def test_a_pose_that_may_be_anothers_is_not_used(ros: Any) -> None:
    planner = example(ros, Planner, silence=30.0, instruction_id="mug")
    mug, cup = (Target(instruction_id=name, state=Target.PRESENT, age=0.1) for name in ("mug", "cup"))
    header = header_of(10**18, "optical")
    planner._on_targets(TargetArray(header=header, targets=[mug]))
    planner._on_pose(PoseStamped(header=header_of(10**18 - 1, "optical")))
    assert planner._pose is None  # from before it was seen
    planner._on_pose(PoseStamped(header=header))
    assert planner._pose is not None
    planner._on_targets(TargetArray(header=header, targets=[mug, cup]))
    planner._on_pose(PoseStamped(header=header))
    assert planner.moving
    assert planner._pose is None
    planner._on_targets(TargetArray(header=header, targets=[cup]))
    assert not planner.moving


@pytest.mark.process
def test_the_planner_ends_cleanly(ros: Any) -> None:
    with running(command=[sys.executable, "-m", "instructseg_node.examples.planner"]) as process:
        peer = ros.node("peer")
        ros.wait(lambda: peer.count_subscribers("/instructseg/targets"), "the planner", 60.0)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "")
