"""What leaves the node in three dimensions: masked depth, cloud, pose, markers and boxes of the PRESENT targets.

A frame's geometry is published once the depth image and the camera_info of its time are there, by whichever thread
brings the last of them; without them nothing is. What nobody listens to is not computed. Headers are the frame's.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple

from geometry_msgs.msg import PoseStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from instructseg.core import BadInput
from instructseg.streaming import FrameResult, InstructionStatus
from instructseg.tracking import TargetState

from .complaints import Complaints
from .conversions import fill_image, stamp_ns
from .interface import OUTPUT
from .parameters import Settings
from .qos import profile
from .spatial import messages, vision
from .spatial.camera_model import CameraModel
from .spatial.compressed_depth import read_depth
from .spatial.located import Scene, present
from .spatial.pairing import Pair, Pairing

_KINDS = {"masked_depth": Image, "target_cloud": PointCloud2, "target_pose": PoseStamped, "markers": MarkerArray}
_PATIENCE = 15  # frames in a row without depth before the log says so


class _Processed(NamedTuple):
    result: FrameResult
    header: Header


class Outputs3D:
    """Publishers of the 3-D outputs, and the depth images and camera_infos they need.

    settings: gives the parameters as they are now. counts: what was published, and what was not, by cause.
    """

    def __init__(self, node: LifecycleNode, complaints: Complaints, settings: Callable[[], Settings]) -> None:
        self.counts: Counter[str] = Counter()
        self._node, self._complaints, self._settings = node, complaints, settings
        self._publishers: dict[str, Publisher] = {}
        self._pairings: dict[str, Pairing] = {}
        self._misses: Counter[str] = Counter()  # camera -> frames in a row that were left unpaired
        self._board = messages.MarkerBoard(1.0)
        self._vision: ModuleType | None = None
        self._shown: dict[str, set[tuple[int, int]]] = {}  # camera -> targets PRESENT on its newest frame, see _key
        self._lock = threading.Lock()  # one frame at a time: the mask thread or the executor's
        self._last_ms = 0.0

    def open(self, kinds: ModuleType | None) -> None:
        """Create the publishers, where parameter publish_3d is set. kinds: vision_msgs.msg, where it is installed."""
        settings = self._settings()
        if not settings.publish_3d:
            return
        self._vision = kinds
        offered: dict[str, Any] = dict(_KINDS)
        if kinds is not None:
            offered["detections_3d"] = kinds.Detection3DArray
        for name, kind in offered.items():
            row = OUTPUT[name]
            self._publishers[name] = self._node.create_lifecycle_publisher(kind, row.name, profile(row))
        for camera in settings.camera_names:
            self._pairings[camera] = Pairing(0)

    def close(self) -> None:
        with self._lock:
            for publisher in self._publishers.values():
                self._node.destroy_lifecycle_publisher(publisher)
            self._publishers.clear()
            self._pairings.clear()

    def forget(self) -> None:
        """Drop what is kept of the stream and take the markers back: it ends, or begins anew."""
        for pairing in self._pairings.values():
            pairing.forget()
        self._shown.clear()
        with self._lock:
            if not self._board.empty and "markers" in self._publishers and self._node.context.ok():
                self._publishers["markers"].publish(self._board.wipe(Header()))

    def figures(self) -> dict[str, object]:
        """For the diagnostics."""
        figures = Counter({f"3d {name}": count for name, count in self.counts.items()})
        for pairing in self._pairings.values():
            figures.update({f"3d unpaired {cause}": count for cause, count in pairing.counts.items()})
        return dict(sorted(figures.items())) | ({"3d last ms": f"{self._last_ms:.1f}"} if self._last_ms else {})

    # Input

    def take_depth(self, camera: str, message: Image | CompressedImage) -> None:
        """message: of the type that parameter depth_transport asks for. Raises BadImage where it holds no depth."""
        depth = read_depth(message, self._settings().depth_transport)
        if self._listened():
            self._offer(camera, lambda pairing: pairing.add_depth(stamp_ns(message.header.stamp), depth))

    def take_info(self, camera: str, message: CameraInfo) -> None:
        """Raises BadImage for a camera_info without usable intrinsics."""
        model = CameraModel.from_message(message, rectified=self._settings().rectified)
        self._offer(camera, lambda pairing: pairing.add_info(stamp_ns(message.header.stamp), model))

    def publish_result(self, result: FrameResult, header: Header) -> None:
        """The geometry of a processed frame: now, or as soon as its depth image is there."""
        camera = result.frame.camera
        self._shown[camera] = {_key(target) for target in present(result)}
        if not self._listened():
            if camera in self._pairings:
                self._pairings[camera].stop_waiting()
            return
        if not present(result):
            with self._lock:
                self._publish_markers(camera, [], header)  # what has gone is not shown until depth comes
        self._offer(camera, lambda pairing: pairing.add_frame(result.frame.stamp_ns, _Processed(result, header)))

    def end(self, statuses: Iterable[InstructionStatus]) -> None:
        """Instructions that have ended get no geometry any more, also where depth of their last frames is yet to come;
        but for the frame that ended them by itself."""
        ended = {id(status.instruction) for status in statuses if not status.active}
        for camera, shown in list(self._shown.items()):
            self._shown[camera] = {key for key in shown if key[0] not in ended}

    # Output

    def _offer(self, camera: str, add: Callable[[Pairing], list[Pair]]) -> None:
        pairing = self._pairings.get(camera)
        if pairing is None:
            return
        self._adjust(pairing)
        before = pairing.counts.total()
        pairs = add(pairing)
        self._misses[camera] = 0 if pairs else self._misses[camera] + pairing.counts.total() - before
        if self._misses[camera] >= _PATIENCE:
            self._misses[camera] = 0
            causes = ", ".join(f"{cause} {count}" for cause, count in pairing.counts.most_common())
            tolerance = f"depth_tolerance {self._settings().depth_tolerance:g} s"
            hint = f"do depth and camera_info come, with the image's stamps ({tolerance})?"
            self._complaints.add("3d_unpaired", f"camera '{camera}': frames without depth ({causes}); {hint}")
        for pair in pairs:
            self._publish(pair)

    def _publish(self, pair: Pair) -> None:
        """Never raises: masks and states go on without geometry."""
        with self._lock:
            started = time.perf_counter()
            try:
                self._publish_scene(pair)
                self.counts["published"] += 1
            except BadInput as error:
                self._refuse(getattr(error, "cause", "input"), str(error), pair)
            except Exception as error:
                self._refuse("fault", f"{error!r}; the other outputs go on", pair)
            self._last_ms = (time.perf_counter() - started) * 1e3

    def _refuse(self, cause: str, message: str, pair: Pair) -> None:
        camera = pair.frame.result.frame.camera
        self.counts[f"refused {cause}"] += 1
        self._complaints.add(f"3d_{cause}", f"camera '{camera}': {message}")
        self._publish_markers(camera, [], pair.frame.header)

    def _publish_scene(self, pair: Pair) -> None:
        (result, header), settings = pair.frame, self._settings()
        result = self._as_of_now(result)
        scene = Scene(result, pair.depth, pair.info, settings.min_points, settings.mask_margin)
        if depth := self._wanted("masked_depth"):
            depth.publish(fill_image(Image(), scene.masked_depth(), pair.depth.encoding, header))
        if (cloud := self._wanted("target_cloud")) and scene.located:
            cloud.publish(messages.cloud(scene.located, header))
        if (pose := self._wanted("target_pose")) and scene.best:
            pose.publish(messages.pose(scene.best, header))
        if self._wanted("markers"):
            self._publish_markers(result.frame.camera, scene.located, header)
        if boxes := self._wanted("detections_3d"):
            boxes.publish(vision.detections_3d(self._vision, scene.located, header))
        for cause, count in scene.unplaced.items():
            self.counts[f"target without place: {cause}"] += count

    def _as_of_now(self, result: FrameResult) -> FrameResult:
        """The result without targets that have been lost or ended since: its depth came late. Under "every" each frame
        speaks for itself."""
        if self._settings().frame_policy == "every":
            return result
        shown, last = self._shown.get(result.frame.camera, set()), set(map(id, result.ended))
        kept = tuple(t for t in result.targets if _key(t) in shown or id(t.instruction) in last)
        return dataclasses.replace(result, targets=kept)

    def _publish_markers(self, camera: str, located: list, header: Header) -> None:
        self._board.lifetime_s = self._settings().stale_after
        if (publisher := self._wanted("markers")) and (drawing := self._board.show(camera, located, header)):
            publisher.publish(drawing)

    def _wanted(self, name: str) -> Publisher | None:
        """The publisher, if it exists and somebody listens."""
        publisher = self._publishers.get(name)
        return publisher if publisher is not None and publisher.get_subscription_count() else None

    def _listened(self) -> bool:
        return any(self._wanted(name) for name in list(self._publishers))

    def _adjust(self, pairing: Pairing) -> None:
        """By the parameters as they are now. Under "every" whatever comes late is waited for."""
        settings = self._settings()
        every = settings.frame_policy == "every"
        pairing.tolerance_ns = round(settings.depth_tolerance * 1e9)
        pairing.keep, pairing.waiting = (40, 40) if every else (8, 2)
        pairing.wait_s = 0.0 if every else settings.stale_after


def _key(target: TargetState) -> tuple[int, int]:
    return id(target.instruction), target.instance_id
