"""Viewer layouts: what they show are outputs of the node, of the type that the display can draw, with its QoS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from instructseg_node.interface import INPUTS, OUTPUTS, Topic
from instructseg_node.replay.player import message_class

VIEWERS = Path(__file__).parents[2] / "config" / "viewers"
DEMO_FRAME = "camera_color_optical_frame"
# As the node is called when nothing is remapped.
PUBLISHED = {topic.name.replace("~", "/instructseg", 1): topic for topic in OUTPUTS}
HEARD = {f"/{topic.name}": topic for topic in INPUTS}
SHOWS = {  # RViz display -> the type it subscribes to
    "Image": "sensor_msgs/msg/Image",
    "PointCloud2": "sensor_msgs/msg/PointCloud2",
    "MarkerArray": "visualization_msgs/msg/MarkerArray",
    "Pose": "geometry_msgs/msg/PoseStamped",
}
IMAGES = {"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"}


@pytest.fixture(scope="module")
def rviz() -> dict[str, Any]:
    return yaml.safe_load((VIEWERS / "instructseg.rviz").read_text(encoding="utf-8"))["Visualization Manager"]


@pytest.fixture(scope="module")
def foxglove() -> dict[str, Any]:
    return json.loads((VIEWERS / "instructseg.foxglove.json").read_text(encoding="utf-8"))


def test_rviz_shows_what_the_node_publishes(rviz: dict[str, Any]) -> None:
    shown = {}
    for display in rviz["Displays"]:
        kind = display["Class"].removeprefix("rviz_default_plugins/")
        assert display["Enabled"] == display["Value"], kind
        if kind == "TF":
            continue
        topic: Topic = PUBLISHED[display["Topic"]["Value"]]
        shown[topic.name] = display
        assert topic.kind == SHOWS[kind], topic.name
        assert display["Topic"]["Reliability Policy"] == ("Reliable" if topic.reliable else "Best Effort")
        assert display["Topic"]["Durability Policy"] == "Volatile"
    assert {"~/overlay", "~/instance_mask", "~/target_cloud", "~/markers", "~/target_pose"} == set(shown)
    assert not shown["~/instance_mask"]["Enabled"]


def test_rviz_needs_no_transform_at_the_camera(rviz: dict[str, Any]) -> None:
    assert rviz["Global Options"]["Fixed Frame"] == DEMO_FRAME
    assert [d["Enabled"] for d in rviz["Displays"] if d["Class"].endswith("/TF")] == [False]


def test_every_foxglove_panel_is_placed_once_and_configured(foxglove: dict[str, Any]) -> None:
    assert sorted(panels(foxglove["layout"])) == sorted(foxglove["configById"])


def panels(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
        return
    assert part["direction"] in ("row", "column")
    assert 0 < part["splitPercentage"] < 100
    yield from panels(part["first"])
    yield from panels(part["second"])


def test_foxglove_reads_topics_and_fields_that_exist(foxglove: dict[str, Any]) -> None:
    paths = list(message_paths(foxglove["configById"]))
    assert len(paths) >= 8
    for path in paths:
        topic, *fields = path.split(".")
        follow(PUBLISHED[topic].kind, fields)
    used = {path.split(".")[0].replace("/instructseg/", "~/") for path in paths}
    assert used >= {"~/overlay/compressed", "~/label_mask", "~/targets", "~/rejection", "/diagnostics"}


def message_paths(configured: dict[str, Any]) -> Iterator[str]:
    for name, panel in configured.items():
        if "imageMode" in panel:
            assert name.startswith("Image!")
            assert PUBLISHED[panel["imageMode"]["imageTopic"]].kind in IMAGES
            yield panel["imageMode"]["imageTopic"]
        yield from filter(None, (panel.get("topicPath"), panel.get("topicToRender")))
        yield from (path["value"] for path in panel.get("paths", ()))


def follow(kind: str, fields: list[str]) -> None:
    """A message path, field by field; KeyError where a field does not exist."""
    for field in fields:
        name = re.sub(r"\[[\d:]*\]$", "", field)
        listed = message_class(kind).get_fields_and_field_types()[name]
        assert (name != field) == listed.startswith("sequence<"), field
        kind = re.sub(r"sequence<(.*)>", r"\1", listed).replace("/", "/msg/")


def test_the_foxglove_button_says_what_the_node_hears(foxglove: dict[str, Any]) -> None:
    button = foxglove["configById"]["Publish!command"]
    assert HEARD[button["topicName"]].kind == button["datatype"]
    assert json.loads(button["value"]) == {"data": "the red block"}
