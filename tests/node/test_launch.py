"""What can be said of the launch files without ROS's launch packages, which are on no package index.

Stand-ins record what the files ask of them. That the real launch takes it is checked by hand after a colcon build:
``ros2 launch instructseg_node instructseg.launch.py --show-args`` and a start.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from instructseg_node import dds
from instructseg_node.demo import record
from instructseg_node.parameters import TABLE
from instructseg_node.replay import player as bag_player

ROOT = Path(__file__).parents[2]
STAND_INS = (
    "launch", "launch.actions", "launch.conditions", "launch.event_handlers", "launch.events",
    "launch.launch_description_entity", "launch.launch_description_sources", "launch.substitutions", "launch_ros",
    "launch_ros.actions", "launch_ros.event_handlers", "launch_ros.events", "launch_ros.events.lifecycle",
    "launch_ros.parameter_descriptions",
)  # fmt: skip


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for module in STAND_INS:
        monkeypatch.setitem(sys.modules, module, MagicMock(name=module))
    # The share directory of an installation has launch/ and config/ side by side, as the source tree has.
    monkeypatch.setattr("ament_index_python.packages.get_package_share_directory", lambda _package: str(ROOT))
    spec = importlib.util.spec_from_file_location(name.replace(".", "_"), ROOT / "launch" / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def node_launch(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("instructseg.launch.py", monkeypatch)


def declared(module: ModuleType) -> dict[str, dict]:
    module.generate_launch_description()
    return {call.args[0]: call.kwargs for call in module.DeclareLaunchArgument.call_args_list}


def started(module: ModuleType, **values: str) -> dict:
    """The arguments the node is made with, when the launch arguments have these values."""
    arguments = {name: options["default_value"] for name, options in declared(module).items()}
    assert set(values) <= set(arguments)
    arguments.update(values)
    module.LaunchConfiguration.side_effect = lambda name: MagicMock(perform=lambda _context: arguments[name])
    module.start(MagicMock())
    return module.LifecycleNode.call_args.kwargs


def test_arguments_have_descriptions_and_a_parameter_file_that_exists(node_launch: ModuleType) -> None:
    arguments = declared(node_launch)
    assert {"namespace", "params_file", "image", "depth", "camera_info", "autostart", "dds"} <= set(arguments)
    assert all(options["description"] for options in arguments.values())
    assert Path(arguments["params_file"]["default_value"]).is_file()


def test_overrides_are_parameters_of_the_node(node_launch: ModuleType) -> None:
    assert set(node_launch.OVERRIDES) <= set(TABLE)
    assert started(node_launch)["parameters"][-1] == {}  # not given: the parameter file stands
    given = started(node_launch, device="cuda:1", recipe="unified")["parameters"][-1]
    assert given == {"device": "cuda:1", "recipe": "unified"}


def test_the_compressed_topic_follows_the_image_topic(node_launch: ModuleType) -> None:
    remappings = dict(started(node_launch, image="/head/image_raw")["remappings"])
    assert remappings["image"] == "/head/image_raw"
    assert remappings["image/compressed"] == "/head/image_raw/compressed"


def test_autostart_configures_and_activates(node_launch: ModuleType) -> None:
    started(node_launch, autostart="false")
    assert not node_launch.RegisterEventHandler.called
    started(node_launch)
    transitions = [call.kwargs["transition_id"] for call in node_launch.ChangeState.call_args_list]
    assert transitions == [node_launch.Transition.TRANSITION_ACTIVATE, node_launch.Transition.TRANSITION_CONFIGURE]
    assert node_launch.OnStateTransition.call_args.kwargs["goal_state"] == "inactive"


@pytest.mark.parametrize("profile", dds.PROFILES)
def test_a_profile_reaches_the_environment(node_launch: ModuleType, profile: str) -> None:
    assert profile in declared(node_launch)["dds"]["choices"]
    started(node_launch)
    assert not node_launch.SetEnvironmentVariable.called  # left as the user has it
    started(node_launch, dds=profile)
    variables = dict(call.args for call in node_launch.SetEnvironmentVariable.call_args_list)
    assert variables == dds.profile_environment(profile)
    assert [call.args[0] for call in node_launch.UnsetEnvironmentVariable.call_args_list] == list(dds.CONFLICTING)


def test_the_demo_plays_what_was_recorded_and_the_node_listens_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = load("demo.launch.py", monkeypatch)
    values = {name: options["default_value"] for name, options in declared(demo).items()}
    demo.LaunchConfiguration.side_effect = values.__getitem__
    demo.generate_launch_description()
    player = demo.Node.call_args.kwargs
    bag, playback = bag_player.parse(player["arguments"])
    assert (player["package"], player["executable"]) == ("instructseg_node", "instructseg_play")
    assert bag.name == "demo"
    assert playback.clock_hz > 0
    for topic in (record.IMAGE, record.DEPTH, record.INFO, record.COMMAND):
        assert bag_player.chosen(topic, playback.topics), topic
    assert not bag_player.chosen(record.EXPECTATIONS, playback.topics)  # the node is not told the answers

    given = dict(demo.IncludeLaunchDescription.call_args.kwargs["launch_arguments"])
    assert given["use_sim_time"] == "true"
    listens = {f"{given['image']}/{given['image_transport']}", given["command"]}
    assert listens == set(playback.expect) == {record.IMAGE, record.COMMAND}
