"""What data sets must stand: going to another process, as to a worker of a data loader."""

from __future__ import annotations

import pickle
from typing import TypeVar

Value = TypeVar("Value")


def packed(value: object) -> bytes:
    """What is sent to the other process."""
    return pickle.dumps(value)


def arrived(value: Value) -> Value:
    """The value as the other process has it. Unpickling is safe here and nowhere else: these bytes were made one call
    before, of the test's own object, and pickling is what multiprocessing does. Files are never read this way."""
    return pickle.loads(packed(value))
