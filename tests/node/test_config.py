"""config/unified.yaml names the node's parameters, all of them, with values the node takes."""

from __future__ import annotations

from pathlib import Path

from rclpy.parameter import Parameter, parameter_dict_from_yaml_file

from instructseg_node.parameters import TABLE, Settings

CONFIG = Path(__file__).parents[2] / "config"


def test_parameter_file_holds_every_parameter_and_its_default() -> None:
    messages = parameter_dict_from_yaml_file(str(CONFIG / "unified.yaml"), use_wildcard=True)
    values = {name: Parameter.from_parameter_msg(message).value for name, message in messages.items()}
    for name in ("cameras", "recipe_options"):
        values[name] = tuple(word for word in values[name] if word)
    assert Settings(**values) == Settings()
    assert set(values) == set(TABLE) - {"autostart"}  # that one is the launch file's business
    for name, value in values.items():
        assert type(value) is type(TABLE[name].default), name
