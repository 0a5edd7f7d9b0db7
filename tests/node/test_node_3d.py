"""The 3-D outputs of the running node: what they say, that they need depth of the frame's own time, and who pays."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from instructseg_msgs.msg import Target
from node.node_harness import NODE, Harness, now
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from visualization_msgs.msg import Marker, MarkerArray

from instructseg_node.conversions import fill_image
from instructseg_node.spatial import vision

KINDS = {"masked_depth": Image, "target_cloud": PointCloud2, "target_pose": PoseStamped, "markers": MarkerArray}
SMALL = {"min_points": 20, "mask_margin": 0}  # the coloured squares are 8 x 8 pixels
F, CX, CY = 60.0, 31.5, 23.5
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("bgr", "u1", 4), ("instance_id", "<u4")])


def depth_picture(value: float = 0.8, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Metres. The red square is at rows 8..15 and columns 4..11 of 48 x 64."""
    depth = np.full(size, 2.0, np.float32)
    scale = size[0] // 48
    depth[8 * scale : 16 * scale, 4 * scale : 12 * scale] = value
    return depth


def camera_info(header: Header, width: int = 64, height: int = 48, f: float = F) -> CameraInfo:
    k = [f, 0.0, CX, 0.0, f, CY, 0.0, 0.0, 1.0]
    p = [f, 0.0, CX, 0.0, 0.0, f, CY, 0.0, 0.0, 0.0, 1.0, 0.0]
    return CameraInfo(header=header, width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5, k=k, p=p)


class Robot:
    """The node with a camera that also sends depth and camera_info."""

    def __init__(self, ros: Any, *listen: str, **values: Any) -> None:
        self.harness = Harness(ros, **(SMALL | values)).up("targets")
        self.heard = {name: self.harness.listen(name, kind=KINDS[name]) for name in listen}

    def show(
        self, *colours: str, depth: np.ndarray | None = None, late: float = 0.0, frame: str = "optical",
        info: CameraInfo | None = None, camera: str = "",
    ) -> Header:  # fmt: skip
        """One picture with its depth and camera_info. late: seconds that the depth's stamp differs."""
        stamp, prefix = now(), f"{camera}/" if camera else ""
        shifted = stamp.sec * 10**9 + stamp.nanosec + round(late * 1e9)
        other = Header(stamp=Time(sec=shifted // 10**9, nanosec=shifted % 10**9), frame_id=frame)
        depth = depth_picture() if depth is None else depth
        self.send_depth(f"{prefix}depth", depth, other)
        header = Header(stamp=stamp, frame_id="optical")
        info = info or camera_info(header)
        info.header = header
        self.harness.publish(f"{prefix}camera_info", info)
        return self.harness.show(*colours, stamp=stamp, topic=f"{prefix}image")

    def send_depth(self, topic: str, depth: np.ndarray, header: Header) -> None:
        encoding = "16UC1" if depth.dtype == np.uint16 else "32FC1"
        self.harness.publish(topic, fill_image(Image(), depth, encoding, header))

    def show_until(self, condition: Callable[[], Any], what: str, *colours: str, **view: Any) -> None:
        deadline = time.monotonic() + 10.0
        while not condition():
            assert time.monotonic() < deadline, f"waited 10 s for {what}"
            self.show(*colours, **view)
            time.sleep(0.02)

    def present(self, *colours: str, **view: Any) -> None:
        """Until the first target has been PRESENT for some frames."""
        targets = self.harness.heard["targets"]

        def steady() -> bool:
            newest = targets[-4:]
            return len(newest) == 4 and all(m.targets and m.targets[0].state == Target.PRESENT for m in newest)

        self.show_until(steady, "PRESENT", *colours, **view)

    def figures(self) -> dict[str, str]:
        return self.harness.diagnostics()


def points(message: PointCloud2) -> np.ndarray:
    return np.frombuffer(message.data, POINT)


def test_names_types_and_quality_of_service(ros) -> None:
    robot = Robot(ros)
    for name, kind in KINDS.items():
        topic = f"{NODE}/{name}"
        robot.harness.wait(lambda topic=topic: robot.harness.peer.count_publishers(topic), topic)
        info = robot.harness.peer.get_publishers_info_by_topic(topic)[0]
        qos = info.qos_profile
        assert info.topic_type == f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        assert (qos.reliability, qos.durability) == (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
        mine = [p for p in robot.harness.node.publishers if p.topic_name == topic]
        assert [p.qos_profile.depth for p in mine] == [1]
    for topic in ("/depth", "/camera_info"):
        mine = [s for s in robot.harness.node.subscriptions if s.topic_name == topic]
        assert [s.qos_profile.reliability for s in mine] == [ReliabilityPolicy.BEST_EFFORT]


@pytest.mark.parametrize("kind", ["32FC1", "16UC1", "32FC1 of twice the size"])
def test_cloud_pose_markers_and_masked_depth_of_one_frame(ros, kind: str) -> None:
    robot = Robot(ros, *KINDS)
    depth = depth_picture(size=(96, 128) if "twice" in kind else (48, 64))
    if kind == "16UC1":
        depth = np.round(depth * 1000).astype(np.uint16)
    robot.harness.say("red")
    robot.present("red", depth=depth)
    robot.harness.settle()
    header = robot.show("red", depth=depth)
    for name, messages in robot.heard.items():
        stamp_of = (lambda m: m.markers[0].header) if name == "markers" else (lambda m: m.header)
        robot.harness.wait(lambda m=messages, s=stamp_of: s(m[-1]) == header, f"{name} of the last frame")

    target = robot.harness.heard["targets"][-1].targets[0]
    cloud = points(robot.heard["target_cloud"][-1])
    assert len(cloud) == (256 if "twice" in kind else 64)
    assert set(cloud["instance_id"]) == {target.instance_id}
    assert {tuple(colour) for colour in cloud["bgr"]} == {(0, 0, 255, 0)}
    np.testing.assert_allclose(cloud["z"], 0.8, rtol=1e-6)
    centre = [(7.5 - CX) / F * 0.8, (11.5 - CY) / F * 0.8, 0.8]
    pose = robot.heard["target_pose"][-1].pose
    np.testing.assert_allclose([pose.position.x, pose.position.y, pose.position.z], centre, atol=1e-6)
    turned = pose.orientation
    np.testing.assert_allclose([turned.x, turned.y, turned.z, turned.w], [0, 0, 0, 1], atol=1e-6)

    masked = robot.heard["masked_depth"][-1]
    assert masked.encoding == kind[:5]
    values = np.frombuffer(masked.data, {"32FC1": "<f4", "16UC1": "<u2"}[kind[:5]]).reshape(depth.shape)
    inside = depth == depth.min()
    np.testing.assert_array_equal(values[inside], depth[inside])
    assert (np.isnan(values) if kind != "16UC1" else values == 0)[~inside].all()

    box, text = robot.heard["markers"][-1].markers
    assert (box.type, box.action, box.id) == (Marker.CUBE, Marker.ADD, target.instance_id)
    np.testing.assert_allclose([box.pose.position.x, box.pose.position.y], centre[:2], atol=1e-6)
    np.testing.assert_allclose(
        [box.scale.x, box.scale.y], np.array([1, 1]) * 0.8 * (7 if len(cloud) == 64 else 7.5) / F
    )
    assert (text.type, text.text) == (Marker.TEXT_VIEW_FACING, "red  0.90")
    assert box.lifetime.sec == 5  # stale_after


def test_nothing_is_computed_while_nobody_listens(ros) -> None:
    robot = Robot(ros)
    robot.harness.say("red")
    robot.present("red")
    assert not [name for name in robot.figures() if name.startswith("3d")]
    cloud = robot.harness.listen("target_cloud", kind=PointCloud2)
    robot.show_until(lambda: cloud, "a cloud", "red")
    assert int(robot.figures()["3d published"]) >= 1


def test_depth_of_another_time_is_never_used_and_counted(ros) -> None:
    robot = Robot(ros, *KINDS)
    robot.harness.say("red")
    robot.present("red", late=0.3)
    robot.harness.wait(lambda: int(robot.figures().get("3d unpaired depth of another time", 0)) > 0, "the count")
    robot.harness.settle()
    assert not any(robot.heard.values())
    robot.show_until(lambda: robot.heard["target_pose"], "a pose", "red", late=0.01)  # within depth_tolerance


@pytest.mark.parametrize("invalid", [np.nan, 0.0, np.inf, -1.0])
def test_invalid_depth_gives_neither_cloud_nor_pose(ros, invalid: float) -> None:
    robot = Robot(ros, *KINDS)
    robot.harness.say("red")
    robot.present("red", depth=depth_picture(invalid))
    robot.harness.wait(lambda: robot.heard["masked_depth"], "the masked depth")
    robot.harness.settle()
    assert np.isnan(np.frombuffer(robot.heard["masked_depth"][-1].data, "<f4")).all()
    assert not (robot.heard["target_cloud"] or robot.heard["target_pose"] or robot.heard["markers"])
    assert int(robot.figures()["3d target without place: no valid depth"]) > 0


def test_what_is_not_present_has_no_place_and_its_markers_go(ros) -> None:
    robot = Robot(ros, "target_cloud", "target_pose", "markers")
    robot.harness.say("red")
    robot.present("red")
    robot.show_until(lambda: robot.heard["markers"] and robot.heard["target_pose"], "markers", "red")
    targets = robot.harness.heard["targets"]
    robot.show_until(lambda: targets[-1].targets[0].state != Target.PRESENT, "the loss", "green")
    robot.harness.wait(lambda: robot.heard["markers"][-1].markers[0].action == Marker.DELETEALL, "DELETEALL")
    robot.harness.settle()
    count = {name: len(robot.heard[name]) for name in robot.heard}
    for _ in range(5):
        robot.show("green")
        time.sleep(0.02)
    robot.harness.settle()
    assert {name: len(robot.heard[name]) for name in robot.heard} == count

    robot.show_until(lambda: len(robot.heard["markers"]) > count["markers"], "markers again", "red")
    robot.harness.deactivate()
    robot.harness.wait(lambda: robot.heard["markers"][-1].markers[0].action == Marker.DELETEALL, "DELETEALL at the end")


def cancel(robot: Robot) -> None:
    robot.harness.say("stop")
    instructions = robot.harness.heard["instructions"]
    robot.harness.wait(lambda: instructions and not instructions[-1].instructions, "the end of the instruction")


def lose(robot: Robot) -> None:
    robot.harness.show_until_state(Target.OCCLUDED, "green")


def switch_off(robot: Robot) -> None:
    assert robot.harness.peer.create_client(SetBool, f"{NODE}/enable").call(SetBool.Request(), timeout_sec=10.0).success


@pytest.mark.parametrize("end", [cancel, lose, switch_off])
def test_depth_that_comes_when_the_target_is_gone_gives_no_geometry(ros, end) -> None:
    robot = Robot(ros, *KINDS)
    robot.harness.listen("instructions")
    robot.harness.say("red")
    robot.present("red")
    robot.show_until(lambda: robot.heard["target_pose"], "a pose", "red")
    robot.harness.settle()
    header = robot.harness.show("red")  # without its depth
    robot.harness.publish("camera_info", camera_info(header))
    robot.harness.wait(lambda: robot.harness.heard["targets"][-1].header == header, "the targets of the last frame")
    assert robot.harness.heard["targets"][-1].targets[0].state == Target.PRESENT
    end(robot)
    robot.harness.settle()
    poses, clouds = len(robot.heard["target_pose"]), len(robot.heard["target_cloud"])
    robot.send_depth("depth", depth_picture(), header)
    robot.send_depth("depth", depth_picture(), Header(stamp=now(), frame_id="optical"))
    robot.harness.settle()
    assert (len(robot.heard["target_pose"]), len(robot.heard["target_cloud"])) == (poses, clouds)
    drawn = [marker for marker in robot.heard["markers"][-1].markers if marker.action == Marker.ADD]
    assert not drawn or end is cancel  # markers go with the next frame, or when their life is over


def test_depth_that_comes_late_still_gives_the_geometry_of_what_is_there(ros) -> None:
    robot = Robot(ros, "target_pose")
    robot.harness.say("red")
    robot.present("red")
    robot.show_until(lambda: robot.heard["target_pose"], "a pose", "red")
    robot.harness.settle()
    header = robot.harness.show("red")
    robot.harness.publish("camera_info", camera_info(header))
    robot.harness.wait(lambda: robot.harness.heard["targets"][-1].header == header, "the targets of the last frame")
    robot.send_depth("depth", depth_picture(), header)
    robot.harness.wait(lambda: robot.heard["target_pose"][-1].header == header, "its pose")


def test_parameters_of_3d_are_taken_up_when_they_say(ros) -> None:
    robot = Robot(ros, "target_pose")
    robot.harness.deactivate()
    node, pairing = robot.harness.node, robot.harness.node._outputs.spatial._pairings["camera"]
    done = robot.harness.call(lambda: node.set_parameters([Parameter("frame_policy", value="every")]))
    assert done[0].successful
    robot.harness.activate()
    robot.harness.say("red")
    robot.show_until(lambda: robot.heard["target_pose"], "a pose", "red")
    assert (pairing.waiting, pairing.wait_s) == (40, 0.0)
    robot.harness.deactivate()
    changes = [Parameter("frame_policy", value="latest"), Parameter("stale_after", value=2.5)]
    assert all(one.successful for one in robot.harness.call(lambda: node.set_parameters(changes)))
    robot.harness.activate()
    robot.show("red")
    robot.harness.wait(lambda: (pairing.waiting, pairing.wait_s) == (2, 2.5), "the new values")


def test_depth_of_another_frame_or_shape_is_refused_and_the_masks_go_on(ros) -> None:
    robot = Robot(ros, *KINDS)
    robot.harness.say("red")
    views = {
        "depth_frame": {"frame": "depth_optical"},
        "depth_size": {"depth": depth_picture()[:, :40]},
        "camera_info_size": {"info": camera_info(Header(), 48, 36)},
    }
    for cause, view in views.items():
        robot.show_until(lambda cause=cause: f"3d refused {cause}" in robot.figures(), cause, "red", **view)
    robot.present("red", frame="depth_optical")
    robot.harness.settle()
    assert not any(robot.heard.values())


def test_bad_depth_and_camera_info_are_counted_by_cause(ros) -> None:
    robot = Robot(ros, "target_cloud")
    header = Header(stamp=now(), frame_id="optical")
    wrong = fill_image(Image(), np.zeros((48, 64), np.uint8), "mono8", header)
    short = fill_image(Image(), depth_picture(), "32FC1", header)
    short.data = short.data[:100]
    robot.harness.publish("depth", wrong)
    robot.harness.publish("depth", short)
    robot.harness.publish("depth", Image(header=header))
    robot.harness.publish("camera_info", CameraInfo(header=header, width=64, height=48))
    for cause, count in {"depth_encoding": 2, "depth_data": 1, "camera_info": 1}.items():
        robot.harness.wait(lambda cause=cause, count=count: robot.harness.dropped(cause) == count, cause)
    robot.harness.say("red")
    robot.show_until(lambda: robot.heard["target_cloud"], "a cloud after all that", "red")


def test_each_camera_has_its_own_depth(ros) -> None:
    robot = Robot(ros, "target_cloud", cameras=["head", "wrist"])
    robot.harness.say("red")
    robot.show_until(lambda: robot.heard["target_cloud"], "a cloud of the wrist", "red", camera="wrist")
    assert "head/image" in [s.topic_name.lstrip("/") for s in robot.harness.node.subscriptions]
    robot.harness.settle()
    count = len(robot.heard["target_cloud"])
    for _ in range(5):  # the wrist's depth says nothing about the head's picture
        robot.harness.show("red", topic="head/image")
        time.sleep(0.02)
    robot.harness.settle()
    assert len(robot.heard["target_cloud"]) == count


def test_with_policy_every_each_frame_has_its_geometry(ros) -> None:
    robot = Robot(ros, "target_pose", frame_policy="every")
    robot.harness.say("red")
    robot.present("red")
    robot.harness.settle()
    before = int(robot.figures()["3d published"])
    for _ in range(20):
        robot.show("red")
        time.sleep(0.005)
    robot.harness.wait(lambda: int(robot.figures()["3d published"]) == before + 20, "20 frames in space")


def test_without_the_parameter_and_without_vision_msgs_nothing_is_offered(ros, monkeypatch) -> None:
    monkeypatch.setattr(vision, "load", lambda: "vision_msgs cannot be imported (not here)")
    robot = Robot(ros, publish_3d=False)
    mine = {p.topic_name for p in robot.harness.node.publishers}
    assert not mine & {f"{NODE}/{name}" for name in (*KINDS, *vision.TOPICS)}
    assert not {"/depth", "/camera_info"} & {s.topic_name for s in robot.harness.node.subscriptions}
    note = robot.figures()["vision_msgs"]
    assert "cannot be imported (not here)" in note and "~/label_info" in note
    robot.harness.say("red")
    robot.harness.show_until_state(Target.PRESENT, "red")
