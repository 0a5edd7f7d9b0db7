"""The lifecycle node: it wires inputs, engine and outputs to the lifecycle, and decides nothing itself.

configure loads and warms the model; activate subscribes and starts the engine; deactivate stops it and keeps the
weights; cleanup frees them. The engine's threads call :class:`Outputs`; all else runs on the executor's thread.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.timer import Timer

import instructseg
from instructseg.core import BadInput, Instruction, Sampling, Segmenter, State
from instructseg.options import split_assignments
from instructseg.registry import check_tracker, with_tracker
from instructseg.streaming import FrameResult, InstructionStatus, StreamingEngine
from instructseg.streaming.engine import STOP_TIMEOUT_S
from instructseg.tracking import RejectionEvent

from . import diagnostics, parameters
from .complaints import Complaints
from .device import free_device_memory
from .inputs import Inputs
from .outputs import Outputs
from .parameters import Settings
from .segment_action import SegmentAction
from .segment_once import SegmentOnce
from .services import Services

SegmenterFactory = Callable[[Settings], Segmenter]


def load_segmenter(settings: Settings) -> Segmenter:
    """The recipe with its weights, as the parameters name it."""
    return instructseg.load(
        settings.recipe,
        checkpoint=settings.checkpoint or None,
        device=settings.device or None,
        dtype=settings.dtype or None,
        options=split_assignments(settings.recipe_options, "parameter recipe_options"),
    )


class InstructSegNode(LifecycleNode):
    """Node ``instructseg``. segmenter_factory and engine_class stand in for the real ones in tests."""

    def __init__(
        self,
        *,
        segmenter_factory: SegmenterFactory = load_segmenter,
        engine_class: type = StreamingEngine,
        **node_arguments: Any,
    ) -> None:
        super().__init__("instructseg", **node_arguments)
        self.phase = "unconfigured"
        try:
            self.settings = parameters.declare(self)
        except Exception:
            super().destroy_node()  # nobody else can: the caller never gets the node
            raise
        for words in parameters.strangers(getattr(self, "_parameter_overrides", ()), self.has_parameter):
            self.get_logger().warning(words)
        self._segmenter_factory = segmenter_factory
        self._engine_class = engine_class
        self._segmenter: Segmenter | None = None
        self._own_sampling = Sampling()  # the recipe's, before the parameters were laid over it
        self._engine: StreamingEngine | None = None
        self._inputs: Inputs | None = None
        self._stale_timer: Timer | None = None
        self._run = 0  # number of the activation whose results may be published
        self._failure = ""
        self._newsreader = diagnostics.Newsreader()
        self._complaints = Complaints(self.get_logger().warning)
        self._outputs = Outputs(self, self.settings, self._complaints)

        self.add_on_set_parameters_callback(lambda changes: parameters.judge(self, changes, self.phase))
        self.add_post_set_parameters_callback(self._take_parameters)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Steady time: a paused or absent /clock must neither silence the report nor hide a stale camera.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=self._steady)
        self._short_services = Services(self)
        self._once = SegmentOnce(self, lambda: self.phase)
        self._goals = SegmentAction(self, lambda: self.phase, self._complaints)

    @property
    def engine(self) -> StreamingEngine | None:
        """The engine, while the node is active."""
        return self._engine

    @property
    def inputs(self) -> Inputs | None:
        """The subscriptions, while the node is active."""
        return self._inputs

    def forget(self) -> None:
        """Forget frames, targets and memory, on an active node; goals end, other instructions stay."""
        self._goals.reset()
        self._engine.reset()
        self._outputs.spatial.forget()

    def switch(self, on: bool) -> None:
        """On an active node: look at the images that come, or not; off: what was seen last is STALE, at once, and has
        no place any more."""
        self._inputs.enabled = on
        if on:
            self._engine.resume()
        else:
            self._engine.pause("switched off by ~/enable")
            self._outputs.spatial.forget()

    # Lifecycle

    def autostart(self) -> bool:
        """Configure and activate; whether that worked. A failure has been logged, the node stays as it is."""
        done = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == done and self.trigger_activate() == done

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("configure", self._configure, "inactive", undo=self._free)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_activate(state)  # from here on the publishers speak
        done = self._transition("activate", self._start_stream, "active", undo=self._stop_stream)
        if done != TransitionCallbackReturn.SUCCESS:
            super().on_deactivate(state)
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        done = self._transition("deactivate", self._stop_stream, "inactive")
        super().on_deactivate(state)
        return done

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("cleanup", self._free, "unconfigured")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition("shutdown", self._close, "finalized")

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a transition that failed half-way: free everything, so that configure can begin anew."""
        return self._transition("error processing", self._close, "unconfigured")

    def destroy_node(self) -> None:
        self._close()
        self._goals.destroy()
        super().destroy_node()

    def _transition(
        self, name: str, action: Callable[[], None], phase: str, undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        """Run one transition. With ``undo`` a failure leads back to the state before, without it to error processing.
        rclpy would swallow the exception; here it is logged and goes out on ``~/rejection`` as ERROR."""
        try:
            action()
        except Exception as error:
            if not self.context.ok():  # told to end while a model was loading: what ROS says about that is no fault
                return TransitionCallbackReturn.FAILURE
            reason = f"{name} failed: " + (str(error) if isinstance(error, BadInput) else repr(error))
            self.get_logger().error(f"{reason}; the node stays alive: correct the cause and try again")
            self._announce(State.GROUNDING, State.ERROR, reason)
            self._failure = reason
            if undo is None:
                return TransitionCallbackReturn.ERROR
            undo()
            return TransitionCallbackReturn.FAILURE
        self.phase = phase
        if self._failure and name in ("configure", "activate"):
            self._announce(State.ERROR, State.GROUNDING, f"{name} succeeded")
            self._failure = ""
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        settings = self.settings
        log, started = self.get_logger(), time.monotonic()
        log.info(f"loading recipe '{settings.recipe}' with {settings.checkpoint or 'its own weights'}")
        check_tracker(settings.tracker, settings.tracker_checkpoint)
        recipe = self._segmenter_factory(settings)
        self._segmenter = with_tracker(
            recipe, settings.tracker, settings.tracker_checkpoint, settings.anchor_period, settings.dtype
        )
        log.info(f"loaded on {self._segmenter.device} in {time.monotonic() - started:.1f} s; warming up")
        self._segmenter.warm_up(settings.warm_up_height, settings.warm_up_width)
        self._own_sampling = self._segmenter.sampling
        for note in self._segmenter.notes:
            log.warning(note)
        log.info(f"ready after {time.monotonic() - started:.1f} s")
        self._outputs.open_frames(settings)

    def _start_stream(self) -> None:
        self._segmenter.sampling = self.settings.sampling(self._own_sampling)
        self._newsreader = diagnostics.Newsreader()
        self._engine = self._engine_class(
            self._segmenter,
            self.settings.engine,
            clock_ns=self._now_ns,
            on_result=self._speak(self._take_result),
            on_rejection=self._speak(self._outputs.publish_rejection),
            on_grounding=self._speak(self._outputs.publish_grounding),
            on_instructions=self._speak(self._take_statuses),
            log=self._log_engine,
        )
        self._outputs.publish_instructions(())
        self._engine.start()
        self._inputs = Inputs(
            self, self.settings, self._engine, self._complaints, self._outputs.saw, self._outputs.spatial
        )
        self._once.open(self._segmenter, self.settings.engine, self._now_ns, self._log_engine)
        self._goals.open(self._inputs, self._engine)
        self._stale_timer = self.create_timer(0.1, self._engine.check_stale, clock=self._steady)

    def _stop_stream(self) -> None:
        if self._stale_timer is not None:
            self.destroy_timer(self._stale_timer)
            self._stale_timer = None
        if self._inputs is not None:
            self._inputs.close()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        self._once.close()
        if self._engine is not None:
            self._engine.stop()  # joins its threads; what was live is reported STALE
            if self.context.ok():
                self._outputs.publish_instructions(())
        self._goals.close()
        if not self._once.join(max(0.0, deadline - time.monotonic())):
            self.get_logger().warning("~/segment_once is still inside the segmenter; its answer will be discarded")
        self._outputs.spatial.forget()
        self._run += 1
        self._inputs = self._engine = None

    def _free(self) -> None:
        self._outputs.close_frames()
        self._segmenter = None
        gc.collect()  # weights in reference cycles go now, not when the next model no longer fits
        free_device_memory()

    def _close(self) -> None:
        self._stop_stream()
        self._free()

    # From the engine, on its threads

    def _speak(self, publish: Callable[[Any], None]) -> Callable[[Any], None]:
        """A callback that falls silent when this activation ends (a step of the model may outlive it by seconds), or
        once rclpy is shutting down."""
        run = self._run
        return lambda event: publish(event) if self._run == run and self.context.ok() else None

    def _take_result(self, result: FrameResult) -> None:
        try:
            self._outputs.publish_result(result)
        finally:  # a goal must end, whatever happens on the topics
            self._goals.take_result(result)

    def _take_statuses(self, statuses: tuple[InstructionStatus, ...]) -> None:
        inputs = self._inputs
        if inputs is not None:
            inputs.release(statuses)
        try:
            self._outputs.publish_instructions(statuses)
        finally:  # a goal must end, whatever happens on the topics
            self._goals.take_statuses(statuses)

    def _log_engine(self, level: int, message: str) -> None:
        # Three lines, because rclpy allows one severity for each place in the code.
        if level >= logging.ERROR:
            self.get_logger().error(message)
        elif level >= logging.WARNING:
            self.get_logger().warning(message)
        else:
            self.get_logger().info(message)

    # State and parameters

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _announce(self, before: State, after: State, reason: str) -> None:
        """An event of the node as a whole, which belongs to no instruction."""
        if self.context.ok():
            event = RejectionEvent(Instruction("", ""), 0, before, after, 0.0, reason, self._now_ns())
            self._outputs.publish_rejection(event)

    def _report(self) -> None:
        """Once a second: diagnostics, and a word about cameras that are silent."""
        engine, inputs = self._engine, self._inputs
        statistics = engine.statistics() if engine else None
        health = diagnostics.Health(
            phase=self.phase,
            recipe=self.settings.recipe,
            device=self._segmenter.device if self._segmenter else "",
            failure=self._failure,
            notes=self._segmenter.notes if self._segmenter else (),
            enabled=inputs.enabled if inputs else True,
            silent=inputs.complain_about_silence(self.settings) if inputs else {},
            news=self._newsreader.read(statistics),
            spatial=self._outputs.figures(),
            waiting={"goals": len(self._goals), "questions": len(self._once)},
            last_refusal=self._goals.last_refusal,
        )
        name = self.get_fully_qualified_name().lstrip("/")
        message = diagnostics.report(name, health, statistics)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _take_parameters(self, changes: list[parameters.Parameter]) -> None:
        self.settings = self._outputs.settings = parameters.read(self)
        if self._inputs is not None:
            self._inputs.command_mode = self.settings.command_mode
        if self._engine is not None:
            self._engine.reconfigure(self.settings.engine)
            self._once.reconfigure(self.settings.engine)
