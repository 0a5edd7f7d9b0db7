"""``@pytest.mark.golden("system", "tensor", ...)``: the test runs once for every recorded case that holds these tensors
(regular expressions over tensor names), with the file as the fixture ``case`` and the system as ``golden``. With
``committed=False`` the recording is too big for the repository: the test is for runs with ``--golden-root``."""

from __future__ import annotations

from pathlib import Path

import pytest

from .golden import COMMITTED, Golden


def _root(config: pytest.Config) -> Path:
    return Path(config.getoption("--golden-root") or COMMITTED).expanduser().resolve()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker("golden")
    if mark is None or "case" not in metafunc.fixturenames:
        return
    system, *tensors = mark.args
    golden = Golden(_root(metafunc.config), system)
    cases = golden.cases(*tensors)
    # Another set may lack a kind of case, and that test then is skipped; ours may not.
    if not cases and golden.root == COMMITTED and mark.kwargs.get("committed", True):
        raise pytest.UsageError(
            f"{golden.folder} holds no case with {tensors}: {metafunc.definition.nodeid} cannot run"
        )
    metafunc.parametrize("case", cases, ids=[path.stem for path in cases])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def elsewhere(item: pytest.Item) -> bool:
        mark = item.get_closest_marker("golden")
        return mark is not None and not mark.kwargs.get("committed", True)

    if _root(config) == COMMITTED:
        config.hook.pytest_deselected(items=[item for item in items if elsewhere(item)])
        items[:] = [item for item in items if not elsewhere(item)]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The recordings of the system that the test's mark names."""
    mark = request.node.get_closest_marker("golden")
    found = Golden(_root(request.config), mark.args[0])
    if not found.folder.is_dir():
        pytest.skip(f"{found.root} holds no recordings of {found.system}")
    return found
