"""Every transition from every state, driven directly and without the lifecycle services; every step that can fail."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
from instructseg_msgs.msg import Target
from lifecycle_msgs.msg import State as LifecycleStates
from node.node_harness import FAILURE, SUCCESS, Harness
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger
from unit.fakes import ColourSegmenter
from unit.tiny_gsva import tiny_lisa_checkpoint, tiny_options
from unit.tiny_unified import tiny_checkpoint

from instructseg.core import Segmenter
from instructseg.streaming import engine as engine_module
from instructseg_node import node as node_module
from instructseg_node.node import InstructSegNode, load_segmenter

ERROR = TransitionCallbackReturn.ERROR
PATHS = {"unconfigured": "", "inactive": "configure", "active": "configure activate", "finalized": "shutdown"}
TABLE = [
    ("unconfigured", "configure", "inactive"),
    ("unconfigured", "shutdown", "finalized"),
    ("inactive", "activate", "active"),
    ("inactive", "cleanup", "unconfigured"),
    ("inactive", "shutdown", "finalized"),
    ("active", "deactivate", "inactive"),
    ("active", "shutdown", "finalized"),
]
TRANSITIONS = ("configure", "activate", "deactivate", "cleanup", "shutdown")
POSSIBLE = {(before, name) for before, name, _ in TABLE}


def engine_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("instructseg-")]


class Driven:
    """A node with no lifecycle services and nobody who spins it."""

    def __init__(self, context) -> None:
        self.models: list[weakref.ref] = []
        self.broken: set[str] = set()  # "load", or a step of the model
        self.node = InstructSegNode(
            segmenter_factory=self._load,
            context=context,
            use_global_arguments=False,
            enable_communication_interface=False,
        )

    def _load(self, settings: object) -> Segmenter:
        if "load" in self.broken:
            raise RuntimeError("load broke on purpose")
        segmenter = ColourSegmenter()
        segmenter.raising |= self.broken
        self.models.append(weakref.ref(segmenter))
        return segmenter

    def go(self, *transitions: str) -> TransitionCallbackReturn | None:
        done = None
        for name in transitions:
            done = getattr(self.node, f"trigger_{name}")()
        return done

    @property
    def state(self) -> str:
        return self.node._state_machine.current_state[1]

    def models_alive(self) -> int:
        return sum(model() is not None for model in self.models)


@pytest.fixture
def driven(ros) -> Iterator[Driven]:
    driven = Driven(ros.context)
    yield driven
    driven.node.destroy_node()
    assert not engine_threads()


@pytest.mark.parametrize(("before", "transition", "after"), TABLE)
def test_every_transition_leads_where_it_should_and_holds_what_it_should(driven, before, transition, after) -> None:
    driven.go(*PATHS[before].split())
    assert driven.go(transition) == SUCCESS
    assert driven.state == driven.node.phase == after
    assert driven.models_alive() == (after in ("inactive", "active"))
    assert len(engine_threads()) == (2 if after == "active" else 0)
    assert (driven.node.engine is not None) == (driven.node.inputs is not None) == (after == "active")


@pytest.mark.parametrize("state", PATHS)
def test_what_is_no_transition_changes_nothing(driven, state) -> None:
    driven.go(*PATHS[state].split())
    for transition in TRANSITIONS:
        if (state, transition) in POSSIBLE:
            continue
        with pytest.raises(rclpy_implementation.RCLError):
            driven.go(transition)
        assert driven.state == driven.node.phase == state
        assert len(engine_threads()) == (2 if state == "active" else 0)


def test_twice_round(driven) -> None:
    for _ in range(2):
        assert driven.go("configure", "activate", "deactivate", "activate", "deactivate", "cleanup") == SUCCESS
    assert driven.models_alive() == 0 and len(driven.models) == 2


def test_configure_that_fails_at_any_step_can_be_repeated(driven) -> None:
    for step in ("load", "encode", "ground", "segment"):
        driven.broken = {step}
        assert driven.go("configure") == FAILURE
        assert driven.state == driven.node.phase == "unconfigured"
        assert f"{step} broke on purpose" in driven.node._failure
        assert driven.models_alive() == 0
    driven.broken.clear()
    assert driven.go("configure", "activate") == SUCCESS
    assert driven.node._failure == ""


def test_activate_that_fails_leaves_nothing_running_and_can_be_repeated(driven, monkeypatch) -> None:
    def broken(*arguments, **named):
        raise RuntimeError("activate broke on purpose")

    driven.go("configure")
    for owner, part in ((driven.node, "_engine_class"), (node_module, "Inputs")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, part, broken)
            assert driven.go("activate") == FAILURE
        assert driven.state == driven.node.phase == "inactive"
        assert not engine_threads() and driven.node.engine is None
        assert driven.models_alive() == 1
    assert driven.go("activate") == SUCCESS


@pytest.mark.parametrize(("path", "transition"), [("configure", "cleanup"), ("configure activate", "deactivate")])
def test_a_way_down_that_fails_goes_through_error_processing_to_unconfigured(
    driven, monkeypatch, path, transition
) -> None:
    driven.go(*path.split())
    name = "_free" if transition == "cleanup" else "_stop_stream"
    real, calls = getattr(driven.node, name), []

    def once() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("broke on purpose")
        real()

    monkeypatch.setattr(driven.node, name, once)
    assert driven.go(transition) == ERROR
    assert driven.state == driven.node.phase == "unconfigured"
    assert not engine_threads() and driven.models_alive() == 0
    assert driven.go("configure", "activate") == SUCCESS


def test_what_cannot_even_be_freed_ends_finalized(driven, monkeypatch) -> None:
    driven.go("configure")
    with monkeypatch.context() as patch:

        def broken() -> None:
            raise RuntimeError("broke on purpose")

        patch.setattr(driven.node, "_free", broken)
        assert driven.go("cleanup") == ERROR
    assert driven.state == "finalized"


@pytest.mark.parametrize("step", ["segment", "encode"])
def test_deactivate_while_the_model_is_busy_ends_in_time_and_nothing_late_is_published(ros, monkeypatch, step) -> None:
    for module in (engine_module, node_module):
        monkeypatch.setattr(module, "STOP_TIMEOUT_S", 0.3)
    harness = Harness(ros).up("targets", "rejection")
    harness.say("red")
    harness.show_until_state(Target.PRESENT, "red")
    gate = harness.segmenter.gates[step] = threading.Event()
    harness.segmenter.entered[step].clear()
    harness.show("red")
    assert harness.segmenter.entered[step].wait(10.0)
    started = time.monotonic()
    assert harness.deactivate() == SUCCESS
    assert time.monotonic() - started < 3.0
    assert engine_threads() == ["instructseg-masks"]  # said so, and given up
    harness.wait(lambda: [m.after for m in harness.heard["rejection"][-1:]] == [Target.STALE], "STALE")
    heard = harness.settle()
    assert harness.activate() == SUCCESS
    gate.set()
    del harness.segmenter.gates[step]
    harness.wait(lambda: len(engine_threads()) == 2, "the old thread's end")
    assert harness.settle() == heard
    harness.say("red")
    harness.show_until_state(Target.PRESENT, "red")


@pytest.mark.parametrize("state", ["inactive", "active"])
def test_destroy_frees_the_model(ros, state) -> None:
    driven = Driven(ros.context)
    driven.go(*PATHS[state].split())
    driven.node.destroy_node()
    assert not engine_threads() and driven.models_alive() == 0


@pytest.mark.parametrize("way", ["reset", "reconfigure"])
def test_a_model_that_broke_recovers(ros, way) -> None:
    harness = Harness(ros, ground_period=3600.0).up("targets", "rejection")
    harness.say("red")
    harness.show_until_state(Target.PRESENT, "red")
    harness.segmenter.raising.add("segment")
    harness.show_until_state(Target.ERROR, "red")
    harness.wait(lambda: harness.heard["rejection"][-1].after == Target.ERROR, "the event")
    assert harness.node._state_machine.current_state[0] == LifecycleStates.PRIMARY_STATE_ACTIVE
    harness.segmenter.raising.clear()
    if way == "reset":  # without it the reasoner would be asked again in an hour
        client = harness.peer.create_client(Trigger, "/instructseg/reset")
        assert client.wait_for_service(5.0)
        assert client.call(Trigger.Request(), timeout_sec=5.0).success
    else:
        for step in (harness.deactivate, harness.cleanup, harness.configure, harness.activate):
            assert step() == SUCCESS
        harness.say("red")
    harness.show_until_state(Target.PRESENT, "red")


def test_another_recipe_without_another_process(ros, tmp_path) -> None:
    """unified, LISA, unified: what was loaded before is gone, and each answers."""
    made: list[tuple[str, weakref.ref]] = []

    def factory(settings) -> Segmenter:
        segmenter = load_segmenter(settings)
        made.append((segmenter.name, weakref.ref(segmenter)))
        return segmenter

    unified, lisa = tiny_checkpoint(tmp_path / "unified"), tiny_lisa_checkpoint(tmp_path / "lisa")
    options = [f"{key}={value}" for key, value in (tiny_options(lisa) | {"rejection": "none"}).items()]
    harness = Harness(ros, factory=factory, checkpoint=str(unified), device="cpu", warm_up_width=64, warm_up_height=48)
    for recipe, checkpoint, chosen in [("unified", unified, [""]), ("lisa", lisa, options), ("unified", unified, [""])]:
        if harness.node.phase == "active":
            assert (harness.deactivate(), harness.cleanup()) == (SUCCESS, SUCCESS)
        gc.collect()
        assert [name for name, model in made if model() is not None] == []
        values = {"recipe": recipe, "checkpoint": str(checkpoint), "recipe_options": chosen}
        changes = [Parameter(name, value=value) for name, value in values.items()]
        assert harness.call(lambda changes=changes: harness.node.set_parameters_atomically(changes)).successful
        harness.up("targets", "grounding")
        harness.say("the red block")
        harness.show_until(lambda: harness.heard["grounding"], "a grounding", "red")
        assert harness.diagnostics()["recipe"] == recipe
        assert harness.node._failure == ""
    assert [name for name, _ in made] == ["unified", "lisa", "unified"]
