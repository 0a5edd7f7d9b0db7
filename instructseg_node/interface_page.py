"""``docs/interface.md``, written from what the node declares.

python -m instructseg_node.interface_page > docs/interface.md
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from .interface import ACTIONS, INPUTS, OUTPUTS, SERVICES, Call, Topic
from .parameters import TABLE

_TOP = """# Topics, services, actions and parameters

The node `instructseg` (package and executable `instructseg_node`) is a managed node. Relative names take its
namespace and remaps, `~/` is its private namespace (`/instructseg/` by default). Messages of its own are in the
package `instructseg_msgs`; their fields are described in the `.msg`, `.srv` and `.action` files of
`ros2_ws/src/instructseg_msgs`.

This page is written by `python -m instructseg_node.interface_page` from the tables that the node itself opens
its topics and declares its parameters with; a test compares them.
"""
_OUTPUTS = """Every output that belongs to a frame carries that frame's header, untouched: acquisition stamp and
optical frame of the camera. Only the state PRESENT has pixels, boxes, points or a pose; what that means
for a planner is in [planners](planners.md). "On demand": computed only while somebody listens. "Needs":
without it the topic does not exist.
"""
_PARAMETERS = """Values are judged when they are set; a refusal says what is allowed. "Taken up" tells when a change
acts: `at once` while the node runs, `at activate` after a deactivate and activate, `at configure` after
a cleanup and configure, `at start` only when the process starts. A change that would do nothing now is
refused. `config/<recipe>.yaml` holds a file for each recipe.
"""


def page() -> str:
    """The whole page as Markdown."""
    inputs = _table(("topic", "type", "quality of service", "needs", "meaning"), map(_input_row, INPUTS))
    outputs = _table(("topic", "type", "quality of service", "sent", "needs", "meaning"), map(_output_row, OUTPUTS))
    services = _table(("service", "type", "meaning"), map(_call_row, SERVICES))
    actions = _table(("action", "type", "meaning"), map(_call_row, ACTIONS))
    columns = ("parameter", "default", "allowed", "taken up", "meaning")
    parameters = _table(columns, map(_parameter_row, TABLE.values()))
    parts = ("## In", inputs, "## Out", _OUTPUTS, outputs, "## Services", services, "## Action", actions)
    return "\n".join((_TOP, *parts, "## Parameters", _PARAMETERS, parameters)).rstrip() + "\n"


def _input_row(topic: Topic) -> Sequence[str]:
    return (f"`{topic.name}`", topic.kind, topic.qos, _needs(topic.needs), topic.meaning)


def _output_row(topic: Topic) -> Sequence[str]:
    sent = "every processed frame" if topic.per_frame else "on events"
    if topic.name == "/diagnostics":
        sent = "once a second"
    elif topic.on_demand and not topic.per_frame:
        sent = "frames with depth"
    return (
        f"`{topic.name}`", topic.kind, topic.qos, sent + (", on demand" if topic.on_demand else ""),
        _needs(topic.needs), topic.meaning,
    )  # fmt: skip


def _call_row(call: Call) -> Sequence[str]:
    return (f"`{call.name}`", call.kind, call.meaning)


def _parameter_row(field: dataclasses.Field) -> Sequence[str]:
    meta = field.metadata
    return (f"`{field.name}`", _value(field.default), _allowed(field), meta["taken"], meta["description"])


def _allowed(field: dataclasses.Field) -> str:
    meta = field.metadata
    if meta["allowed"]:
        return ", ".join(_value(word) for word in meta["allowed"])
    if meta["low"] is not None:
        return f"{meta['low']:g} to {meta['high']:g}"
    if isinstance(field.default, bool):
        return "true, false"
    return "list of words" if isinstance(field.default, tuple) else "text"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "`[]`" if not value else ", ".join(f"`{word}`" for word in value)
    return "empty" if value == "" else f"`{value}`"


def _needs(text: str) -> str:
    return text or "-"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(_cell(text) for text in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    """Text as a cell shows it: no column breaks, and no HTML outside of code."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [part.replace("<", "\\<") for part in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    print(page(), end="")
