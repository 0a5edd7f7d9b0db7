"""The fixture ``instructseg_replay`` for your own replay tests; docs/replay.md has an example.

Put ``pytest_plugins = ["instructseg_node.replay.pytest_plugin"]`` into the conftest.py beside your tests. It is no
entry point, so that environments with this package do not load it into every pytest. ROS is imported when a replay
begins.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .outcome import Outcome


@pytest.fixture
def instructseg_replay(tmp_path: Path) -> Callable[..., Outcome]:
    """A function that replays a bag and returns an :class:`instructseg_node.replay.outcome.Outcome`.

    ``instructseg_replay(bag, commands=..., **options)``: see :func:`replay`. Recordings go below the test's tmp_path.
    """
    numbers = itertools.count(1)

    def call(bag: str | Path, commands: Any = None, **options: Any) -> Outcome:
        out = options.pop("out", tmp_path / f"replay_{next(numbers)}")
        return replay(bag, commands, out=out, **options)

    return call


def replay(
    bag: str | Path,
    commands: Sequence[tuple[float, str]] | str | Path | None = None,
    *,
    out: str | Path,
    expect: str | Path | None = None,
    rate: float | None = None,
    image: str | None = None,
    cameras: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    **options: Any,
) -> Outcome:
    """Play a bag through the node.

    commands: pairs of seconds after the first image and words, or a command file. expect: a file of expectations. rate:
    bag seconds a second; None: every frame, deterministic. image: its topic; cameras: topics by name. parameters: of
    the node. options: further fields of :class:`instructseg_node.replay.arguments.Options`, as start, duration, params.
    Raises BadInput for wrong input, RunFailed where the node did not get through.
    """
    from . import commands as command_file
    from .arguments import Options
    from .main import run
    from .outcome import Outcome

    asked = None
    if isinstance(commands, (str, Path)):
        options["commands"] = Path(commands)
    elif commands is not None:
        asked = command_file.spoken(commands)
    paths = {name: Path(value) for name, value in options.items() if name in ("params", "report", "junit", "pictures")}
    values = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in (parameters or {}).items()
    }
    chosen = Options(
        Path(bag),
        Path(out),
        expect=None if expect is None else Path(expect),
        rate=rate,
        images={"": image} if image else dict(cameras or {}),
        parameters=values,
        **{**options, **paths},
    )
    return Outcome(run(chosen, asked))
