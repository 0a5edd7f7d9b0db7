"""Parameters: declared with words and limits, refused with the reason, taken up when they say."""

from __future__ import annotations

import dataclasses

import pytest
from instructseg_msgs.msg import Target
from node.node_harness import PATIENT, Harness
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.parameter import Parameter

from instructseg.core import BadInput, Sampling
from instructseg.streaming import EngineConfig
from instructseg.streaming.config import FIXED
from instructseg_node.parameters import LIVE, TABLE, Settings


def set_one(harness: Harness, name: str, value: object):
    return harness.call(lambda: harness.node.set_parameters([Parameter(name, value=value)])[0])


def test_every_parameter_has_words_and_numbers_have_limits(ros) -> None:
    node = Harness(ros).node
    for name, field in TABLE.items():
        descriptor = node.describe_parameter(name)
        assert len(descriptor.description) > 10, name
        ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
        is_number = isinstance(field.default, (int, float)) and not isinstance(field.default, bool)
        assert len(ranges) == (1 if is_number else 0), name
        assert descriptor.read_only == (name == "autostart")


def test_defaults_are_the_engines_and_every_engine_field_can_be_set() -> None:
    assert Settings().engine == EngineConfig(cameras=("camera",))
    missing = {field.name for field in dataclasses.fields(EngineConfig)} - set(TABLE)
    assert not missing


@pytest.mark.parametrize("name", [n for n, f in TABLE.items() if f.metadata["low"] is not None])
def test_the_limits_are_those_that_settings_and_engine_take(name) -> None:
    for end in ("low", "high"):
        together = {"buffer_frames": 4096} if name == "sparse_frames" else {}
        if name == "dense_frames":
            together = {"sparse_frames": 64}
        settings = Settings(**(together | {name: TABLE[name].metadata[end]}))
        assert settings.engine is not None


def test_names_that_nobody_knows_are_told_of(ros, capfd) -> None:
    Harness(ros, present_treshold=0.4, speed=3, present_threshold=0.6, use_sim_time=False)
    log = capfd.readouterr().err
    assert "parameter present_treshold is unknown and ignored; is it present_threshold?" in log
    assert "parameter speed is unknown and ignored\n" in log
    assert log.count("unknown and ignored") == 2


REFUSED = [
    ("present_threshold", 1.5, "present_threshold"),
    ("max_targets", 0, "max_targets"),
    ("recipe", "", "recipe is empty"),
    ("device", "tpu", "allowed: cpu, cuda"),
    ("device", "cuda:", "'cuda:'"),
    ("dtype", "int8", "'bfloat16'"),
    ("tracker", "xmem", "'hybrid'"),
    ("anchor_period", -1.0, "anchor_period"),
    ("frame_policy", "oldest", "'latest'"),
    ("image_transport", "theora", "'compressed'"),
    ("command_mode", "append", "'replace'"),
    ("overlay_style", "dots", "'contour'"),
    ("cameras", ["a", "a"], "different"),
    ("cameras", ["no spaces"], "'no spaces'"),
    ("cameras", ["/absolute"], "'/absolute'"),
    ("recipe_options", ["frames"], "key=value; got 'frames'"),
    ("recipe_options", ["frames=3", "frames=4"], "sets 'frames' twice"),
    ("dense_frames", 65, "dense_frames"),
    ("max_rate", float("nan"), "max_rate"),
    ("recipe", 3, "expected 'Type.STRING' got 'Type.INTEGER'"),
    ("autostart", True, "read-only"),
]


def test_bad_values_are_refused_with_the_reason_and_change_nothing(ros) -> None:
    harness = Harness(ros)
    for name, value, words in REFUSED:
        before = harness.node.get_parameter(name).value
        result = set_one(harness, name, value)
        assert not result.successful, (name, value)
        assert words in result.reason, result.reason
        assert harness.node.get_parameter(name).value == before


def test_values_that_contradict_each_other_are_refused(ros) -> None:
    harness = Harness(ros)
    for changes, words in [
        ({"max_rate": 5.0, "frame_policy": "every"}, "'every' drops none"),
        ({"max_age": 0.5, "frame_policy": "every"}, "doing less drops frames"),
        ({"sparse_frames": 2, "dense_frames": 3}, "cannot be more of them"),
        ({"sparse_frames": 9, "buffer_frames": 8}, "more frames than are kept"),
    ]:
        parameters = [Parameter(name, value=value) for name, value in changes.items()]
        result = harness.call(lambda parameters=parameters: harness.node.set_parameters_atomically(parameters))
        assert not result.successful
        assert words in result.reason
    assert harness.node.settings == dataclasses.replace(Settings(), **PATIENT)


def test_a_change_is_refused_while_it_would_do_nothing(ros) -> None:
    harness = Harness(ros)
    assert set_one(harness, "recipe", "other").successful
    harness.configure()
    refused = set_one(harness, "recipe", "unified")
    assert not refused.successful
    assert refused.reason.endswith("it can change while the node is unconfigured; the node is inactive")
    assert set_one(harness, "recipe", "other").successful  # no change
    assert set_one(harness, "lost_after", 2.0).successful
    harness.activate()
    for name, value in [("buffer_s", 9.0), ("buffer_frames", 9), ("frame_policy", "every"), ("sparse_frames", 3)]:
        refused = set_one(harness, name, value)
        assert not refused.successful
        assert refused.reason.endswith("while the node is unconfigured or inactive; the node is active")
    assert set_one(harness, "overlay_alpha", 0.9).successful
    assert harness.node._outputs.settings.overlay.alpha == 0.9
    assert set_one(harness, "use_sim_time", False).successful


def test_engine_and_recipe_get_the_parameters(ros) -> None:
    harness = Harness(ros, lost_after=2.5, max_rate=7.0, sparse_frames=2, dense_frames=2).up()
    assert harness.node._engine.config.lost_after == 2.5
    assert harness.node._engine.config.max_rate == 7.0
    assert harness.segmenter.sampling == Sampling(sparse=2, dense=2, horizon_s=1.0)
    harness.deactivate()
    assert set_one(harness, "sparse_frames", 0).successful
    assert set_one(harness, "dense_frames", 0).successful
    harness.activate()
    assert harness.segmenter.sampling == Sampling(sparse=3, dense=1, horizon_s=1.0)


LIVE_VALUES = {
    "ground_period": 2.0, "refresh_period": 3.0, "ground_on_loss": False, "present_threshold": 0.7,
    "reject_threshold": 0.6, "lost_after": 4.0, "stale_after": 6.0, "max_targets": 3, "max_instructions": 2,
    "max_rate": 200.0, "max_age": 9.0,
}  # fmt: skip


def test_what_the_engine_takes_while_it_runs_is_live_and_all_else_of_it_is_not() -> None:
    engine = {field.name for field in dataclasses.fields(EngineConfig)} - {"cameras"}
    live = {name for name in engine if TABLE[name].metadata["taken"] == LIVE}
    assert engine - live == set(FIXED) - {"cameras"}
    assert set(LIVE_VALUES) <= live


def test_live_parameters_reach_the_running_engine_without_disturbing_it(ros) -> None:
    harness = Harness(ros).up("targets")
    harness.say("red")
    before = harness.show_until_state(Target.PRESENT, "red").targets[0]
    engine = harness.node.engine
    for name, value in LIVE_VALUES.items():
        result = set_one(harness, name, value)
        assert result.successful, result.reason
        assert getattr(engine.config, name) == value
    assert harness.node.engine is engine
    after = harness.show_until_state(Target.PRESENT, "red").targets[0]
    assert (after.instance_id, after.since) == (before.instance_id, before.since)


def test_a_live_change_that_contradicts_another_value_or_its_range_changes_nothing(ros) -> None:
    harness = Harness(ros, frame_policy="every").up()
    config = harness.node.engine.config
    for name, value, words in [
        ("max_rate", 5.0, "'every' drops none"),
        ("max_age", 0.5, "doing less drops frames"),
        ("present_threshold", 1.5, "present_threshold"),
        ("lost_after", float("inf"), "lost_after"),
        ("max_targets", 0, "max_targets"),
        ("max_targets", 2.5, "Type.INTEGER"),
    ]:
        result = set_one(harness, name, value)
        assert not result.successful and words in result.reason, result.reason
    assert harness.node.engine.config == config


def test_a_threshold_that_changes_is_seen_on_the_wire(ros) -> None:
    harness = Harness(ros).up("targets")
    harness.say("red")
    harness.show_until_state(Target.PRESENT, "red")
    assert set_one(harness, "reject_threshold", 0.0).successful
    harness.say("the red block")
    harness.show_until_state(Target.NO_TARGET, "red")
    assert set_one(harness, "reject_threshold", 0.5).successful
    harness.show_until_state(Target.PRESENT, "red")


def test_command_mode_changes_at_once(ros) -> None:
    harness = Harness(ros).up()
    harness.say("red")
    assert set_one(harness, "command_mode", "add").successful
    harness.say("green")
    harness.wait(lambda: harness.diagnostics()["instructions"] == "2", "two instructions")


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"present_threshold": 7.0}, InvalidParameterValueException),
        ({"present_threshold": "high"}, InvalidParameterTypeException),
        ({"frame_policy": "every", "max_rate": 3.0}, BadInput),
        ({"device": "abacus"}, BadInput),
    ],
)
def test_bad_values_at_start_stop_the_start(ros, values, error) -> None:
    with pytest.raises(error, match=next(iter(values))):
        Harness(ros, **values)
