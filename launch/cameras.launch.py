"""Several cameras, one node, one model in memory.

    ros2 launch instructseg_node cameras.launch.py cameras:=front,wrist front:=/front_cam/color wrist:=/wrist_cam/color

`front:=/front_cam/color` stands for /front_cam/color/image_raw and /front_cam/color/camera_info, as camera drivers name
them; `front/depth:=/front_cam/aligned_depth/image_raw`, `front/image:=` and `front/camera_info:=` name one topic each.
A camera without either is read from <name>/image, <name>/depth and <name>/camera_info. All other arguments of
instructseg.launch.py can be given as well.
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

NODE = Path(get_package_share_directory("instructseg_node")) / "launch" / "instructseg.launch.py"


def generate_launch_description() -> LaunchDescription:
    names = "names of the cameras, as in front,wrist; NAME:=PREFIX and NAME/TOPIC:=TOPIC say what each reads"
    return LaunchDescription(
        [
            DeclareLaunchArgument("cameras", description=names),  # no default: without it there is nothing to do here
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(NODE))),
        ]
    )
