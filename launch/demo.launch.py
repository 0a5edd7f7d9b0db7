"""The node on the recorded camera stream of the demo, in real time; watch /instructseg/overlay while it runs.

    ros2 launch instructseg_node demo.launch.py rviz:=true

Ends when the recording does. `make demo` does the same without ROS's launch, and measures what the node published.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, RegisterEventHandler, Shutdown
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

PACKAGE = "instructseg_node"
SHARE = Path(get_package_share_directory(PACKAGE))
# Topics of the recording; the node has to listen to them before the first message is played.
IMAGE, DEPTH, CAMERA_INFO, COMMAND = "/camera/image", "/camera/depth", "/camera/camera_info", "/command"
CLOCK_HZ = "100"  # the node measures the age of its masks on the recording's clock


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("bag", default_value=str(SHARE / "demo"), description="a folder or one .mcap file"),
        DeclareLaunchArgument("rate", default_value="1.0", description="seconds of the recording a second"),
        DeclareLaunchArgument(
            "rviz", default_value="false", choices=["true", "false"], description="show it in RViz, where installed"
        ),
        # Declared by the included file too; the first default counts. Its other arguments can be given as well.
        DeclareLaunchArgument("dds", default_value="shm", description="shm, loopback; environment: leave as it is"),
    ]
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch" / "instructseg.launch.py")),
        launch_arguments={
            "image_transport": "compressed",
            "depth_transport": "compressed",
            "image": IMAGE,
            "depth": DEPTH,
            "camera_info": CAMERA_INFO,
            "command": COMMAND,
            "use_sim_time": "true",
        }.items(),
    )
    player = Node(
        package=PACKAGE,
        executable="instructseg_play",
        arguments=[
            LaunchConfiguration("bag"),
            *("--rate", LaunchConfiguration("rate")),
            *("--clock", CLOCK_HZ),
            *("--topics", "/camera/*", COMMAND),
            *("--expect", f"{IMAGE}/compressed", COMMAND),
            *("--tail", "1.0"),
        ],
        output="screen",
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(SHARE / "config" / "viewers" / "instructseg.rviz")],
        parameters=[{"use_sim_time": True}],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    ended = OnProcessExit(target_action=player, on_exit=[Shutdown(reason="the recording has been played")])
    return LaunchDescription([*arguments, node, player, rviz, RegisterEventHandler(ended)])
