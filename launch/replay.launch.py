"""A bag in, masks out, in the bag's own time: instructseg_replay with the node that it starts.

    ros2 launch instructseg_node replay.launch.py bag:=drive.mcap out:=results commands:=commands.yaml

With `domain:=7` every topic of the node can be watched in that domain while it runs (docs/replay.md says how), else
nobody else is in its domain; it ends when the recording does. The exit status of a launch says nothing of the verdicts:
in a test, run `ros2 run instructseg_node instructseg_replay`, which takes the same choices.
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, RegisterEventHandler, Shutdown
from launch.event_handlers import OnProcessExit
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage

# Argument -> description. The option of instructseg_replay is called the same, with - for _.
TEXTS = {
    "image": "topic of the images in the bag; empty: the only one there is",
    "depth": "topic of the depth images",
    "info": "topic of the calibration",
    "commands": "file with the commands and their times (YAML)",
    "command_topic": "topic of the bag with the commands, instead of a file",
    "expect": "file with what is right (YAML)",
    "rate": "seconds of the bag a second; empty: 1",
    "start": "seconds from the first image at which to begin",
    "duration": "seconds to play",
    "recipe": "parameter of the node",
    "checkpoint": "parameter of the node",
    "report": "file for the report (JSON)",
    "logs": "folder that keeps the node's log",
    "domain": "ROS domain, to watch it; empty: one of its own",
}
RENAMED = {"params_file": "params"}
SWITCHES = {
    "every_frame": "each frame waits for the one before: the same results on any machine",
    "overlay": "record the pictures for people too",
    "overwrite": "replace what is at out",
}


def generate_launch_description() -> LaunchDescription:
    optional = {**TEXTS, "params_file": "ROS parameter file for the node"}
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="folder of a rosbag2 bag, or one .mcap or .db3 file"),
            DeclareLaunchArgument("out", description="bag of the results: a folder, or a name that ends in .mcap"),
            *(DeclareLaunchArgument(name, default_value="", description=text) for name, text in optional.items()),
            *(
                DeclareLaunchArgument(name, default_value="false", choices=["true", "false"], description=text)
                for name, text in SWITCHES.items()
            ),
            OpaqueFunction(function=start),
        ]
    )


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """What depends on the arguments' values."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context).strip()

    arguments = [value("bag"), "--out", value("out")]
    for name in (*TEXTS, *RENAMED):
        if given := value(name):
            arguments += [option(RENAMED.get(name, name)), given]
    arguments += [option(name) for name in SWITCHES if value(name) == "true"]
    replay = ExecuteProcess(
        cmd=[ExecutableInPackage(package="instructseg_node", executable="instructseg_replay"), *arguments],
        output="screen",
        # Time for the node inside to end; it gets its signal from the replay.
        sigterm_timeout="15",
    )
    ended = OnProcessExit(target_action=replay, on_exit=[Shutdown(reason="the replay has ended")])
    return [replay, RegisterEventHandler(ended)]


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
