"""Service ``~/segment_once``: one image, one instruction, one answer, beside the stream and apart from it.

The node's one model answers, on a thread of its own, so that images and commands go on coming in. Each question gets a
throw-away engine without threads: the same judgement as on the stream, and nothing of it is remembered. Its instance
ids come from a range that the stream never uses.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable
from typing import Any

from instructseg_msgs.msg import TargetArray
from instructseg_msgs.srv import SegmentOnce as Srv
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image

from instructseg.core import BadInput, Frame, Instruction, Mode, Segmenter, State
from instructseg.rendering.labels import confidence_map
from instructseg.streaming import EngineConfig, FrameResult, GroundingResult, StreamingEngine
from instructseg.tracking import instance_map
from instructseg.tracking.ids import APART, InstanceIds

from .conversions import fill_image, image_to_rgb, stamp_ns
from .deferred import Deferred
from .intake import checked_id, checked_text
from .interface import SERVICES
from .outputs import target_array

MOST_WAITING = 4  # questions; more would wait for longer than anybody wants to
_CAMERA = "segment_once"  # name of the frames inside the throw-away engine
_ROW = next(row for row in SERVICES if row.name == "~/segment_once")

Log = Callable[[int, str], None]


class SegmentOnce:
    """The service exists as long as the node; it answers between :meth:`open` and :meth:`close`."""

    def __init__(self, node: LifecycleNode, phase: Callable[[], str]) -> None:
        self._node = node
        self._phase = phase
        self._asker: Asker | None = None
        # Reentrant, for a callback that waits (see Deferred).
        group = ReentrantCallbackGroup()
        self._service = node.create_service(Srv, _ROW.name, self._on_request, callback_group=group)

    def __len__(self) -> int:
        """Questions that have not been answered yet."""
        return 0 if self._asker is None else len(self._asker)

    def open(self, segmenter: Segmenter, config: EngineConfig, clock_ns: Callable[[], int], log: Log) -> None:
        self._asker = Asker(segmenter, config, clock_ns, log)

    def close(self) -> None:
        """Answer what still waits with a refusal; the question at work is given up. Does not wait for its thread."""
        if self._asker is not None:
            self._asker.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread of what was closed; whether it has ended, so that the model is free."""
        asker, self._asker = self._asker, None
        return asker is None or asker.join(timeout_s)

    def reconfigure(self, config: EngineConfig) -> None:
        """Judge the questions to come by this configuration."""
        if self._asker is not None:
            self._asker.config = config

    async def _on_request(self, request: Srv.Request, response: Srv.Response) -> Srv.Response:
        if self._asker is None:
            response.message = f"the node is {self._phase()}: activate it"
            return response
        reply = Deferred(self._node)
        self._asker.ask(request, reply.bring)
        return await reply


class Asker:
    """Answers questions one after the other on one thread, which the first question starts."""

    def __init__(self, segmenter: Segmenter, config: EngineConfig, clock_ns: Callable[[], int], log: Log) -> None:
        self.config = config
        self._segmenter = segmenter
        self._clock_ns = clock_ns
        self._log = log
        self._ids = InstanceIds(*APART)
        self._waiting: queue.Queue[tuple[Any, Callable[[Srv.Response], None]] | None] = queue.Queue()
        self._at_work: Callable[[Srv.Response], None] | None = None
        self._closed = False
        self._lock = threading.Lock()
        # A daemon: a model that never returns must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="instructseg-once", daemon=True)

    def __len__(self) -> int:
        """Questions that wait or are being answered."""
        return self._waiting.qsize() + (self._at_work is not None)

    def ask(self, request: Srv.Request, reply: Callable[[Srv.Response], None]) -> None:
        """Answer with ``reply``, from any thread; at once where too much waits already."""
        with self._lock:
            if self._closed:
                reply(_refusal("the node is being deactivated"))
            elif self._waiting.qsize() >= MOST_WAITING:
                reply(_refusal(f"{MOST_WAITING} questions are waiting already: ask again later"))
            else:
                self._waiting.put((request, reply))
                if self._thread.ident is None:
                    self._thread.start()

    def close(self) -> None:
        """Refuse what waits and what comes, and give up what is at work. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            given_up = [self._at_work] if self._at_work else []
            while not self._waiting.empty():
                given_up.append(self._waiting.get()[1])
            self._waiting.put(None)
        for reply in given_up:
            reply(_refusal("the node was deactivated before the answer was there"))

    def join(self, timeout_s: float) -> bool:
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (question := self._waiting.get()) is not None:
            request, reply = question
            with self._lock:
                if self._closed:
                    reply(_refusal("the node was deactivated before the answer was there"))
                    return
                self._at_work = reply
            reply(self._answer(request))
            with self._lock:
                self._at_work = None
            del request, question, reply  # the image is not kept until the next question

    def _answer(self, request: Srv.Request) -> Srv.Response:
        try:
            header = request.image.header
            frame = Frame(image_to_rgb(request.image), stamp_ns(header.stamp), _CAMERA, header.frame_id)
            text = checked_text("instruction.text", request.instruction.text)
            identity = checked_id(request.instruction.id) or _CAMERA
            result, groundings = self._segment(frame, Instruction(identity, text, mode=Mode.ONE_SHOT))
        except BadInput as error:
            return _refusal(str(error))
        except Exception as error:  # whatever a question does, the next one is answered
            return _refusal(f"{type(error).__name__}: {error}")
        return _response(header, result, groundings)

    def _segment(self, frame: Frame, instruction: Instruction) -> tuple[FrameResult, list[GroundingResult]]:
        groundings: list[GroundingResult] = []
        horizon_s = self._segmenter.sampling.horizon_s  # so that the engine has nothing to say about its short memory
        buffer_s = max(self.config.buffer_s, horizon_s)
        engine = StreamingEngine(
            self._segmenter,
            dataclasses.replace(self.config, cameras=(), buffer_s=buffer_s),
            clock_ns=self._clock_ns,
            on_grounding=groundings.append,
            log=self._log,
            instance_ids=self._ids,
        )
        engine.set_instruction(instruction)
        try:
            return engine.process(frame), groundings
        finally:
            engine.cancel()  # gives the ids back


def _response(header: Any, result: FrameResult, groundings: list[GroundingResult]) -> Srv.Response:
    targets: TargetArray = target_array(result, header)
    targets.camera = ""
    response = Srv.Response(success=True, targets=targets)
    response.answer = groundings[0].grounding.text if groundings else ""
    failed = [target.reason for target in result.targets if target.state is State.ERROR]
    if failed:
        response.success, response.message = False, failed[0]
    instances = instance_map(result.targets, result.frame.size)
    fill_image(response.instance_mask, instances, "16UC1", header)
    if any(target.confidence is not None for target in result.targets):
        fill_image(response.confidence_mask, confidence_map(result.targets, instances), "mono8", header)
    return response


def _refusal(why: str) -> Srv.Response:
    return Srv.Response(
        success=False, message=why, targets=TargetArray(), instance_mask=Image(), confidence_mask=Image()
    )
