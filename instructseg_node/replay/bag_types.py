"""Message types for reading and writing bags without rclpy: those of Jazzy, and this project's own.

The own ones come from the ``.msg`` files themselves: of the installed package, else of the source tree.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from instructseg.core import InstructSegError

PACKAGE = "instructseg_msgs"


class MissingTypes(InstructSegError):
    """The definitions of a message package are nowhere to be found."""


def typestore(package: str = PACKAGE) -> Typestore:
    """Jazzy's message types and those of one further package. Raises MissingTypes where that cannot be found."""
    store = get_typestore(Stores.ROS2_JAZZY)
    add_package(store, package)
    return store


def add_package(store: Typestore, package: str) -> None:
    """Teach a store the types of a package. Raises MissingTypes."""
    types = {}
    for file in sorted(message_folder(package).glob("*.msg")):
        types.update(get_types_from_msg(file.read_text(encoding="utf-8"), f"{package}/msg/{file.stem}"))
    store.register({name: fields for name, fields in types.items() if name not in store.fielddefs})


def message_folder(package: str) -> Path:
    """The folder with a package's ``.msg`` files."""
    tried = list(_candidates(package))
    for folder in tried:
        if any(folder.glob("*.msg")):
            return folder
    places = ", ".join(str(folder) for folder in tried)
    raise MissingTypes(f"no .msg files of {package!r} in {places}; install the package (make setup) or source it")


def _candidates(package: str) -> Iterator[Path]:
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    for prefix in [*prefixes, sys.prefix]:
        yield Path(prefix) / "share" / package / "msg"
    yield Path(__file__).resolve().parents[2] / "ros2_ws" / "src" / package / "msg"
