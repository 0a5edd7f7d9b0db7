"""What comes into the node: images and instructions from topics, checked, and handed to the engine.

Everything here runs on the executor's thread. Bad input is counted by cause in the engine's statistics, named in the
log at a bounded rate, and otherwise as if it had not come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from instructseg_msgs.msg import Instruction as InstructionMessage
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from instructseg.core import BadInput, Frame, Instruction
from instructseg.streaming import InstructionStatus, StreamingEngine

from .complaints import Complaints
from .conversions import compressed_to_rgb, image_to_rgb, stamp_ns
from .intake import Intake, spoken
from .interface import INPUT
from .outputs_3d import Outputs3D
from .parameters import Settings
from .qos import profile
from .watch import CameraWatch


class Inputs:
    """The subscriptions of one activation, from creation to :meth:`close`.

    saw: called with every good frame before the engine has it. spatial: takes depth and camera_info. enabled: while
    False, images are not looked at.
    """

    def __init__(
        self,
        node: LifecycleNode,
        settings: Settings,
        engine: StreamingEngine,
        complaints: Complaints,
        saw: Callable[[Frame], None],
        spatial: Outputs3D,
    ) -> None:
        self.enabled = True
        self.command_mode = settings.command_mode
        self.watch = CameraWatch(settings.camera_names, time.monotonic())
        self._node = node
        self._engine = engine
        self._complaints = complaints
        self._saw = saw
        self._spatial = spatial
        self._intake = Intake()
        self._subscriptions: list[Subscription] = []

        kind, convert = (Image, image_to_rgb)
        if settings.image_transport == "compressed":
            kind, convert = (CompressedImage, compressed_to_rgb)
        # "every" needs a queue before a callback that waits; for "latest" an older image is worth nothing.
        queue = 32 if settings.frame_policy == "every" else None
        images = profile(INPUT["image"], queue)
        for camera in settings.camera_names:
            self._subscribe(kind, settings.image_topic(camera), partial(self._on_image, camera, convert), images)
            if settings.publish_3d:
                depth, info = partial(self._on_depth, camera), partial(self._on_info, camera)
                depth_kind = Image if settings.depth_transport == "raw" else CompressedImage
                self._subscribe(depth_kind, settings.depth_topic(camera), depth, profile(INPUT["depth"], queue))
                self._subscribe(
                    CameraInfo, settings.camera_info_topic(camera), info, profile(INPUT["camera_info"], queue)
                )
        self._subscribe(String, "command", self._on_command, profile(INPUT["command"]))
        self._subscribe(InstructionMessage, "instruction", self._on_instruction, profile(INPUT["instruction"]))

    def close(self) -> None:
        """Stop listening. What is being handled already is finished by the caller's own thread."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())

    def release(self, statuses: Iterable[InstructionStatus]) -> None:
        """From the engine's report: ids and label values of instructions that have ended are free again."""
        self._intake.release(status.instruction for status in statuses if not status.active)

    def begin(self, message: InstructionMessage, begun: Callable[[Instruction], None]) -> None:
        """Work on the instruction of a message anew, also where the very same one is being worked on. begun: called
        with it before the engine has it. Raises BadInput, and nothing has changed, where it cannot be taken."""
        instruction = self._intake.message(message)
        begun(instruction)
        self._hand_over(instruction, partial(self._engine.add_instruction, anew=True))

    def complain_about_silence(self, settings: Settings) -> dict[str, float]:
        """Count and log cameras that send nothing; seconds of silence of each."""
        now = time.monotonic()
        for camera in self.watch.newly_silent(settings.camera_timeout, now):
            self._engine.count_bad_input(_silent(camera))
        silent = self.watch.silent(settings.camera_timeout, now)
        for camera, seconds in silent.items():
            topic = self._node.resolve_topic_name(settings.image_topic(camera))
            hint = "does the camera run, is the topic remapped?"
            self._complaints.add(_silent(camera), f"no image on {topic} for {seconds:.0f} s: {hint}")
        return silent

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile) -> None:
        self._subscriptions.append(self._node.create_subscription(kind, topic, callback, qos))

    def _on_image(self, camera: str, convert: Callable[[Any], np.ndarray], message: Any) -> None:
        self.watch.heard(camera, time.monotonic())
        if not self.enabled:
            return
        try:
            frame = Frame(convert(message), stamp_ns(message.header.stamp), camera, message.header.frame_id)
            self._saw(frame)
            self._engine.submit_frame(frame)
        except BadInput as error:
            self._refuse("image", error, f"camera '{camera}': ")

    def _on_depth(self, camera: str, message: Image | CompressedImage) -> None:
        try:
            self._spatial.take_depth(camera, message)
        except BadInput as error:
            self._refuse("depth", error, f"camera '{camera}': ")

    def _on_info(self, camera: str, message: CameraInfo) -> None:
        try:
            self._spatial.take_info(camera, message)
        except BadInput as error:
            self._refuse("camera_info", error, f"camera '{camera}': ")

    def _on_command(self, message: String) -> None:
        try:
            said = spoken(message.data)
            if said.cancels:
                self._engine.cancel(None)
                self._intake.release_all()
            if said.text:
                replace = self.command_mode == "replace"
                take = self._engine.set_instruction if replace else self._engine.add_instruction
                self._hand_over(self._intake.command(said.text), take)
        except BadInput as error:
            self._refuse("command", error)

    def _on_instruction(self, message: InstructionMessage) -> None:
        try:
            self._hand_over(self._intake.message(message), self._engine.add_instruction)
        except BadInput as error:
            self._refuse("instruction", error)

    def _hand_over(self, instruction: Instruction, take: Callable[[Instruction], Instruction]) -> None:
        try:
            at_work = take(instruction)
        except BadInput:
            self._intake.withdraw(instruction)
            raise
        self._intake.taken(at_work)

    def _refuse(self, kind: str, error: BadInput, where: str = "") -> None:
        cause = getattr(error, "cause", kind)
        self._engine.count_bad_input(cause)
        self._complaints.add(cause, f"{where}{error}")


def _silent(camera: str) -> str:
    return f"camera_silent:{camera}"
