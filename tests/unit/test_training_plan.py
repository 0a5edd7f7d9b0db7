"""The plan of the default training: typed, judged as a whole, the file in config/training its defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instructseg.core import BadInput
from instructseg.training.plan import (
    SMOKE,
    AbortRule,
    LanguagePlan,
    PerceptionPlan,
    TrainingPlan,
    joined,
    plan_of,
    read_plan,
    with_settings,
)
from instructseg.training.typed_yaml import keys_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training_default.md").read_text(encoding="utf-8")
DEFAULT = ROOT / "config" / "training" / "default.yaml"
ON_A_GPU = DEFAULT.with_name("default_gpu.yaml")


def test_the_file_in_config_is_the_plan_without_a_file() -> None:
    values = read_plan(DEFAULT)
    assert plan_of(values) == TrainingPlan()
    for name in ("perception", "language"):  # and it is complete
        assert set(values[name]) | {"steps"} == set(TrainingPlan().as_table()[name])
    assert set(values) == set(TrainingPlan().as_table())


def test_the_file_for_a_gpu_is_a_plan_in_steps() -> None:
    plan = plan_of(read_plan(ON_A_GPU))
    assert plan.perception.steps and plan.language.steps
    assert plan.scenes == TrainingPlan().scenes


@pytest.mark.parametrize("table", [TrainingPlan, PerceptionPlan, LanguagePlan, AbortRule])
def test_the_pages_tables_are_the_codes(table: type) -> None:
    rows = [f"| `{name}` | {allowed} | {default} | {text} |" for name, allowed, default, text in keys_of(table)]
    assert "\n".join(rows) in PAGE


def test_a_plan_goes_through_json_and_back() -> None:
    plan = plan_of({"perception": {"steps": 5, "abort": [{"after": 3, "loss": "heat", "below": "1e-1"}]}})
    assert plan.perception.abort == (AbortRule(3, loss="heat", below=0.1),)
    assert plan.perception.steps == 5 and plan.language == LanguagePlan()
    assert plan_of(plan.as_table()) == plan


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"scene": {}}, "unknown key scene; known are scenes, validation, perception"),
        ({"scenes": {"photos": 1}}, "unknown key scenes.photos; known are flat, tabletop, drawn2, tabletop2"),
        ({"scenes": {"flat": -1}}, "scenes.flat must be a whole number of at least 0; got -1"),
        ({"scenes": {"flat": 1.5}}, "got 1.5"),
        ({"scenes": {"flat": True}}, "got True"),
        ({"scenes": [1]}, "scenes must hold lines of the form 'key: value'; got list"),
        ({"scenes": {"flat": 0}}, "scenes must name a source with at least 1 episode: there is nothing to train on"),
        ({"validation": {}}, "validation must name a source with at least 1 episode: there is nothing to judge by"),
        ({"perception": {"minutes": 0}}, "perception.minutes must be a number above 0; got 0"),
        ({"language": {"minutes": float("inf")}}, "language.minutes must be a number above 0; got inf"),
        ({"language": {"minutes": None}}, "language.minutes must be a number above 0; got None"),
        ({"perception": {"steps": 0}}, "perception.steps must be a whole number of at least 1; got 0"),
        ({"perception": {"steps": 1e3}}, "got 1000.0"),
        ({"language": {"batch": 6, "accumulation": 4}}, "batch must be a multiple of language.accumulation (4); got 6"),
        ({"perception": {"learning_rate": "fast"}}, "perception.learning_rate must be a number above 0 and at most 1"),
        ({"perception": {"precision": "fp16"}}, "perception.precision must be fp32 or bf16; got 'fp16'"),
        ({"language": {"mixture": {"flat": -0.1}}}, "language.mixture.flat must be a number of at least 0; got -0.1"),
        ({"scenes": {"drawn2": 4}}, "perception.mixture names none of the sources of scenes"),
        ({"perception": {"abort": {"after": 1}}}, "perception.abort must be a list of rules with after"),
        ({"perception": {"abort": [{"loss": "heat", "below": 1}]}}, "key perception.abort[0].after is missing"),
        ({"perception": {"abort": [{"after": 9}]}}, "perception.abort[0] must have either loss and below, or valid"),
        ({"language": {"abort": [{"after": 9, "loss": "motion", "at_least": 1}]}}, "got at_least, loss"),
        (
            {"language": {"abort": [{"after": 0, "loss": "motion", "below": 1}]}},
            "language.abort[0].after must be a whole",
        ),
        ({"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N; got 'tpu'"),
        ({"start_from": " "}, "start_from must name a checkpoint folder, or shipped"),
        ({"threads": 0}, "threads must be a whole number of at least 1"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ([], "the plan must hold lines of the form 'key: value'; got list"),
    ],
)
def test_a_plan_that_cannot_be_run_is_named(values: Any, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        plan_of(values)
    assert said in str(raised.value)


def test_settings_change_single_values_of_the_plan() -> None:
    plan = plan_of(with_settings({"scenes": {"flat": 7}}, ["perception.steps=9", "scenes.drawn2=2", "device = cpu"]))
    assert plan.scenes == {"flat": 7, "drawn2": 2}
    assert (plan.perception.steps, plan.device) == (9, "cpu")
    assert plan.perception.mixture == PerceptionPlan().mixture
    assert plan_of(with_settings({}, ["language.abort=[]"])).language.abort == ()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("seed", "--set seed must have the form KEY=VALUE"),
        ("seed.low=1", "--set seed.low=1: seed has no keys of its own"),
        ("perception.minuts=1", "unknown key perception.minuts"),
        ("none.such=1", "unknown key none"),
        ("seed=[1", "cannot be read as YAML"),
        ("=1", "unknown key"),
    ],
)
def test_a_setting_that_means_nothing_is_named(setting: str, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        plan_of(with_settings({}, [setting]))
    assert said in str(raised.value)


def test_of_two_tables_stages_are_joined_key_by_key() -> None:
    values = joined(SMOKE, {"scenes": {"drawn2": 3}, "perception": {"batch": 2}, "seed": 4})
    assert values["scenes"] == {"drawn2": 3}
    assert values["perception"] == {"minutes": 0.1, "batch": 2}
    assert values["language"] == {"minutes": 0.1} and values["seed"] == 4


def test_a_checkpoint_beside_the_plan_is_found(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    path = tmp_path / "plan.yaml"
    for written, read in (("before", str(tmp_path / "before")), ("shipped", "shipped"), ("some/model", "some/model")):
        path.write_text(f"start_from: {written}\n")
        assert read_plan(path)["start_from"] == read
