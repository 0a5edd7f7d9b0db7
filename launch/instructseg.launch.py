"""Start the node `instructseg`, and unless autostart:=false configure and activate it.

    ros2 launch instructseg_node instructseg.launch.py image:=/head/image_raw depth:=/head/depth camera_info:=/head/info

Parameters come from the recipe's own file, or from params_file; what is given here by name is laid over it. All
arguments: docs/launch.md, or --show-args.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    UnsetEnvironmentVariable,
)
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from lifecycle_msgs.msg import Transition

from instructseg.registry import DTYPES, RECIPES, TRACKERS
from instructseg_node import dds
from instructseg_node.spatial.compressed_depth import TRANSPORTS

PACKAGE = "instructseg_node"
CONFIG = Path(get_package_share_directory(PACKAGE)) / "config"
# Parameters of the node that have an argument here. Empty: as in the parameter file.
OVERRIDES = {
    "recipe": "whose parameter file is taken, too; `instructseg recipes` lists them",
    "checkpoint": "folder, file or hub id of the weights",
    "device": "cpu, cuda, cuda:1",
    "dtype": "number format",
    "recipe_options": "options of the recipe, as in base=FOLDER,max_targets=3; `instructseg recipes NAME` lists them",
    "tracker": "what carries masks from frame to frame",
    "tracker_checkpoint": "SAM 2 weights for tracker memory and hybrid",
    "image_transport": "raw: Image on the topic; compressed: CompressedImage on its /compressed",
    "depth_transport": "raw: Image on the topic; compressed, compressedDepth: CompressedImage on the topic below it",
    "command_mode": "what a new command does with the instructions there are",
}
LISTS = ("recipe_options",)
CHOICES = {
    "recipe": sorted(RECIPES),
    "dtype": [name for name in DTYPES if name != "auto"],
    "tracker": list(TRACKERS),
    "image_transport": ["raw", "compressed"],
    "depth_transport": list(TRANSPORTS),
    "command_mode": ["replace", "add"],
}
CAMERA_TOPICS = {
    "image": "topic of the colour images",
    "depth": "topic of the depth images",
    "camera_info": "topic of the calibration",
}
PACKED = {"image": ("compressed",), "depth": tuple(name for name in TRANSPORTS if name != "raw")}
TRUE_FALSE = ["true", "false"]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            argument("name", "instructseg", "of the node, and so of its private topics"),
            argument("namespace", "", "of the node and all its relative topics"),
            argument("params_file", "", "ROS parameter file (YAML); empty: config/<recipe>.yaml of this package"),
            *(
                argument(name, "", f"{meaning}; empty: as in the parameter file", CHOICES.get(name))
                for name, meaning in OVERRIDES.items()
            ),
            argument("cameras", "", "names of several cameras, as in front,wrist: see cameras.launch.py"),
            *(argument(name, name, meaning) for name, meaning in CAMERA_TOPICS.items()),
            argument("command", "command", "topic of plain-language commands"),
            argument("instruction", "instruction", "topic of instructions with ids"),
            argument("use_sim_time", "false", "use /clock", TRUE_FALSE),
            argument("autostart", "true", "configure and activate", TRUE_FALSE),
            argument("log_level", "info", "debug, info, warn, error or fatal"),
            argument(
                "dds",
                "environment",
                "environment: leave DDS as it is; else a profile that keeps traffic on this host",
                ["environment", *dds.PROFILES],
            ),
            OpaqueFunction(function=start),
        ]
    )


def argument(name: str, default: str, description: str, choices: list[str] | None = None) -> DeclareLaunchArgument:
    """One launch argument. Where the default is empty, empty is allowed beside the choices."""
    allowed = None if choices is None else choices if default else ["", *choices]
    return DeclareLaunchArgument(name, default_value=default, description=description, choices=allowed)


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """What depends on the arguments' values."""
    names = (*OVERRIDES, *CAMERA_TOPICS, "params_file", "cameras", "command", "instruction", "dds", "autostart")
    given = {name: LaunchConfiguration(name).perform(context).strip() for name in names}
    cameras = split(given["cameras"])
    overrides = {name: split(given[name]) if name in LISTS else given[name] for name in OVERRIDES if given[name]}
    if cameras:
        overrides["cameras"] = cameras
    # Declared as what they are: a folder that is called 007 stays a text.
    typed = {name: ParameterValue(value, value_type=list[str] if isinstance(value, list) else str)
             for name, value in overrides.items()}  # fmt: skip
    node = LifecycleNode(
        package=PACKAGE,
        executable=PACKAGE,
        name=LaunchConfiguration("name"),
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            ParameterFile(parameter_file(given["params_file"], given["recipe"])),
            {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)},
            typed,
        ],
        remappings=[
            *camera_remaps(given, cameras, context.launch_configurations),
            ("command", given["command"]),
            ("instruction", given["instruction"]),
        ],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        output="screen",
    )
    autostart = lifecycle_handlers(node) if given["autostart"] == "true" else []
    return [*dds_actions(given["dds"]), *autostart, node]


def split(text: str) -> list[str]:
    """The parts of a,b,c."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parameter_file(given: str, recipe: str) -> str:
    """The file that is named, else the recipe's own."""
    path = Path(given) if given else CONFIG / f"{recipe or 'unified'}.yaml"
    if not path.is_file():
        raise RuntimeError(f"params_file is {str(path)!r}, which is no file; those of the recipes are in {CONFIG}")
    return str(path)


def camera_remaps(given: Mapping[str, str], cameras: list[str], everything: Mapping[str, str]) -> list[tuple[str, str]]:
    """Topics of the camera, or of each of several: `front:=/front_cam/color` stands for its image_raw and camera_info,
    `front/depth:=/front_cam/depth` for one topic. everything: all arguments, also those without a declaration."""
    if not cameras:
        return [remap for name in CAMERA_TOPICS for remap in with_compressed(name, given[name])]
    for name in CAMERA_TOPICS:
        if given[name] != name:
            raise RuntimeError(f"{name} is {given[name]!r} and cameras is {','.join(cameras)}; name the camera as "
                               f"well: {cameras[0]}/{name}:={given[name]}")  # fmt: skip
    known = {f"{camera}/{name}" for camera in cameras for name in CAMERA_TOPICS}
    if strange := sorted(name for name in everything if "/" in name and name not in known):
        raise RuntimeError(f"{strange[0]} is no topic of a camera here; there are: {', '.join(sorted(known))}")
    remaps = []
    for camera in cameras:
        prefix = everything.get(camera, "").rstrip("/")
        usual = {"image": f"{prefix}/image_raw", "camera_info": f"{prefix}/camera_info"} if prefix else {}
        for name in CAMERA_TOPICS:
            topic = f"{camera}/{name}"
            remaps += with_compressed(topic, everything.get(topic) or usual.get(name, topic))
    return remaps


def with_compressed(name: str, topic: str) -> list[tuple[str, str]]:
    """A remap of an image topic, and the same for the packed forms of it that its driver publishes below it."""
    forms = PACKED.get(name.rpartition("/")[2], ())
    topic = next((topic.removesuffix(f"/{form}") for form in forms if topic.endswith(f"/{form}")), topic)
    return [(name, topic), *((f"{name}/{form}", f"{topic}/{form}") for form in forms)]


def dds_actions(profile: str) -> list[LaunchDescriptionEntity]:
    """The environment of a DDS profile for every process started from here on."""
    if profile == "environment":
        return []
    unset = [UnsetEnvironmentVariable(name) for name in dds.CONFLICTING]
    return [*unset, *(SetEnvironmentVariable(name, value) for name, value in dds.profile_environment(profile).items())]


def lifecycle_handlers(node: LifecycleNode) -> list[LaunchDescriptionEntity]:
    """configure once the process runs, activate once it is configured; a failed configure leaves it unconfigured."""

    def change(transition: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))

    configured = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[change(Transition.TRANSITION_ACTIVATE)],
    )
    started = OnProcessStart(target_action=node, on_start=[change(Transition.TRANSITION_CONFIGURE)])
    return [RegisterEventHandler(configured), RegisterEventHandler(started)]
