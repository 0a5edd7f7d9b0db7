"""Shared by all tests: DDS confined to this host, message fields checked, nothing downloaded; the fixture ``ros``."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
from collections.abc import Iterator

import pytest

from instructseg_node import dds

# Read once, when messages and the hub client are imported: that must come later than this file.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
PROFILE = dds.use_profile("shm", domain_id=dds.own_domain_id())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-root", metavar="DIR", help="recorded inputs and outputs to compare with (default: tests/golden)"
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """What the imports made stays until the end: the collections that the node makes after freeing a model need not
    look through it every time (a third of the time of a node's test)."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def log_as_before() -> Iterator[None]:
    """For tests of commands: a command sets up logging for the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="session", autouse=True)
def dds_stays_on_this_host() -> Iterator[None]:
    """No UDP socket after the first node of the session, and none by its end. (Model tests also run without ROS.)"""
    dds.check_profile(PROFILE)
    if importlib.util.find_spec("rclpy"):
        from ros_runner import RosRunner

        runner = RosRunner()
        try:
            runner.node("first_node_of_the_session")
            assert dds.udp_addresses() == set()
        finally:
            runner.close()
    yield
    dds.assert_loopback_only()


@pytest.fixture
def ros() -> Iterator:
    """A running :class:`ros_runner.RosRunner` of its own for the test."""
    from ros_runner import RosRunner

    runner = RosRunner()
    try:
        yield runner
    finally:
        runner.close()
