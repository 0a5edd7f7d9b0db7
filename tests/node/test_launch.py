"""What can be said of the launch files without ROS's launch packages, which are on no package index.

Stand-ins record what the files ask of them, and what they give to the node and to other programs is read by those
programs' own parsers. That the real launch takes the files was tried with launch 3.4.3 and launch_ros 0.26.6 (Jazzy).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock
from xml.etree import ElementTree

import pytest

from instructseg.registry import RECIPES
from instructseg_node import dds
from instructseg_node.demo import record
from instructseg_node.interface import INPUTS
from instructseg_node.parameters import TABLE, Settings
from instructseg_node.replay import arguments
from instructseg_node.replay import player as bag_player

ROOT = Path(__file__).parents[2]
STAND_INS = (
    "launch", "launch.actions", "launch.conditions", "launch.event_handlers", "launch.events",
    "launch.launch_description_entity", "launch.launch_description_sources", "launch.substitutions", "launch_ros",
    "launch_ros.actions", "launch_ros.event_handlers", "launch_ros.events", "launch_ros.events.lifecycle",
    "launch_ros.parameter_descriptions", "launch_ros.substitutions",
)  # fmt: skip


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for module in STAND_INS:
        monkeypatch.setitem(sys.modules, module, MagicMock(name=module))
    # The share directory of an installation has launch/ and config/ side by side, as the source tree has.
    sys.modules["launch_ros.parameter_descriptions"].ParameterValue = lambda value, value_type: value
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
    perform(module, **values)
    return module.LifecycleNode.call_args.kwargs


def perform(module: ModuleType, **values: str) -> None:
    """Run the part of a launch file that depends on the arguments; / in their names is written __ here."""
    arguments = {name: options.get("default_value", "") for name, options in declared(module).items()}
    arguments.update({name.replace("__", "/"): value for name, value in values.items()})
    module.LaunchConfiguration.side_effect = lambda name: MagicMock(perform=lambda _context: arguments[name])
    module.start(MagicMock(launch_configurations=arguments))


def test_arguments_have_descriptions_and_choices_that_the_node_allows(node_launch: ModuleType) -> None:
    arguments = declared(node_launch)
    assert {"namespace", "params_file", "image", "depth", "camera_info", "autostart", "dds"} <= set(arguments)
    assert all(options["description"] for options in arguments.values())
    for name, options in arguments.items():
        assert options["choices"] is None or options["default_value"] in options["choices"], name
        if options["choices"] and name in TABLE and name != "recipe" and name != "autostart":
            assert set(options["choices"]) == {"", *TABLE[name].metadata["allowed"]}, name
    assert set(arguments["recipe"]["choices"]) == {"", *RECIPES}


def test_overrides_are_parameters_of_the_node(node_launch: ModuleType) -> None:
    assert set(node_launch.OVERRIDES) <= set(TABLE)
    assert started(node_launch)["parameters"][-1] == {}  # not given: the parameter file stands
    given = started(node_launch, device="cuda:1", recipe="unified", recipe_options="a=1, b=/x")["parameters"][-1]
    assert given == {"device": "cuda:1", "recipe": "unified", "recipe_options": ["a=1", "b=/x"]}
    for name in node_launch.OVERRIDES:
        assert (TABLE[name].default == ()) == (name in node_launch.LISTS), name


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_recipe_brings_its_own_parameter_file(node_launch: ModuleType, recipe: str) -> None:
    started(node_launch, recipe=recipe)
    assert node_launch.ParameterFile.call_args.args == (str(ROOT / "config" / f"{recipe}.yaml"),)


def test_the_named_parameter_file_is_taken_and_must_exist(node_launch: ModuleType, tmp_path: Path) -> None:
    started(node_launch)
    assert node_launch.ParameterFile.call_args.args == (str(ROOT / "config" / "unified.yaml"),)
    mine = tmp_path / "mine.yaml"
    with pytest.raises(RuntimeError, match=r"params_file is '.*mine.yaml', which is no file"):
        started(node_launch, params_file=str(mine))
    mine.write_text("", encoding="utf-8")
    started(node_launch, params_file=str(mine), recipe="gsva")
    assert node_launch.ParameterFile.call_args.args == (str(mine),)


@pytest.mark.parametrize("image", ["/head/image_raw", "/head/image_raw/compressed"])
def test_the_compressed_topic_follows_the_image_topic(node_launch: ModuleType, image: str) -> None:
    remappings = dict(started(node_launch, image=image)["remappings"])
    assert remappings["image"] == "/head/image_raw"
    assert remappings["image/compressed"] == "/head/image_raw/compressed"


@pytest.mark.parametrize("depth", ["/head/depth", "/head/depth/compressed", "/head/depth/compressedDepth"])
def test_packed_depth_follows_the_depth_topic(node_launch: ModuleType, depth: str) -> None:
    made = started(node_launch, depth=depth, depth_transport="compressedDepth")
    names = {name: to for name, to in made["remappings"] if name.startswith("depth")}
    assert names == {name: name.replace("depth", "/head/depth", 1) for name in names}
    assert set(names) == {"depth", "depth/compressed", "depth/compressedDepth"}
    assert made["parameters"][-1] == {"depth_transport": "compressedDepth"}


def test_every_input_of_the_node_can_be_remapped(node_launch: ModuleType) -> None:
    assert {name for name, _ in started(node_launch)["remappings"]} == {topic.name for topic in INPUTS}


def test_several_cameras_read_what_their_drivers_publish(node_launch: ModuleType) -> None:
    values = {"cameras": "front, wrist,rear", "front": "/front_cam/color/", "wrist": "/wrist", "wrist__image": "/w/rgb"}
    made = started(node_launch, **values, front__depth="/front_cam/depth")
    assert made["parameters"][-1] == {"cameras": ["front", "wrist", "rear"]}
    remappings = dict(made["remappings"])
    assert remappings["front/image"] == "/front_cam/color/image_raw"
    assert remappings["front/image/compressed"] == "/front_cam/color/image_raw/compressed"
    assert remappings["front/camera_info"] == "/front_cam/color/camera_info"
    assert remappings["front/depth"] == "/front_cam/depth"
    assert (remappings["wrist/image"], remappings["wrist/camera_info"]) == ("/w/rgb", "/wrist/camera_info")
    assert (remappings["rear/image"], remappings["rear/depth"]) == ("rear/image", "rear/depth")
    settings = Settings(cameras=("front", "wrist", "rear"))
    assert {settings.image_topic(name) for name in settings.camera_names} <= set(remappings)
    packed = Settings(cameras=("front", "wrist", "rear"), depth_transport="compressedDepth")
    assert {packed.depth_topic(name) for name in packed.camera_names} <= set(remappings)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cameras": "a,b", "image": "/x"}, r"image is '/x' and cameras is a,b; name the camera as well: a/image:=/x"),
        ({"cameras": "a", "a__detph": "/x"}, "a/detph is no topic of a camera here; there are: a/camera_info, a/depth"),
        ({"cameras": "a", "b__image": "/x"}, "b/image is no topic of a camera here"),
    ],
)
def test_remaps_that_lead_nowhere_are_refused(node_launch: ModuleType, values: dict, words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        started(node_launch, **values)


def test_cameras_includes_the_node_and_wants_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    cameras = load("cameras.launch.py", monkeypatch)
    assert "default_value" not in declared(cameras)["cameras"]
    source = cameras.PythonLaunchDescriptionSource.call_args.args[0]
    assert Path(source) == ROOT / "launch" / "instructseg.launch.py"


def test_the_xml_variant_has_the_same_arguments(node_launch: ModuleType) -> None:
    launch = ElementTree.parse(ROOT / "launch" / "instructseg.launch.xml").getroot()
    python = declared(node_launch)
    del python["cameras"]
    assert {arg.get("name"): arg.get("default") for arg in launch.findall("arg")} == {
        name: options["default_value"] for name, options in python.items()
    }
    for arg in launch.findall("arg"):
        assert arg.get("description")
        choices = {choice.get("value") for choice in arg.findall("choice")}
        assert choices == set(python[arg.get("name")]["choices"] or ()), arg.get("name")
    group = launch.find("group")
    remaps = {remap.get("from"): remap.get("to") for remap in group.iter("remap")}
    expected = dict(started(node_launch, image="IMAGE", depth="DEPTH")["remappings"])
    named = {name: to.replace("$(var image)", "IMAGE").replace("$(var depth)", "DEPTH") for name, to in remaps.items()}
    assert named == {name: to if "IMAGE" in to or "DEPTH" in to else f"$(var {name})" for name, to in expected.items()}
    order = [element.get("name") for element in group.findall("set_parameter")]
    assert order == [*node_launch.OVERRIDES, "use_sim_time", "autostart"]
    tags = [element.tag for element in group]
    assert tags.index("set_parameters_from_file") < tags.index("set_parameter") < tags.index("node")


def test_autostart_configures_and_activates(node_launch: ModuleType) -> None:
    started(node_launch, autostart="false")
    assert not node_launch.RegisterEventHandler.called
    started(node_launch)
    transitions = [call.kwargs["transition_id"] for call in node_launch.ChangeState.call_args_list]
    assert transitions == [node_launch.Transition.TRANSITION_ACTIVATE, node_launch.Transition.TRANSITION_CONFIGURE]
    assert node_launch.OnStateTransition.call_args.kwargs["goal_state"] == "inactive"


def replay_options(module: ModuleType, **values: str) -> arguments.Options:
    """What instructseg_replay makes of the command that the launch file gives it."""
    perform(module, **values)
    return arguments.parse(module.ExecuteProcess.call_args.kwargs["cmd"][1:])


def test_replay_hands_its_arguments_to_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = load("replay.launch.py", monkeypatch)
    plain = replay_options(replay, bag="in.mcap", out="results")
    assert (plain.bag, plain.out, plain.rate, plain.overlay) == (Path("in.mcap"), Path("results"), 1.0, False)
    assert replay.ExecutableInPackage.call_args.kwargs["executable"] == "instructseg_replay"
    values = {
        "image": "/camera/image", "depth": "/camera/depth", "info": "/camera/info", "commands": "c.yaml",
        "expect": "e.yaml", "start": "1.5", "duration": "4", "recipe": "gsva", "checkpoint": "x.bin",
        "params_file": "p.yaml", "report": "r.json", "logs": "logs", "every_frame": "true", "overlay": "true",
        "overwrite": "true", "domain": "7",
    }  # fmt: skip
    full = replay_options(replay, bag="in", out="out.mcap", **values)
    assert full.every_frame
    assert (full.start, full.duration, full.overlay, full.overwrite) == (1.5, 4.0, True, True)
    assert (full.commands, full.expect, full.params) == (Path("c.yaml"), Path("e.yaml"), Path("p.yaml"))
    assert full.parameters == {"recipe": "gsva", "checkpoint": "x.bin"}
    assert (full.images, full.depths, full.infos) == (
        {"": "/camera/image"},
        {"": "/camera/depth"},
        {"": "/camera/info"},
    )
    assert (full.report, full.logs, full.domain) == (Path("r.json"), Path("logs"), 7)
    assert replay_options(replay, bag="in", out="out", command_topic="/command").command_topic == "/command"
    assert replay_options(replay, bag="in", out="out", rate="2").rate == 2.0
    used = {*values, "bag", "out", "command_topic", "rate"}
    assert used == set(declared(replay))  # none was forgotten


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
    player, rviz = (call.kwargs for call in demo.Node.call_args_list[-2:])
    assert values["rviz"] == "false"
    assert Path(rviz["arguments"][1]).is_file()
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
    assert f"{given['depth']}/{given['depth_transport']}" == record.DEPTH
    assert given["camera_info"] == record.INFO
