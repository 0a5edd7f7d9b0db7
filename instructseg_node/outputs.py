"""What leaves the node: the engine's results as messages on the topics of the contract.

Publishing happens on the thread that calls. What nobody listens to is not computed. Everything that belongs to a frame
carries that frame's header, untouched.
"""

from __future__ import annotations

from collections.abc import Sequence

from builtin_interfaces.msg import Duration, Time
from instructseg_msgs import msg as ros
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from instructseg.core import Frame, Instruction
from instructseg.rendering.labels import confidence_map, geometry
from instructseg.rendering.overlay import draw_overlay
from instructseg.streaming import FrameResult, GroundingResult, InstructionStatus
from instructseg.tracking import RejectionEvent, TargetState, instance_map, label_map

from .complaints import Complaints
from .conversions import fill_compressed, fill_image
from .interface import OUTPUT
from .outputs_3d import Outputs3D
from .outputs_vision import VisionOutputs
from .parameters import Settings
from .qos import profile

_LONGEST_NS = (2**31 - 1) * 1_000_000_000  # a Duration message holds no more


class Outputs:
    """All publishers of the node.

    Events (rejection, instructions) exist as long as the node, so that an error is heard in every lifecycle state. What
    belongs to frames is opened at configure, speaks while the node is active, and is closed at cleanup.
    """

    def __init__(self, node: LifecycleNode, settings: Settings, complaints: Complaints) -> None:
        self.settings = settings
        self.spatial = Outputs3D(node, complaints, lambda: self.settings)
        self.vision = VisionOutputs(node)
        self._node = node
        self._rejection = node.create_publisher(ros.Rejection, "~/rejection", profile(OUTPUT["rejection"]))
        latest = profile(OUTPUT["instructions"])
        self._instructions = node.create_publisher(ros.InstructionArray, "~/instructions", latest)
        self._frame_publishers: dict[str, Publisher] = {}
        self._frame_ids: dict[str, str] = {}  # camera -> the optical frame its images came with

    def open_frames(self, settings: Settings) -> None:
        """Create the publishers of what belongs to frames, as far as the parameters ask for them."""
        self.settings = settings
        self._open("targets", ros.TargetArray)
        self._open("grounding", ros.Grounding)
        if settings.publish_instance_mask:
            self._open("instance_mask", Image)
            self._open("instance_mask/compressed", CompressedImage)
        if settings.publish_label_mask:
            self._open("label_mask", Image)
        if settings.publish_confidence_mask:
            self._open("confidence_mask", Image)
        if settings.publish_overlay:
            self._open("overlay", Image)
            self._open("overlay/compressed", CompressedImage)
        self.vision.open(settings)
        self.spatial.open(self.vision.kinds)

    def close_frames(self) -> None:
        for publisher in self._frame_publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._frame_publishers.clear()
        self.spatial.close()
        self.vision.close()

    def figures(self) -> dict[str, object]:
        """For the diagnostics: what became of the geometry, and whether vision_msgs is there."""
        return {"vision_msgs": self.vision.note or "installed"} | self.spatial.figures()

    def saw(self, frame: Frame) -> None:
        """Remember the optical frame of a camera, for events that come without a frame."""
        self._frame_ids[frame.camera] = frame.frame_id

    def publish_result(self, result: FrameResult) -> None:
        """Targets and images of one processed frame. The images go first: whoever hears of a target has its mask."""
        frame, targets = result.frame, result.targets
        header = header_of(frame.stamp_ns, frame.frame_id)
        image, compressed = self._wanted("instance_mask"), self._wanted("instance_mask/compressed")
        confidence = self._wanted("confidence_mask")
        if image or compressed or confidence:
            instances = instance_map(targets, frame.size)
            if image:
                image.publish(fill_image(Image(), instances, "16UC1", header))
            if compressed:
                compressed.publish(fill_compressed(CompressedImage(), instances, "16UC1", header, codec="png"))
            if confidence:
                confidence.publish(fill_image(Image(), confidence_map(targets, instances), "mono8", header))
        if label := self._wanted("label_mask"):
            label.publish(fill_image(Image(), label_map(targets, frame.size), "mono8", header))
        self._frame_publishers["targets"].publish(target_array(result, header))
        self.vision.publish_result(result, header)
        self._publish_overlay(result, header)
        self.spatial.publish_result(result, header)  # last: it may wait for depth

    def publish_rejection(self, event: RejectionEvent) -> None:
        message = ros.Rejection(
            header=header_of(event.stamp_ns, self._frame_ids.get(event.camera, "")),
            camera=event.camera,
            instruction_id=event.instruction.id,
            instruction_text=event.instruction.text,
            instance_id=event.instance_id,
            before=event.before.value,
            after=event.after.value,
            score=float(event.score),
            rejection_score=float(event.rejection_score),
            reason=event.reason,
        )
        self._rejection.publish(message)

    def publish_grounding(self, result: GroundingResult) -> None:
        grounding = result.grounding
        message = ros.Grounding(
            header=header_of(grounding.key_stamp_ns, self._frame_ids.get(result.camera, "")),
            camera=result.camera,
            instruction_id=result.instruction.id,
            instruction_text=result.instruction.text,
            frame_stamps=[time_of(stamp) for stamp in grounding.frame_stamps_ns],
            answer=grounding.text,
            duration=float(result.duration_s),
        )
        message.targets = [
            ros.GroundedTarget(
                phrase=target.phrase,
                rejected=bool(target.rejected),
                score=float(target.score),
                rejection_score=float(target.rejection_score),
                reason=target.reason,
            )
            for target in grounding.targets
        ]
        self._frame_publishers["grounding"].publish(message)

    def publish_instructions(self, statuses: Sequence[InstructionStatus]) -> None:
        """What the node works on; none: nothing. An instruction that has ended is not listed any more."""
        now = self._node.get_clock().now().to_msg()
        active = [status_message(status) for status in statuses if status.active]
        self.spatial.end(statuses)
        self.vision.publish_labels(statuses, self.settings)
        self._instructions.publish(ros.InstructionArray(stamp=now, instructions=active))

    def _open(self, name: str, kind: type) -> None:
        row = OUTPUT[name]
        self._frame_publishers[name] = self._node.create_lifecycle_publisher(kind, row.name, profile(row))

    def _wanted(self, name: str) -> Publisher | None:
        """The publisher, if it exists and somebody listens."""
        publisher = self._frame_publishers.get(name)
        return publisher if publisher is not None and publisher.get_subscription_count() else None

    def _publish_overlay(self, result: FrameResult, header: Header) -> None:
        image, compressed = self._wanted("overlay"), self._wanted("overlay/compressed")
        if not (image or compressed):
            return
        caption = f"{result.frame.camera}  age {result.age_s * 1e3:.0f} ms"
        picture = draw_overlay(result.frame.image, result.targets, self.settings.overlay, caption)
        if image:
            image.publish(fill_image(Image(), picture, "rgb8", header))
        if compressed:
            quality = self.settings.jpeg_quality
            message = fill_compressed(CompressedImage(), picture, "rgb8", header, codec="jpeg", quality=quality)
            compressed.publish(message)


def header_of(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=time_of(stamp_ns), frame_id=frame_id)


def time_of(nanoseconds: int) -> Time:
    seconds, rest = divmod(int(nanoseconds), 1_000_000_000)
    return Time(sec=seconds, nanosec=rest)


def target_array(result: FrameResult, header: Header) -> ros.TargetArray:
    """Every target of every instruction on one frame."""
    height, width = result.frame.size
    message = ros.TargetArray(header=header, camera=result.frame.camera, width=width, height=height)
    message.targets = [target_message(target, result.age_s) for target in result.targets]
    return message


def target_message(target: TargetState, age_s: float) -> ros.Target:
    found = geometry(target.mask)
    return ros.Target(
        instruction_id=target.instruction.id,
        instruction_text=target.instruction.text,
        class_id=target.instruction.class_id,
        instance_id=target.instance_id,
        phrase=target.phrase,
        state=target.state.value,
        score=float(target.score),
        rejection_score=float(target.rejection_score),
        reason=target.reason,
        box=ros.Box(x=found.x, y=found.y, width=found.width, height=found.height),
        area=found.area,
        centroid_x=float(found.centroid_x),
        centroid_y=float(found.centroid_y),
        since=time_of(target.since_ns),
        grounded_stamp=time_of(target.grounded_stamp_ns),
        age=float(age_s),
    )


def status_message(status: InstructionStatus) -> ros.InstructionStatus:
    return ros.InstructionStatus(
        instruction=instruction_message(status.instruction),
        class_id=status.instruction.class_id,
        state=status.state.value,
        targets=status.live,
        score=float(status.score),
        rejection_score=float(status.rejection_score),
        reason=status.reason,
        since=time_of(status.since_ns),
        grounded_stamp=time_of(status.grounded_stamp_ns),
    )


def instruction_message(instruction: Instruction) -> ros.Instruction:
    nanoseconds = min(round(instruction.timeout_s * 1e9), _LONGEST_NS)
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return ros.Instruction(
        id=instruction.id,
        text=instruction.text,
        cameras=list(instruction.cameras),
        mode=instruction.mode.value,
        timeout=Duration(sec=seconds, nanosec=rest),
        priority=instruction.priority,
    )
