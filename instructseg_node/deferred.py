"""An answer that another thread brings later, for callbacks that are coroutines: the executor goes on meanwhile."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.node import Node
from rclpy.task import Future


class Deferred(Future):
    """``await`` it in a callback of the node's executor; any thread may :meth:`bring` the value, and the first counts.

    A service or action with such a callback needs a reentrant callback group: a mutually exclusive one counts a waiting
    coroutine as running, and keeps everything else of the group from being called.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(executor=node.executor)
        self._wake = node.executor.wake
        self._brought = threading.Lock()  # taken once, for ever

    def bring(self, value: Any) -> None:
        """The value; ignored where there is one already."""
        if self._brought.acquire(blocking=False):
            self.set_result(value)
            self._wake()  # rclpy's future does not: the coroutine would go on with the next message that comes
