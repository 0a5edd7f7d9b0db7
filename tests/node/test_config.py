"""The parameter files: config/unified.yaml names every parameter, those of the other recipes what differs from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rclpy.parameter import Parameter, parameter_dict_from_yaml_file

from instructseg.options import parse_options, split_assignments
from instructseg.registry import RECIPES
from instructseg_node.parameters import TABLE, Settings

CONFIG = Path(__file__).parents[2] / "config"


def read(path: Path) -> dict:
    messages = parameter_dict_from_yaml_file(str(path), use_wildcard=True)
    values = {name: Parameter.from_parameter_msg(message).value for name, message in messages.items()}
    for name in {"cameras", "recipe_options"} & set(values):
        values[name] = tuple(word for word in values[name] if word)
    return values


def test_parameter_file_holds_every_parameter_and_its_default() -> None:
    values = read(CONFIG / "unified.yaml")
    assert Settings(**values) == Settings()
    assert set(values) == set(TABLE) - {"autostart"}  # that one is the launch file's business
    for name, value in values.items():
        assert type(value) is type(TABLE[name].default), name


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_has_a_parameter_file_that_the_node_takes(name: str) -> None:
    values = read(CONFIG / f"{name}.yaml")
    settings = Settings(**values)
    assert settings.recipe == name
    assert settings.checkpoint == ""  # nothing is fetched unless the user names it
    options = split_assignments(settings.recipe_options, name)
    parse_options(RECIPES[name].options_class, options, name)
    if name != "unified":
        repeated = {key for key, value in values.items() if value == getattr(Settings(), key)}
        assert repeated <= {"checkpoint", "recipe_options"}  # otherwise the line says nothing
