"""Start the node `instructseg`, and unless autostart:=false configure and activate it.

    ros2 launch instructseg_node instructseg.launch.py image:=/head/image_raw depth:=/head/depth camera_info:=/head/info

`recipe`, `checkpoint`, `device` and `image_transport` are laid over the parameter file where they are given.
"""

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
from launch_ros.parameter_descriptions import ParameterFile
from lifecycle_msgs.msg import Transition

from instructseg_node import dds

PACKAGE = "instructseg_node"
PARAMETERS = str(Path(get_package_share_directory(PACKAGE)) / "config" / "unified.yaml")
OVERRIDES = ("recipe", "checkpoint", "device", "image_transport")
TRUE_FALSE = ["true", "false"]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("namespace", default_value="", description="of the node and all its relative topics"),
            DeclareLaunchArgument("params_file", default_value=PARAMETERS, description="ROS parameter file (YAML)"),
            DeclareLaunchArgument("recipe", default_value="", description="empty: as in the parameter file"),
            DeclareLaunchArgument("checkpoint", default_value="", description="the same"),
            DeclareLaunchArgument("device", default_value="", description="the same; cpu, cuda, cuda:1"),
            DeclareLaunchArgument("image_transport", default_value="", description="the same; raw or compressed"),
            DeclareLaunchArgument("image", default_value="image", description="topic of the colour images"),
            DeclareLaunchArgument("depth", default_value="depth", description="topic of the depth images"),
            DeclareLaunchArgument("camera_info", default_value="camera_info", description="topic of the calibration"),
            DeclareLaunchArgument("command", default_value="command", description="topic of plain-language commands"),
            DeclareLaunchArgument("use_sim_time", default_value="false", choices=TRUE_FALSE, description="use /clock"),
            DeclareLaunchArgument("autostart", default_value="true", choices=TRUE_FALSE, description="to state active"),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
            DeclareLaunchArgument(
                "dds",
                default_value="environment",
                choices=["environment", *dds.PROFILES],
                description="environment: leave DDS as it is; else a profile that keeps traffic on this host",
            ),
            OpaqueFunction(function=start),
        ]
    )


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """What depends on the arguments' values."""
    arguments = {name: LaunchConfiguration(name).perform(context) for name in (*OVERRIDES, "dds", "image", "autostart")}
    given = {name: arguments[name] for name in OVERRIDES if arguments[name]}
    node = LifecycleNode(
        package=PACKAGE,
        executable=PACKAGE,
        name="instructseg",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            ParameterFile(LaunchConfiguration("params_file")),
            {"use_sim_time": LaunchConfiguration("use_sim_time")},
            given,
        ],
        remappings=[
            ("image", arguments["image"]),
            ("image/compressed", f"{arguments['image']}/compressed"),
            ("depth", LaunchConfiguration("depth")),
            ("camera_info", LaunchConfiguration("camera_info")),
            ("command", LaunchConfiguration("command")),
        ],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        output="screen",
    )
    autostart = lifecycle_handlers(node) if arguments["autostart"] == "true" else []
    return [*dds_actions(arguments["dds"]), *autostart, node]


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
